# SPDX-License-Identifier: Apache-2.0
"""The bytes of a backup's one archive file, wherever it lies: in the repository, or on its Docker host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFiles, HostFilesFactory


def archive_where(repository: Repository, backup: Backup) -> str:
    """Return where a backup's archive file lies, for messages."""
    record = backup.whole()
    if record.path_on_host is not None:
        return f"{record.source.host}:{record.path_on_host}"
    return f"{repository.storage.url}/{backup.path}{record.archive_file.name}"


def archive_size(repository: Repository, backup: Backup) -> int:
    """Return the size in bytes that a backup's archive file has now.

    :raises NotFoundError: when it is gone.
    :raises ConfigurationError: when it lies on a host that nobody said how to reach.
    """
    record = backup.whole()
    if record.path_on_host is None:
        return repository.storage.stat(backup.path + record.archive_file.name).size_bytes
    with host_files(repository, record.source.host) as files:
        return files.size(record.path_on_host)


@contextmanager
def archive_chunks(repository: Repository, backup: Backup) -> Iterator[Iterator[bytes]]:
    """Stream a backup's archive file as it is stored.

    :raises NotFoundError: when it is gone.
    :raises ConfigurationError: when it lies on a host that nobody said how to reach.
    """
    record = backup.whole()
    if record.path_on_host is None:
        with repository.storage.chunks(backup.path + record.archive_file.name) as chunks:
            yield chunks
        return
    with host_files(repository, record.source.host) as files, files.chunks(record.path_on_host) as chunks:
        yield chunks


def delete_on_host(repository: Repository, backup: Backup) -> int:
    """Remove a backup's archive from its Docker host, if it lies there, and return what it took.

    :raises DockerBackupError: when the host cannot be reached, or does not let us.
    """
    record = backup.whole()
    path = record.path_on_host
    if path is None:
        return 0
    with host_files(repository, record.source.host) as files:
        try:
            size_bytes = files.size(path)
        except NotFoundError:
            return 0
        files.delete(path)
        return size_bytes


def require_on_host(repository: Repository, backup: Backup) -> None:
    """Return only if a backup's archive is there with its recorded size, or does not lie on a host.

    :raises NotFoundError: when it is not.
    :raises DockerBackupError: when the host cannot be reached.
    """
    record = backup.whole()
    if record.path_on_host is None:
        return
    found, recorded = archive_size(repository, backup), record.archive_file.stored_size_bytes
    if found != recorded:
        raise NotFoundError(f"{archive_where(repository, backup)} has {found} bytes, the record says {recorded}")


def only_host(name: str, files: HostFiles) -> HostFilesFactory:
    """Return what gives the archives on the one host that is reached anyway."""

    @contextmanager
    def reach(host: str) -> Iterator[HostFiles]:
        if host != name:
            raise ConfigurationError(f"the archive lies on Docker host {host!r}, and only {name!r} is reached here")
        yield files

    return reach


def host_files(repository: Repository, host: str) -> AbstractContextManager[HostFiles]:
    """Give the archives that lie on a Docker host.

    :raises ConfigurationError: when nobody said how to reach it.
    """
    if repository.host_files is None:
        raise ConfigurationError(
            f"the archive lies on Docker host {host!r}, and nobody said how to reach that; name its connection "
            "(archive_host_conn_ids, or [dockerbackup] archive_host_conn_ids), or give --archive-host"
        )
    return repository.host_files(host)
