# SPDX-License-Identifier: Apache-2.0
"""A large repository of layout ``layers`` on local disk, made without any Docker: many small blobs, records and maps.

Blobs hold a few bytes and not what their names say: who reads their content finds that out, garbage collection does not
read it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from airflow_provider_dockerbackup.core.layers.documents import LayerMap, map_path
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.places import RECORD_FILE, backup_path, blob_path
from airflow_provider_dockerbackup.core.record import (
    BackupRecord,
    Blob,
    BlobSet,
    Configuration,
    DocumentFile,
    Engine,
    Fidelity,
    FidelityItem,
    History,
    Image,
    LayerBlob,
    Source,
)

_BYTES: Final = b"a blob of a corpus\n"
_OLD: Final = timedelta(days=30)
_SOURCES: Final = 200
_OWN_LAYERS: Final = 2
_SHARED_LAYERS: Final = 3
_ATTEMPT: Final = "0" * 12
# As large as those of usual images.
_HISTORY: Final = tuple(History(created="2026-01-01T00:00:00Z", created_by=f"RUN step {step}") for step in range(12))
_CONFIGURATION: Final = Configuration(salt="", values={f"Env.NAME_{number}": "0" * 64 for number in range(12)})
_FIDELITY: Final = Fidelity(
    items=tuple(
        FidelityItem(subject="configuration", name=f"Env.NAME_{number}", outcome="kept") for number in range(12)
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What a repository was filled with.

    :param blobs: how many there are.
    :param records: how many there are.
    :param garbage: digests of the blobs that no record names.
    """

    blobs: int
    records: int
    garbage: frozenset[str]


def fill(repository: Path, *, blobs: int) -> Corpus:
    """Fill a new repository: a fifth as many records as blobs, a tenth of the blobs garbage, all of it a month old.

    Each record names a manifest, a configuration, two layers of its own and three that it shares with others.

    :param repository: its folder, with ``repository.json`` in it.
    :param blobs: how many.
    """
    records, garbage = blobs // 5, blobs // 10
    shared = [_layer("shared", number) for number in range(blobs - garbage - records * (2 + _OWN_LAYERS))]
    unused = [_layer("garbage", number) for number in range(garbage)]
    for layer in (*shared, *unused):
        _write_layer(repository, layer)
    for number in range(records):
        _write_record(repository, number, shared)
    return Corpus(blobs=blobs, records=records, garbage=frozenset(layer.digest for layer in unused))


def _write_record(repository: Path, number: int, shared: list[LayerBlob]) -> None:
    own = [_layer(f"record {number}", each) for each in range(_OWN_LAYERS)]
    for layer in own:
        _write_layer(repository, layer)
    others = [shared[(number * _SHARED_LAYERS + each) % len(shared)] for each in range(_SHARED_LAYERS)]
    record = _record(number, (*others, *own))
    for blob in record.blob_sizes:
        _write(repository / blob_path(blob), _BYTES)
    folder = repository / backup_path(record.source, record.backup_id)
    for name in record.files:
        _write(folder / name, _BYTES)
    _write(folder / RECORD_FILE, record.to_bytes())


def _record(number: int, layers: tuple[LayerBlob, ...]) -> BackupRecord:
    source = Source(host="host", kind=SourceKind.IMAGE, name=f"app-{number % _SOURCES}:1")
    moment = datetime.now(UTC) - _OLD + timedelta(seconds=number)
    manifest, config = (Blob(digest=_digest(kind, number), size_bytes=len(_BYTES)) for kind in ("manifest", "config"))
    files = (f"oci-{_ATTEMPT}/oci-layout", f"oci-{_ATTEMPT}/index.json")
    diff_ids = tuple(layer.diff_id for layer in layers)
    key = _digest("key", number).removeprefix("sha256:")
    return BackupRecord(
        backup_id=f"{moment:%Y%m%dT%H%M%SZ}-{key[:16]}",
        idempotency_key=key,
        attempt=_ATTEMPT,
        source=source,
        captured_at=moment,
        committed_at=moment,
        capture="save",
        engine=Engine(
            version="20.10.24",
            api_version="1.41",
            store="graphdriver",
            storage_driver="overlay2",
            os="linux",
            architecture="amd64",
            engine_id="corpus",
        ),
        access={},
        actor={},
        blobs=BlobSet(
            manifest=manifest,
            config=config,
            layers=layers,
            documents=tuple(DocumentFile(name=name, size_bytes=len(_BYTES), sha256="") for name in files),
            size_bytes=0,
            received_bytes=0,
            new_bytes=0,
        ),
        image=Image(
            id=config.digest,
            config_digest=config.digest,
            known_ids=(config.digest,),
            diff_ids=diff_ids,
            repo_tags=(source.name,),
            repo_digests=(),
            created="",
            os="linux",
            architecture="amd64",
            layers=(),
            history=_HISTORY,
        ),
        configuration=_CONFIGURATION,
        fidelity=_FIDELITY,
    )


def _write_layer(repository: Path, layer: LayerBlob) -> None:
    made = datetime.now(UTC) - _OLD
    document = LayerMap(created_at=made, **layer.model_dump())
    _write(repository / blob_path(layer.digest), _BYTES)
    _write(repository / map_path(layer.diff_id), document.to_bytes())


def _layer(what: str, number: int) -> LayerBlob:
    digest = _digest(what, number)
    return LayerBlob(
        diff_id=_digest(f"diff {what}", number), digest=digest, size_bytes=len(_BYTES), stored_size_bytes=len(_BYTES)
    )


def _write(path: Path, data: bytes) -> None:
    """Write an old file, unless it is there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    moment = (datetime.now(UTC) - _OLD).timestamp()
    os.utime(path, (moment, moment))


def _digest(what: str, number: int) -> str:
    return f"sha256:{hashlib.sha256(f'{what} {number}'.encode()).hexdigest()}"


def blob_names(repository: Path) -> Iterator[str]:
    """Yield the digests of the blobs that are there."""
    for entry in os.scandir(repository / "blobs" / "sha256"):
        yield f"sha256:{entry.name}"
