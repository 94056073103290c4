# SPDX-License-Identifier: Apache-2.0
"""Which backup covers what stands on a Docker host now: the proof without which nothing is removed there.

Images are known by digests of what they are, containers by IDs that no two engines give, so backups of every host in
the repository count. A record that cannot be read covers nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_dockerbackup.core.archive_bytes import require_on_host
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.model import ContainerInspect, ImageInspect
from airflow_provider_dockerbackup.core.record import BackupRecord
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import Level
from airflow_provider_dockerbackup.exceptions import DockerBackupError

Judge = Callable[[BackupRecord], str | None]
"""Says why a record does not hold a thing as it is now: nothing (``""``) when it does, None when it is of another."""

_TRUST = {
    "none": "not verified",
    "unscanned": "on its host, where nobody has read it yet",
    "checked": "only checked",
    "verified": "verified",
    "failed": "failed",
}


def judge_image(record: BackupRecord, image: ImageInspect) -> str | None:
    """Return ``""`` when the record is of exactly this image, by its ID and all of its layers.

    Else None, or what the backup lacks: layout ``layers`` leaves out other platforms and attestations, which stand
    under the same ID.
    """
    held = record.image
    if held is None or not image.id or image.id not in record.image_ids:
        return None
    if held.diff_ids != image.diff_ids:
        return None
    left = [each.platform or f"{each.kind} {each.digest}" for each in held.others if each.whole and not each.kept]
    if left and image.id == held.id:
        return f"does not hold {', '.join(left)}, which stands under the same ID; a backup in layout 'archive' does"
    return ""


def judge_container(record: BackupRecord, container: ContainerInspect) -> str | None:
    """Return why the record does not hold the container as it is since it stopped; None when it is of another."""
    held = record.container
    if held is None or not container.id or held.id != container.id:
        return None
    if record.capture != "stopped":
        return f"was taken before it stopped (capture {record.capture})"
    if not container.started_at or held.started_at != container.started_at:
        return "was taken before the container was last started"
    if not container.finished_at or held.finished_at != container.finished_at:
        return "was taken before the container last stopped"
    return ""


def reaches(backup: Backup, level: Level) -> bool:
    """Tell whether a verification of this level or a higher one passed, and none failed since."""
    if level == "digests":
        return backup.trust in {"checked", "verified"}
    if level == "load":
        return backup.trust == "verified"
    failed = [each.verified_at for each in backup.verifications if each.verification == "failed"]
    return any(
        each.level == "run" and each.proves_restore and all(each.verified_at > moment for moment in failed)
        for each in backup.verifications
    )


def problem_of(backup: Backup, judge: Judge, level: Level) -> str | None:
    """Return why a backup does not cover the thing: ``""`` when it does, None when it is of something else."""
    if backup.record is None:
        return None
    verdict = judge(backup.record)
    if verdict != "":
        return verdict
    if backup.deleted:
        return "was deleted"
    if not backup.complete:
        return "lacks files, or has files of another size than recorded"
    if not reaches(backup, level):
        return f"is {_TRUST[backup.trust]}, and level {level} is demanded"
    return ""


def covering(repository: Repository, judge: Judge, *, host: str, level: Level) -> tuple[Backup | None, tuple[str, ...]]:
    """Return the newest backup that covers the thing, or None and why those of it do not.

    :param host: the Docker host's name; its own backups are looked at first.
    """
    problems: dict[str, str] = {}
    for scope in (host, None):
        for backup in repository.catalog.backups(host=scope):
            problem = problem_of(backup, judge, level)
            if problem == "" and (problem := _missing_on_host(repository, backup)) == "":
                return backup, ()
            if problem is not None:
                problems[backup.path] = f"{backup.backup_id} {problem}"
    return None, tuple(problems.values())


def _missing_on_host(repository: Repository, backup: Backup) -> str:
    """Return why an archive that lies on a host cannot be counted on; ``""`` for any that can."""
    try:
        require_on_host(repository, backup)
    except DockerBackupError as err:
        return f"is not to be had: {err}"
    return ""
