# SPDX-License-Identifier: Apache-2.0
"""What only a whole Airflow does: schedule on assets, catch up, backfill, clear, alert, tell lineage, defer."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.lab.lab import Lab
from tests.lab.processes import wait_until
from tests.lab.webhook import LabWebhook, webhook_server
from tests.scheduler.standalone import Standalone

EXAMPLES = Path(__file__).parents[2] / "dags"
LAYERS, VERIFY = "example_dockerbackup_layers", "example_dockerbackup_verify_saved"
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of the repository of the DAGs."""
    return f"file://{tmp_path_factory.mktemp('scheduled')}/repository"


@pytest.fixture(scope="module")
def webhook() -> Iterator[LabWebhook]:
    """The endpoint of alerts."""
    with webhook_server() as server:
        yield server


@pytest.fixture(scope="module")
def lineage_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where OpenLineage's events go, one a line."""
    return tmp_path_factory.mktemp("lineage") / "events.jsonl"


@pytest.fixture(scope="module")
def airflow(
    lab: Lab, repository: str, webhook: LabWebhook, lineage_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Standalone]:
    """An Airflow with two examples and the DAGs beside this file, for which the lab's hosts are connections."""
    place = tmp_path_factory.mktemp("events")
    shutil.copytree(Path(__file__).parent / "dags", place / "dags")
    for name in (LAYERS, VERIFY):
        shutil.copy(EXAMPLES / f"{name}.py", place / "dags")
    environment = lab.airflow_environment() | {
        "AIRFLOW_CONN_DOCKERBACKUP_DEFAULT": lab.hosts[0].airflow_connection(),
        "AIRFLOW_CONN_DOCKERBACKUP_WEBHOOK": webhook.connection(),
        "AIRFLOW_VAR_DOCKERBACKUP_REPOSITORY": repository,
        "LAB_REPOSITORY": repository,
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
            {"type": "file", "log_file_path": str(lineage_file), "append": True}
        ),
    }
    with Standalone(place / "airflow", dags=place / "dags", environment=environment) as started:
        yield started


def finished(airflow: Standalone, dag_id: str, *, count: int = 1, run_type: str = "manual") -> list[dict[str, Any]]:
    """Return a DAG's runs of a type, oldest first, when at least ``count`` are there and all of them have ended."""

    def runs() -> list[dict[str, Any]]:
        return airflow.runs(dag_id, run_type=run_type)

    airflow.wait(
        lambda: len(runs()) >= count and all(each["state"] in {"success", "failed"} for each in runs()),
        f"{count} runs of {dag_id}",
        seconds=240,
    )
    return runs()


def backups(url: str) -> list[Backup]:
    """Return what a repository holds."""
    return Repository.open(storage_from_url(url), clock=SystemClock()).catalog.backups()


def trusts(url: str) -> set[str]:
    """Return how far the backups of a repository are proven."""
    return {each.trust for each in backups(url)}


def events(airflow: Standalone, dag_id: str) -> list[dict[str, Any]]:
    """Return the asset events of a DAG's tasks."""
    found: list[dict[str, Any]] = airflow.get("assets/events", source_dag_id=dag_id)["asset_events"]
    return found


def test_what_was_just_saved_is_verified_by_a_dag_that_runs_by_itself(airflow: Standalone, repository: str) -> None:
    """Each mapped save that commits makes an event; the example verifies exactly these, and unchanged ones not."""
    conf: dict[str, Any] = {"repository": repository, "names": ["lab/app:1", "lab/base:1"]}
    airflow.trigger(LAYERS, **conf)
    finished(airflow, LAYERS)
    told = events(airflow, LAYERS)
    saved = {each.backup_id: each for each in backups(repository)}
    assert {each["extra"]["backup_id"] for each in told} == set(saved)
    for each in told:
        backup = saved[each["extra"]["backup_id"]]
        record, extra = backup.whole(), each["extra"]
        assert each["uri"] == f"x-dockerbackup://{record.source.host}/image/{record.source.name}"
        assert (extra["content_digest"], extra["size_bytes"]) == (record.content_digest, record.size_bytes)
        assert extra["repository"] == repository
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", extra["audit_head"])
    # One run for both events, or one for each.
    assert wait_until(lambda: trusts(repository) == {"verified"}, seconds=90, interval=0.5)
    runs = finished(airflow, VERIFY, run_type="asset_triggered")
    assert {each["state"] for each in runs} == {"success"}
    airflow.trigger(LAYERS, **conf)
    finished(airflow, LAYERS, count=2)
    assert len(events(airflow, LAYERS)) == len(told), "unchanged images make no event"
    assert sum(len(each.verifications) for each in backups(repository)) == len(saved)


def test_lineage_of_what_ran_is_told_to_openlineage(airflow: Standalone, lineage_file: Path, lab: Lab) -> None:
    """Saves lead from the host into the repository, verifications out of it; the example DAGs have run."""
    finished(airflow, VERIFY, run_type="asset_triggered")

    def told(task: str) -> list[dict[str, Any]]:
        events = [json.loads(line) for line in lineage_file.read_text(encoding="utf-8").splitlines()]
        return [each for each in events if each["eventType"] == "COMPLETE" and each["job"]["name"].endswith(task)]

    assert wait_until(lambda: bool(told("layers.save") and told("saved.verify")), seconds=60, interval=0.5)
    save = next(each for each in told("layers.save") if each["outputs"])
    assert [each["namespace"] for each in save["inputs"]] == [f"docker://{lab.hosts[0].name}"]
    (stored,) = save["outputs"]
    assert stored["namespace"] == "file"
    assert stored["facets"]["version"]["datasetVersion"]
    assert stored["name"] in {each["inputs"][0]["name"] for each in told("saved.verify")}


