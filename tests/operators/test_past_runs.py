# SPDX-License-Identifier: Apache-2.0
"""Which runs are for a past date, and what captures do in them; ``test_events`` tries it in a whole Airflow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import DAG, CronDataIntervalTimetable

from airflow_provider_dockerbackup.operators.commit import DockerCommitOperator
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.past_runs import past_date
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from tests.operators.context import context

FRIDAY = datetime(2026, 11, 20, 2, tzinfo=UTC)
WEEKDAYS = "0 2 * * 1-5"
HOURLY = timedelta(hours=1)


def scheduled(schedule: Any, *, late: timedelta, catchup: bool = True, cleared: int = 0, **parts: Any) -> Any:
    """Return the context of a scheduled run that starts so long after it was due, on Friday at two."""
    interval = {"data_interval_start": FRIDAY, "data_interval_end": FRIDAY}
    run = {"run_type": "scheduled", "logical_date": FRIDAY, "start_date": FRIDAY + late, "clear_number": cleared}
    found = context(run_time=FRIDAY, **{**interval, **run, **parts})
    dag = DAG("dag", schedule=schedule, start_date=FRIDAY - timedelta(days=90), catchup=catchup)
    return {**found, "dag": dag}


@pytest.mark.parametrize(
    ("late", "past"),
    [
        (timedelta(seconds=5), False),
        (timedelta(hours=20), False),
        (timedelta(days=2, hours=23), False),
        (timedelta(days=3), True),
        (timedelta(days=40), True),
    ],
)
def test_a_scheduled_run_is_of_the_past_when_the_next_one_was_due_before_it_started(
    late: timedelta, past: bool
) -> None:
    """After Friday's run comes Monday's, so that Friday's is for now on a whole weekend."""
    assert (past_date(scheduled(WEEKDAYS, late=late)) is not None) == past


def test_a_schedule_of_intervals_is_asked_as_well() -> None:
    """A run for Thursday is due on Friday, and the next on Monday."""
    schedule = CronDataIntervalTimetable(WEEKDAYS, timezone="UTC")
    thursday = FRIDAY - timedelta(days=1)
    parts: dict[str, Any] = {"data_interval_start": thursday, "logical_date": thursday}
    assert past_date(scheduled(schedule, late=timedelta(days=2), **parts)) is None
    found = past_date(scheduled(schedule, late=timedelta(days=3), **parts))
    assert found is not None
    assert "for 2026-11-19 02:00 UTC, and the next one was due at 2026-11-23 02:00 UTC" in found


def test_without_catch_up_a_late_run_is_for_now_unless_it_was_cleared() -> None:
    """The scheduler makes only the newest run then; one that somebody clears may be old."""
    late = timedelta(hours=3)
    assert past_date(scheduled(HOURLY, late=late, catchup=False)) is None
    assert past_date(scheduled(HOURLY, late=late, catchup=False, cleared=1)) is not None
    assert past_date(scheduled(HOURLY, late=timedelta(minutes=50), catchup=False, cleared=1)) is None


def test_the_last_run_of_a_schedule_that_ended_is_for_now() -> None:
    """No newer one comes."""
    found = scheduled(HOURLY, late=timedelta(days=9))
    found["dag"].end_date = FRIDAY
    assert past_date(found) is None


def test_a_manual_run_is_for_the_past_only_with_a_logical_date_of_another_day() -> None:
    """Its time is when it was asked for, so that clearing it later changes nothing."""
    assert past_date(context()) is None
    assert past_date(context(run_time=FRIDAY, logical_date=FRIDAY - timedelta(days=1))) is None
    assert past_date(context(run_time=FRIDAY, logical_date=FRIDAY + timedelta(days=9))) is None
    assert past_date(context(run_time=FRIDAY, logical_date=FRIDAY - timedelta(days=2))) == (
        "its logical date is 2026-11-18 02:00 UTC"
    )
    assert past_date(context(run_time=FRIDAY, run_type="asset_triggered")) is None


PAST: dict[str, Any] = {"run_type": "backfill", "logical_date": FRIDAY}


def save(repository: str, *, allow_past_runs: Any = False, task_id: str = "save", **run: Any) -> Any:
    """Save one of the lab's images in a run."""
    operator = DockerSaveOperator(
        task_id=task_id,
        dockerbackup_conn_id="docker_host_1",
        image="lab/base:1",
        repository=repository,
        allow_past_runs=allow_past_runs,
    )
    return operator.execute(context(task_id=task_id, **run))


@pytest.mark.usefixtures("connections")
def test_a_run_for_the_past_returns_what_it_made_when_its_date_was_now(repository_url: str) -> None:
    """The backup that it committed or confirmed; a run that made none is skipped and says what to do."""
    first = save(repository_url)
    confirmed = save(repository_url, run_id="run-2")
    assert (first["status"], confirmed["status"]) == ("committed", "unchanged")
    again = save(repository_url, **PAST)
    assert (again["status"], again["backup_id"], again["repository"]) == ("already", first["backup_id"], repository_url)
    again = save(repository_url, run_id="run-2", **PAST)
    assert (again["status"], again["backup_id"]) == ("unchanged", first["backup_id"])
    with pytest.raises(AirflowSkipException, match=r"past date \(it is a backfill for .* or set allow_past_runs=True"):
        save(repository_url, run_id="run-3", **PAST)
    assert save(repository_url, run_id="run-3", allow_past_runs="True", **PAST)["status"] == "unchanged"


@pytest.mark.usefixtures("connections")
def test_a_run_for_the_past_touches_neither_host_nor_repository(
    repository_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens at the host's address, and no repository is made."""
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", '{"conn_type": "ssh", "host": "127.0.0.1", "port": 1}')
    where: dict[str, Any] = {"dockerbackup_conn_id": "nowhere"}
    tasks = [
        DockerSaveOperator(task_id="save", image="app:1", repository=repository_url, **where),
        DockerExportOperator(task_id="export", container="app", repository=repository_url, **where),
        DockerCommitOperator(task_id="commit", container="app", image="app:2", repository=repository_url, **where),
    ]
    for task in tasks:
        with pytest.raises(AirflowSkipException, match="nothing was captured"):
            task.execute(context(task_id=task.task_id, **PAST))
    assert not Path(repository_url.removeprefix("file://")).exists()


@pytest.mark.usefixtures("connections")
def test_allow_past_runs_takes_true_and_false_alone(repository_url: str) -> None:
    """A template that rendered to something else is named, in any run."""
    with pytest.raises(AirflowFailException, match="ConfigurationError: allow_past_runs: expected true or false"):
        save(repository_url, allow_past_runs="perhaps")
