# SPDX-License-Identifier: Apache-2.0
"""Whether Docker hosts have the archives that lie on them, with their recorded sizes; no byte of them is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from airflow_provider_dockerbackup.core.archive_bytes import host_files
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.onhost.ports import FileOnHost
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import DockerBackupError


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """Archives that are not known to be on their host as recorded.

    :param state: ``missing``, ``differs`` in size, ``unknown`` when the host or its folder did not let us look,
        ``unasked`` when the host was not asked.
    :param path: of the backup's folder in the repository; of what concerns all of a host its name.
    """

    state: Literal["missing", "differs", "unknown", "unasked"]
    path: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """An archive on a host, and the folder of its backup."""

    path: str
    file: str
    size_bytes: int


class Expected:
    """The archives that Docker hosts must have; of each backup it holds no more than that."""

    def __init__(self) -> None:
        self._on: dict[str, list[_Kept]] = {}

    def add(self, backup: Backup) -> None:
        """Expect a backup's archive, if it lies on a host."""
        if backup.record is not None and (file := backup.record.path_on_host) is not None:
            size = backup.record.archive_file.stored_size_bytes
            kept = _Kept(path=backup.path, file=file, size_bytes=size)
            self._on.setdefault(backup.source.host, []).append(kept)

    def absences(self, repository: Repository, *, hosts: Collection[str]) -> Iterator[Absence]:
        """Yield what the hosts do not have as recorded, host by host; each is asked once.

        :param hosts: names of those that are asked.
        """
        for host, kept in sorted(self._on.items()):
            if host in hosts:
                yield from _on_host(repository, host, kept)
            else:
                yield Absence(state="unasked", path=host, detail=f"{len(kept)} archives lie on it; it was not asked")


def _on_host(repository: Repository, host: str, kept: list[_Kept]) -> Iterator[Absence]:
    try:
        with host_files(repository, host) as files:
            found = files.sizes([each.file for each in kept])
    except DockerBackupError as err:
        yield Absence(state="unknown", path=host, detail=f"{len(kept)} archives lie on it: {err}")
        return
    for each in kept:
        # A rotation may have removed it meanwhile.
        if (absence := _absence(host, each, found[each.file])) is not None and _stands(repository, each.path):
            yield absence


def _absence(host: str, kept: _Kept, found: FileOnHost) -> Absence | None:
    where = f"{host}:{kept.file}"
    if found.problem:
        return Absence(state="unknown", path=kept.path, detail=f"{where}: {found.problem}")
    if found.size_bytes is None:
        return Absence(state="missing", path=kept.path, detail=f"{where} is not there")
    if found.size_bytes != kept.size_bytes:
        detail = f"{where} has {found.size_bytes} bytes, the record says {kept.size_bytes}"
        return Absence(state="differs", path=kept.path, detail=detail)
    return None


def _stands(repository: Repository, path: str) -> bool:
    again = repository.catalog.at(path)
    return again is not None and not (again.deleted or again.quarantined)
