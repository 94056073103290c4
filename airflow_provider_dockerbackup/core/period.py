# SPDX-License-Identifier: Apache-2.0
"""A period of time, such as a month, and which backups are of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import time_of, utc_text
from airflow_provider_dockerbackup.exceptions import ConfigurationError

_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)?)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From ``since`` on, until before ``until``; both aware, None for without end.

    October is 2026-10-01 to 2026-11-01.
    """

    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def parse(cls, since: str | None, until: str | None, *, names: tuple[str, str]) -> Period | None:
        """Return the period between two dates or times; one without an offset is UTC; None when neither is given.

        :param names: what the two are called, for messages.
        :raises ConfigurationError: names the one that is neither date nor time, or both when nothing is between them.
        """
        if since is None and until is None:
            return None
        begin, end = _moment(since, names[0]), _moment(until, names[1])
        if begin is not None and end is not None and begin >= end:
            raise ConfigurationError(
                f"{names[1]}: expected a time after {names[0]} {utc_text(begin)}, got {utc_text(end)}; a day or a "
                "month ends where the next one begins"
            )
        return cls(since=begin, until=end)

    def covers(self, moment: datetime) -> bool:
        """Tell whether a moment is in it."""
        return (self.since is None or self.since <= moment) and (self.until is None or moment < self.until)

    def has(self, backup: Backup) -> bool:
        """Tell whether a backup is the state of its source at a moment in it: by its capture or a confirmation.

        One with an unreadable record counts by the time in its id; with none there, it counts: it must be seen.
        """
        moments = moments_of(backup)
        return not moments or any(self.covers(each) for each in moments)

    def __str__(self) -> str:
        """Return it for messages."""
        since = f"from {utc_text(self.since)} on" if self.since else ""
        until = f"before {utc_text(self.until)}" if self.until else ""
        return f"{since} {until}".strip()


def moments_of(backup: Backup) -> tuple[datetime, ...]:
    """Return a backup's points; of one with an unreadable record the time in its id, and none if that is no time."""
    if backup.record is not None:
        return backup.points
    try:
        return (time_of(backup.backup_id.partition("-")[0]),)
    except ValueError:  # somebody made the folder by hand
        return ()


def _moment(text: str | None, name: str) -> datetime | None:
    if text is None:
        return None
    if _TIME.fullmatch(text) is None:
        raise _no_time(text, name, "another form")
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as err:  # the 31st of June, and the year 1 east of Greenwich
        raise _no_time(text, name, str(err)) from err


def _no_time(text: str, name: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name}: expected a date such as 2026-10-01 or a time such as 2026-10-01T18:30, in UTC or with an offset such "
        f"as +02:00, got {text!r}: {why}"
    )
