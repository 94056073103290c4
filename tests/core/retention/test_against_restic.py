# SPDX-License-Identifier: Apache-2.0
"""The rules of retention against restic itself, on a sample; the module ``oracle`` compares as many as one likes."""

from __future__ import annotations

from pathlib import Path

from tests.core.retention.oracle import compare


def test_what_stays_is_what_restic_keeps(tmp_path: Path) -> None:
    """Random histories around changes of the clocks and random policies, in four time zones: no pair differs."""
    pairs, differing = compare(tmp_path, histories=60, policies=6, seed=20261124)
    assert pairs == 4 * 60 * 6
    assert differing == []
