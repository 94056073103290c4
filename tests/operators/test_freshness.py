# SPDX-License-Identifier: Apache-2.0
"""The freshness check as a task, and what tasks tell Airflow's Stats: over UDP, as StatsD gets it."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, Stats

from airflow_provider_dockerbackup import operators
from airflow_provider_dockerbackup.operators import metrics
from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator
from airflow_provider_dockerbackup.operators.freshness import DockerBackupFreshnessOperator
from airflow_provider_dockerbackup.operators.metrics import KINDS
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.summary import (
    BackupSummary,
    CopySummary,
    GarbageSummary,
    RestoreSummary,
    RotateSummary,
    VerificationSummary,
)
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from tests.operators.context import context

pytestmark = pytest.mark.usefixtures("connections")
METRICS = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def save(repository: str) -> Any:
    """Save one of the lab's images."""
    operator = DockerSaveOperator(
        task_id="save", dockerbackup_conn_id="docker_host_1", image="lab/base:1", repository=repository
    )
    return operator.execute(context(task_id="save"))


def check(repository: str, **options: Any) -> Any:
    """Run the check."""
    operator = DockerBackupFreshnessOperator(task_id="fresh", repository=repository, **options)
    return operator.execute(context(task_id="fresh"))


def test_an_unverified_backup_is_fresh_only_when_any_counts(repository_url: str) -> None:
    """The error names the source, its age and its limit."""
    saved = save(repository_url)
    found = check(repository_url, trust="any")
    assert (found["sources"], found["stale"]) == (1, [])
    with pytest.raises(
        AirflowFailException, match=r"StaleError: 1 of 1 sources .* image lab/base:1 \(none, limit 36h\)"
    ):
        check(repository_url)
    told = check(repository_url, fail=False)["stale"]
    assert [(each["host"], each["source"], each["state"]) for each in told] == [
        (saved["host"], "lab/base:1", "missing")
    ]
    DockerBackupVerifyOperator(task_id="verify", repository=repository_url, backup_id=saved["backup_id"]).execute(
        context(task_id="verify")
    )
    assert check(repository_url)["stale"] == []


def test_a_source_that_was_never_backed_up_is_noticed(repository_url: str) -> None:
    """Given as text, or as other tasks return sources."""
    saved = save(repository_url)
    wanted = ["web-9 container shop", {"host": saved["host"], "kind": "image", "source": "lab/base:1"}]
    stale = check(repository_url, trust="any", required=wanted, fail=False)["stale"]
    assert [(each["host"], each["kind"], each["source"]) for each in stale] == [("web-9", "container", "shop")]


@pytest.mark.parametrize(
    "options", [{"rpo": "soon"}, {"trust": "blind"}, {"required": ["web-9 shop"]}, {"rpo_by_source": {"*": "x"}}]
)
def test_bad_parameters_are_named(repository_url: str, options: dict[str, Any]) -> None:
    """Before the repository is read."""
    save(repository_url)
    with pytest.raises(AirflowFailException, match=f"^ConfigurationError: {next(iter(options))}"):
        check(repository_url, **options)


# As Airflow's task runner begins.
BEGIN = """
from airflow.sdk.configuration import conf
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
"""
TASKS = """
from airflow.providers.common.compat.sdk import AirflowFailException
from tests.operators.test_freshness import check, save
repository = {repository!r}
save(repository)
save(repository)
check(repository, trust="any")
try:
    check(repository)
except AirflowFailException:
    pass
"""
# One repository, looked at by labels before it is there, by records, by labels again, and by mapped tasks.
CHECKS = """
from airflow_provider_dockerbackup.operators.fleet_freshness import DockerFleetFreshnessOperator
from airflow_provider_dockerbackup.operators.freshness import DockerBackupFreshnessOperator
from tests.operators.context import context
from tests.operators.test_freshness import save
WHERE = {{"repository": {repository!r}, "fail": False, "task_id": "fresh"}}
def of_labels(select):
    operator = DockerFleetFreshnessOperator(hosts=["docker_host_1"], select=select, **WHERE)
    operator.execute(context(dag_id="hosts-1", task_id="fresh"))
def of_records(missing, **task):
    operator = DockerBackupFreshnessOperator(
        required=[f"web-9 container c{{number}}" for number in range(missing)], trust="any", **WHERE
    )
    operator.execute(context(task_id="fresh", **task))
of_labels("all")
save({repository!r})
of_records(3, dag_id="nightly")
of_labels("labelled")
of_records(1, dag_id="mapped", map_index=0)
of_records(0, dag_id="mapped", map_index=1)
"""


