# SPDX-License-Identifier: Apache-2.0
"""Unchanged sources on two hosts, backed up as mapped tasks, against as many mapped tasks that do nothing.

Both run in a real Airflow with its scheduler and LocalExecutor, two tasks at once for each core; what is compared is
how long the runs took by the scheduler's times.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from benchmarks.airflow import Airflow
from benchmarks.bench import Bench, remove
from benchmarks.figures import Goal, Measure, Run, ratio_of
from benchmarks.runner import interleave
from tests.lab.images import BASE, build_base

# At most a quarter longer.
_GOAL = Goal(target=0.8, floor=0.8)
_DAGS = Path(__file__).parent.parent / "dags"


class Fleet:
    """See the module."""

    name = "fleet"
    about = "a run of mapped tasks that find their sources unchanged against one of mapped tasks that do nothing"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the ratio of the runs' durations."""
        repository, home = bench.repository(), bench.fresh("airflow")
        home.mkdir()
        entries = _sources(bench)
        environment = {
            **bench.lab.airflow_environment(),
            "BENCH_FLEET_ENTRIES": json.dumps(entries),
            "BENCH_FLEET_REPOSITORY": f"file://{repository}",
        }
        parallelism = 2 * (os.cpu_count() or 1)
        try:
            with Airflow(home, dags=_DAGS, parallelism=parallelism, environment=environment) as airflow:
                airflow.wait_for("fleet_ours", "fleet_empty")
                airflow.run("fleet_ours")  # all are saved now, and unchanged from here on
                rounds = interleave(
                    bench,
                    ours=lambda: Run(seconds=airflow.run("fleet_ours")),
                    theirs=lambda: Run(seconds=airflow.run("fleet_empty")),
                )
        finally:
            for path in (repository, home):
                remove(path)
        note = f"{len(entries)} tasks, {parallelism} at once"
        return (ratio_of(self.name, rounds, goal=_GOAL, note=note),)


def _sources(bench: Bench) -> list[dict[str, str]]:
    """Return as many images as were asked for, over both hosts, all of them small."""
    entries = []
    for number in range(bench.options.sources):
        host = bench.lab.hosts[number % len(bench.lab.hosts)]
        build_base(host.daemon)
        name = f"bench/fleet:{number}"
        host.daemon.docker("tag", BASE, name)
        entries.append({"dockerbackup_conn_id": host.connection_id, "host": host.name, "kind": "image", "source": name})
    return entries
