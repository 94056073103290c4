# SPDX-License-Identifier: Apache-2.0
"""What the operators that look at a whole fleet share: list its hosts, some at once, each for itself."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast, get_args

from airflow_provider_dockerbackup.core.fleet import Select, Selection, Wanted, newest_run, wanted
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.retention.duration import time_zone
from airflow_provider_dockerbackup.core.schedule import Schedule
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    DockerBackupError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator
from airflow_provider_dockerbackup.operators.rendered import whole_number

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook


@dataclass(frozen=True, slots=True, kw_only=True)
class HostListing:
    """What one host of a fleet asks to have backed up.

    :param conn_id: the connection that reaches it.
    :param host: its name in the repository; empty when the connection cannot be read.
    :param newest: of each source the time of the newest run that left a backup that counts; None when none did.
    :param error: why it could not be listed; None when it was.
    """

    conn_id: str
    host: str = ""
    wanted: tuple[Wanted, ...] = ()
    newest: Mapping[Source, datetime | None] = field(default_factory=dict)
    error: DockerBackupError | None = None


class DockerFleetOperator(DockerBackupBaseOperator):
    """Base of the operators that look at the labels of containers on many hosts.

    :param hosts: connections of the Docker hosts. (templated)
    :param repository: URL of the repository; there may be none yet. (templated)
    :param select: ``labelled`` for containers with the label ``dockerbackup.enable=true``; ``all`` for every container
        that does not have it as ``false``. (templated)
    :param kinds: what is backed up of each container: ``container``, its filesystem by an export, ``image``, the image
        that it was made from, or both. (templated)
    :param schedule: how often what has no label ``dockerbackup.schedule`` is backed up: a duration such as ``24h`` from
        one run to the next, or a cron expression; None for in every run. (templated)
    :param timezone: IANA name of the time zone in which schedules count. (templated)
    :param connections: how many hosts are listed at once.
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    """

    template_fields: Sequence[str] = (
        "hosts",
        "repository",
        "select",
        "kinds",
        "schedule",
        "timezone",
        "repository_conn_id",
    )

    def __init__(
        self,
        *,
        hosts: Sequence[str],
        repository: str,
        select: str = "labelled",
        kinds: Sequence[str] = ("container",),
        schedule: str | None = None,
        timezone: str = "UTC",
        connections: int = 8,
        repository_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hosts = hosts
        self.repository = repository
        self.select = select
        self.kinds = kinds
        self.schedule = schedule
        self.timezone = timezone
        self.connections = connections
        self.repository_conn_id = repository_conn_id
        self._hooks: list[DockerBackupHook] = []
        self._killed = False

    def on_kill(self) -> None:
        """Cut every connection: a listing has nothing to clean up on its hosts."""
        self._killed = True
        # Not here: a signal may have come in the midst of what a connection guards.
        threading.Thread(target=self._close, name="dockerbackup-kill", daemon=True).start()

    def _close(self) -> None:
        for hook in self._hooks:
            hook.close()

    def selection(self) -> Selection:
        """Return which sources are asked for.

        :raises ConfigurationError: names the parameter that is wrong.
        """
        if self.select not in get_args(Select):
            raise ConfigurationError(f"select: expected one of {', '.join(get_args(Select))}, got {self.select!r}")
        kinds = _texts("kinds", self.kinds)
        known = [each.value for each in SourceKind]
        if unknown := [each for each in kinds if each not in known]:
            raise ConfigurationError(f"kinds: expected some of {', '.join(known)}, got {unknown[0]!r}")
        return Selection(
            select=cast("Select", self.select),
            kinds=frozenset(SourceKind(each) for each in kinds),
            schedule=Schedule.parse(self.schedule, what="schedule"),
            zone=time_zone(self.timezone, what="timezone"),
        )

    def existing(self) -> Repository | None:
        """Return the repository, None while there is none."""
        from airflow_provider_dockerbackup.hooks.storage import existing_repository

        try:
            return existing_repository(self.repository, conn_id=self.repository_conn_id)
        except NotFoundError:
            return None

    def repository_url(self, repository: Repository | None) -> str:
        """Return the repository's URL without credentials, the same before and after there is one."""
        from airflow_provider_dockerbackup.hooks.storage import storage_of

        if repository is not None:
            return repository.storage.url
        return storage_of(self.repository, conn_id=self.repository_conn_id).url

    def listings(self, selection: Selection, repository: Repository | None) -> tuple[HostListing, ...]:
        """Return what each host asks for; one that cannot be listed hinders no other.

        :param repository: None while there is none.
        """
        conn_ids = tuple(dict.fromkeys(_texts("hosts", self.hosts)))
        at_once = whole_number("connections", self.connections)
        if at_once < 1:
            raise ConfigurationError(f"connections: expected a number from 1 on, got {self.connections!r}")
        # Connections are read here, one after the other: Airflow answers one question of a task at a time.
        prepared = self._prepared(conn_ids)
        with ThreadPoolExecutor(max_workers=at_once) as pool:
            try:
                return tuple(pool.map(lambda each: self._listing(each, selection, repository), prepared))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.on_kill()
                raise

    def _prepared(self, conn_ids: Sequence[str]) -> list[tuple[str, DockerBackupHook | DockerBackupError]]:
        from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook

        prepared: list[tuple[str, DockerBackupHook | DockerBackupError]] = []
        names: dict[str, str] = {}
        for conn_id in conn_ids:
            try:
                hook = DockerBackupHook(dockerbackup_conn_id=conn_id)
            except DockerBackupError as err:
                prepared.append((conn_id, err))
                continue
            name = hook.settings.host_name
            if (other := names.setdefault(name, conn_id)) != conn_id:
                said = f"connection {conn_id} is of host {name}, and so is {other}; give one of them another host_name"
                prepared.append((conn_id, ConfigurationError(said)))
                continue
            self._hooks.append(hook)
            prepared.append((conn_id, hook))
        return prepared

    def _listing(
        self,
        prepared: tuple[str, DockerBackupHook | DockerBackupError],
        selection: Selection,
        repository: Repository | None,
    ) -> HostListing:
        conn_id, hook = prepared
        if isinstance(hook, DockerBackupError):
            return HostListing(conn_id=conn_id, error=hook)
        name = hook.settings.host_name
        try:
            if self._killed:
                raise TransientError("the task was killed")
            with hook.docker_host() as host:
                found = wanted(host, selection, progress=self.progress)
            newest = {each.source: _newest(each.source, repository) for each in found}
        except DockerBackupError as err:
            return HostListing(conn_id=conn_id, host=name, error=err)
        return HostListing(conn_id=conn_id, host=name, wanted=found, newest=newest)


def _newest(source: Source, repository: Repository | None) -> datetime | None:
    if repository is None:
        return None
    return newest_run(repository.catalog, source, now=repository.clock.now())


def _texts(name: str, value: Sequence[str]) -> Sequence[str]:
    if isinstance(value, str) or not value or not all(isinstance(each, str) for each in value) or "" in value:
        raise ConfigurationError(f"{name}: expected a list of texts, got {value!r}")
    return value
