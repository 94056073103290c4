# SPDX-License-Identifier: Apache-2.0
"""Remove an image or a container from its Docker host, never before a verified backup of exactly it exists.

Volumes stay, nothing is forced, and when the intent cannot be written to the audit trail nothing is removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.change import Change
from airflow_provider_dockerbackup.core.cover import Judge, covering, judge_container, judge_image, problem_of, reaches
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.reference import ImageReference, container_name
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import Level
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
)

Status = Literal["removed", "untagged", "already"]
_AT_REST = frozenset({"exited", "created", "dead"})
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveRequest:
    """What to remove from its host.

    :param kind: an image or a container.
    :param name: ``name:tag`` or ID of the image; name or full ID of the container.
    :param required_level: the verification that its backup must have passed, or a higher one.
    :param compare_files: export a container once more and compare every byte with its backup.
    :param dry_run: check everything and say what would be done, but do not touch the host.
    :param actor: who does it: DAG run or user, and software versions.
    """

    kind: SourceKind
    name: str
    required_level: Level = "load"
    compare_files: bool = False
    dry_run: bool = False
    actor: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveOutcome:
    """What was removed, or would be.

    :param status: ``removed``; ``untagged`` when only the tag went because the image has others; ``already`` when it
        was not there and a backup of it is.
    :param object_id: the host's ID of it; empty when it was not there.
    :param backup: the backup that covers it.
    :param volumes_left: names of the container's volumes, which stay on the host.
    :param audit_head: digest of the newest audit event of this try; None in a dry run.
    """

    source: Source
    status: Status
    object_id: str
    backup: Backup
    volumes_left: tuple[str, ...]
    audit_head: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What stands on the host now.

    :param given: what Docker is told to remove: an ID where that is possible, for an ID never comes to mean another.
    :param state: what must be the same right before the removal.
    """

    id: str
    given: str
    status: Literal["removed", "untagged"]
    judge: Judge
    state: tuple[str, ...]
    volumes: tuple[str, ...] = ()


def remove_source(
    request: RemoveRequest, *, host: DockerHost, repository: Repository, progress: Progress
) -> RemoveOutcome:
    """Return what was removed from the host and which backup covers it.

    A run that follows one that was killed after the removal finds it ``already`` done.

    :raises ConfigurationError: when the name or the level is none.
    :raises NotFoundError: when the host has no such thing, and the repository no backup of it that would do.
    :raises ConflictError: when no backup covers it, when it is in use or runs, or when it changed meanwhile; nothing
        was removed.
    :raises TransientError: when the audit trail could not be written, then nothing was removed; or the link failed.
    """
    name = _checked_name(request)
    source = Source(host=host.name, kind=request.kind, name=name)
    trail = repository.trail(request.actor)
    change = Change(trail, source=source, host=host, progress=progress)
    try:
        target = _look(source, host)
    except NotFoundError as err:
        backup = _backup_of_gone(source, repository, request.required_level)
        if backup is None:
            raise
        if not request.dry_run:
            change.tell("remove.done", "success", status="already", backup_id=backup.backup_id)
        progress.note(f"{source} is not there ({err}); backup {backup.backup_id} is one of it")
        return _outcome(source, "already", None, backup, change)
    backup = _covered(target, source, repository, request.required_level)
    if request.compare_files and request.kind is SourceKind.CONTAINER:
        _require_same_files(backup, target, source, host, progress)
    if request.dry_run:
        return _outcome(source, target.status, target, backup, change)
    about = {"id": target.id, "backup_id": backup.backup_id, "required_level": request.required_level}
    change.intends("remove.started", **about, volumes_left=list(target.volumes))
    with change.or_failed("remove.failed", **about):
        _require_covered_still(backup, target, source, repository, request.required_level)
        status = _remove(target, source, host)
    change.tell("remove.done", "success", **about, status=status)
    return _outcome(source, status, target, backup, change)


def _checked_name(request: RemoveRequest) -> str:
    if request.required_level not in get_args(Level):
        raise ConfigurationError(
            f"required_level: expected one of {', '.join(get_args(Level))}, got {request.required_level!r}"
        )
    if request.kind is SourceKind.CONTAINER:
        return container_name(request.name)
    parsed = ImageReference.parse(request.name)
    if parsed.repository and parsed.digest:
        raise ConfigurationError(f"image: expected NAME:TAG or an ID sha256:…, got {request.name!r}")
    return str(parsed)


def _look(source: Source, host: DockerHost) -> _Target:
    """Return what the source is now.

    :raises NotFoundError: when it is not there.
    :raises ConflictError: when it cannot be removed as it is.
    """
    return _container(source, host) if source.kind is SourceKind.CONTAINER else _image(source, host)


