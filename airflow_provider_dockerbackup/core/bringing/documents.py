# SPDX-License-Identifier: Apache-2.0
"""What is written about a backup that was brought: its record, adapted, and the documents that go with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from airflow_provider_dockerbackup.core.bringing.plan import carried
from airflow_provider_dockerbackup.core.bringing.transfer import Placed
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.fidelity import fidelity_in_layers, notes_on_others
from airflow_provider_dockerbackup.core.record import BackupRecord, DocumentFile
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import Verification
from airflow_provider_dockerbackup.exceptions import ConflictError


def converted_record(
    record: BackupRecord,
    placed: Placed,
    *,
    source: Repository,
    target: Repository,
    attempt: str,
    configuration_file: DocumentFile | None,
    done: str = "converted",
) -> BackupRecord:
    """Return a backup's record in another repository: the same backup, of the same moment, in other files.

    :param placed: where those are.
    :param attempt: random name of the try that wrote them.
    :param configuration_file: of a container.
    :param done: what was done with it, for a note.
    """
    container, now = record.container, target.clock.now()
    if container is not None:
        container = container.model_copy(update={"configuration_file": configuration_file})
    fidelity, notes = record.fidelity, list(record.notes)
    if record.blobs is None and placed.blobs is not None and placed.image is not None:
        fidelity = fidelity_in_layers(fidelity, placed.image)
        notes += [each for each in notes_on_others(placed.image.others) if each not in notes]
    origin = source.document
    notes.append(f"{done} from layout {origin.layout} of repository {origin.repository_id} at {_shown(now)}")
    return record.model_copy(
        update={
            "attempt": attempt,
            "committed_at": now,
            "archive": placed.archive,
            "blobs": placed.blobs,
            "encryption": target.encryption,
            "recipients": target.recipients,
            "image": placed.image,
            "filesystem": placed.filesystem or record.filesystem,
            "container": container,
            "fidelity": fidelity,
            "notes": tuple(notes),
        }
    )


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def carry_documents(
    source: Repository,
    target: Repository,
    backup: Backup,
    *,
    present: Collection[str] = (),
    confirmations: bool = True,
    failures: bool = False,
) -> tuple[str, ...]:
    """Copy the documents that go with a backup, and return their paths.

    Confirmations are its points, holds and releases exempt it from rotation; a hold comes before its release. Passed
    verifications were made of other bytes and stay behind.

    :param present: names of those that are known to be there, and are left out.
    :param confirmations: whether they go with it.
    :param failures: also copy the failed verifications of a backup whose last one failed: what was wrong with it may be
        wrong with the image, so it counts for as little as it did.
    :raises ConflictError: when the target has another document under one of their names.
    """
    names = carried(backup.sizes, confirmations=confirmations) - set(present)
    wanted = {name: source.storage.read(backup.path + name) for name in sorted(names)}
    if failures and backup.trust == "failed":
        wanted |= _failures(source, backup)
    for name, data in wanted.items():
        _create(target, backup.path + name, data)
    return tuple(backup.path + name for name in wanted)


def _failures(source: Repository, backup: Backup) -> Mapping[str, bytes]:
    found = {}
    for name in sorted(name for name in backup.sizes if name.startswith("verification-")):
        data = source.storage.read(backup.path + name)
        if Verification.from_bytes(data, where=backup.path + name).verification == "failed":
            found[name] = data
    return found


def _create(target: Repository, path: str, data: bytes) -> None:
    """Write a document; the same one may be there, from a run that was cut or from one at the same time."""
    try:
        target.storage.create(path, data)
    except ConflictError as err:
        if target.storage.read(path) != data:
            raise ConflictError(
                f"{target.storage.url}/{path} is there already and is another document than the source's; nothing was "
                "changed. Which of the two holds?"
            ) from err
