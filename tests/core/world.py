# SPDX-License-Identifier: Apache-2.0
"""A repository and a Docker host in memory, something to back up, and the invariants that must always hold."""

from __future__ import annotations

import gc
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import BackupKey
from airflow_provider_dockerbackup.core.capture import BackupOutcome
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.drill import DrillPlan
from airflow_provider_dockerbackup.core.encryption.identity import Identities
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient
from airflow_provider_dockerbackup.core.export import ExportRequest, export_container
from airflow_provider_dockerbackup.core.layers.choice import CaptureChoice
from airflow_provider_dockerbackup.core.model import Consistency, SourceKind
from airflow_provider_dockerbackup.core.ports import DockerHost, Storage, TestDaemon
from airflow_provider_dockerbackup.core.reading import archive_stream, container_document
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.restore import RestoreOutcome, RestoreRequest, restore_backup
from airflow_provider_dockerbackup.core.save import SaveRequest, save_image
from airflow_provider_dockerbackup.core.since import Level, Verification
from airflow_provider_dockerbackup.core.verify import VerifyRequest, verify_backup
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost, MemoryStorage, MemoryTestDaemon
from tests.core.archive.making import Entry, image_config, layer, legacy_archive, tar_of

BEGIN = datetime(2026, 3, 1, 6, 0, tzinfo=UTC)
HOST = "ship-1"
IMAGE = Source(host=HOST, kind=SourceKind.IMAGE, name="lab/app:1")
CONTAINER = Source(host=HOST, kind=SourceKind.CONTAINER, name="web")
FILESYSTEM = tar_of([Entry("etc/app.conf", b"port = 80\n"), Entry("srv/data", bytes(range(256)) * 40)])


class TickingClock:
    """Shows a millisecond more each time somebody looks, so that no two documents have the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ticks = 0

    def now(self) -> datetime:
        """Return the time."""
        return BEGIN + timedelta(milliseconds=self._tick())

    def monotonic(self) -> float:
        """Return seconds."""
        return self._tick() / 1000

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.advance(timedelta(seconds=seconds))

    def advance(self, duration: timedelta) -> None:
        """Move it forward."""
        with self._lock:
            self._ticks += int(duration.total_seconds() * 1000)

    def _tick(self) -> int:
        with self._lock:
            self._ticks += 1
            return self._ticks


class Notes:
    """A progress that remembers what readers were told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.totals: list[int | None] = []
        self.open = 0

    def start(self, what: str, total_bytes: int | None) -> None:
        """Begin a piece of work."""
        self.totals.append(total_bytes)
        self.open += 1

    def advance(self, done_bytes: int) -> None:
        """Count nothing."""

    def note(self, message: str) -> None:
        """Remember a line."""
        self.notes.append(message)

    def finish(self) -> None:
        """End a piece of work."""
        self.open -= 1


def app_archive(version: str, *, tag: str = IMAGE.name, config: dict[str, Any] | None = None) -> bytes:
    """Return a docker-archive of two layers, of which the lower is the same in every version."""
    layers = [layer("bin/sh", "etc/passwd"), layer(f"app/{version}")]
    document = image_config(layers)
    document["config"] = {"Cmd": ["/app"], "Env": ["PATH=/bin"], **(config or {})}
    return tar_of(legacy_archive(layers, config=document, tags=[tag]))


def docker_host(name: str = HOST) -> MemoryDockerHost:
    """Return a host with an image, and a running container made from it."""
    host = MemoryDockerHost(name)
    host.add_archive(app_archive("one"))
    host.add_container("web", image=IMAGE.name, filesystem=FILESYSTEM)
    return host


