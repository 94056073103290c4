# SPDX-License-Identifier: Apache-2.0
"""Which backups are of a period."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_dockerbackup.core.period import Period
from airflow_provider_dockerbackup.core.places import RECORD_FILE
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from tests.core.world import BEGIN, World, spoil


def parsed(since: str | None, until: str | None) -> Period | None:
    """Return the period as the command line gives it."""
    return Period.parse(since, until, names=("--since", "--until"))


OCTOBER = parsed("2026-10-01", "2026-11-01")


@pytest.mark.parametrize(
    ("moment", "covered"),
    [
        ("2026-09-30T23:59:59.999999+00:00", False),
        ("2026-10-01T00:00:00+00:00", True),
        ("2026-10-31T23:59:59.999999+00:00", True),
        ("2026-11-01T00:00:00+00:00", False),
        ("2026-11-01T00:30:00+02:00", True),
    ],
)
def test_a_month_begins_with_its_first_moment_and_ends_before_the_next_one(moment: str, covered: bool) -> None:
    """In UTC, wherever the moment was written."""
    assert OCTOBER is not None
    assert OCTOBER.covers(datetime.fromisoformat(moment)) is covered


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-10-01", datetime(2026, 10, 1, tzinfo=UTC)),
        ("2026-10-01T18:30", datetime(2026, 10, 1, 18, 30, tzinfo=UTC)),
        ("2026-10-01 18:30:07", datetime(2026, 10, 1, 18, 30, 7, tzinfo=UTC)),
        ("2026-10-01T18:30:07Z", datetime(2026, 10, 1, 18, 30, 7, tzinfo=UTC)),
        ("2026-10-01T18:30:07.000012Z", datetime(2026, 10, 1, 18, 30, 7, 12, tzinfo=UTC)),
        ("2026-10-01T00:30+02:00", datetime(2026, 9, 30, 22, 30, tzinfo=UTC)),
    ],
)
def test_a_date_or_a_time_without_an_offset_is_utc(text: str, moment: datetime) -> None:
    """Whatever the zone of whoever asks."""
    assert parsed(text, None) == Period(since=moment)
    assert parsed(None, text) == Period(until=moment)


@pytest.mark.parametrize(
    "text", ["", "October", "2026-10", "2026-13-01", "2026-W40", "20261001", "7d", "0001-01-01T00:00+05:00"]
)
def test_what_is_no_date_is_refused_by_its_name(text: str) -> None:
    """And says what is expected."""
    with pytest.raises(ConfigurationError, match=r"^--until: expected a date such as 2026-10-01"):
        parsed(None, text)


@pytest.mark.parametrize("until", ["2026-10-01", "2026-09-30T23:59"])
def test_a_period_that_ends_before_it_begins_is_refused(until: str) -> None:
    """Nothing could be of it."""
    with pytest.raises(ConfigurationError, match="--until: expected a time after --since"):
        parsed("2026-10-01", until)


def test_without_either_end_there_is_no_period() -> None:
    """Then all backups count."""
    assert parsed(None, None) is None


def test_a_backup_is_of_the_periods_of_its_capture_and_of_its_confirmations_and_of_no_other() -> None:
    """What was unchanged on the third day has a point there, and none on the second."""
    world = World()
    world.backup(1)
    world.clock.advance(timedelta(days=2))
    world.backup(3, force=False)
    (backup,) = world.repository.catalog.backups()
    captured, confirmed = backup.points
    assert confirmed - captured > timedelta(days=1)
    second = Period(since=captured + timedelta(hours=1), until=confirmed)
    assert not second.has(backup)
    assert Period(since=confirmed, until=confirmed + timedelta(seconds=1)).has(backup)
    assert Period(since=captured, until=captured + timedelta(seconds=1)).has(backup)
    assert not Period(until=captured).has(backup)
    assert not Period(since=confirmed + timedelta(seconds=1)).has(backup)


def test_an_unreadable_backup_is_of_the_period_in_its_id() -> None:
    """So that whoever asks for the month sees it."""
    world = World()
    backup = world.backup(1).backup
    spoil(world.storage, backup.path + RECORD_FILE, data=b"{")
    (unreadable,) = world.repository.catalog.backups()
    day = (BEGIN + timedelta(days=1)).date().isoformat()
    assert unreadable.record is None
    here = parsed(day, (BEGIN + timedelta(days=2)).date().isoformat())
    before = parsed(None, day)
    assert here is not None
    assert before is not None
    assert here.has(unreadable)
    assert not before.has(unreadable)


def test_a_folder_that_somebody_named_is_of_every_period() -> None:
    """It tells no time, and must be seen by whoever looks."""
    world = World()
    backup = world.backup(1).backup
    made_by_hand = replace(backup, backup_id="before-the-upgrade", record=None)
    assert Period(until=BEGIN - timedelta(days=999)).has(made_by_hand)
    assert Period(since=BEGIN + timedelta(days=999)).has(made_by_hand)
