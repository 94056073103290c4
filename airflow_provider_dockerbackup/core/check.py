# SPDX-License-Identifier: Apache-2.0
"""Compare the catalog with the storage: what is named and missing, what is there and belongs to nobody."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from airflow_provider_dockerbackup.core.catalog import Backup, Catalog
from airflow_provider_dockerbackup.core.onhost.presence import Expected
from airflow_provider_dockerbackup.core.repository import Repository

Problem = Literal[
    "unreadable", "incomplete", "failed", "orphan", "interrupted", "quarantined", "foreign", "unknown", "unasked"
]
# These say that bytes are bad or missing; the others are leftovers, or known, or what nobody could look at.
BAD: frozenset[Problem] = frozenset({"unreadable", "incomplete", "failed"})
_GONE = "put the file back; else 'dockerbackup verify --level digests' writes it down, and 'quarantine' puts it aside"
# What an archive on a Docker host is that is not known to be there, and what to do about it.
_ON_HOST: dict[str, tuple[Problem, str]] = {
    "missing": ("incomplete", _GONE),
    "differs": ("incomplete", _GONE),
    "unknown": ("unknown", "let the SSH user reach and look at it, then check again"),
    "unasked": ("unasked", "name the host: '--archive-host NAME' or '--archive-host NAME=TARGET'"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """One thing that is not as it should be.

    :param path: of the backup's folder, or of the object; of what concerns all archives on a Docker host its name.
    :param advice: what to do about it.
    """

    problem: Problem
    path: str
    detail: str
    advice: str


def check_repository(repository: Repository, *, hosts: Collection[str] = ()) -> tuple[Oddity, ...]:
    """Return what is odd in a repository, without reading archives; level ``digests`` of a verification reads them.

    :param hosts: names of the Docker hosts that are asked, each once, whether they have the archives that lie on them.
    """
    return tuple(_oddities(repository, hosts))


def _oddities(repository: Repository, hosts: Collection[str]) -> Iterator[Oddity]:
    catalog, expected = repository.catalog, Expected()
    for backup in catalog.each():
        expected.add(backup)
        yield from _of_backup(backup)
    for absence in expected.absences(repository, hosts=hosts):
        problem, advice = _ON_HOST[absence.state]
        yield Oddity(problem=problem, path=absence.path, detail=absence.detail, advice=advice)
    yield from _of_nobody(catalog)


def _of_nobody(catalog: Catalog) -> Iterator[Oddity]:
    for source in catalog.sources():
        for path in catalog.orphans(source):
            yield Oddity(
                problem="orphan",
                path=path,
                detail="no record names it",
                advice="a try is at work, or died; the next backup of its source or a rotation removes it",
            )
    for backup in catalog.unfinished_deletions():
        if backup.record is not None and backup.record.blobs is not None:
            continue  # garbage collection removes what is left
        yield Oddity(
            problem="interrupted",
            path=backup.path,
            detail="it was removed, but bytes are there",
            advice="the next rotation finishes it",
        )
    for backup in catalog.quarantined():
        yield Oddity(
            problem="quarantined",
            path=backup.path,
            detail=backup.problem or "put aside",
            advice="'dockerbackup quarantine --lift' brings it back once it is repaired",
        )
    for path in catalog.foreign():
        yield Oddity(
            problem="foreign",
            path=path,
            detail="is no file of this repository",
            advice="it is left alone; remove it by hand if nobody needs it",
        )


def _of_backup(backup: Backup) -> Iterator[Oddity]:
    if backup.record is None:
        yield Oddity(
            problem="unreadable",
            path=backup.path,
            detail=backup.problem,
            advice="its source is not rotated until it is repaired, or put aside: 'dockerbackup quarantine'",
        )
        return
    if not backup.complete:
        yield Oddity(
            problem="incomplete",
            path=backup.path,
            detail="files that its record names are missing or have another size",
            advice="it cannot be restored; 'dockerbackup quarantine' puts it aside",
        )
    if backup.trust == "failed":
        last = backup.last_verification
        yield Oddity(
            problem="failed",
            path=backup.path,
            detail=last.problem if last else "",
            advice="verify it again, or put it aside: 'dockerbackup quarantine'",
        )
