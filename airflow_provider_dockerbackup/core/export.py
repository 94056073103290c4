# SPDX-License-Identifier: Apache-2.0
"""Export a container: its filesystem as one tar, and its configuration beside it, consistent as asked.

Exporting a running container can yield a truncated tar with exit status 0, and pausing it for a network stream is an
outage. So by default a running container is committed, which pauses it for a moment, and the export is taken of a
temporary container made from that image.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import get_args

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.rootfs import Rootfs, RootfsScanner
from airflow_provider_dockerbackup.core.attempt import ArchiveSink, Attempt, BackupKey, reap, winner_of
from airflow_provider_dockerbackup.core.capture import BackupOutcome, Sink, Telling, Tuning, engine_part, pour
from airflow_provider_dockerbackup.core.configuration import (
    configuration_of,
    filesystem_comment,
    filesystem_config,
    uncovered_mounts,
)
from airflow_provider_dockerbackup.core.fidelity import container_fidelity
from airflow_provider_dockerbackup.core.layers.backup import blob_set, layer_store
from airflow_provider_dockerbackup.core.layers.store import LayerStore, LayerWriter
from airflow_provider_dockerbackup.core.model import Consistency, ContainerInspect, EngineInfo, ImageInspect
from airflow_provider_dockerbackup.core.ports import Clock, DockerHost, PausedStream, Progress, RemoteStream
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands, Quiesced, quiesced, require_running
from airflow_provider_dockerbackup.core.record import (
    ArchiveFile,
    BackupRecord,
    BlobSet,
    Consistent,
    Container,
    ContainerCapture,
    DocumentFile,
    Engine,
    Filesystem,
)
from airflow_provider_dockerbackup.core.reference import container_name
from airflow_provider_dockerbackup.core.repository import Repository, check_layers_compression
from airflow_provider_dockerbackup.core.temporary import (
    container_of,
    discard,
    remove_temporary,
    temporary_objects,
    temporary_tag,
    unless_taken_away,
)
from airflow_provider_dockerbackup.core.throttle import Throttle
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    NotFoundError,
    TransientError,
)

_RUNNING = {"running", "restarting"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to export.

    :param key: the work; its source's name is the container's name.
    :param actor: who does it: DAG run or user, and software versions.
    :param consistency: for a running container: ``snapshot`` by commit, ``pause`` for the whole stream, or ``none``.
    :param pause_limit_seconds: with ``snapshot`` and ``pause``: a container that we paused runs again after this long
        whatever happens; a capture that takes longer fails.
    :param commands: run in the container before and after the capture; with ``snapshot`` the second one runs as soon as
        the commit is done, else after the whole stream.
    :param deadline_seconds: after this long temporary images and containers of this try count as left behind.
    :param compression: None for the repository's own.
    :param tuning: how bytes are moved.
    """

    key: BackupKey
    actor: Mapping[str, str] = field(default_factory=dict)
    consistency: Consistency = "snapshot"
    pause_limit_seconds: int = 300
    commands: QuiesceCommands = field(default_factory=QuiesceCommands)
    deadline_seconds: int = 6 * 3600
    compression: Compression | None = None
    tuning: Tuning = field(default_factory=Tuning)


@dataclass(slots=True, kw_only=True)
class _Capturing:
    """The stream of one export, and how it is taken."""

    stream: RemoteStream
    capture: ContainerCapture
    paused: PausedStream | None = None
    commit_seconds: float | None = None
    pause_seconds: float | None = None
    temporary: str | None = None
    rest: Quiesced | None = None

    @property
    def consistency(self) -> Consistent:
        """How far the files agree with each other."""
        if self.rest is not None and self.rest.before_seconds is not None:
            return "quiesced"
        return self.capture


