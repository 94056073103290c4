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
from typing import Any

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
from airflow_provider_dockerbackup.core.consistency import (
    Asked,
    Taken,
    begin_capture,
    check_consistency,
    require_still,
    stream_of,
    tell_pause,
)
from airflow_provider_dockerbackup.core.fidelity import container_fidelity
from airflow_provider_dockerbackup.core.layers.backup import blob_set, layer_store
from airflow_provider_dockerbackup.core.layers.store import LayerStore, LayerWriter
from airflow_provider_dockerbackup.core.model import Consistency, ContainerInspect, EngineInfo, ImageInspect, JsonObject
from airflow_provider_dockerbackup.core.ports import Clock, DockerHost, Progress
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands, quiesced, require_running
from airflow_provider_dockerbackup.core.record import (
    ArchiveFile,
    BackupRecord,
    BlobSet,
    Container,
    DocumentFile,
    Engine,
    Filesystem,
)
from airflow_provider_dockerbackup.core.reference import container_name
from airflow_provider_dockerbackup.core.repository import Repository, check_layers_compression
from airflow_provider_dockerbackup.core.retention.policy import check_own_policy
from airflow_provider_dockerbackup.core.temporary import (
    remove_temporary,
    temporary_objects,
)
from airflow_provider_dockerbackup.core.throttle import Throttle
from airflow_provider_dockerbackup.exceptions import (
    NotFoundError,
)


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
    :param retention: the source's own retention policy, empty for none; None when nobody looked.
    """

    key: BackupKey
    actor: Mapping[str, str] = field(default_factory=dict)
    consistency: Consistency = "snapshot"
    pause_limit_seconds: int = 300
    commands: QuiesceCommands = field(default_factory=QuiesceCommands)
    deadline_seconds: int = 6 * 3600
    compression: Compression | None = None
    tuning: Tuning = field(default_factory=Tuning)
    retention: str | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """How the capture is to be taken, for events."""
        return {"consistency_asked": self.consistency, "pre_command": bool(self.commands.before)}

    def check(self, repository: Repository) -> None:
        """Refuse what a repository cannot do, or nobody can mean.

        :raises ConfigurationError: names the value.
        """
        self.tuning.check()
        check_own_policy(self.retention)
        if repository.document.layout == "layers":
            check_layers_compression(self.compression)
        check_consistency(self.consistency, pause_limit_seconds=self.pause_limit_seconds)


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
    request.check(repository)
    trail = repository.trail(request.actor)
    telling = Telling(trail, key=request.key, access=host.access, progress=progress, asked=request.asked)
    if (standing := winner_of(repository, request.key)) is not None:
        return BackupOutcome(status="already", backup=standing, audit_head=trail.head)
    container = host.inspect_container(name)
    require_running(request.commands, host=host, container=container.name, status=container.status)
    reap(repository, request.key.source)
    remove_temporary(host, work=request.key.idempotency_key[:16], progress=progress)
    host.expect_stream()
    engine = host.engine()
    with telling.of_backup():
        return _export(request, host=host, engine=engine, container=container, repository=repository, telling=telling)


def _export(
    request: ExportRequest,
    *,
    host: DockerHost,
    engine: EngineInfo,
    container: ContainerInspect,
    repository: Repository,
    telling: Telling,
) -> BackupOutcome:
    image = image_of(container, host)
    captured_at = repository.clock.now()
    with ExitStack() as within:
        within.enter_context(host.capture_slot(telling.progress.note))
        attempt = within.enter_context(Attempt(repository, request.key, progress=telling.progress))
        described = container_document_of(container, image.document if image is not None else None)
        document = attempt.document("container", described)
        sink = _sink(request, attempt, within, progress=telling.progress)
        taken, rootfs = _capture(
            request,
            host,
            container,
            image,
            sink=sink,
            attempt=attempt.name,
            clock=repository.clock,
            progress=telling.progress,
        )
        record = export_record(
            request,
            attempt=attempt.name,
            captured_at=captured_at,
            repository=repository,
            access=host.access,
            engine=engine,
            container=container,
            taken=taken,
            filesystem=filesystem_of(rootfs),
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
) -> tuple[Taken, Rootfs]:
    """Write the container's filesystem to the sink, the application at rest for as long as it must be."""
    scanner, asked = RootfsScanner(), asked_of(request)
    with quiesced(
        request.commands, host=host, container=container.name, status=container.status, clock=clock, progress=progress
    ) as rest:
        capturing = begin_capture(asked, host, container, attempt=attempt, clock=clock, progress=progress, rest=rest)
        stream = stream_of(capturing, asked, host)
        with temporary_objects(host, capturing.temporary, progress) if capturing.temporary else nullcontext():
            pour(
                stream,
                scanner.feed,
                sink,
                throttle=Throttle(clock, request.tuning.bandwidth_limit),
                progress=progress,
                what=f"docker export {container.name}",
                estimate_bytes=image.size_bytes if image else None,
            )
    if capturing.paused is not None:
        capturing.pause_seconds = capturing.paused.pause_seconds
    tell_pause(capturing, container, progress)
    rootfs = scanner.finish()
    require_still(capturing, container, host)
    return capturing.taken(rest), rootfs


