# SPDX-License-Identifier: Apache-2.0
"""The retention policy: which points of a source stay, with restic's documented meaning.

Rules are ORed. Hours, days, weeks (ISO 8601), months and years are those of the calendar in the policy's time zone,
and one without a point does not count; the newest point of each stays. When a rule has counts left at the oldest point,
that stays as well. ``keep_within…`` counts from the newest point that is not in the future.
(https://restic.readthedocs.io/en/stable/060_forget.html, tested against restic itself.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from airflow_provider_dockerbackup.core.retention.duration import Duration, time_zone
from airflow_provider_dockerbackup.exceptions import ConfigurationError

ALL = -1
# No count is longer, and Python does not read one of thousands of digits.
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_Period = Callable[[datetime, int], tuple[int, ...]]

_PERIODS: dict[str, _Period] = {
    "last": lambda _, number: (number,),
    "hourly": lambda at, _: (at.year, at.month, at.day, at.hour),
    "daily": lambda at, _: (at.year, at.month, at.day),
    "weekly": lambda at, _: at.isocalendar()[:2],
    "monthly": lambda at, _: (at.year, at.month),
    "yearly": lambda at, _: (at.year,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """Which backups of a source stay.

    :param keep_last: how many of the newest points stay; -1 or ``"unlimited"`` means all, here and in what follows.
    :param keep_hourly: for how many hours that have a point the newest one of each stays.
    :param keep_daily: the same for days.
    :param keep_weekly: the same for weeks, Monday to Sunday.
    :param keep_monthly: the same for months.
    :param keep_yearly: the same for years.
    :param keep_within: every point stays that is younger than this, counted from the newest one: ``"7d"``, ``"1y6m"``.
    :param keep_within_hourly: the newest point of every hour stays that is within this of the newest one.
    :param keep_within_daily: the same for days.
    :param keep_within_weekly: the same for weeks.
    :param keep_within_monthly: the same for months.
    :param keep_within_yearly: the same for years.
    :param min_verified: how many of the newest verified backups of a source stay whatever the rules say; at least 1.
    :param min_age: no backup is removed before it is this old.
    :param require_verified: only verified backups count for the rules.
    :param timezone: IANA name of the time zone whose calendar counts.
    """

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_within: Duration | None = None
    keep_within_hourly: Duration | None = None
    keep_within_daily: Duration | None = None
    keep_within_weekly: Duration | None = None
    keep_within_monthly: Duration | None = None
    keep_within_yearly: Duration | None = None
    min_verified: int = 1
    min_age: Duration | None = None
    require_verified: bool = False
    timezone: str = "UTC"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RetentionPolicy:
        """Return the policy that a DAG's author writes as a dict, such as ``{"keep_daily": 7, "keep_within": "2d"}``.

        :raises ConfigurationError: names the field that is unknown or wrong, or says that the policy keeps nothing.
        """
        if not isinstance(values, Mapping):
            raise ConfigurationError(f"policy: expected a dict such as {{'keep_daily': 7}}, got {values!r}")
        known = {each.name for each in fields(cls)}
        if unknown := sorted(str(name) for name in set(values) - known):
            raise ConfigurationError(f"policy: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        policy = cls(**{name: _value(name, value) for name, value in values.items()})
        policy.check()
        return policy

    @classmethod
    def parse(cls, text: str, *, what: str) -> RetentionPolicy:
        """Return the policy that is written as text, as in a label: ``keep_daily=7,keep_within=2d``.

        :param text: fields with their values, separated by commas or spaces.
        :param what: what it is the value of, for messages.
        :raises ConfigurationError: when a field is unknown, wrong or there twice, or the policy keeps nothing.
        """
        values: dict[str, Any] = {}
        for item in text.replace(",", " ").split():
            name, equals, value = item.partition("=")
            if not equals or name in values:
                problem = f"{name} is there twice" if name in values else f"got {item[:40]!r} of it"
                raise ConfigurationError(f"{what}: expected a text such as 'keep_daily=7,keep_within=2d'; {problem}")
            values[name] = _from_text(value)
        try:
            return cls.of(values)
        except ConfigurationError as err:
            raise ConfigurationError(f"{what}: {err}, in {text[:200]!r}") from err

    def over(self, other: RetentionPolicy) -> RetentionPolicy:
        """Return this policy of one source, in place of the one for all of them.

        What that one demands of every source stays: as many verified backups at least, as great an age, and that only
        verified ones count.

        :param other: the policy for all sources.
        """
        return replace(
            self,
            min_verified=max(self.min_verified, other.min_verified),
            min_age=_longer(self.min_age, other.min_age),
            require_verified=self.require_verified or other.require_verified,
        )

    def check(self) -> None:
        """Refuse a policy that keeps nothing.

        :raises ConfigurationError: when no rule keeps anything.
        """
        if not any(getattr(self, each.name) for each in fields(self) if each.name.startswith("keep_")):
            raise ConfigurationError(
                "policy: no keep_… rule is set, so it would keep nothing; set one, such as keep_last"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return what differs from the defaults, as :meth:`of` takes it."""
        own = (
            (each.name, getattr(self, each.name)) for each in fields(self) if getattr(self, each.name) != each.default
        )
        return {name: str(value) if isinstance(value, Duration) else value for name, value in own}

    def __str__(self) -> str:
        """Return it as :meth:`parse` takes it."""
        return ",".join(
            f"{name}={str(value).lower() if value is True else value}" for name, value in self.to_dict().items()
        )

    def reasons(self, points: Sequence[datetime], *, now: datetime) -> list[tuple[str, ...]]:
        """Return for each point the rules that keep it; none means that it may go.

        :param points: of one source, newest first.
        :param now: points later than this are no measure for ``keep_within…``.
        """
        zone = ZoneInfo(self.timezone)
        newest = next((point for point in points if point < now), None)
        rules = list(self._rules(newest, zone))
        found = []
        for number, point in enumerate(points):
            local = point.astimezone(zone)
            is_oldest = number == len(points) - 1
            kept = [rule.keeps(point, local, number, is_oldest=is_oldest) for rule in rules]
            found.append(tuple(reason for reason in kept if reason))
        return found

    def _rules(self, newest: datetime | None, zone: ZoneInfo) -> list[_Rule]:
        counted = [
            _Rule(f"keep_{name}", period, left=count)
            for name, period in _PERIODS.items()
            if (count := getattr(self, f"keep_{name}"))
        ]
        within = [
            _Rule(f"{field}={length}", period, since=length.before(newest, zone) if newest else None)
            for field, period in (
                ("keep_within", _PERIODS["last"]),
                *((f"keep_within_{name}", period) for name, period in _PERIODS.items() if name != "last"),
            )
            if (length := getattr(self, field))
        ]
        return [*counted, *within]


