# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.page``: how long the page "Image backups" takes with a large fleet, and what its index costs.

The fleet is one of records alone, on local disk; pages are made as the API server makes them, without the network.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.plugins.fleet import Fleet, make_fleet

# What the API server has imported before anybody asks it for the page.
_FIRST_ANSWER = """
import time
import airflow.api_fastapi.app
from airflow_provider_dockerbackup.plugins.app import fleet_page
begun = time.perf_counter()
answer = fleet_page()
seconds = time.perf_counter() - begun
assert b"<tbody>" in answer.body
print(seconds)
"""


def main() -> None:
    """Make the fleet, read it for the first time, once more, and after one new backup a source; then make pages."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        root = Path(folder)
        repository = root / "fleet"
        fleet = Fleet(
            hosts=[f"host-{number:03}" for number in range(options.hosts)],
            sources=[f"team/app-{number:02}:1" for number in range(options.sources)],
            backups=options.backups,
            now=datetime.now(UTC),
        )
        _timed("make the fleet", lambda: make_fleet(repository, fleet))
        os.environ["AIRFLOW_HOME"] = folder
        os.environ["AIRFLOW__DOCKERBACKUP__REPOSITORIES"] = f"fleet={repository}"
        _measure(root, fleet)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, default in (("hosts", 100), ("sources", 50), ("backups", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dir", default=None, help="where to work")
    return parser.parse_args()


def _measure(root: Path, fleet: Fleet) -> None:
    from airflow_provider_dockerbackup.core.page.fleet import COLUMNS, Filters, csv_rows
    from airflow_provider_dockerbackup.core.page.refresh import refresh
    from airflow_provider_dockerbackup.core.report.output import csv_table
    from airflow_provider_dockerbackup.plugins import views
    from airflow_provider_dockerbackup.plugins.rendering import page
    from airflow_provider_dockerbackup.plugins.repositories import configured
    from airflow_provider_dockerbackup.transport.index_file import IndexFile

    (shown,) = configured().repositories
    file = IndexFile(root / "dockerbackup", url=str(root / "fleet"))

    def brought_up_to_date() -> None:
        with file.writing() as connection:
            assert connection is not None
            refresh(connection, shown.open(), told=lambda *_: None)

    _timed("first refresh", brought_up_to_date)
    _timed("refresh, nothing new", brought_up_to_date)
    print(f"index {file.path.stat().st_size / 1e6:.0f} MB, most memory so far {_peak_mb():.0f} MB")
    _repeated(
        "fleet, while it is refreshed", lambda: page("fleet.html", **views.fleet_view(Filters(), number=1)), times=5
    )
    _timed("until that has ended", shown.wait)
    _told("fleet, first answer of a new process", [_first_answer() for _ in range(5)])
    host, name = fleet.hosts[-1], fleet.sources[0]
    with file.reading() as index:
        source = next(each for each, _ in index.sources() if (each.host, each.name) == (host, name))
        backup_id = index.backups(source)[0].row.backup_id
    where = {"host": host, "kind": "image", "name": name}
    searched = Filters(text=f"{host} app")
    _repeated("fleet", lambda: page("fleet.html", **views.fleet_view(Filters(), number=1)))
    _repeated("fleet, searched", lambda: page("fleet.html", **views.fleet_view(searched, number=1)))
    _repeated("CSV of all sources", lambda: csv_table(COLUMNS, csv_rows(views.chosen(Filters()))))
    _repeated("source", lambda: page("source.html", **views.source_view("fleet", **where)))
    _repeated("backup", lambda: page("backup.html", **views.backup_view("fleet", backup_id, **where)))
    _repeated(
        "backup, by id", lambda: page("backup.html", **views.backup_view("fleet", backup_id, host="", kind="", name=""))
    )


def _timed(what: str, work: Callable[[], Any]) -> None:
    begun = time.perf_counter()
    work()
    print(f"{what}: {time.perf_counter() - begun:.1f} s", flush=True)


def _repeated(what: str, work: Callable[[], Any], *, times: int = 15) -> None:
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    _told(what, seconds)


def _told(what: str, seconds: Sequence[float]) -> None:
    best, median, longest = (1000 * each for each in (min(seconds), statistics.median(seconds), max(seconds)))
    print(f"{what}: best {best:.0f} ms, median {median:.0f} ms, longest {longest:.0f} ms", flush=True)


def _first_answer() -> float:
    """Return the seconds that the first page of a process takes which has imported what the API server has."""
    done = subprocess.run([sys.executable, "-c", _FIRST_ANSWER], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