def export_container(
    request: ExportRequest, *, host: DockerHost, repository: Repository, progress: Progress
) -> BackupOutcome:
    """Return the backup of a container, made now or committed by an earlier try of the same work.

    :raises ConfigurationError: when the consistency is unknown or the name is none.
    :raises NotFoundError: when the host has no such container.
    :raises ConflictError: when there are commands and the container does not run; nothing was touched.
    :raises IntegrityError: when the stream is not a whole tar; nothing was published.
    :raises TransientError: when the link, the daemon or the storage failed; nothing was published.
    """
    name = container_name(request.key.source.name)
    request.tuning.check()
    if repository.document.layout == "layers":
        check_layers_compression(request.compression)
    check_consistency(request.consistency, pause_limit_seconds=request.pause_limit_seconds)
    trail = repository.trail(request.actor)
    asked = {"consistency_asked": request.consistency, "pre_command": bool(request.commands.before)}
    telling = Telling(trail, key=request.key, access=host.access, progress=progress, asked=asked)
    if (standing := winner_of(repository, request.key)) is not None:
        return BackupOutcome(status="already", backup=standing, audit_head=trail.head)
    container = host.inspect_container(name)
    require_running(request.commands, host=host, container=container.name, status=container.status)
    reap(repository, request.key.source)
    remove_temporary(host, work=request.key.idempotency_key[:16], progress=progress)
    engine = host.engine()
    with telling.of_backup():
        return _export(request, host=host, engine=engine, container=container, repository=repository, telling=telling)


def check_consistency(consistency: str, *, pause_limit_seconds: int) -> None:
    """Refuse what :class:`ExportRequest` does not take.

    :raises ConfigurationError: when the consistency is unknown or the limit is below 1.
    """
    if consistency not in get_args(Consistency):
        raise ConfigurationError(
            f"consistency: expected one of {', '.join(get_args(Consistency))}, got {consistency!r}"
        )
    check_pause_limit(pause_limit_seconds)


def check_pause_limit(pause_limit_seconds: int) -> None:
    """Refuse a limit that no pause could keep.

    :raises ConfigurationError: when it is below 1.
    """
    if pause_limit_seconds < 1:
        raise ConfigurationError(f"pause_limit_seconds: expected at least 1, got {pause_limit_seconds}")


