# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from airflow_provider_dockerbackup.core.layers.choice import Outlook, Way, check_capture, choose
from airflow_provider_dockerbackup.core.model import Store
from airflow_provider_dockerbackup.exceptions import ConfigurationError

MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("store", "missing", "known", "unknown", "earlier", "way"),
    [
        ("graphdriver", 800, 0, 0, 0, "save"),  # all is new: one thread of gzip is slower than the whole save
        ("graphdriver", 20, 780, 0, 1, "push"),  # a small change of what the engine knows
        ("graphdriver", 20, 0, 780, 1, "save"),  # it would send all again
        ("graphdriver", 20, 0, 780, 2, "push"),  # but a source that keeps changing is worth one lesson
        ("graphdriver", 0, 800, 0, 1, "push"),  # only the configuration changed
        ("containerd", 800, 0, 0, 0, "push"),  # blobs go as they are
        ("containerd", 20, 780, 0, 5, "push"),
    ],
)
def test_the_way_that_is_expected_to_be_faster_is_taken(
    store: Store, missing: int, known: int, unknown: int, earlier: int, way: Way
) -> None:
    """By what is missing, what the engine knows, how it keeps images, and how often the source changed."""
    outlook = Outlook(
        store=store,
        missing_bytes=missing * MEGABYTE,
        known_bytes=known * MEGABYTE,
        unknown_bytes=unknown * MEGABYTE,
        earlier=earlier,
    )
    chosen, why = choose(outlook)
    assert chosen == way
    assert "by push" in why


def test_an_unknown_way_is_refused_with_those_that_there_are() -> None:
    """In the words of the parameter."""
    with pytest.raises(ConfigurationError, match="capture: expected one of auto, push, save, got 'pull'"):
        check_capture("pull")
