# SPDX-License-Identifier: Apache-2.0
"""Verify a backup: read every byte again, and load it into a test daemon to prove that it restores."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, get_args

from airflow_provider_dockerbackup.core.archive.docker_archive import DockerArchiveScanner
from airflow_provider_dockerbackup.core.archive.layer_reader import limits_for
from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import compact_time
from airflow_provider_dockerbackup.core.drill import DrillPlan, run_drill
from airflow_provider_dockerbackup.core.layers.damage import put_right
from airflow_provider_dockerbackup.core.model import ImageInspect
from airflow_provider_dockerbackup.core.ports import Progress, TestDaemon
from airflow_provider_dockerbackup.core.reading import (
    config_digest_of,
    container_bytes,
    load_stream,
    require_readable,
    whole_stream,
)
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import DaemonUsed, Drill, Level, Verification
from airflow_provider_dockerbackup.exceptions import (
    BadBlobError,
    ConfigurationError,
    DockerBackupError,
    IntegrityError,
    NotFoundError,
)

VERIFICATION = "dockerbackup-verification"
TestDaemonFactory = Callable[[], AbstractContextManager[TestDaemon]]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """How to verify.

    :param level: ``digests`` re-reads every byte; ``load`` also loads it into a test daemon and compares; ``run`` also
        runs it there.
    :param drill: how it is run at level ``run``.
    :param actor: who does it: DAG run or user, and software versions.
    """

    level: Level = "load"
    drill: DrillPlan = field(default_factory=DrillPlan)
    actor: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Findings:
    """What one verification found so far."""

    bytes_read: int = 0
    restore_seconds: float | None = None
    cleanup: Literal["passed", "failed", "none"] = "none"
    daemon: DaemonUsed | None = None
    drill: Drill | None = None


def verify_backup(
    backup: Backup,
    request: VerifyRequest,
    *,
    repository: Repository,
    test_daemon: TestDaemonFactory,
    progress: Progress,
) -> Verification:
    """Return the verification of a backup, passed or failed, as it now stands beside the record.

    A backup whose bytes are bad, or which the daemon loads as something else, yields a failed verification; a damaged
    blob that it shares with others is put aside, so that the next backup stores it anew. Anything
    that says nothing about the backup, such as a storage or daemon out of reach, raises and leaves no document.

    :param test_daemon: gives a daemon that is not the source's; not used at level ``digests``.
    :raises ConfigurationError: when the level is unknown, the backup cannot be decrypted, or the daemon is the one
        that the backup came from.
    :raises TransientError: when storage or daemon failed.
    """
    if request.level not in get_args(Level):
        raise ConfigurationError(f"level: expected one of {', '.join(get_args(Level))}, got {request.level!r}")
    request.drill.check()
    require_readable(repository, backup)
    record = backup.whole()
    findings, problem, damaged = _Findings(), "", ""
    running = request.level == "run"
    progress.start(f"verify {record.backup_id} at level {request.level}", record.size_bytes)
    try:
        if request.level == "digests":
            _read_all(repository, backup, findings, progress)
        else:
            with test_daemon() as daemon:
                _load(repository, backup, daemon, findings, progress, drill=request.drill if running else None)
    except (IntegrityError, NotFoundError) as err:
        problem = str(err)
        damaged = err.digest if isinstance(err, BadBlobError) else ""
    finally:
        progress.finish()
    verification = Verification(
        backup_id=record.backup_id,
        level=request.level,
        verified_at=repository.clock.now(),
        verification="failed" if problem else "passed",
        problem=problem,
        restore_seconds=findings.restore_seconds,
        cleanup=findings.cleanup,
        bytes_read=findings.bytes_read,
        daemon=findings.daemon,
        drill=findings.drill,
        actor=dict(request.actor),
    )
    trail = repository.trail(request.actor)
    put_down(verification, backup, repository=repository, trail=trail, progress=progress)
    if damaged:
        put_right(repository, record, damaged, trail=trail, progress=progress)
    return verification


def put_down(
    verification: Verification, backup: Backup, *, repository: Repository, trail: Trail, progress: Progress
) -> None:
    """Write a verification beside the record, and tell the trail of it.

    :raises TransientError: when the storage does not take it.
    """
    path = f"{backup.path}verification-{compact_time(verification.verified_at, fraction=True)}.json"
    repository.storage.create(path, verification.to_bytes())
    trail.tell(
        f"verify.{verification.verification}",
        progress=progress,
        outcome="success" if verification.verification == "passed" else "failure",
        source=str(backup.source),
        subject=verification.model_dump(mode="json", exclude={"actor", "restore_seconds"}) | {"document": path},
    )


def _read_all(repository: Repository, backup: Backup, findings: _Findings, progress: Progress) -> None:
    with whole_stream(repository, backup) as chunks:
        for _ in _counted(chunks, findings, progress):
            pass


def _read_document(repository: Repository, backup: Backup) -> None:
    """Compare a container's configuration with the record: not every restore reads it, and one does."""
    if backup.whole().container is not None:
        container_bytes(repository, backup)


