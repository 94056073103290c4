# SPDX-License-Identifier: Apache-2.0
"""What a record says of an image is said in one way, whichever capture made it, and without what may be secret."""

from __future__ import annotations

from airflow_provider_dockerbackup.core.archive.image import HistoryEntry
from airflow_provider_dockerbackup.core.image_part import image_part
from airflow_provider_dockerbackup.core.model import ImageInspect
from airflow_provider_dockerbackup.core.record import History, Image

ID = "sha256:" + "1" * 64


def part(*known_ids: str, history: tuple[HistoryEntry, ...] = ()) -> Image:
    """Return what a record says of an image without layers."""
    inspected = ImageInspect(
        id=ID,
        diff_ids=(),
        repo_tags=("app:1",),
        repo_digests=("app@" + ID,),
        created="2026-01-01T00:00:00Z",
        os="linux",
        architecture="arm64",
        variant="v8",
        size_bytes=1,
        config={},
        document={},
    )
    return image_part(inspected, config_digest=ID, known_ids=known_ids, diff_ids=(), history=history)


def test_the_order_in_which_ids_were_learned_is_not_in_the_record() -> None:
    """Two captures of one image have one text."""
    assert part("b", "c", "a").known_ids == part("c", "a", "b").known_ids == ("a", "b", "c")


def test_what_the_engine_announced_is_taken_over() -> None:
    """Its names, and what it runs on."""
    found = part()
    assert (found.id, found.repo_tags, found.repo_digests) == (ID, ("app:1",), ("app@" + ID,))
    assert (found.created, found.os, found.architecture, found.variant) == (
        "2026-01-01T00:00:00Z",
        "linux",
        "arm64",
        "v8",
    )


def test_a_step_keeps_all_but_its_values() -> None:
    """Also that it made no layer, and that nobody knows when it was made."""
    step = HistoryEntry(created=None, created_by="ENV TOKEN=hunter2", author="me", comment="why", empty_layer=True)
    assert part(history=(step,)).history == (
        History(created="", created_by="ENV TOKEN=…", author="me", comment="why", empty_layer=True),
    )