def _container(source: Source, host: DockerHost) -> _Target:
    found = host.inspect_container(source.name)
    if source.name not in {found.name, found.id}:  # the name is the beginning of another container's ID
        raise NotFoundError(f"no container {source.name} on {host.name}; write its whole name or ID")
    if found.status not in _AT_REST:
        raise ConflictError(
            f"container {found.name} on {host.name} is {found.status} and is not removed; stop it, export it, verify "
            "that backup, then remove it"
        )
    return _Target(
        id=found.id,
        given=found.id,
        status="removed",
        judge=partial(judge_container, container=found),
        state=(found.id, found.status, found.started_at, found.finished_at),
        volumes=tuple(str(each.get("Name") or "") for each in found.mounts if each.get("Type") == "volume"),
    )


def _image(source: Source, host: DockerHost) -> _Target:
    image = host.inspect_image(source.name)
    tags = image.repo_tags
    by_id = not ImageReference.parse(source.name).repository
    if by_id and len(tags) > 1:
        raise ConflictError(
            f"image {source.name} on {host.name} has several tags: {', '.join(tags)}; remove them one by one, by name"
        )
    if not by_id and source.name not in tags:
        raise ConfigurationError(
            f"image: {source.name} stands for an image that {host.name} lists as {', '.join(tags) or image.id}; "
            "name it as listed"
        )
    only_untag = len(tags) > 1
    if not only_untag:
        users = sorted(each.name for each in host.list_containers() if each.image_id == image.id)
        if users:
            raise ConflictError(
                f"image {source.name} on {host.name} is used by container {', '.join(users[:_SHOWN])}"
                f"{' and others' if len(users) > _SHOWN else ''}; remove what uses it first"
            )
    return _Target(
        id=image.id,
        given=source.name if only_untag else image.id,
        status="untagged" if only_untag else "removed",
        judge=partial(judge_image, image=image),
        state=(image.id, *sorted(tags)),
    )


def _covered(target: _Target, source: Source, repository: Repository, level: Level) -> Backup:
    """Return the backup that covers the target.

    :raises ConflictError: when there is none; says what those that are near to it lack.
    """
    backup, problems = covering(repository, target.judge, host=source.host, level=level)
    if backup is not None:
        return backup
    again = "save it" if source.kind is SourceKind.IMAGE else "export it now that it is stopped"
    near = "; ".join(problems[:_SHOWN]) or "there is no backup of it"
    raise ConflictError(
        f"{source} is not removed: no backup in {repository.storage.url} holds it as it is now and passed level "
        f"{level}: {near}; {again}, verify that backup, then remove it"
    )


def _require_same_files(backup: Backup, target: _Target, source: Source, host: DockerHost, progress: Progress) -> None:
    """Export the container once more: of one that nothing changed, engines write the same bytes again."""
    record, digest = backup.whole(), hashlib.sha256()
    progress.start(f"compare {source} with backup {backup.backup_id}", record.size_bytes)
    stream = host.export_container(target.id)
    try:
        for chunk in stream:
            digest.update(chunk)
            progress.advance(len(chunk))
    finally:
        stream.close()
        progress.finish()
    if record.diff_ids != (f"sha256:{digest.hexdigest()}",):
        raise ConflictError(
            f"{source} is not removed: its files are not those of backup {backup.backup_id}; something was put into it "
            "since (docker cp), or the engine is another now; export it again, verify that backup, then remove it"
        )


def _require_covered_still(
    backup: Backup, target: _Target, source: Source, repository: Repository, level: Level
) -> None:
    again = repository.catalog.at(backup.path)
    problem = "is gone" if again is None else problem_of(again, target.judge, level)
    if problem != "":
        raise ConflictError(
            f"{source} is not removed: backup {backup.backup_id} {problem or 'is not readable'} since it was looked "
            "at; run it again"
        )


def _remove(target: _Target, source: Source, host: DockerHost) -> Status:
    """Look once more, remove, and return what became of it."""
    try:
        now = _look(source, host)
    except NotFoundError:
        return "already"
    if (now.state, now.given) != (target.state, target.given):
        raise ConflictError(
            f"{source} is not removed: it changed while its backup was looked for; run it again, to compare it anew"
        )
    if source.kind is SourceKind.CONTAINER:
        host.remove_container_keeping_volumes(target.given)
        return "removed"
    host.remove_image(target.given)
    try:
        host.inspect_image(target.id)
    except NotFoundError:
        return "removed"
    return "untagged"


def _backup_of_gone(source: Source, repository: Repository, level: Level) -> Backup | None:
    """Return the newest backup that would have allowed the removal of what is not there; None tells a mistyped name."""
    for backup in repository.catalog.backups(host=source.host):
        record = backup.record
        if record is None or record.source.kind is not source.kind:
            continue
        ids = record.image_ids
        if record.container is not None:
            if record.capture != "stopped":
                continue
            ids = frozenset({record.container.id, record.container.name})
        if source.name in {record.source.name, *ids} and backup.complete and reaches(backup, level):
            return backup
    return None


def _outcome(source: Source, status: Status, target: _Target | None, backup: Backup, change: Change) -> RemoveOutcome:
    return RemoveOutcome(
        source=source,
        status=status,
        object_id=target.id if target else "",
        backup=backup,
        volumes_left=target.volumes if target else (),
        audit_head=change.head,
    )
