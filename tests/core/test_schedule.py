# SPDX-License-Identifier: Apache-2.0
"""When a source is due: by duration, by cron, in every run; over changes of clocks, and after failures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_dockerbackup.core.retention.duration import time_zone
from airflow_provider_dockerbackup.core.schedule import Schedule
from airflow_provider_dockerbackup.exceptions import ConfigurationError

BERLIN, ZULU = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def due(text: str | None, newest: datetime | None, at: datetime, zone: ZoneInfo = ZULU) -> bool:
    """Tell whether a source is due."""
    return Schedule.parse(text, what="schedule").due(newest, at=at, zone=zone)


def runs(text: str | None, *, begin: datetime, hours: int, zone: ZoneInfo) -> list[datetime]:
    """Return the runs of an hourly DAG that back a source up, none failing."""
    newest, found = None, []
    for hour in range(hours):
        at = begin + timedelta(hours=hour)
        if due(text, newest, at, zone):
            newest = at
            found.append(at)
    return found


@pytest.mark.parametrize("text", [None, "", "24h", "7d", "30 2 * * *", "@yearly"])
def test_a_source_without_a_backup_is_due_at_once(text: str | None) -> None:
    """Whatever its schedule."""
    assert due(text, None, NOON)


@pytest.mark.parametrize("text", [None, "1h", "24h", "@hourly", "0 12 * * *"])
def test_a_source_is_not_due_again_in_the_run_that_backed_it_up(text: str | None) -> None:
    """A cleared run does no work twice."""
    assert not due(text, NOON, NOON)
    assert not due(text, NOON + timedelta(hours=1), NOON)


def test_without_a_schedule_it_is_due_in_every_run() -> None:
    """The DAG's own schedule is the source's."""
    assert due(None, NOON - timedelta(minutes=1), NOON)


def test_a_duration_does_not_drift() -> None:
    """A backup a day at the same hour, although captures take their time: times of runs are compared."""
    found = runs("24h", begin=NOON, hours=24 * 4, zone=ZULU)
    assert found == [NOON + timedelta(days=day) for day in range(4)]
    assert not due("24h", NOON, NOON + timedelta(hours=23, minutes=59))
    assert due("24h", NOON, NOON + timedelta(hours=24))


@pytest.mark.parametrize(
    ("month", "day"),
    [(3, 28), (10, 24)],
)
def test_days_are_those_of_the_calendar_and_hours_are_real(month: int, day: int) -> None:
    """Over a change of clocks ``1d`` keeps the time of day, ``24h`` keeps the distance."""
    begin = datetime(2026, month, day, 2, tzinfo=BERLIN).astimezone(UTC)
    by_day = runs("1d", begin=begin, hours=24 * 3, zone=BERLIN)
    assert [each.astimezone(BERLIN).day for each in by_day] == list(range(day, day + len(by_day)))
    assert [each.astimezone(BERLIN).hour for each in by_day[:3]] == [2, 3 if month == 3 else 2, 2]
    by_hour = runs("24h", begin=begin, hours=24 * 3, zone=BERLIN)
    assert [later - sooner for sooner, later in pairwise(by_hour)] == [timedelta(hours=24)] * 2


@pytest.mark.parametrize("begin", [datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 10, 23, tzinfo=UTC)])
def test_a_daily_cron_is_once_a_day_over_a_change_of_clocks(begin: datetime) -> None:
    """Also at an hour that is skipped, or comes twice."""
    found = runs("30 2 * * *", begin=begin, hours=24 * 6, zone=BERLIN)[1:]
    assert len(found) == 6
    assert len({each.astimezone(BERLIN).date() for each in found}) == 6


def test_a_run_that_failed_is_made_up_for_by_the_next_one() -> None:
    """No backup, no point: it stays due until there is one."""
    yesterday = datetime(2026, 11, 26, 3, tzinfo=UTC)
    assert all(due("30 2 * * *", yesterday, NOON.replace(hour=hour)) for hour in (3, 4, 23))


@pytest.mark.parametrize("text", ["soon", "24", "-1h", "0h", "24 h", "@sometimes", "30m", "1m", "1y", 7])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    """``30m`` would be months, which nobody means."""
    with pytest.raises(ConfigurationError, match=r"^label x: .*got"):
        Schedule.parse(text, what="label x")


def test_a_source_that_would_never_be_due_again_is_refused() -> None:
    """More than a leap year is a typing error, and its backups would silently end."""
    for text in ("367d", "8785h", "366d1h", "9999999h"):
        with pytest.raises(ConfigurationError, match=rf"^label x: expected at most 366d .*got '{text}'"):
            Schedule.parse(text, what="label x")
    assert not due("366d", NOON - timedelta(days=366, hours=-1), NOON)
    assert due("8784h", NOON - timedelta(days=366), NOON)


def test_it_is_shown_as_it_is_written() -> None:
    """For logs."""
    for text in ("24h", "7d", "30 2 * * *", "@weekly"):
        assert str(Schedule.parse(text, what="")) == text
    assert str(Schedule()) == "every run"


def test_a_time_zone_that_is_none_is_named() -> None:
    """And one that is, is it."""
    assert time_zone("Europe/Berlin", what="timezone") == BERLIN
    with pytest.raises(ConfigurationError, match=r"^timezone: .*'Mars'"):
        time_zone("Mars", what="timezone")
