# SPDX-License-Identifier: Apache-2.0
"""DAG runs for dates that are over: a backup is of now, so that none can be made for them any more."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import timezone

if TYPE_CHECKING:
    from airflow.sdk import Context

_LOG = logging.getLogger(__name__)
# A run that somebody triggers for a date this much earlier is for that date; less is a day's beginning or a slow start.
_SAME_DAY = timedelta(days=1)
# From when on a scheduled run is late enough to ask its schedule, which takes a worker a second.
_LATE = timedelta(minutes=1)


def past_date(context: Context) -> str | None:
    """Return which past date a DAG run is for, in words; None when it is for now.

    * A backfill is for the past.
    * A scheduled run is when its schedule wanted a newer one before it started, because it catches up or was cleared.
      One that starts late or is cleared before the next one is due is for now.
    * Any other run is when its logical date is more than a day before the time for which it was asked.

    What cannot be told is for now: one backup too many does less harm than none.
    """
    run: Any = context["dag_run"]
    kind = str(getattr(run.run_type, "value", run.run_type))
    if kind == "backfill":
        return f"it is a backfill for {_shown(run)}"
    if kind == "scheduled":
        due = _next_due(context, run)
        if due is not None and run.start_date >= due:
            return f"it is the scheduled run for {_shown(run)}, and the next one was due at {due:%Y-%m-%d %H:%M} UTC"
        return None
    if run.logical_date is not None and run.run_after - run.logical_date > _SAME_DAY:
        return f"its logical date is {_shown(run)}"
    return None


def refused(context: Context, *, allow: bool) -> str | None:
    """Return why a run must capture nothing, in words; None when it may.

    :param allow: capture also for a past date, and say in the log what that means.
    """
    past = past_date(context)
    if past is not None and allow:
        _LOG.warning("this run is for a past date (%s); what is captured is what is there now", past)
        return None
    return past


def skip(past: str) -> NoReturn:
    """Skip a task of a run for a past date.

    :param past: what :func:`refused` returned.
    :raises AirflowSkipException: always.
    """
    raise AirflowSkipException(
        f"nothing was captured: this run is for a past date ({past}), and what a host was like then cannot be backed "
        "up any more. Trigger a run without a logical date for a backup of now, or set allow_past_runs=True"
    )


def _shown(run: Any) -> str:
    date: datetime = run.logical_date or run.run_after
    return f"{date.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _next_due(context: Context, run: Any) -> datetime | None:
    """Return when the schedule wants the run after this one; None when it does not say, or this one is in time."""
    dag: Any = context["dag"]
    # Without catch-up Airflow makes no run when a newer one is due already: it only starts late.
    if not (dag.catchup or run.clear_number) or run.start_date is None or run.start_date - run.run_after < _LATE:
        return None
    if run.data_interval_start is None or run.data_interval_end is None:
        return None
    # Airflow's core, not its task SDK: it is on every worker, and only runs that are late pay for it.
    from airflow.timetables.base import DataInterval, TimeRestriction

    start, end = (timezone.coerce_datetime(each) for each in (run.data_interval_start, run.data_interval_end))
    latest = timezone.coerce_datetime(dag.end_date)
    try:
        following = _timetable(dag).next_dagrun_info(
            last_automated_data_interval=DataInterval(start, end),
            restriction=TimeRestriction(earliest=None, latest=latest, catchup=True),
        )
    except NotImplementedError:
        return None
    return None if following is None else following.run_after


def _timetable(dag: Any) -> Any:
    """Return the DAG's timetable as the scheduler has it; from 3.2 on a task has a description of it only."""
    try:
        from airflow.serialization.encoders import coerce_to_core_timetable
    except ImportError:
        return dag.timetable
    return coerce_to_core_timetable(dag.timetable)
