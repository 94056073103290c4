# SPDX-License-Identifier: Apache-2.0
"""A repository of layout ``layers`` filled by hand: small blobs, real records, and the invariants of collecting."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from airflow_provider_dockerbackup.core.document import compact_time, sha256_of
from airflow_provider_dockerbackup.core.gc.collect import GcOutcome, GcRequest, collect_garbage
from airflow_provider_dockerbackup.core.layers.documents import EngineHint, LayerMap, hint_path, map_path
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.places import RECORD_FILE, backup_path, blob_path
from airflow_provider_dockerbackup.core.ports import Clock, Storage
from airflow_provider_dockerbackup.core.record import (
    BackupRecord,
    Blob,
    BlobSet,
    Configuration,
    DocumentFile,
    Engine,
    Fidelity,
    LayerBlob,
    Source,
)
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import Deletion, Quarantine
from airflow_provider_dockerbackup.exceptions import ConflictError, NotFoundError
from airflow_provider_dockerbackup.transport.memory import FixedClock, MemoryStorage
from tests.core.world import BEGIN, Notes

SOURCE = Source(host="ship-1", kind=SourceKind.IMAGE, name="lab/app:1")
ATTEMPT = "0123456789ab"
ENGINE = Engine(
    version="28.0.0",
    api_version="1.48",
    store="graphdriver",
    storage_driver="overlay2",
    os="linux",
    architecture="amd64",
    engine_id="engine-1",
)


def digest_for(name: str) -> str:
    """The digest of the blob that :meth:`Layered.blob` makes of a name."""
    return sha256_of(name.encode())


def diff_id_for(name: str) -> str:
    """The diff_id of the layer in the blob of a name."""
    return f"sha256:{hashlib.sha256(b'layer ' + name.encode()).hexdigest()}"


@dataclass(kw_only=True)
class Layered:
    """A repository, and hands to fill it.

    :param storage: where it lives.
    :param clock: its own and ours.
    """

    storage: Storage
    clock: Clock
    notes: Notes = field(default_factory=Notes)
    number: int = 0

    @classmethod
    def in_memory(cls) -> tuple[Layered, FixedClock]:
        """A repository in memory, with a clock that is moved by hand."""
        clock = FixedClock(BEGIN)
        return cls(storage=MemoryStorage(clock=clock), clock=clock), clock

    def __post_init__(self) -> None:
        """Make it, unless it is there."""
        self.repository = Repository.open_or_create(self.storage, clock=self.clock, layout="layers")

    def on(self, storage: Storage) -> Repository:
        """The same repository through another storage."""
        return Repository.open(storage, clock=self.clock)

    def blob(self, name: str) -> str:
        """Store the blob of a name, unless it is there, and return its digest."""
        with suppress(ConflictError):
            self.storage.create(blob_path(digest_for(name)), name.encode())
        return digest_for(name)

    def layer(self, name: str) -> LayerBlob:
        """Store a layer: blob, map and hint."""
        size = len(self.blob(name))
        mapped = LayerMap(
            diff_id=diff_id_for(name),
            digest=digest_for(name),
            size_bytes=size,
            stored_size_bytes=len(name.encode()),
            created_at=self.clock.now(),
        )
        hint = EngineHint(engine_id="engine-1", diff_id=mapped.diff_id, digest=digest_for(f"gz {name}"), size_bytes=1)
        for path, data in ((map_path(mapped.diff_id), mapped.to_bytes()), (hint_path(hint), hint.to_bytes())):
            with suppress(ConflictError):
                self.storage.create(path, data)
        return mapped.blob

    def record(self, layers: Iterable[str], *, files: bool = True) -> tuple[str, BackupRecord]:
        """Return the folder and the record of a new backup whose manifest and configuration bear its number."""
        self.number += 1
        backup_id = f"{compact_time(BEGIN + timedelta(seconds=self.number))}-{self.number:016x}"
        manifest, config = f"manifest {self.number}", f"config {self.number}"
        record = BackupRecord(
            backup_id=backup_id,
            idempotency_key=f"{self.number:064x}",
            attempt=ATTEMPT,
            source=SOURCE,
            captured_at=self.clock.now(),
            committed_at=self.clock.now(),
            capture="save",
            engine=ENGINE,
            access={},
            actor={},
            blobs=BlobSet(
                manifest=Blob(digest=digest_for(manifest), size_bytes=len(manifest)),
                config=Blob(digest=digest_for(config), size_bytes=len(config)),
                layers=tuple(
                    LayerBlob(
                        diff_id=diff_id_for(name),
                        digest=digest_for(name),
                        size_bytes=1,
                        stored_size_bytes=len(name.encode()),
                    )
                    for name in layers
                ),
                documents=(DocumentFile(name=f"oci-{ATTEMPT}/index.json", size_bytes=2, sha256=sha256_of(b"{}")),)
                if files
                else (),
                size_bytes=1,
                received_bytes=1,
                new_bytes=1,
            ),
            configuration=Configuration(salt="00", values={}),
            fidelity=Fidelity(),
        )
        return backup_path(SOURCE, backup_id), record

    def backup(self, *layers: str) -> str:
        """Make a whole backup of these layers, and return its folder."""
        path, record = self.record(layers)
        for name in layers:
            self.layer(name)
        self.blob(f"manifest {self.number}")
        self.blob(f"config {self.number}")
        self.storage.create(f"{path}oci-{ATTEMPT}/index.json", b"{}")
        self.storage.create(path + RECORD_FILE, record.to_bytes())
        return path

    def delete(self, path: str, *, seen: tuple[str, ...] = ()) -> str:
        """Write that a backup is deleted, as a rotation that is done, and return the document's path."""
        now = self.clock.now()
        document = Deletion(
            backup_id=path.split("/")[3],
            deleted_at=now,
            how="rotated",
            rules=("not kept",),
            intent=sha256_of(b"intent"),
            seen=seen,
            actor={},
        )
        where = f"{path}deleted-{compact_time(now, fraction=True)}.json"
        self.storage.create(where, document.to_bytes())
        return where

    def quarantine(self, path: str) -> None:
        """Put a backup aside."""
        now = self.clock.now()
        document = Quarantine(backup_id=path.split("/")[3], quarantined_at=now, reason="test", problem="test", actor={})
        self.storage.create(f"{path}quarantined-{compact_time(now, fraction=True)}.json", document.to_bytes())

    def collect(self, storage: Storage | None = None, **request: object) -> GcOutcome:
        """Collect garbage, in this thread."""
        repository = self.repository if storage is None else self.on(storage)
        asked = GcRequest(**{"threads": 1, **request})  # type: ignore[arg-type]
        return collect_garbage(repository, asked, progress=self.notes)

    def paths(self, prefix: str = "") -> list[str]:
        """What is there."""
        return sorted(info.path for info in self.storage.list(prefix))

    def blobs(self) -> set[str]:
        """The digests of the blobs that are there."""
        return {f"sha256:{path.rpartition('/')[2]}" for path in self.paths("blobs/sha256")}

    def has(self, *names: str) -> bool:
        """Tell whether the blobs of all these names are there."""
        return all(digest_for(name) in self.blobs() for name in names)

    def require_whole(self) -> None:
        """Every backup in the catalog has all of its blobs and files, and no map names a blob that is not there."""
        for backup in self.repository.catalog.each():
            assert backup.complete, backup.backup_id
        for path in self.paths("layers/sha256"):
            try:
                named = LayerMap.from_bytes(self.storage.read(path), where=path).digest
            except NotFoundError:
                continue
            assert named in self.blobs(), path


def settled(paths: Iterable[str]) -> list[str]:
    """Leave out what every collection adds: its lease, its events."""
    return sorted(path for path in paths if not path.startswith(("gc/lease/", "audit/")))