@dataclass(kw_only=True)
class World:
    """Everything a use case needs."""

    storage: Storage = field(default_factory=MemoryStorage)
    host: MemoryDockerHost = field(default_factory=docker_host)
    clock: TickingClock = field(default_factory=TickingClock)
    recipients: tuple[Recipient, ...] = ()
    identities: Identities | None = None
    progress: Notes = field(default_factory=Notes)
    layout: str = "archive"

    def __post_init__(self) -> None:
        """Make the repository."""
        Repository.open_or_create(self.storage, clock=self.clock, layout=self.layout, recipients=self.recipients)

    @property
    def repository(self) -> Repository:
        """The repository."""
        return self.on(self.storage)

    def on(self, storage: Storage) -> Repository:
        """Return the repository as another storage shows it."""
        return Repository.open(storage, clock=self.clock, identities=lambda: self.identities)

    def key(self, run: int, source: Source = IMAGE) -> BackupKey:
        """Return the key of one run."""
        return BackupKey.of(source, run_time=BEGIN + timedelta(days=run), work=("dag", f"run {run}", "save", "-1"))

    def backup(
        self,
        run: int,
        source: Source = IMAGE,
        *,
        repository: Repository | None = None,
        host: DockerHost | None = None,
        compression: Compression | None = None,
        force: bool = True,
        consistency: Consistency = "snapshot",
        capture: CaptureChoice = "auto",
    ) -> BackupOutcome:
        """Back the source up in one run."""
        key, held = self.key(run, source), repository or self.repository
        if source.kind is SourceKind.IMAGE:
            saving = SaveRequest(key=key, compression=compression, capture=capture, force=force)
            return save_image(saving, host=host or self.host, repository=held, progress=self.progress)
        exporting = ExportRequest(key=key, compression=compression, consistency=consistency)
        return export_container(exporting, host=host or self.host, repository=held, progress=self.progress)

    def verify(
        self,
        backup: Backup,
        level: Level = "load",
        *,
        repository: Repository | None = None,
        daemon: TestDaemon | None = None,
        drill: DrillPlan | None = None,
    ) -> Verification:
        """Verify a backup in a test daemon, an own empty one unless given."""
        return verify_backup(
            backup,
            VerifyRequest(level=level, drill=drill or DrillPlan()),
            repository=repository or self.repository,
            test_daemon=lambda: nullcontext(daemon or MemoryTestDaemon()),
            progress=self.progress,
        )

    def restore(
        self, backup: Backup, request: RestoreRequest, *, host: DockerHost, repository: Repository | None = None
    ) -> RestoreOutcome:
        """Restore a backup onto a host."""
        return restore_backup(
            backup, request, host=host, repository=repository or self.repository, progress=self.progress
        )

    def again(self, backup: Backup) -> Backup:
        """Return the backup as the catalog has it now."""
        return self.repository.catalog.find(backup.backup_id)


def paths(storage: Storage, *, prefix: str = "backups") -> set[str]:
    """Return the paths of all objects."""
    return {info.path for info in storage.list(prefix)}


def contents(storage: Storage, prefix: str) -> dict[str, bytes]:
    """Return all objects below a folder."""
    return {path: storage.read(path) for path in paths(storage, prefix=prefix.rstrip("/"))}


def spoil(storage: Storage, path: str, *, position: int | None = None, data: bytes | None = None) -> None:
    """Flip one bit of an object, or put other bytes in its place."""
    if data is None:
        changed = bytearray(storage.read(path))
        changed[len(changed) // 2 if position is None else position] ^= 1
        data = bytes(changed)
    storage.delete(path)
    storage.create(path, data)


def bury() -> None:
    """Let go of what a dead process held, as its end does."""
    gc.collect()


def assert_all_whole(repository: Repository) -> list[Backup]:
    """Require that every visible backup can be read to its end, and return them."""
    backups = repository.catalog.backups()
    for backup in backups:
        assert backup.problem == ""
        with archive_stream(repository, backup) as tar:
            assert sum(len(chunk) for chunk in tar) == backup.whole().size_bytes
        if backup.whole().container is not None:
            assert container_document(repository, backup)["container"]
    return backups


def assert_nothing_left(repository: Repository) -> None:
    """Require that every file of a backup is one that its record names, or tells what happened to it since."""
    expected = set()
    for backup in repository.catalog.backups():
        record = backup.whole()
        names = {"backup.json", *record.files}
        names |= {
            name for name in backup.sizes if name.startswith(("verification-", "confirmed-", "hold-", "release-"))
        }
        expected |= {backup.path + name for name in names}
    assert paths(repository.storage) == expected
