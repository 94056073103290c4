# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from tests.core.copies.making import Copies
from tests.core.world import paths

FORMS = pytest.mark.parametrize(
    ("layout", "into"),
    [("archive", "archive"), ("layers", "layers"), ("archive", "layers"), ("layers", "archive")],
)


@FORMS
def test_every_backup_is_the_same_backup_at_the_second_site(layout: str, into: str) -> None:
    """Images and containers, with their points and holds; the source does not change by a byte."""
    made = Copies(layout, into=into).fill()
    before = made.everything()
    assert made.states() == ["copied"] * 3
    made.assert_same()
    assert made.everything() == before
    assert paths(made.target, prefix="pins") == set()
    assert made.world.progress.open == 0
    origin = made.world.repository.document.repository_id
    for old, new in made.pairs():
        assert new.whole().attempt != old.whole().attempt
        assert new.whole().notes[-1].startswith(f"copied from layout {layout} of repository {origin} at ")