def _export(
    request: ExportRequest,
    *,
    host: DockerHost,
    engine: EngineInfo,
    container: ContainerInspect,
    repository: Repository,
    telling: Telling,
) -> BackupOutcome:
    image = _image_of(container, host)
    captured_at = repository.clock.now()
    with ExitStack() as within:
        within.enter_context(host.capture_slot(telling.progress.note))
        attempt = within.enter_context(Attempt(repository, request.key, progress=telling.progress))
        described = _container_document(container, image)
        document = attempt.document("container", described)
        sink = _sink(request, attempt, within, progress=telling.progress)
        capturing, rootfs = _capture(
            request,
            host,
            container,
            image,
            sink=sink,
            attempt=attempt.name,
            clock=repository.clock,
            progress=telling.progress,
        )
        if container.status == "paused":
            _require_still_paused(container, host)
        elif capturing.capture == "stopped":
            _require_still_stopped(container, host)
        record = _record(
            request,
            attempt=attempt.name,
            captured_at=captured_at,
            repository=repository,
            host=host,
            engine=engine,
            container=container,
            capturing=capturing,
            rootfs=rootfs,
            place=_placed(request, sink, rootfs, described, attempt, engine=engine_part(engine), at=captured_at),
            document=document,
        )
        backup = attempt.commit(record)
    return telling.committed(backup, attempt=attempt.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LayerSink:
    """Where an export goes in layout ``layers``: one layer, and what belongs to it."""

    store: LayerStore
    writer: LayerWriter

    def write(self, chunk: bytes) -> None:
        """Append a piece."""
        self.writer.write(chunk)


def _sink(
    request: ExportRequest, attempt: Attempt, within: ExitStack, *, progress: Progress
) -> ArchiveSink | _LayerSink:
    """Return what takes the export in the repository's layout; what it holds is released with ``within``."""
    settings = attempt.repository.document
    if settings.layout == "layers":
        store = within.enter_context(layer_store(attempt, tuning=request.tuning, progress=progress))
        return _LayerSink(store=store, writer=within.enter_context(store.layer()))
    return attempt.archive(
        "rootfs", compression=request.compression or settings.compression, level=request.tuning.level
    )


def _placed(
    request: ExportRequest,
    sink: ArchiveSink | _LayerSink,
    rootfs: Rootfs,
    described: bytes,
    attempt: Attempt,
    *,
    engine: Engine,
    at: datetime,
) -> ArchiveFile | BlobSet:
    """Publish an export that was read whole, and return where it is."""
    if not isinstance(sink, _LayerSink):
        return sink.publish(content_digest=rootfs.diff_id)
    key = request.key
    config = filesystem_config(
        json.loads(described),
        engine=engine,
        created=at,
        diff_id=rootfs.diff_id,
        comment=filesystem_comment(key.source.name, key.backup_id),
    )
    return blob_set(
        config,
        [sink.writer.publish(diff_id=rootfs.diff_id)],
        store=sink.store,
        attempt=attempt,
        size_bytes=rootfs.size_bytes,
        received_bytes=rootfs.size_bytes,
    )


def _capture(
    request: ExportRequest,
    host: DockerHost,
    container: ContainerInspect,
    image: ImageInspect | None,
    *,
    sink: Sink,
    attempt: str,
    clock: Clock,
    progress: Progress,
) -> tuple[_Capturing, Rootfs]:
    """Write the container's filesystem to the sink, the application at rest for as long as it must be."""
    scanner = RootfsScanner()
    with quiesced(
        request.commands, host=host, container=container.name, status=container.status, clock=clock, progress=progress
    ) as rest:
        capturing = _begin(request, host, container, attempt=attempt, clock=clock, progress=progress, rest=rest)
        with temporary_objects(host, capturing.temporary, progress) if capturing.temporary else nullcontext():
            pour(
                capturing.stream,
                scanner.feed,
                sink,
                throttle=Throttle(clock, request.tuning.bandwidth_limit),
                progress=progress,
                what=f"docker export {container.name}",
                estimate_bytes=image.size_bytes if image else None,
            )
    capturing.rest = rest
    if capturing.paused is not None:
        capturing.pause_seconds = capturing.paused.pause_seconds
    _tell_pause(capturing, container, progress)
    return capturing, scanner.finish()


def _tell_pause(capturing: _Capturing, container: ContainerInspect, progress: Progress) -> None:
    """Tell how long the container was paused; what should have been taken of a paused one and was not is a crash."""
    if capturing.pause_seconds is not None:
        progress.note(f"container {container.name} was paused for {capturing.pause_seconds} s")
    elif container.status in _RUNNING and capturing.capture in {"snapshot", "paused"}:
        capturing.capture = "crash"
        progress.note(
            f"WARNING: container {container.name} could not be paused: it was restarting, had just stopped, or "
            "somebody else paused it; the backup says crash"
        )


def _begin(
    request: ExportRequest,
    host: DockerHost,
    container: ContainerInspect,
    *,
    attempt: str,
    clock: Clock,
    progress: Progress,
    rest: Quiesced,
) -> _Capturing:
    """Return the stream to read, by what the container does now and what was asked."""
    if container.status == "paused":
        return _Capturing(stream=host.export_container(container.id), capture="paused")
    if container.status not in _RUNNING:
        return _Capturing(stream=host.export_container(container.id), capture="stopped")
    if request.consistency == "none":
        return _Capturing(stream=host.export_container(container.id), capture="crash")
    if request.consistency == "pause":
        stream = host.export_paused(container.id, limit_seconds=request.pause_limit_seconds)
        return _Capturing(stream=stream, capture="paused", paused=stream)
    return _snapshot(request, host, container, attempt=attempt, clock=clock, progress=progress, rest=rest)


def _require_still_paused(container: ContainerInspect, host: DockerHost) -> None:
    """Refuse what was exported when whoever had paused the container woke it meanwhile."""
    now = host.inspect_container(container.id)
    if now.status != "paused" or now.started_at != container.started_at:
        raise TransientError(
            f"container {container.name} on {host.name} was paused by somebody else and woken while it was exported, "
            "so what came is not of one moment; nothing was published, try again"
        )


def _require_still_stopped(container: ContainerInspect, host: DockerHost) -> None:
    """Refuse what was exported when somebody started the container meanwhile: it is not of one moment."""
    now = host.inspect_container(container.id)
    if now.status in _RUNNING or now.started_at != container.started_at:
        raise TransientError(
            f"container {container.name} on {host.name} was started while it was exported, so what came is not of one "
            "moment; nothing was published, try again"
        )


def _snapshot(
    request: ExportRequest,
    host: DockerHost,
    container: ContainerInspect,
    *,
    attempt: str,
    clock: Clock,
    progress: Progress,
    rest: Quiesced,
) -> _Capturing:
    expires = int(host.now().timestamp()) + request.deadline_seconds
    image = temporary_tag(request.key.idempotency_key[:16], attempt, expires=expires)
    temporary = container_of(image)
    began = clock.monotonic()
    try:
        paused = _commit(request, host, container, image=image)
        seconds = round(clock.monotonic() - began, 3)
        rest.end()
        with unless_taken_away(host, image):
            host.create_container(image, name=temporary)
        stream = host.export_temporary(temporary, image=image)
    except BaseException:
        rest.end()
        discard(host, image, progress)
        raise
    return _Capturing(stream=stream, capture="snapshot", commit_seconds=seconds, pause_seconds=paused, temporary=image)


def _commit(request: ExportRequest, host: DockerHost, container: ContainerInspect, *, image: str) -> float | None:
    """Commit to a temporary image and return how long the container was paused for it; None when it was not."""
    message = "temporary, for an export"
    if container.status == "restarting":  # cannot be paused, and may never do anything else
        host.commit_container(container.id, reference=image, message=message, pause=False)
        return None
    limit = request.pause_limit_seconds
    return host.commit_paused(container.id, reference=image, message=message, limit_seconds=limit).pause_seconds


def _image_of(container: ContainerInspect, host: DockerHost) -> ImageInspect | None:
    """Return the image a container was created from; it may be gone while the container lives."""
    try:
        return host.inspect_image(container.image_id)
    except NotFoundError:
        return None


def _container_document(container: ContainerInspect, image: ImageInspect | None) -> bytes:
    document = {
        "schema_version": "1.0",
        "container": dict(container.document),
        "image": dict(image.document) if image is not None else None,
    }
    # Not canonical JSON: inspect documents may hold integers beyond 2^53, which that cannot carry.
    return json.dumps(document, sort_keys=True).encode()


def _record(
    request: ExportRequest,
    *,
    attempt: str,
    captured_at: datetime,
    repository: Repository,
    host: DockerHost,
    engine: EngineInfo,
    container: ContainerInspect,
    capturing: _Capturing,
    rootfs: Rootfs,
    place: ArchiveFile | BlobSet,
    document: DocumentFile,
) -> BackupRecord:
    configuration = configuration_of(container.config, salt=secrets.token_bytes(16))
    return BackupRecord(
        backup_id=request.key.backup_id,
        idempotency_key=request.key.idempotency_key,
        attempt=attempt,
        source=request.key.source,
        captured_at=captured_at,
        committed_at=repository.clock.now(),
        capture=capturing.capture,
        consistency=capturing.consistency,
        engine=engine_part(engine),
        access=dict(host.access),
        actor=dict(request.actor),
        archive=place if isinstance(place, ArchiveFile) else None,
        blobs=place if isinstance(place, BlobSet) else None,
        encryption=repository.encryption,
        recipients=repository.recipients,
        filesystem=Filesystem(diff_id=rootfs.diff_id, tree_digest=rootfs.tree_digest, members=rootfs.members),
        container=Container(
            id=container.id,
            name=container.name,
            status=container.status,
            image_id=container.image_id,
            image_reference=container.image_reference,
            created=container.created,
            started_at=container.started_at,
            finished_at=container.finished_at,
            commit_seconds=capturing.commit_seconds,
            pause_seconds=capturing.pause_seconds,
            pre_command_seconds=capturing.rest.before_seconds if capturing.rest else None,
            configuration_file=document,
        ),
        configuration=configuration,
        not_covered=uncovered_mounts(container.mounts),
        fidelity=container_fidelity(container, configuration, capture=capturing.capture, rootfs=rootfs),
        notes=tuple(capturing.rest.problems) if capturing.rest else (),
    )
