# SPDX-License-Identifier: Apache-2.0
"""Choose which backups of a repository are copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from zoneinfo import ZoneInfo

from airflow_provider_dockerbackup.core.catalog import Backup, Catalog
from airflow_provider_dockerbackup.core.period import Period
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.retention.duration import Duration
from airflow_provider_dockerbackup.exceptions import ConfigurationError, NotFoundError

_ZONE = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which backups; without anything all of them.

    :param backup_ids: these alone, each a whole id or an unambiguous beginning.
    :param hosts: shell patterns of Docker hosts, by their name in the repository.
    :param names: shell patterns of image references and container names.
    :param newest: of each source only so many of the newest that can be restored, and what is newer than those: what is
        damaged hides nothing, and is still seen.
    :param since: only those that are the state of their source within this duration before now, by their capture or a
        later confirmation.
    """

    backup_ids: Sequence[str] = ()
    hosts: Sequence[str] = ("*",)
    names: Sequence[str] = ("*",)
    newest: int | None = None
    since: Duration | None = None

    def check(self) -> None:
        """Refuse what cannot be meant.

        :raises ConfigurationError: names the value.
        """
        for name in ("backup_ids", "hosts", "names"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(item, str) and item for item in value):
                raise ConfigurationError(f"{name}: expected a list of texts, got {value!r}")
            if not value and name != "backup_ids":
                raise ConfigurationError(f"{name}: expected a list of patterns such as ['*'], got {value!r}")
        if self.newest is not None and (isinstance(self.newest, bool) or self.newest < 1):
            raise ConfigurationError(f"newest: expected a whole number from 1 on, got {self.newest!r}")
        if self.backup_ids and not self._is_all():
            raise ConfigurationError("backup_ids: expected either ids, or hosts, names, newest and since; not both")

    def chosen(self, catalog: Catalog, *, now: datetime) -> Iterator[Backup]:
        """Yield the chosen backups by source, without holding all of them in memory.

        :param now: what :attr:`since` is counted back from.
        :raises NotFoundError: when an id is not there, or the patterns match no backup and there are some.
        :raises ConflictError: when an id is not unique.
        """
        if self.backup_ids:
            found = {each.path: each for each in map(catalog.find, self.backup_ids)}
            yield from found.values()
            return
        since = self.since.before(now, _ZONE) if self.since is not None else None
        matched = others = 0
        for source, backups in groupby(catalog.each(), key=lambda each: each.source):
            if not self._covers(source):
                others += 1
                continue
            matched += 1
            yield from self._of_source(backups, since)
        if others and not matched:
            raise NotFoundError(f"no backup matches hosts {list(self.hosts)} and names {list(self.names)}")

    def _of_source(self, backups: Iterator[Backup], since: datetime | None) -> Iterator[Backup]:
        good = 0
        for backup in sorted(backups, key=lambda each: each.order, reverse=True):
            if since is not None and not Period(since=since).has(backup):
                continue
            yield backup
            good += backup.record is not None and backup.complete and backup.trust not in {"failed", "unscanned"}
            if self.newest is not None and good >= self.newest:
                return

    def _covers(self, source: Source) -> bool:
        return source.is_like(hosts=self.hosts, names=self.names)

    def _is_all(self) -> bool:
        return tuple(self.hosts) == tuple(self.names) == ("*",) and self.newest is None and self.since is None