def test_runs_that_catch_up_skip_all_dates_but_the_newest(airflow: Standalone, repository: str) -> None:
    """Three days late, only the last run captures; the others say that a backup of the past is impossible."""
    runs = finished(airflow, "lab_catches_up", count=4, run_type="scheduled")
    states = [airflow.tasks("lab_catches_up", each["dag_run_id"])["save"] for each in runs]
    assert states == ["skipped", "skipped", "skipped", "success"], airflow.log()
    told = airflow.task_log("lab_catches_up", runs[0]["dag_run_id"], "save")
    assert "it is the scheduled run for" in told
    assert "set allow_past_runs=True" in told
    (made,) = backups(f"{repository}-caught-up")
    assert made.whole().actor["run_id"] == runs[-1]["dag_run_id"]


def test_a_backfill_captures_nothing_unless_it_is_allowed(airflow: Standalone, repository: str) -> None:
    """Save, export and commit skip and leave no repository; a task that allows it captures what is there now."""
    day = (TODAY - timedelta(days=25)).date().isoformat()
    airflow.command("backfill", "create", "--dag-id", "lab_backfilled", "--from-date", day, "--to-date", day)
    (run,) = finished(airflow, "lab_backfilled", run_type="backfill")
    assert airflow.tasks("lab_backfilled", run["dag_run_id"]) == {
        "save": "skipped",
        "export": "skipped",
        "commit": "skipped",
        "allowed": "success",
    }
    assert not Path(f"{repository}-backfilled".removeprefix("file://")).exists()
    (made,) = backups(f"{repository}-allowed")
    assert made.whole().captured_at > datetime.now(UTC) - timedelta(minutes=10)
    assert "captured is what is there now" in airflow.task_log("lab_backfilled", run["dag_run_id"], "allowed")


def test_a_cleared_run_returns_the_backup_that_it_made(airflow: Standalone, repository: str) -> None:
    """Nothing is captured a second time for the same date, also where it is allowed."""
    (run,) = finished(airflow, "lab_backfilled", run_type="backfill")
    (before,) = backups(f"{repository}-allowed")
    cleared = {"dag_run_id": run["dag_run_id"], "task_ids": ["allowed"], "dry_run": False, "only_failed": False}
    airflow.post("dags/lab_backfilled/clearTaskInstances", cleared)
    (run,) = finished(airflow, "lab_backfilled", run_type="backfill")
    assert airflow.tasks("lab_backfilled", run["dag_run_id"])["allowed"] == "success"
    (after,) = backups(f"{repository}-allowed")
    assert (after.backup_id, after.points) == (before.backup_id, before.points)


def test_a_permanent_error_stops_the_retries_and_alerts_for_task_and_run(
    airflow: Standalone, webhook: LabWebhook
) -> None:
    """The worker tells of the task, the DAG processor of the run."""
    airflow.trigger("lab_fails")
    (run,) = finished(airflow, "lab_fails")
    assert run["state"] == "failed"
    assert wait_until(lambda: len(alerts(webhook, "lab_fails")) == 2, seconds=60)
    told = {each["event"]: each for each in alerts(webhook, "lab_fails")}
    assert told["task_failed"]["error"] == "NotFoundError"
    assert told["task_failed"]["try_number"] == 1
    assert "lab/absent:1" in told["task_failed"]["text"]
    assert (told["dag_run"]["reason"], told["dag_run"]["run_id"]) == ("task_failure", run["dag_run_id"])


def test_a_missed_deadline_alerts_while_the_run_goes_on(airflow: Standalone, webhook: LabWebhook) -> None:
    """The triggerer tells of it, from what little Airflow gives it."""
    run_id = airflow.trigger("lab_late")
    assert wait_until(lambda: alerts(webhook, "lab_late") != [], seconds=60)
    (alert,) = alerts(webhook, "lab_late")
    assert (alert["event"], alert["run_id"]) == ("deadline_missed", run_id)
    assert "missed its deadline of 20" in alert["text"]
    finished(airflow, "lab_late")


def test_the_triggerer_waits_until_an_image_changes(airflow: Standalone, lab: Lab) -> None:
    """The task holds no worker meanwhile, and what it returns says what changed."""
    docker, tag = lab.hosts[0].daemon.docker, "lab-waits/app:1"
    docker("tag", "lab/base:1", tag)
    try:
        run_id = airflow.trigger("lab_waits")
        assert wait_until(
            lambda: airflow.tasks("lab_waits", run_id).get("wait") == "deferred", seconds=120, interval=0.5
        )
        docker("tag", "lab/app:1", tag)
        (run,) = finished(airflow, "lab_waits")
    finally:
        docker("rmi", tag, check=False)
    assert run["state"] == "success", airflow.task_log("lab_waits", run_id, "wait")
    found = airflow.get(f"dags/lab_waits/dagRuns/{run_id}/taskInstances/wait/xcomEntries/return_value")["value"]
    assert found["reason"] == "changed"


def alerts(webhook: LabWebhook, dag_id: str) -> list[dict[str, Any]]:
    """Return the alerts of a DAG."""
    return [post.body for post in webhook.posts if post.body["dag_id"] == dag_id]
