# SPDX-License-Identifier: Apache-2.0
"""Cron expressions of five fields: when the last moment was that one names, exact where clocks change.

A day matches as in Vixie's cron: when day of month and day of week are both restricted, either is enough. Where the
hour is fixed, each named time of day counts once a day: one that the clock jumps over counts as much after the jump,
one that comes twice counts the first time. Where the hour begins with ``*``, real time counts, as there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from airflow_provider_dockerbackup.exceptions import ConfigurationError

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
_WEEKDAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ITEM = re.compile(r"(?P<any>\*)(?:/(?P<step>\d{1,2}))?|(?P<first>\w{1,3})(?:-(?P<last>\w{1,3})(?:/(?P<by>\d{1,2}))?)?")
_LONGEST_MONTHS = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
# From one 29 February to the next there are at most eight years.
_DAYS_BACK = 366 * 8 + 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A cron expression.

    :param text: as it was written.
    :param weekdays: 0 is Sunday.
    :param either_day: whether day of month or day of week is enough.
    :param real_time: whether it counts real hours, not those of the clock.
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    real_time: bool

    @classmethod
    def parse(cls, text: str, *, what: str) -> Cron:
        """Return the expression in ``text``: five fields, or a name such as ``@daily``.

        :param what: what it is the value of, for messages.
        :raises ConfigurationError: when it is none, or never comes.
        """
        fields = _MACROS.get(text.strip().lower(), text).split()
        if len(fields) != 5:
            raise ConfigurationError(
                f"{what}: expected five cron fields or one of {', '.join(_MACROS)}, got {text[:100]!r}"
            )
        try:
            minutes, hours, days, months, weekdays = (
                _values(field, name, least, most, names)
                for field, (name, least, most, names) in zip(fields, _FIELDS, strict=True)
            )
        except ValueError as err:
            raise ConfigurationError(f"{what}: {err}, in cron expression {text[:100]!r}") from err
        found = cls(
            text=text.strip(),
            minutes=tuple(sorted(minutes)),
            hours=tuple(sorted(hours)),
            days=frozenset(days),
            months=frozenset(months),
            weekdays=frozenset(day % 7 for day in weekdays),
            either_day=not fields[2].startswith("*") and not fields[4].startswith("*"),
            real_time=fields[1].startswith("*"),
        )
        if not found._comes():
            raise ConfigurationError(f"{what}: no month has that day, in cron expression {text[:100]!r}")
        return found

    def latest(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        """Return the last moment until ``now``, itself included, that the expression names, in UTC.

        :param zone: whose clock it means.
        """
        today = now.astimezone(zone).date()
        for back in range(_DAYS_BACK):
            try:
                day = today - timedelta(days=back)
            except OverflowError:
                return None
            if self._matches(day):
                moments = [moment for moment in self._moments(day, zone) if moment <= now]
                if moments:
                    return max(moments)
        return None

    def __str__(self) -> str:
        """Return it as it was written."""
        return self.text

    def _matches(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_month or by_week if self.either_day else by_month and by_week

    def _moments(self, day: date, zone: ZoneInfo) -> Iterator[datetime]:
        for hour in self.hours:
            for minute in self.minutes:
                wall = datetime.combine(day, time(hour, minute), tzinfo=zone)
                moment = wall.astimezone(UTC)
                if not self.real_time:
                    yield moment
                    continue
                for each in {moment, wall.replace(fold=1).astimezone(UTC)}:
                    shown = each.astimezone(zone)
                    if (shown.hour, shown.minute) == (hour, minute):  # else the clock jumps over it
                        yield each

    def _comes(self) -> bool:
        return self.either_day or any(min(self.days) <= _LONGEST_MONTHS.get(month, 31) for month in self.months)


_FIELDS: Sequence[tuple[str, int, int, Mapping[str, int]]] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _WEEKDAYS),
)


def _values(field: str, name: str, least: int, most: int, names: Mapping[str, int]) -> set[int]:
    """Return the numbers that a field names; raises ValueError that says what is wrong with it."""
    found: set[int] = set()
    for item in field.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"{name}: expected *, */N, N, N-M or N-M/S, or a list of these, got {item[:20]!r}")
        if match["any"]:
            first, last = least, most if name != "day of week" else 6
        else:
            first = _number(match["first"], name, least, most, names)
            last = _number(match["last"], name, least, most, names) if match["last"] else first
        step = int(match["step"] or match["by"] or 1)
        if last < first or step < 1:
            raise ValueError(f"{name}: expected a range from a lower number to a higher one, got {item[:20]!r}")
        found |= set(range(first, last + 1, step))
    return found


def _number(text: str, name: str, least: int, most: int, names: Mapping[str, int]) -> int:
    number = names.get(text.lower(), int(text) if text.isascii() and text.isdigit() else -1)
    if not least <= number <= most:
        raise ValueError(f"{name}: expected a number from {least} to {most}, got {text!r}")
    return number
