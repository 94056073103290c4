# SPDX-License-Identifier: Apache-2.0
"""When a source is due for its next backup, inside of a DAG that runs more often than that.

Times of runs are compared, not times of captures: a backup that takes an hour, or begins late because others are before
it, does not move the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from airflow_provider_dockerbackup.core.cron import Cron
from airflow_provider_dockerbackup.core.retention.duration import Duration
from airflow_provider_dockerbackup.exceptions import ConfigurationError

# What is backed up less often than once in a leap year is not, for all that anybody notices in time.
_MOST_HOURS = 366 * 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How often a source is backed up.

    :param rule: a duration from one run to the next, or a cron expression; None for in every run.
    """

    rule: Duration | Cron | None = None

    @classmethod
    def parse(cls, text: str | None, *, what: str) -> Schedule:
        """Return the schedule in ``text``: ``24h``, ``7d``, ``30 2 * * *``, ``@weekly``; None or empty for every run.

        :param what: what it is the value of, for messages.
        :raises ConfigurationError: when it is none, or a duration of more than 366 days.
        """
        if text is None or text == "":
            return cls()
        if not isinstance(text, str):
            raise ConfigurationError(f"{what}: expected a duration such as '24h' or a cron expression, got {text!r}")
        if text.startswith("@") or len(text.split()) > 1:
            return cls(rule=Cron.parse(text, what=what))
        try:
            duration = Duration.parse(text, what=what)
        except ConfigurationError as err:
            raise ConfigurationError(
                f"{what}: expected a duration such as '24h' or '7d', or a cron expression such as '30 2 * * *', "
                f"got {text[:100]!r}"
            ) from err
        if duration.years or duration.months:
            # Whoever writes 30m means minutes.
            raise ConfigurationError(
                f"{what}: expected days or hours, such as '7d' or '36h', got {text!r}, where m is months; once a month "
                "is '@monthly'"
            )
        if duration.days * 24 + duration.hours > _MOST_HOURS:
            raise ConfigurationError(f"{what}: expected at most 366d from one run to the next, got {text!r}")
        return cls(rule=duration)

    def due(self, newest: datetime | None, *, at: datetime, zone: ZoneInfo) -> bool:
        """Tell whether a source is due in a run.

        :param newest: time of the newest run that left a backup that counts; None when none did: then it is due.
        :param at: time of the run.
        :param zone: whose calendar and clock the rule means.
        """
        if newest is None:
            return True
        if self.rule is None:
            return newest < at
        if isinstance(self.rule, Duration):
            return newest <= self.rule.before(at, zone)
        latest = self.rule.latest(at, zone)
        return latest is not None and newest < latest

    def __str__(self) -> str:
        """Return it as :meth:`parse` takes it, or ``every run``."""
        return "every run" if self.rule is None else str(self.rule)
