# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in an archive's documents, nothing but IntegrityError is raised, and no other image passes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_dockerbackup.core.archive.load_form import retagged
from airflow_provider_dockerbackup.exceptions import IntegrityError

from .making import IMAGES, compact, drained, entries_of, golden, scan, tar_of

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=20))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def changed(draw: st.DrawFn, value: Any) -> Any:
    """Return ``value`` with one part of it replaced, repeated or under a key of another case."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(list(value)))
        new = draw(st.sampled_from([key, key.upper(), key + " "]))
        return {**value, new: changed(draw, value[key])}
    if isinstance(value, list) and value and draw(st.booleans()):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], changed(draw, value[index]), *value[index + draw(st.integers(0, 1)) :]]
    return draw(VALUES)


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_changed_documents_are_refused_or_describe_the_same_image(data: st.DataObject) -> None:
    """manifest.json and index.json are the documents that no digest protects."""
    original = golden(data.draw(st.sampled_from(IMAGES)))
    entries = entries_of(original)
    document = data.draw(st.sampled_from([entry for entry in entries if entry.name in ("manifest.json", "index.json")]))
    document.body = compact(data.draw(st.composite(changed)(json.loads(document.body))))
    archive = tar_of(entries)
    drained(retagged([archive], tags=["a/b:1"]))
    try:
        found = scan(archive).image
    except IntegrityError:
        return
    expected = scan(original).image
    assert (found.config, found.layers) == (expected.config, expected.layers)
