# SPDX-License-Identifier: Apache-2.0
"""What every worker process of Airflow pays for the provider being installed: CPU and memory, with it and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from benchmarks.bench import ROOT, Bench, BenchError
from benchmarks.figures import DISTURBED_CORES, Goal, Measure, Round, Run, Unit, medians
from benchmarks.runner import interleave

_CPU_GOAL = Goal(target=50.0, floor=50.0, upward=False)
_MEMORY_GOAL = Goal(target=10.0, floor=10.0, upward=False)


class Worker:
    """See the module."""

    name = "worker"
    about = "a worker's process that finds its providers: what it takes more with this one installed"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return one figure for CPU and one for memory."""
        rounds = interleave(bench, ours=lambda: _start(bench, "with"), theirs=lambda: _start(bench, "without"))
        cpu = _added(rounds, "worker CPU", "cpu_seconds", scale=1e3, unit="ms", goal=_CPU_GOAL)
        return cpu, _added(rounds, "worker memory", "peak_bytes", scale=1e-6, unit="MB", goal=_MEMORY_GOAL)


def _start(bench: Bench, way: str) -> Run:
    """Return what a fresh process took; it starts from bytecode, as an installed package does."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bench.directory / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    # Without logs of its own, and away from the user's Airflow.
    environment |= {"AIRFLOW_HOME": str(bench.directory / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    command = [sys.executable, "-m", "benchmarks.worker_start", way]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"a worker's start {way} the provider failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found.pop("installed") != (way == "with"):
        raise BenchError(f"a worker's start {way} the provider found otherwise; is the package installed?")
    figures = {name: found[name] for name in ("cpu_seconds", "peak_bytes")}
    return Run(seconds=found["cpu_seconds"], details=figures)


def _added(rounds: list[Round], name: str, detail: str, *, scale: float, unit: Unit, goal: Goal) -> Measure:
    """Return the difference of the smallest of each side, which other jobs disturbed least; and that of each round."""
    ours, theirs = [each.ours for each in rounds], [each.theirs for each in rounds]
    value = min(run.details[detail] for run in ours) - min(run.details[detail] for run in theirs)
    each = [(one.ours.details[detail] - one.theirs.details[detail]) * scale for one in rounds]
    return Measure(
        name=name,
        value=value * scale,
        low=min(each),
        high=max(each),
        unit=unit,
        goal=goal,
        details=medians({"ours": ours, "theirs": theirs}),
        rounds=len(rounds),
        disturbed=sum(one.others_cores > DISTURBED_CORES for one in rounds),
        others_cores=sum(one.others_cores for one in rounds) / len(rounds),
        of=detail,
        note="smallest with minus smallest without; the range is that of the rounds",
    )
