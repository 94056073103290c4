# SPDX-License-Identifier: Apache-2.0
"""The fleet at a glance: each source in one line, unprotected ones on top."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, get_args

from airflow_provider_dockerbackup.core.ages import age_text
from airflow_provider_dockerbackup.core.document import utc_text
from airflow_provider_dockerbackup.core.freshness import Rpo, SourceFreshness, judged, newest_known
from airflow_provider_dockerbackup.core.page.rows import SourceRow
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.sizes import size_text

State = Literal["unprotected", "never verified", "stale", "ok"]
STATES: Final[tuple[State, ...]] = get_args(State)
"""Worst first."""
COLUMNS: Final = (
    *("repository", "host", "kind", "source", "state", "newest_backup", "newest_point", "newest_verified"),
    *("age_hours", "rpo", "backups", "damaged", "held", "stored_bytes"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """One source.

    :param repository: name of its repository.
    :param state: ``unprotected`` when no backup of it is whole and unfailed, ``never verified`` when none of those is
        verified, ``stale`` when the newest verified one is older than its RPO allows, else ``ok``.
    :param freshness: of the newest verified backup.
    :param held: how many of its backups a hold keeps now.
    """

    repository: str
    source: Source
    state: State
    freshness: SourceFreshness
    row: SourceRow
    held: int = 0

    @property
    def age(self) -> str:
        """How old the newest verified backup is, as text; ``never`` when there is none."""
        seconds = self.freshness.age_seconds
        return "never" if seconds is None else age_text(seconds)

    @property
    def stored(self) -> str:
        """What the newest capture takes, as text."""
        return size_text(self.row.stored_bytes[-1]) if self.row.stored_bytes else ""

    @property
    def trend(self) -> Trend:
        """How sizes went."""
        return trend_of(self.row.stored_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which sources are shown; empty means all.

    :param text: words that all occur in ``host kind name``, in any case.
    """

    text: str = ""
    repository: str = ""
    host: str = ""
    kind: str = ""
    state: str = ""

    def of_any_state(self, rows: Iterable[FleetRow]) -> list[FleetRow]:
        """Return the sources that are shown when no state is asked for."""
        words = self.text.casefold().split()
        return [
            row
            for row in rows
            if self.repository in {"", row.repository}
            and self.host in {"", row.source.host}
            and self.kind in {"", row.source.kind.value}
            and (not words or _has_all(words, str(row.source).casefold()))
        ]

    def of_state(self, rows: Iterable[FleetRow]) -> list[FleetRow]:
        """Return those of these sources that are of the state that is asked for."""
        return [row for row in rows if self.state in {"", row.state}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """How sizes went, oldest first.

    :param points: of a line in a box of 100 by 20, as SVG takes it; empty for fewer than two sizes.
    :param text: the same in words, such as ``+12 %``; empty for fewer than two sizes.
    """

    points: str = ""
    text: str = ""


def fleet_rows(
    known: Iterable[tuple[Source, SourceRow]], *, repository: str, rpo: Rpo, now: datetime
) -> Iterator[FleetRow]:
    """Yield the sources of a repository; those that were ended on purpose are left out.

    :param repository: its name.
    """
    for source, row in known:
        if not row.backups and not row.leftovers:
            continue
        freshness = judged(source, row.verified, rpo=rpo, now=now)
        state = _state(row, freshness, now)
        yield FleetRow(
            repository=repository, source=source, state=state, freshness=freshness, row=row, held=row.held(now)
        )


def in_order(rows: Iterable[FleetRow]) -> list[FleetRow]:
    """Return sources with the worst state first, and within it the one longest without a verified backup."""
    return sorted(
        rows,
        key=lambda each: (STATES.index(each.state), -(each.freshness.age_seconds or 0.0), str(each.source)),
    )


def counts(rows: Iterable[FleetRow]) -> dict[State, int]:
    """Return how many sources are of each state."""
    found = Counter(row.state for row in rows)
    return {state: found[state] for state in STATES}


def csv_rows(rows: Iterable[FleetRow]) -> Iterator[tuple[str, ...]]:
    """Yield sources as rows of :data:`COLUMNS`; times are RFC 3339 in UTC."""
    for each in rows:
        age = each.freshness.age_seconds
        yield (
            *(each.repository, each.source.host, each.source.kind.value, each.source.name, each.state),
            *(each.row.newest_id, _time(each.row.newest_point), _time(each.freshness.newest)),
            "" if age is None else f"{age / 3600:.1f}",
            str(each.freshness.limit),
            *(str(each.row.backups), str(each.row.damaged), str(each.held)),
            str(each.row.stored_bytes[-1]) if each.row.stored_bytes else "",
        )


def trend_of(sizes: Sequence[int]) -> Trend:
    """Return how sizes went; the line's height is relative to the largest."""
    if len(sizes) < 2:
        return Trend()
    largest = max(sizes) or 1
    step = 100 / (len(sizes) - 1)
    points = " ".join(f"{number * step:.1f},{19 - 18 * size / largest:.1f}" for number, size in enumerate(sizes))
    first, last = sizes[0], sizes[-1]
    change = f"{(last - first) / first:+.0%}".replace("%", " %") if first else "from nothing"
    return Trend(points=points, text="even" if change in {"+0 %", "-0 %"} else change)


def _state(row: SourceRow, freshness: SourceFreshness, now: datetime) -> State:
    if freshness.state != "missing":
        return freshness.state
    return "unprotected" if newest_known(row.good, now=now) is None else "never verified"


def _has_all(words: Iterable[str], said: str) -> bool:
    return all(word in said for word in words)


def _time(moment: datetime | None) -> str:
    return "" if moment is None else utc_text(moment)