def check_own_policy(text: str | None) -> None:
    """Refuse a source's own policy that no rotation could apply.

    :param text: as :meth:`RetentionPolicy.parse` takes it; None and empty are none.
    :raises ConfigurationError: when it is none.
    """
    if text:
        RetentionPolicy.parse(text, what="retention")


class _Rule:
    """One rule while it walks over the points of a source, newest first.

    :param left: how many it still keeps; :data:`ALL` for no limit.
    :param since: it keeps only what is later.
    """

    def __init__(self, name: str, period: _Period, *, left: int = ALL, since: datetime | None = None) -> None:
        self._name = name
        self._period = period
        self._left = left
        self._since = since
        self._last: tuple[int, ...] | None = None

    def keeps(self, point: datetime, local: datetime, number: int, *, is_oldest: bool) -> str:
        """Return the reason why a point stays, empty when this rule gives none."""
        if self._left == 0 or (self._since is not None and point <= self._since):
            return ""
        period = self._period(local, number)
        is_new = period != self._last
        if not is_new and not is_oldest:
            return ""
        self._last = period
        if self._left > 0:
            self._left -= 1
        return self._name if is_new else f"{self._name} (oldest)"


def _value(name: str, value: Any) -> Any:
    """Return one field's value; raises an error that names the field."""
    if name == "require_verified":
        if not isinstance(value, bool):
            raise ConfigurationError(f"policy.{name}: expected true or false, got {value!r}")
        return value
    if name == "timezone":
        return _timezone(value)
    if name.startswith("keep_within") or name == "min_age":
        if value is None or isinstance(value, Duration):
            return value
        return Duration.parse(value, what=f"policy.{name}")
    return _count(name, value)


def _from_text(value: str) -> Any:
    """Return the value of a field that was written as text; what it must be is checked later."""
    if value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if _NUMBER.fullmatch(value):
        return int(value)
    return value


def _longer(one: Duration | None, other: Duration | None) -> Duration | None:
    """Return the longer of two durations, as they are from an arbitrary moment on; None is none."""
    given = [each for each in (one, other) if each is not None]
    moment, zone = datetime(2000, 1, 1, tzinfo=UTC), ZoneInfo("UTC")
    return min(given, key=lambda each: each.before(moment, zone), default=None)


def _count(name: str, value: Any) -> int:
    if value == "unlimited" and name.startswith("keep_"):
        return ALL
    least = 1 if name == "min_verified" else ALL if name.startswith("keep_") else 0
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        unlimited = "; -1 or 'unlimited' keeps all" if least == ALL else ""
        raise ConfigurationError(
            f"policy.{name}: expected an integer from {max(least, 0)} on{unlimited}, got {value!r}"
        )
    return value


def _timezone(value: Any) -> str:
    return time_zone(value, what="policy.timezone").key
