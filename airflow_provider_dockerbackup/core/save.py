# SPDX-License-Identifier: Apache-2.0
"""Save an image: stream ``docker save`` into the repository, prove it complete, commit it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_dockerbackup.core import confirm
from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.docker_archive import (
    ArchivedImage,
    DockerArchiveScanner,
    require_image,
)
from airflow_provider_dockerbackup.core.attempt import Attempt, BackupKey, reap, winner_of
from airflow_provider_dockerbackup.core.capture import BackupOutcome, Telling, engine_part, pour
from airflow_provider_dockerbackup.core.configuration import configuration_of, declared_volumes, step_without_values
from airflow_provider_dockerbackup.core.fidelity import image_fidelity
from airflow_provider_dockerbackup.core.model import EngineInfo, ImageInspect
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.record import BackupRecord, History, Image, Layer
from airflow_provider_dockerbackup.core.reference import ImageReference
from airflow_provider_dockerbackup.core.repository import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRequest:
    """What to save.

    :param key: the work; its source's name is the image reference.
    :param actor: who does it: DAG run or user, and software versions.
    :param compression: None for the repository's own.
    :param level: compression level, None for the compression's default.
    :param force: save also when the newest backup holds the same image.
    """

    key: BackupKey
    actor: Mapping[str, str] = field(default_factory=dict)
    compression: Compression | None = None
    level: int | None = None
    force: bool = False


def save_image(request: SaveRequest, *, host: DockerHost, repository: Repository, progress: Progress) -> BackupOutcome:
    """Return the backup of an image, made now, found unchanged, or committed by an earlier try of the same work.

    :raises NotFoundError: when the host has no such image.
    :raises IntegrityError: when the stream is not exactly the announced image; nothing was published.
    :raises TransientError: when the link, the daemon or the storage failed; nothing was published.
    """
    reference = str(ImageReference.parse(request.key.source.name))
    trail = repository.trail(request.actor)
    telling = Telling(trail, key=request.key, access=host.access, progress=progress)
    if (standing := winner_of(repository, request.key)) is not None:
        return BackupOutcome(status="already", backup=standing, audit_head=trail.head)
    reap(repository, request.key.source)
    engine = host.engine()
    image = host.inspect_image(reference)
    if not request.force:
        confirmed = confirm.unchanged(repository, request.key, image, actor=request.actor)
        if confirmed is not None:
            telling.tell("backup.confirmed", outcome="success", backup_id=confirmed.backup_id, image_id=image.id)
            return BackupOutcome(status="unchanged", backup=confirmed, audit_head=trail.head)
    with telling.of_backup():
        return _save(request, host=host, engine=engine, image=image, repository=repository, telling=telling)


def _save(
    request: SaveRequest,
    *,
    host: DockerHost,
    engine: EngineInfo,
    image: ImageInspect,
    repository: Repository,
    telling: Telling,
) -> BackupOutcome:
    compression = request.compression or repository.document.compression
    captured_at = repository.clock.now()
    scanner = DockerArchiveScanner()
    with Attempt(repository, request.key, progress=telling.progress) as attempt:
        sink = attempt.archive("image", compression=compression, level=request.level)
        pour(
            host.save_image(image.id),
            scanner.feed,
            sink,
            progress=telling.progress,
            what=f"docker save {request.key.source.name}",
            estimate_bytes=image.size_bytes,
        )
        archive = scanner.finish()
        require_image(archive, image_id=image.id, diff_ids=image.diff_ids)
        file = sink.publish(content_digest=archive.content_digest)
        configuration = configuration_of(image.config, salt=secrets.token_bytes(16))
        record = BackupRecord(
            backup_id=request.key.backup_id,
            idempotency_key=request.key.idempotency_key,
            attempt=attempt.name,
            source=request.key.source,
            captured_at=captured_at,
            committed_at=repository.clock.now(),
            capture="save",
            engine=engine_part(engine),
            access=dict(host.access),
            actor=dict(request.actor),
            archive=file,
            image=_image_part(image, archive.image),
            configuration=configuration,
            not_covered=declared_volumes(image.config),
            fidelity=image_fidelity(archive.image, image, configuration),
            notes=archive.image.notes,
        )
        backup = attempt.commit(record)
    return telling.committed(backup, attempt=attempt.name)


def _image_part(inspected: ImageInspect, archived: ArchivedImage) -> Image:
    return Image(
        id=inspected.id,
        config_digest=archived.config_digest,
        known_ids=tuple(sorted(archived.image_ids)),
        diff_ids=archived.diff_ids,
        repo_tags=inspected.repo_tags,
        repo_digests=inspected.repo_digests,
        created=inspected.created,
        os=inspected.os,
        architecture=inspected.architecture,
        variant=inspected.variant,
        layers=tuple(
            Layer(
                diff_id=layer.diff_id,
                member=layer.member,
                size_bytes=layer.size_bytes,
                stored_size_bytes=layer.stored_size_bytes,
                compression=Compression(layer.compression),
            )
            for layer in archived.layers
        ),
        history=tuple(
            History(
                created=step.created or "",
                created_by=step_without_values(step.created_by),
                author=step.author,
                comment=step.comment,
                empty_layer=step.empty_layer,
            )
            for step in archived.history
        ),
    )