def asked_of(request: ExportRequest) -> Asked:
    """Return what the capture is to be."""
    return Asked(
        consistency=request.consistency,
        pause_limit_seconds=request.pause_limit_seconds,
        deadline_seconds=request.deadline_seconds,
        work=request.key.idempotency_key[:16],
    )


def image_of(container: ContainerInspect, host: DockerHost) -> ImageInspect | None:
    """Return the image a container was created from; it may be gone while the container lives."""
    try:
        return host.inspect_image(container.image_id)
    except NotFoundError:
        return None


def container_document_of(container: ContainerInspect, image: JsonObject | None) -> bytes:
    """Return ``container-<attempt>.json``: the container's whole inspect document and its image's; secret-bearing."""
    document = {
        "schema_version": "1.0",
        "container": dict(container.document),
        "image": dict(image) if image is not None else None,
    }
    # Not canonical JSON: inspect documents may hold integers beyond 2^53, which that cannot carry.
    return json.dumps(document, sort_keys=True).encode()


def filesystem_of(rootfs: Rootfs) -> Filesystem:
    """Return what a record says of a filesystem that was read."""
    return Filesystem(diff_id=rootfs.diff_id, tree_digest=rootfs.tree_digest, members=rootfs.members)


def export_record(
    request: ExportRequest,
    *,
    attempt: str,
    captured_at: datetime,
    repository: Repository,
    access: Mapping[str, str],
    engine: EngineInfo,
    container: ContainerInspect,
    taken: Taken,
    filesystem: Filesystem,
    rootfs: Rootfs | None,
    place: ArchiveFile | BlobSet,
    document: DocumentFile,
) -> BackupRecord:
    """Return the record of an export.

    :param filesystem: what is known of it.
    :param rootfs: what was read; None when nobody but its host has read it.
    """
    configuration = configuration_of(container.config, salt=secrets.token_bytes(16))
    return BackupRecord(
        backup_id=request.key.backup_id,
        idempotency_key=request.key.idempotency_key,
        attempt=attempt,
        source=request.key.source,
        captured_at=captured_at,
        committed_at=repository.clock.now(),
        capture=taken.capture,
        consistency=taken.consistency,
        engine=engine_part(engine),
        access=dict(access),
        actor=dict(request.actor),
        archive=place if isinstance(place, ArchiveFile) else None,
        blobs=place if isinstance(place, BlobSet) else None,
        encryption=repository.encryption,
        recipients=repository.recipients,
        retention=request.retention,
        filesystem=filesystem,
        container=_container_part(container, taken, document),
        configuration=configuration,
        not_covered=uncovered_mounts(container.mounts),
        fidelity=container_fidelity(container, configuration, capture=taken.capture, rootfs=rootfs),
        notes=taken.problems,
    )


def _container_part(container: ContainerInspect, taken: Taken, document: DocumentFile) -> Container:
    return Container(
        id=container.id,
        name=container.name,
        status=container.status,
        image_id=container.image_id,
        image_reference=container.image_reference,
        created=container.created,
        started_at=container.started_at,
        finished_at=container.finished_at,
        commit_seconds=taken.commit_seconds,
        pause_seconds=taken.pause_seconds,
        pre_command_seconds=taken.pre_command_seconds,
        configuration_file=document,
    )
