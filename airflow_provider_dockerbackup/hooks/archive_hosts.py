# SPDX-License-Identifier: Apache-2.0
"""How Docker hosts that keep archives are reached: by the connections that a task or Airflow's configuration names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import conf

from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.hooks.connection import connection_of
from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook, HostSettings

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFiles, HostFilesFactory


def archive_hosts(conn_ids: Sequence[str] | None) -> HostFilesFactory:
    """Return what gives the archives on a host of some name; connections are read when it is asked.

    :param conn_ids: connections of hosts; None takes ``[dockerbackup] archive_host_conn_ids``.
    :raises ConfigurationError: when it is no list.
    """
    if isinstance(conn_ids, str):
        raise ConfigurationError(f"archive_host_conn_ids: expected a list of connection ids, got {conn_ids!r}")

    @contextmanager
    def reach(host: str) -> Iterator[HostFiles]:
        known = tuple(_configured() if conn_ids is None else conn_ids)
        with DockerBackupHook(_connection_for(host, known)).docker_host() as docker:
            yield docker.archives

    return reach


def _configured() -> tuple[str, ...]:
    text = conf.get("dockerbackup", "archive_host_conn_ids", fallback="")
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _connection_for(host: str, conn_ids: Sequence[str]) -> str:
    names = {conn_id: HostSettings.of(connection_of(conn_id)).host_name for conn_id in conn_ids}
    found = next((conn_id for conn_id, name in names.items() if name == host), None)
    if found is None:
        shown = ", ".join(f"{conn_id} ({name})" for conn_id, name in names.items()) or "none"
        raise ConfigurationError(
            f"the archive lies on Docker host {host!r}, and no connection of a host of that name is given; known are "
            f"{shown}. Add it to archive_host_conn_ids, or to [dockerbackup] archive_host_conn_ids"
        )
    return found
