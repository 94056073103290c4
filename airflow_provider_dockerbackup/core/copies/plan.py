# SPDX-License-Identifier: Apache-2.0
"""Decide what becomes of each chosen backup, and how much of it travels."""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_dockerbackup.core.bringing.plan import Decision, decision_of, newest_first, standings
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.copies.selection import Selection
from airflow_provider_dockerbackup.core.places import BLOBS_FOLDER, blob_path
from airflow_provider_dockerbackup.core.record import BackupRecord
from airflow_provider_dockerbackup.core.repository import Repository, RepositoryDocument

Form = tuple[str, frozenset[str]]


def form_of(document: RepositoryDocument) -> Form:
    """Return what must be equal in two repositories for bytes to go from one to the other as they are stored."""
    return document.layout, frozenset(each.fingerprint for each in document.recipients)


def goes_as_stored(record: BackupRecord, form: Form) -> bool:
    """Tell whether a backup's bytes are stored as a repository of this form stores them.

    An image's archive of which the record names no layers, such as one on its host, was not scanned when it was taken:
    that is done on its way.

    :param form: of the target.
    """
    layout = "archive" if record.archive is not None else "layers"
    scanned = record.image is None or len(record.image.layers) == len(record.image.diff_ids)
    return scanned and record.path_on_host is None and (layout, frozenset(record.recipients)) == form


def decisions(source: Repository, target: Repository | None, selection: Selection, *, form: Form) -> list[Decision]:
    """Return what becomes of each chosen backup, the newest first; rows, not records.

    Deleted and quarantined backups of the source are none, and are not among them.

    :param target: None when there is none yet.
    :param form: of the target, made or not.
    """
    standing = standings(target)
    travels = _Travels(target, form)
    found = []
    for backup in selection.chosen(source.catalog, now=source.clock.now()):
        decision = decision_of(backup, standing.get(backup.path), todo="copy")
        bytes_ = travels.bytes_of(backup) if decision.state == "copy" else 0
        found.append(replace(decision, source_bytes=bytes_))
    return newest_first(found)


class _Travels:
    """How many bytes of each backup the target lacks; what two of them share is counted once."""

    def __init__(self, target: Repository | None, form: Form) -> None:
        self._form = form
        self._there = {info.path: info.size_bytes for info in target.storage.list(BLOBS_FOLDER)} if target else {}

    def bytes_of(self, backup: Backup) -> int:
        record = backup.whole()
        if record.blobs is None:
            return record.stored_size_bytes if goes_as_stored(record, self._form) else record.size_bytes
        if self._form[0] != "layers":
            return record.size_bytes
        missing = {blob_path(digest): size for digest, size in record.blob_sizes.items()}
        missing = {path: size for path, size in missing.items() if path not in self._there}
        self._there |= missing
        return sum(missing.values())