def _counted(chunks: Iterator[bytes], findings: _Findings, progress: Progress) -> Iterator[bytes]:
    for chunk in chunks:
        findings.bytes_read += len(chunk)
        progress.advance(len(chunk))
        yield chunk


def _load(
    repository: Repository,
    backup: Backup,
    daemon: TestDaemon,
    findings: _Findings,
    progress: Progress,
    *,
    drill: DrillPlan | None,
) -> None:
    record = backup.whole()
    engine = daemon.engine()
    if engine.engine_id == record.engine.engine_id:
        raise ConfigurationError(
            f"the test daemon is the daemon that backup {record.backup_id} was taken from (engine {engine.engine_id}); "
            "give another one, or none for a throw-away daemon"
        )
    known = () if daemon.disposable else tuple(sorted(set(record.diff_ids) & daemon.layer_diff_ids()))
    findings.daemon = DaemonUsed(
        version=engine.version,
        store=engine.store,
        engine_id=engine.engine_id,
        disposable=daemon.disposable,
        known_layers=known,
    )
    if known:
        progress.note(
            f"the test daemon already had {len(known)} of {len(record.diff_ids)} layers and does not read them again; "
            "this verification counts as 'checked' only"
        )
    _read_document(repository, backup)
    before = daemon.image_ids()
    tag = f"{VERIFICATION}:{secrets.token_hex(8)}"
    try:
        began = repository.clock.monotonic()
        with load_stream(repository, backup, tags=(tag,)) as stream:
            daemon.load(_counted(stream, findings, progress))
        _compare(repository, backup, daemon, tag)
        if drill is not None:
            name = tag.replace(":", "-")
            findings.drill = run_drill(daemon, tag, name=name, plan=drill, clock=repository.clock, progress=progress)
        findings.restore_seconds = round(repository.clock.monotonic() - began, 3)
    finally:
        findings.cleanup = _clean_up(daemon, tag, before, progress)


def _compare(repository: Repository, backup: Backup, daemon: TestDaemon, tag: str) -> None:
    """Compare what the daemon holds now with the record, and make it unpack the image for good."""
    record = backup.whole()
    loaded = daemon.inspect_image(tag)
    expected = config_digest_of(repository, backup)
    if loaded.diff_ids != record.diff_ids:
        raise IntegrityError(
            f"backup {record.backup_id} was loaded with diff_ids {loaded.diff_ids}, the record says {record.diff_ids}"
        )
    found = loaded.id if daemon.engine().store == "graphdriver" else saved_config_digest(daemon, loaded, tag)
    if found != expected:
        raise IntegrityError(
            f"backup {record.backup_id} was loaded with configuration {found}, the record says {expected}"
        )
    # Engines report a successful load although unpacking failed; creating a container needs the unpacked layers.
    daemon.remove_container(daemon.create_container(tag, name=tag.replace(":", "-")))


def saved_config_digest(daemon: TestDaemon, loaded: ImageInspect, tag: str) -> str:
    """Return the digest of a loaded image's configuration where ``.Id`` is something else by nature."""
    scanner = DockerArchiveScanner(decompress_limits=limits_for(loaded.size_bytes))
    with daemon.saved_image(tag) as stream:
        for chunk in stream:
            scanner.feed(chunk)
    return scanner.finish().image.config_digest


def _clean_up(daemon: TestDaemon, tag: str, before: frozenset[str], progress: Progress) -> Literal["passed", "failed"]:
    """Remove what was loaded and only that; an image that was there before keeps its ID and its tags."""
    try:
        daemon.remove_container(tag.replace(":", "-"))
        daemon.remove_image(tag)
        left = daemon.image_ids() - before
    except DockerBackupError as err:
        progress.note(f"the test daemon could not be cleaned up: {err}")
        return "failed"
    if left and not daemon.disposable:
        progress.note(f"images that were not there before stay in the test daemon: {', '.join(sorted(left))}")
        return "failed"
    return "passed"
