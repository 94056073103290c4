# SPDX-License-Identifier: Apache-2.0
"""Policies: how they are written, what they refuse, and which rule keeps what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_dockerbackup.core.retention.duration import Duration
from airflow_provider_dockerbackup.core.retention.policy import ALL, RetentionPolicy
from airflow_provider_dockerbackup.exceptions import ConfigurationError

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
COUNTED = ("keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")


def days(*ago: int) -> list[datetime]:
    """Return a point for each number of days before now, newest first."""
    return [NOW - timedelta(days=number, minutes=1) for number in ago]


def kept(policy: dict[str, Any], points: list[datetime]) -> list[int]:
    """Return which of the points stay, by their place."""
    reasons = RetentionPolicy.of(policy).reasons(points, now=NOW)
    return [number for number, why in enumerate(reasons) if why]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ([], "policy: expected a dict"),
        ({}, "no keep_.* rule is set"),
        ({"keep_last": 0}, "no keep_.* rule is set"),
        ({"timezone": "UTC", "min_verified": 2}, "no keep_.* rule is set"),
        ({"keep_days": 7}, "policy: unknown keep_days; known are keep_daily"),
        ({"keep_daily": -2}, r"policy.keep_daily: expected an integer from 0 on; -1 or 'unlimited' keeps all, got -2"),
        ({"keep_daily": "7"}, r"policy.keep_daily: .* got '7'"),
        ({"keep_daily": 7.5}, r"policy.keep_daily: .* got 7.5"),
        ({"keep_daily": True}, r"policy.keep_daily: .* got True"),
        ({"keep_last": 1, "min_verified": 0}, r"policy.min_verified: expected an integer from 1 on, got 0"),
        ({"keep_within": "7"}, r"policy.keep_within: expected a duration such as '7d'"),
        ({"keep_within": "7 d"}, r"policy.keep_within: expected a duration"),
        ({"keep_within": "0d"}, r"policy.keep_within: expected a duration"),
        ({"keep_within": ""}, r"policy.keep_within: expected a duration"),
        ({"keep_within": 7}, r"policy.keep_within: expected a duration"),
        ({"keep_within_daily": "1w"}, r"policy.keep_within_daily: expected a duration"),
        ({"keep_last": 1, "min_age": "-1d"}, r"policy.min_age: expected a duration"),
        ({"keep_last": 1, "require_verified": "yes"}, r"policy.require_verified: expected true or false, got 'yes'"),
        ({"keep_last": 1, "timezone": "Mars/Base"}, r"policy.timezone: expected an IANA name"),
        ({"keep_last": 1, "timezone": ""}, r"policy.timezone: expected an IANA name"),
        ({"keep_last": 1, "timezone": "../etc/passwd"}, r"policy.timezone: expected an IANA name"),
        ({"keep_last": 1, "timezone": None}, r"policy.timezone: expected an IANA name"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_by_the_name_of_its_field(policy: Any, message: str) -> None:
    """The author of a DAG reads what to write instead."""
    with pytest.raises(ConfigurationError, match=message):
        RetentionPolicy.of(policy)


@given(
    st.fixed_dictionaries(
        {"keep_last": st.integers(1, 9)},
        optional={
            **{name: st.one_of(st.integers(-1, 99), st.just("unlimited")) for name in COUNTED[1:]},
            "keep_within": st.sampled_from(["7d", "1y6m", "36h", "2y5m7d3h"]),
            "keep_within_weekly": st.sampled_from(["1m", "90d"]),
            "min_verified": st.integers(1, 5),
            "min_age": st.sampled_from(["1d", "12h"]),
            "require_verified": st.booleans(),
            "timezone": st.sampled_from(["UTC", "Europe/Berlin"]),
        },
    )
)
def test_a_policy_written_out_is_read_back_as_it_was(values: dict[str, Any]) -> None:
    """``to_dict`` is what stands in events; whoever reads them gets the same policy."""
    policy = RetentionPolicy.of(values)
    assert RetentionPolicy.of(policy.to_dict()) == policy
    assert "unlimited" not in policy.to_dict().values()


def test_no_policy_keeps_what_nobody_asked_for() -> None:
    """Each rule alone keeps its own and says its name."""
    points = days(0, 1, 2, 40, 400)
    reasons = RetentionPolicy.of({"keep_last": 1, "keep_yearly": 2}).reasons(points, now=NOW)
    assert reasons == [("keep_last", "keep_yearly"), (), (), (), ("keep_yearly",)]


def test_periods_without_a_point_do_not_count() -> None:
    """Three days that have points are kept, however far apart."""
    assert kept({"keep_daily": 3}, days(0, 10, 300, 301)) == [0, 1, 2]


def test_the_oldest_stays_while_a_rule_has_counts_left() -> None:
    """As long as there are too few years, the very first one is not thrown away."""
    points = days(0, 1, 2)
    reasons = RetentionPolicy.of({"keep_monthly": 5}).reasons(points, now=NOW)
    assert reasons == [("keep_monthly",), (), ("keep_monthly (oldest)",)]


def test_within_counts_from_the_newest_point_and_not_from_now() -> None:
    """Backups that stopped a year ago are not lost by waiting."""
    assert kept({"keep_within": "7d"}, days(365, 370, 373)) == [0, 1]


def test_a_point_in_the_future_is_no_measure_for_within() -> None:
    """One wrong clock does not make all the others look old."""
    future = NOW + timedelta(days=3650)
    assert kept({"keep_within": "7d"}, [future, *days(0, 1, 30)]) == [0, 1, 2]


def test_days_are_those_of_the_policys_time_zone() -> None:
    """Two points of one UTC day are of two days in Auckland."""
    points = [datetime(2026, 3, 10, 12, tzinfo=UTC), datetime(2026, 3, 10, 10, tzinfo=UTC)]
    assert kept({"keep_daily": 9}, [*points, *days(90)]) == [0, 2]
    assert kept({"keep_daily": 9, "timezone": "Pacific/Auckland"}, [*points, *days(90)]) == [0, 1, 2]


@pytest.mark.parametrize("field", COUNTED)
def test_unlimited_keeps_every_period(field: str) -> None:
    """-1 and the word mean the same."""
    points = [NOW - timedelta(days=400 * number, minutes=1) for number in range(9)]
    assert kept({field: "unlimited"}, points) == kept({field: ALL}, points) == list(range(9))


@pytest.mark.parametrize(
    ("text", "at", "zone", "before"),
    [
        ("1m", "2026-10-31T12:00+00:00", "UTC", "2026-10-01T12:00+00:00"),
        ("1m", "2026-03-31T12:00+00:00", "UTC", "2026-03-03T12:00+00:00"),
        ("1y", "2024-02-29T12:00+00:00", "UTC", "2023-03-01T12:00+00:00"),
        ("1d", "2026-03-29T12:00+02:00", "Europe/Berlin", "2026-03-28T12:00+01:00"),
        ("24h", "2026-03-29T12:00+02:00", "Europe/Berlin", "2026-03-28T11:00+01:00"),
        ("9999y", "2026-03-29T12:00+00:00", "UTC", "0001-01-01T00:00+00:00"),
        ("999999d", "2026-03-29T12:00+00:00", "UTC", "0001-01-01T00:00+00:00"),
    ],
)
def test_durations_go_back_by_the_calendar(text: str, at: str, zone: str, before: str) -> None:
    """Months and days on the wall clock, hours on the real one; before the calendar begins there is its beginning."""
    found = Duration.parse(text).before(datetime.fromisoformat(at), ZoneInfo(zone))
    assert found == datetime.fromisoformat(before)
    assert str(Duration.parse(text)) == text
