# SPDX-License-Identifier: Apache-2.0
"""Results come back from their file as they were written, so that a run can add to those of an earlier one."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench import Options
from benchmarks.figures import Goal, Run, Series, figure_of
from benchmarks.kept import earlier
from benchmarks.report import Circumstances, stamped, write

_OPTIONS = Options(rounds=1, size_mb=1, large_mb=1, generations=2, blobs=10, sources=2, patience_seconds=0)


def about(moment: str, commit: str) -> Circumstances:
    """Return circumstances."""
    return Circumstances(measured_at=moment, machine="m", versions={"commit": commit})


def test_results_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    """With goals, and with the runs of series."""
    run = Run(seconds=2.0, details={"wire_bytes": 5.0, "stored_bytes": 7.0})
    first = about("2026-01-01T00:00:00+00:00", "abc")
    measures = stamped(
        [figure_of("gc", [run], [2.0], unit="s", goal=Goal(target=3.0, floor=3.0, upward=False), note="n")], "gc", first
    )
    names = ("push", "by hand")
    series = Series(kind="code", about="a", runs={name: [run, run] for name in names})
    path = write(measures, [series], first, _OPTIONS, files=tmp_path / "r")
    assert earlier(tmp_path / "r") == (measures, {"code": series})
    assert "| gc " in path.read_text(encoding="utf-8")


def test_there_are_no_earlier_results_without_a_file(tmp_path: Path) -> None:
    """The first run begins with nothing."""
    assert earlier(tmp_path / "none") == ([], {})


def test_what_was_measured_earlier_is_told(tmp_path: Path) -> None:
    """A table of two runs names the commit of the first."""
    run = Run(seconds=2.0)
    old = stamped([figure_of("gc", [run], [2.0], unit="s", goal=None)], "gc", about("2026-01-01T00:00:00+00:00", "abc"))
    later = about("9999-01-01T00:00:00+00:00", "def")
    text = write(old, [], later, _OPTIONS, files=tmp_path / "r").read_text(encoding="utf-8")
    assert "gc: measured earlier" in text
    assert "commit abc" in text
