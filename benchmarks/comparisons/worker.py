# SPDX-License-Identifier: Apache-2.0
"""What every worker process of Airflow pays for the provider being installed: CPU and memory, with it and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from benchmarks.bench import ROOT, Bench, BenchError
from benchmarks.figures import Goal, Measure, Run, figure_of
from benchmarks.runner import interleave

_CPU_GOAL = Goal(target=50.0, floor=50.0, upward=False)
_MEMORY_GOAL = Goal(target=10.0, floor=10.0, upward=False)


class Worker:
    """See the module."""

    name = "worker"
    about = "a worker's process that finds its providers: what it takes more with this one installed"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return one figure for CPU, of processes that find providers both ways, and one for memory."""
        rounds = interleave(bench, ours=lambda: _start(bench, "with"), theirs=lambda: _start(bench, "without"))
        ours = [each.ours for each in rounds]
        added = [run.details["added_cpu_seconds"] * 1e3 for run in ours]
        memory = [(each.ours.details["peak_bytes"] - each.theirs.details["peak_bytes"]) / 1e6 for each in rounds]
        return (
            figure_of("worker CPU", ours, added, unit="ms", goal=_CPU_GOAL, of="added_cpu_seconds"),
            figure_of("worker memory", ours, memory, unit="MB", goal=_MEMORY_GOAL, of="peak_bytes"),
        )


def _start(bench: Bench, way: str) -> Run:
    """Return what a fresh process took; it starts from bytecode, as an installed package does."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bench.directory / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    # Without logs of its own, and away from the user's Airflow.
    environment |= {"AIRFLOW_HOME": str(bench.directory / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    command = [sys.executable, "-m", "benchmarks.worker_start", way]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"a worker's start {way} the provider failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found.pop("installed") != (way == "with"):
        raise BenchError(f"a worker's start {way} the provider found otherwise; is the package installed?")
    figures = {name: found[name] for name in ("added_cpu_seconds", "peak_bytes")}
    return Run(seconds=time.monotonic() - began, details=figures)
