# SPDX-License-Identifier: Apache-2.0
"""Put a backup aside whose record cannot be read: it leaves the catalog and blocks nothing, but no byte of it goes."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import compact_time
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import Quarantine
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError, NotFoundError


def quarantine(
    repository: Repository, backup_id: str, *, reason: str, actor: Mapping[str, str], progress: Progress
) -> Backup:
    """Take a backup out of the catalog, and return it as it was there.

    :param backup_id: whole id, or an unambiguous beginning.
    :raises ConfigurationError: when there is no reason.
    :raises NotFoundError: when there is no such backup.
    :raises ConflictError: when it is good: readable, whole and not failed; remove those by rotation.
    """
    _require_reason(reason)
    backup = repository.catalog.find(backup_id)
    if backup.record is not None and backup.complete and backup.trust != "failed":
        raise ConflictError(
            f"{backup.backup_id} of {backup.source} is readable and whole, and no verification of it failed; "
            "quarantine is for damaged backups"
        )
    problem = backup.problem or ("its verification failed" if backup.trust == "failed" else "files are missing")
    now = repository.clock.now()
    path = f"{backup.path}quarantined-{compact_time(now, fraction=True)}.json"
    document = Quarantine(
        backup_id=backup.backup_id, quarantined_at=now, reason=reason, problem=problem, actor=dict(actor)
    )
    repository.storage.create(path, document.to_bytes())
    repository.trail(actor).tell(
        "quarantine.set",
        progress=progress,
        outcome="success",
        source=str(backup.source),
        subject={"backup_id": backup.backup_id, "reason": reason, "problem": problem, "document": path},
    )
    return backup


def lift_quarantine(
    repository: Repository, backup_id: str, *, reason: str, actor: Mapping[str, str], progress: Progress
) -> Backup:
    """Bring a backup back into the catalog, whether it was repaired or not, and return it.

    :raises ConfigurationError: when there is no reason.
    :raises NotFoundError: when no backup in quarantine has this id.
    """
    _require_reason(reason)
    aside = repository.catalog.quarantined()
    found = [each for each in aside if backup_id and each.backup_id.startswith(backup_id)]
    if len(found) != 1:
        names = ", ".join(each.backup_id for each in found or aside) or "none"
        raise NotFoundError(f"expected the id of one backup in quarantine, got {backup_id!r}; there: {names}")
    backup = found[0]
    trail = repository.trail(actor)
    subject = {"backup_id": backup.backup_id, "reason": reason}
    trail.record("quarantine.lifted", outcome="intent", source=str(backup.source), subject=subject)
    for name in backup.sizes:
        if name.startswith("quarantined-"):
            repository.storage.delete(backup.path + name)
    trail.tell("quarantine.lifted", progress=progress, outcome="success", source=str(backup.source), subject=subject)
    return backup


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise ConfigurationError("reason: say why; it is kept in the audit trail")
