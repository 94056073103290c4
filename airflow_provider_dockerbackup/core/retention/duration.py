# SPDX-License-Identifier: Apache-2.0
"""Durations of calendar length: years, months, days and hours, as in ``2y5m7d3h``; and whose calendar it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow_provider_dockerbackup.exceptions import ConfigurationError

_DURATION = re.compile(r"(?:(\d{1,4})y)?(?:(\d{1,5})m)?(?:(\d{1,6})d)?(?:(\d{1,7})h)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """A duration that the calendar measures: a month has as many days as it has."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    @classmethod
    def parse(cls, text: Any, *, what: str = "") -> Duration:
        """Return the duration in ``text``, such as ``1y6m``, ``7d`` or ``36h``; ``m`` is months, and weeks are days.

        :param what: parameter or option it is the value of, for messages.
        :raises ConfigurationError: when it is none, or of no length.
        """
        match = _DURATION.fullmatch(text) if isinstance(text, str) else None
        if match is None or not any(int(number or 0) for number in match.groups()):
            named = f"{what}: " if what else ""
            raise ConfigurationError(f"{named}expected a duration such as '7d', '36h' or '1y6m', got {text!r}")
        years, months, days, hours = (int(number or 0) for number in match.groups())
        return cls(years=years, months=months, days=days, hours=hours)

    def before(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """Return the moment that lies this long before ``moment``, in UTC.

        Years, months and days go back on the wall clock of ``zone``, hours on the real one. A day that a month does not
        have counts on into the next: one month before 31 October is 1 October.
        """
        wall = moment.astimezone(zone).replace(tzinfo=None)
        month = wall.year * 12 + wall.month - 1 - self.years * 12 - self.months
        if month < 12 or month // 12 > 9999:
            return datetime.min.replace(tzinfo=UTC)
        first = wall.replace(year=month // 12, month=month % 12 + 1, day=1)
        try:
            return _from_wall(first + timedelta(days=wall.day - 1 - self.days), zone) - timedelta(hours=self.hours)
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)

    def __str__(self) -> str:
        """Return it as :meth:`parse` takes it."""
        parts = ((self.years, "y"), (self.months, "m"), (self.days, "d"), (self.hours, "h"))
        return "".join(f"{number}{unit}" for number, unit in parts if number)


def _from_wall(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment at which clocks of ``zone`` show ``wall``; where none or two do, the one that Go takes."""
    as_utc = wall.replace(tzinfo=UTC)
    guess = as_utc - _offset(as_utc, zone)
    return as_utc - _offset(guess, zone)


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def time_zone(name: str, *, what: str) -> ZoneInfo:
    """Return the time zone of an IANA name.

    :param what: what it is the value of, for messages.
    :raises ConfigurationError: when there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError) as err:
        raise ConfigurationError(f"{what}: expected an IANA name such as Europe/Berlin, got {name!r}") from err