def told_to_statsd(program: str) -> list[str]:
    """Run a program whose Airflow sends metrics with tags, and return what a StatsD got of ours."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        environment = {
            **os.environ,
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(server.getsockname()[1]),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        }
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)
        server.setblocking(False)
        lines = []
        try:
            while True:
                lines.append(server.recv(65_536).decode())
        except BlockingIOError:
            pass
    return [line.removeprefix("airflow.") for line in lines if "dockerbackup." in line]


def test_what_tasks_did_reaches_statsd(repository_url: str) -> None:
    """Counters, timers and gauges under the names that the page lists, with tags."""
    told = told_to_statsd(BEGIN + TASKS.format(repository=repository_url))
    names = {re.split(r"[,:]", line)[0] for line in told}
    assert names <= set(listed())
    assert {
        "dockerbackup.backup.success",
        "dockerbackup.backup.duration",
        "dockerbackup.backup.bytes",
        "dockerbackup.backup.stored_bytes",
        "dockerbackup.freshness.success",
        "dockerbackup.freshness.failure",
        "dockerbackup.rpo_age_seconds",
        "dockerbackup.stale_sources",
    } <= names
    successes = [line for line in told if line.startswith("dockerbackup.backup.success")]
    assert sorted(re.findall(r"status=(\w+)", "".join(successes))) == ["already", "committed"]
    assert any("error=StaleError" in line for line in told if line.startswith("dockerbackup.freshness.failure"))
    assert any("source=lab/base_1" in line for line in told if line.startswith("dockerbackup.rpo_age_seconds"))


def test_no_check_overwrites_what_another_one_said_of_the_same_repository(repository_url: str) -> None:
    """Each is a series of its own; that of a fleet is the same one before there is a repository."""
    told = told_to_statsd(BEGIN + CHECKS.format(repository=repository_url))
    sent: dict[str, list[str]] = {}
    for line in (line for line in told if line.startswith(metrics.STALE)):
        series, _, value = line.removeprefix(f"{metrics.STALE},").rpartition(":")
        check_tags, _, where = series.partition(",repository=")
        assert repository_url.endswith(where)
        sent.setdefault(check_tags, []).append(value)
    assert sent == {
        "dag_id=hosts-1,task_id=fresh": ["1|g", "0|g"],
        "dag_id=nightly,task_id=fresh": ["3|g"],
        "dag_id=mapped,task_id=fresh,map_index=0": ["1|g"],
        "dag_id=mapped,task_id=fresh,map_index=1": ["0|g"],
    }


def listed() -> list[str]:
    """Return the names on the page, one for each kind where it names all."""
    found = re.findall(r"^\| `(dockerbackup\.[A-Za-z_.]+)`", METRICS.read_text(encoding="utf-8"), re.MULTILINE)
    return [name.replace("KIND", kind) for name in found for kind in (KINDS if "KIND" in name else KINDS[:1])]


def test_the_page_lists_every_metric_and_no_other() -> None:
    """Each number that is told is one of the summary, and each kind is one of some operator."""
    ends = ("success", "failure", "duration")
    told = [f"{metrics.PREFIX}.{kind}.{end}" for kind in KINDS for end in ends]
    told += [f"{metrics.PREFIX}.{kind}.{name}" for kind, names in metrics.GAUGES.items() for name in names.values()]
    assert sorted(listed()) == sorted([*told, metrics.AGE, metrics.STALE])
    summaries = {
        "backup": BackupSummary,
        "verification": VerificationSummary,
        "restore": RestoreSummary,
        "rotation": RotateSummary,
        "copy": CopySummary,
        "gc": GarbageSummary,
    }
    for kind, names in metrics.GAUGES.items():
        assert set(names) <= set(summaries[kind].__annotations__)
    import_all_operators()
    assert {each.metric for each in _classes(DockerBackupBaseOperator)} - {None} == set(KINDS)


def import_all_operators() -> None:
    """So that all classes are there."""
    for module in pkgutil.iter_modules(operators.__path__, f"{operators.__name__}."):
        importlib.import_module(module.name)


def _classes(base: type[DockerBackupBaseOperator]) -> set[type[DockerBackupBaseOperator]]:
    return {base}.union(*(_classes(each) for each in base.__subclasses__()))


def test_a_dry_run_counts_and_has_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was freed by it; and a task that has no numbers is counted all the same."""
    told: list[tuple[str, str]] = []
    for way in ("incr", "timing", "gauge"):
        monkeypatch.setattr(Stats, way, lambda name, *_, _way=way, **__: told.append((_way, name)))
    summaries: tuple[Any, ...] = ({"removed": 3, "dry_run": True}, [], None)
    for summary in summaries:
        metrics.tell_success("rotation", summary, seconds=1, context=context(task_id="rotate"))
    assert [way for way, _ in told] == ["incr", "timing"] * 3
    metrics.tell_success("rotation", {"removed": 3, "dry_run": False}, seconds=1, context=context(task_id="rotate"))
    assert told[-1] == ("gauge", "dockerbackup.rotation.removed")


def test_no_metric_is_too_long_for_airflow() -> None:
    """Whatever sources and DAGs are called; what tells a source apart stays longest."""
    ti = {"task_id": "t" * 250, "dag_id": "d" * 250}
    values = {"host": "h" * 300, "kind": "container", "source": "registry.example:5000/" + "x" * 200, **ti}
    tags = metrics.tags_of(values)
    assert set(tags) == {"host", "kind", "source"}
    assert all(re.fullmatch(r"[A-Za-z0-9_./-]{1,60}", value) for value in tags.values())
    longest_name = "airflow.dockerbackup.verification.restore_seconds"
    assert len(longest_name + "".join(f",{key}={value}" for key, value in tags.items())) < 250


def test_long_names_leave_no_tag_out_that_tells_checks_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each value the end stays; so two checks whose names end differently are two series."""
    sent: list[dict[str, str]] = []
    monkeypatch.setattr(Stats, "gauge", lambda *_, tags: sent.append(tags))
    long = context(dag_id="d" * 250, task_id="t" * 250, map_index=1023)
    metrics.tell_stale(1, repository="s3://bucket/" + "r" * 250, context=long)
    assert list(sent[0]) == ["dag_id", "task_id", "map_index", "repository"]
    assert sent[0]["map_index"] == "1023"
    assert len("airflow." + metrics.STALE + "".join(f",{key}={value}" for key, value in sent[0].items())) < 250
