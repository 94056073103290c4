# SPDX-License-Identifier: Apache-2.0
"""Cron expressions: against croniter in UTC, and by hand where clocks change."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_dockerbackup.core.cron import Cron
from airflow_provider_dockerbackup.exceptions import ConfigurationError

BERLIN, ZULU = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")


def latest(text: str, now: datetime, zone: ZoneInfo = ZULU) -> datetime | None:
    """Return the last moment that an expression names."""
    return Cron.parse(text, what="schedule").latest(now, zone)


def item(least: int, most: int) -> st.SearchStrategy[str]:
    """Return one item of a field."""
    number = st.integers(least, most)
    pair = st.lists(number, min_size=2, max_size=2, unique=True)
    return st.one_of(
        number.map(str),
        # Not N-N, which croniter reads as every value.
        pair.map(lambda some: f"{min(some)}-{max(some)}"),
        st.tuples(pair, st.integers(1, 9)).map(lambda some: f"{min(some[0])}-{max(some[0])}/{some[1]}"),
    )


def field(least: int, most: int) -> st.SearchStrategy[str]:
    """Return one field."""
    lists = st.lists(item(least, most), min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), st.integers(1, 9).map(lambda step: f"*/{step}"), lists)


@settings(max_examples=300, deadline=None)
@given(
    minute=field(0, 59),
    hour=field(0, 23),
    days=st.one_of(st.tuples(field(1, 28), st.just("*")), st.tuples(st.just("*"), field(0, 6))),
    month=field(1, 12),
    minutes=st.integers(0, 8 * 366 * 24 * 60),
)
def test_it_finds_what_croniter_finds(minute: str, hour: str, days: tuple[str, str], month: str, minutes: int) -> None:
    """In UTC, for fields of every form."""
    text = f"{minute} {hour} {days[0]} {month} {days[1]}"
    croniter = importlib.import_module("croniter").croniter
    moment = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    # croniter's previous moment is never its beginning itself.
    assert latest(text, moment) == croniter(text, moment + timedelta(microseconds=1)).get_prev(datetime), text


@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        ("0 0 13 * fri", datetime(2026, 11, 14, tzinfo=UTC), datetime(2026, 11, 13, tzinfo=UTC)),
        ("0 0 13 * fri", datetime(2026, 11, 12, tzinfo=UTC), datetime(2026, 11, 6, tzinfo=UTC)),
        ("0 0 13 * fri", datetime(2026, 10, 14, tzinfo=UTC), datetime(2026, 10, 13, tzinfo=UTC)),
        ("0 0 30 2 mon", datetime(2026, 11, 27, tzinfo=UTC), datetime(2026, 2, 23, tzinfo=UTC)),
        ("0 0 * * 7", datetime(2026, 11, 27, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC)),
        ("0 0 * * 5-7", datetime(2026, 11, 27, tzinfo=UTC), datetime(2026, 11, 27, tzinfo=UTC)),
        ("30 2 29 2 *", datetime(2026, 11, 27, tzinfo=UTC), datetime(2024, 2, 29, 2, 30, tzinfo=UTC)),
        ("0 0 1 JAN-mar *", datetime(2026, 11, 27, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)),
        ("@weekly", datetime(2026, 11, 27, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC)),
        ("@Monthly", datetime(2026, 11, 27, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)),
    ],
)
def test_days_names_and_macros_mean_what_they_mean_in_cron(text: str, now: datetime, expected: datetime) -> None:
    """Either day is enough when both are restricted; Sunday is 0 and 7."""
    assert latest(text, now) == expected


@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        # On 29 March 2026 the clock goes from 02:00 to 03:00 in Berlin, at 01:00 UTC.
        ("30 2 * * *", datetime(2026, 3, 29, 1, 29, tzinfo=UTC), datetime(2026, 3, 28, 1, 30, tzinfo=UTC)),
        ("30 2 * * *", datetime(2026, 3, 29, 12, tzinfo=UTC), datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
        ("30 2 * * *", datetime(2026, 3, 30, 12, tzinfo=UTC), datetime(2026, 3, 30, 0, 30, tzinfo=UTC)),
        ("15 * * * *", datetime(2026, 3, 29, 1, 14, tzinfo=UTC), datetime(2026, 3, 29, 0, 15, tzinfo=UTC)),
        ("0 */2 * * *", datetime(2026, 3, 29, 1, 59, tzinfo=UTC), datetime(2026, 3, 28, 23, 0, tzinfo=UTC)),
        # On 25 October 2026 it goes from 03:00 back to 02:00, at 01:00 UTC.
        ("30 2 * * *", datetime(2026, 10, 25, 12, tzinfo=UTC), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        ("30 * * * *", datetime(2026, 10, 25, 1, 45, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
        ("30 * * * *", datetime(2026, 10, 25, 0, 45, tzinfo=UTC), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_time_of_day_comes_once_a_day_also_when_clocks_change(text: str, now: datetime, expected: datetime) -> None:
    """A fixed hour is never skipped and never doubled; with ``*`` real hours count."""
    assert latest(text, now, BERLIN) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("* * * *", "expected five cron fields"),
        ("0 0 2 * * *", "expected five cron fields"),
        ("@reboot", "expected five cron fields"),
        ("60 * * * *", "minute: expected a number from 0 to 59, got '60'"),
        ("0 24 * * *", "hour: expected a number from 0 to 23"),
        ("0 0 0 * *", "day of month: expected a number from 1 to 31"),
        ("0 0 * foo *", "month: expected a number from 1 to 12, got 'foo'"),
        ("0 0 * * 8", "day of week"),
        ("0 5-1 * * *", "hour: expected a range from a lower number"),
        ("*/0 * * * *", "minute: expected a range"),
        ("5/10 * * * *", "minute: expected \\*, \\*/N"),
        ("0 0 L * *", "day of month"),
        ("0 0 30 2 *", "no month has that day"),
        ("0 0 31 4,6,9 *", "no month has that day"),
        ("0 \u0661 * * *", "hour: expected a number"),
    ],
)
def test_what_is_no_expression_is_refused_by_field(text: str, said: str) -> None:
    """The message names parameter, field and value."""
    with pytest.raises(ConfigurationError, match=f"^schedule: .*{said}"):
        Cron.parse(text, what="schedule")


def test_nothing_was_named_yet_when_time_begins() -> None:
    """No error, and no moment."""
    assert latest("0 0 * * *", datetime(1, 1, 1, tzinfo=UTC) - timedelta(0)) == datetime(1, 1, 1, tzinfo=UTC)
    assert latest("0 5 * * *", datetime(1, 1, 1, 1, tzinfo=UTC)) is None
