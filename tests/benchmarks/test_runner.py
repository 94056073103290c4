# SPDX-License-Identifier: Apache-2.0
"""Both sides run in turn, and what warms up is in no figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench import Bench, Options
from benchmarks.figures import Run
from benchmarks.runner import interleave, repeat
from tests.lab.lab import Lab, LabState


class Counting:
    """A side whose runs take as many seconds as their number, and which tells of each."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.runs, self.told = name, 0, told

    def __call__(self) -> Run:
        """Do one run."""
        self.runs += 1
        self.told.append(f"{self.name} {self.runs}")
        return Run(seconds=float(self.runs))


def bench(folder: Path, *, warm_up: int) -> Bench:
    """Return a bench whose lab was not started."""
    state = LabState(
        schema_version=1,
        run_directory=str(folder / "run"),
        ports=(20000, 20001),
        engine=None,
        containerd_store=False,
        given_docker_host=None,
    )
    options = Options(
        rounds=2, warm_up=warm_up, size_mb=1, large_mb=1, generations=2, blobs=10, sources=2, patience_seconds=0
    )
    return Bench(Lab(folder, state), folder, options)


@pytest.mark.parametrize("warm_up", [0, 1, 2])
def test_rounds_that_warm_up_are_thrown_away(tmp_path: Path, warm_up: int) -> None:
    """They come first, and of both sides; the figure is from the others."""
    told: list[str] = []
    ours, theirs = Counting("ours", told), Counting("theirs", told)
    rounds = interleave(bench(tmp_path, warm_up=warm_up), ours=ours, theirs=theirs)
    assert told == [f"{name} {number}" for number in range(1, warm_up + 3) for name in ("ours", "theirs")]
    assert sorted(each.ours.seconds for each in rounds) == [warm_up + 1, warm_up + 2]
    alone = repeat(bench(tmp_path, warm_up=warm_up), Counting("alone", told))
    assert [each.seconds for each in alone] == [warm_up + 1, warm_up + 2]
