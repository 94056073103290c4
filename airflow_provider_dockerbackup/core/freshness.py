# SPDX-License-Identifier: Apache-2.0
"""How old the newest backup of each source is, held against its recovery point objective (RPO).

It is told from records alone, so a schedule that was paused, deleted or never made is seen as well as one that fails.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.retention.duration import Duration

Trust = Literal["any", "verified"]
# Clocks of workers may differ by so much.
CLOCK_TOLERANCE = timedelta(minutes=5)
_ZONE = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpo:
    """How old the newest backup of a source may be.

    :param by_source: shell patterns of ``host kind name`` or of the name alone → another such limit; the first that
        matches counts.
    """

    limit: Duration = field(default_factory=lambda: Duration(hours=36))
    by_source: Mapping[str, Duration] = field(default_factory=dict)

    @classmethod
    def parse(
        cls, limit: str, by_source: Mapping[str, str], *, names: tuple[str, str] = ("rpo", "rpo_by_source")
    ) -> Rpo:
        """Return it from texts such as ``36h``.

        :param names: what the two are called where they were given, for messages.
        :raises ConfigurationError: names the one that is no duration.
        """
        return cls(
            limit=Duration.parse(limit, what=names[0]),
            by_source={
                pattern: Duration.parse(each, what=f"{names[1]} {pattern!r}") for pattern, each in by_source.items()
            },
        )

    def of(self, source: Source) -> Duration:
        """Return the limit for one source."""
        for pattern, limit in self.by_source.items():
            if fnmatchcase(str(source), pattern) or fnmatchcase(source.name, pattern):
                return limit
        return self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFreshness:
    """How fresh the backups of one source are.

    :param newest: last moment for which a backup that counts is its state; None when there is none.
    :param age_seconds: how long ago that was.
    :param state: ``ok``, ``stale``, or ``missing`` when no backup counts.
    """

    source: Source
    newest: datetime | None
    age_seconds: float | None
    limit: Duration
    state: Literal["ok", "stale", "missing"]


def freshness(
    backups: Iterable[Backup], *, rpo: Rpo, now: datetime, trust: Trust = "verified", required: Sequence[Source] = ()
) -> tuple[SourceFreshness, ...]:
    """Return how fresh each source of a repository is, and those that are required but have no backup; stalest first.

    :param backups: the catalog.
    :param required: sources that must have one.
    """
    by_source: dict[Source, list[Backup]] = defaultdict(list)
    for backup in backups:
        by_source[backup.source].append(backup)
    found = [
        freshness_of(source, by_source.get(source, ()), rpo=rpo, now=now, trust=trust)
        for source in sorted({*by_source, *required}, key=str)
    ]
    return tuple(sorted(found, key=lambda each: (each.newest is not None, each.newest or now)))


def freshness_of(
    source: Source, backups: Iterable[Backup], *, rpo: Rpo, now: datetime, trust: Trust = "verified"
) -> SourceFreshness:
    """Return how fresh the backups of one source are.

    A backup counts when its record is readable, its files have the recorded sizes and its last verification did not
    fail; with ``verified`` only after one that restored it. An archive on its host counts once it was scanned. Moments
    that are yet to come do not count: a clock was wrong, and the source would be fresh until then whatever happens.
    """
    wanted = {"verified"} if trust == "verified" else {"none", "checked", "verified"}
    good = (each for each in backups if each.record is not None and each.complete and each.trust in wanted)
    return judged(source, (point for each in good for point in each.points), rpo=rpo, now=now)


def judged(source: Source, points: Iterable[datetime], *, rpo: Rpo, now: datetime) -> SourceFreshness:
    """Return how fresh a source is of which the backups that count are the state at these points, in any order."""
    newest, limit = newest_known(points, now=now), rpo.of(source)
    if newest is None:
        return SourceFreshness(source=source, newest=None, age_seconds=None, limit=limit, state="missing")
    return SourceFreshness(
        source=source,
        newest=newest,
        age_seconds=max(0.0, (now - newest).total_seconds()),
        limit=limit,
        state="ok" if newest >= _oldest_allowed(limit, now) else "stale",
    )


def newest_known(points: Iterable[datetime], *, now: datetime) -> datetime | None:
    """Return the newest of these points that is not yet to come; None when there is none."""
    latest = now + CLOCK_TOLERANCE
    return max((point for point in points if point <= latest), default=None)


def deciding(points: Iterable[datetime], *, now: datetime) -> tuple[datetime, ...]:
    """Return those of these points that :func:`newest_known` can return now or later, oldest first."""
    found = list(points)
    newest = newest_known(found, now=now)
    return tuple(sorted({point for point in found if newest is None or point >= newest}))


@lru_cache(maxsize=256)
def _oldest_allowed(limit: Duration, now: datetime) -> datetime:
    """Return the same for thousands of sources at once."""
    return limit.before(now, _ZONE)
