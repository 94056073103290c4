# SPDX-License-Identifier: Apache-2.0
"""Save an image: stream ``docker save`` into the repository, prove it complete, commit it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from airflow_provider_dockerbackup.core import confirm
from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.docker_archive import (
    ArchivedImage,
    DockerArchiveScanner,
    require_image,
)
from airflow_provider_dockerbackup.core.archive.layer_reader import limits_for
from airflow_provider_dockerbackup.core.attempt import Attempt, BackupKey, reap, winner_of
from airflow_provider_dockerbackup.core.capture import BackupOutcome, Telling, Tuning, engine_part, pour
from airflow_provider_dockerbackup.core.configuration import configuration_of, declared_volumes
from airflow_provider_dockerbackup.core.fidelity import image_fidelity, notes_on_others, other_manifests
from airflow_provider_dockerbackup.core.image_part import image_part, layers_in
from airflow_provider_dockerbackup.core.layers.backup import (
    fetch_image,
    image_blobs,
    known_ids,
    layer_store,
    layers_read_back,
)
from airflow_provider_dockerbackup.core.layers.choice import CaptureChoice, check_capture
from airflow_provider_dockerbackup.core.layers.store import LayerStore
from airflow_provider_dockerbackup.core.model import EngineInfo, ImageInspect
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.record import (
    ArchiveFile,
    BackupRecord,
    BlobSet,
    Image,
)
from airflow_provider_dockerbackup.core.reference import ImageReference
from airflow_provider_dockerbackup.core.repository import Repository, check_layers_compression
from airflow_provider_dockerbackup.core.retention.policy import check_own_policy
from airflow_provider_dockerbackup.core.throttle import Throttle
from airflow_provider_dockerbackup.exceptions import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRequest:
    """What to save.

    :param key: the work; its source's name is the image reference.
    :param actor: who does it: DAG run or user, and software versions.
    :param compression: None for the repository's own.
    :param capture: how layout ``layers`` fetches: ``push``, ``save``, or ``auto`` for what is expected to be faster.
    :param tuning: how bytes are moved.
    :param force: save also when the newest backup holds the same image.
    :param retention: the source's own retention policy, empty for none; None when nobody looked.
    """

    key: BackupKey
    actor: Mapping[str, str] = field(default_factory=dict)
    compression: Compression | None = None
    capture: CaptureChoice = "auto"
    tuning: Tuning = field(default_factory=Tuning)
    force: bool = False
    retention: str | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """How the capture is to be taken, for events."""
        return {}

    def check(self, repository: Repository) -> None:
        """Refuse what a repository cannot do.

        :raises ConfigurationError: names the value.
        """
        self.tuning.check()
        check_own_policy(self.retention)
        check_capture(self.capture)
        if repository.document.layout == "layers":
            check_layers_compression(self.compression)
        elif self.capture == "push":
            raise ConfigurationError("capture: 'push' is for repositories of layout 'layers'; leave it out")


def save_image(
    request: SaveRequest,
    *,
    host: DockerHost,
    repository: Repository,
    progress: Progress,
    image: ImageInspect | None = None,
) -> BackupOutcome:
    """Return the backup of an image, made now, found unchanged, or committed by an earlier try of the same work.

    :param image: what the host holds by that name, for who has looked just now; None looks.
    :raises ConfigurationError: when the repository's layout does not have that compression or way of fetching.
    :raises NotFoundError: when the host has no such image.
    :raises IntegrityError: when the stream is not exactly the announced image; nothing was published.
    :raises TransientError: when the link, the daemon or the storage failed; nothing was published.
    """
    reference = str(ImageReference.parse(request.key.source.name))
    request.check(repository)
    trail = repository.trail(request.actor)
    telling = Telling(trail, key=request.key, access=host.access, progress=progress)
    if (standing := winner_of(repository, request.key)) is not None:
        return BackupOutcome(status="already", backup=standing, audit_head=trail.head)
    reap(repository, request.key.source)
    image = image or host.inspect_image(reference)
    if not request.force:
        confirmed = confirm.unchanged(repository, request.key, image, actor=request.actor, retention=request.retention)
        if confirmed is not None:
            telling.tell("backup.confirmed", outcome="success", backup_id=confirmed.backup_id, image_id=image.id)
            return BackupOutcome(status="unchanged", backup=confirmed, audit_head=trail.head)
    with telling.of_backup():
        host.expect_stream()
        return _save(request, host=host, engine=host.engine(), image=image, repository=repository, telling=telling)


def _save(
    request: SaveRequest,
    *,
    host: DockerHost,
    engine: EngineInfo,
    image: ImageInspect,
    repository: Repository,
    telling: Telling,
) -> BackupOutcome:
    with (
        host.capture_slot(telling.progress.note),
        Attempt(repository, request.key, progress=telling.progress) as attempt,
    ):
        captured_at = repository.clock.now()
        within: AbstractContextManager[LayerStore | None] = nullcontext()
        if repository.document.layout == "layers":
            within = layer_store(attempt, tuning=request.tuning, progress=telling.progress)
        with within as store:
            if store is None:
                saved = _into_archive(request, host=host, image=image, attempt=attempt, telling=telling)
            else:
                saved = _into_layers(request, host, engine, image, store=store, attempt=attempt, telling=telling)
            record = _record(request, saved, image, attempt=attempt, captured_at=captured_at, host=host, engine=engine)
            backup = attempt.commit(record)
    return telling.committed(backup, attempt=attempt.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saved:
    """An image whose bytes are in the repository, and what the record says of them."""

    archived: ArchivedImage
    capture: Literal["save", "push"]
    image: Image
    archive: ArchiveFile | None = None
    blobs: BlobSet | None = None


def _into_archive(
    request: SaveRequest, *, host: DockerHost, image: ImageInspect, attempt: Attempt, telling: Telling
) -> _Saved:
    """Save an image as one file."""
    repository = attempt.repository
    scanner = DockerArchiveScanner(decompress_limits=limits_for(image.size_bytes))
    compression = request.compression or repository.document.compression
    sink = attempt.archive("image", compression=compression, level=request.tuning.level)
    pour(
        host.save_image(image.id),
        scanner.feed,
        sink,
        throttle=Throttle(repository.clock, request.tuning.bandwidth_limit),
        progress=telling.progress,
        what=f"docker save {request.key.source.name}",
        estimate_bytes=image.size_bytes,
    )
    archive = scanner.finish()
    require_image(archive, image_id=image.id, diff_ids=image.diff_ids)
    archived = archive.image
    return _Saved(
        archived=archived,
        capture="save",
        image=image_part(
            image,
            config_digest=archived.config_digest,
            known_ids=archived.image_ids,
            diff_ids=archived.diff_ids,
            history=archived.history,
            layers=layers_in(archived),
            others=other_manifests(archived.others, kept=True),
        ),
        archive=sink.publish(content_digest=archive.content_digest),
    )


def _into_layers(
    request: SaveRequest,
    host: DockerHost,
    engine: EngineInfo,
    image: ImageInspect,
    *,
    store: LayerStore,
    attempt: Attempt,
    telling: Telling,
) -> _Saved:
    """Fetch what is new of an image, and store that."""
    fetched = fetch_image(
        image,
        host=host,
        engine=engine,
        store=store,
        attempt=attempt,
        capture=request.capture,
        tuning=request.tuning,
        progress=telling.progress,
    )
    layers = layers_read_back(fetched)
    return _Saved(
        archived=fetched.image,
        capture=fetched.capture,
        image=image_part(
            image,
            config_digest=fetched.image.config_digest,
            known_ids=known_ids(fetched),
            diff_ids=fetched.image.diff_ids,
            history=fetched.image.history,
            layers=layers,
            others=other_manifests(fetched.image.others, kept=False),
        ),
        blobs=image_blobs(fetched, store=store, attempt=attempt),
    )


def _record(
    request: SaveRequest,
    saved: _Saved,
    image: ImageInspect,
    *,
    attempt: Attempt,
    captured_at: datetime,
    host: DockerHost,
    engine: EngineInfo,
) -> BackupRecord:
    configuration = configuration_of(image.config, salt=secrets.token_bytes(16))
    return BackupRecord(
        backup_id=request.key.backup_id,
        idempotency_key=request.key.idempotency_key,
        attempt=attempt.name,
        source=request.key.source,
        captured_at=captured_at,
        committed_at=attempt.repository.clock.now(),
        capture=saved.capture,
        engine=engine_part(engine),
        access=dict(host.access),
        actor=dict(request.actor),
        archive=saved.archive,
        blobs=saved.blobs,
        encryption=attempt.repository.encryption,
        recipients=attempt.repository.recipients,
        retention=request.retention,
        image=saved.image,
        configuration=configuration,
        not_covered=declared_volumes(image.config),
        fidelity=image_fidelity(
            saved.archived, image, configuration, others=saved.image.others, stored_anew=saved.blobs is not None
        ),
        notes=(*saved.archived.notes, *notes_on_others(saved.image.others)),
    )
