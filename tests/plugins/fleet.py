# SPDX-License-Identifier: Apache-2.0
"""A repository on disk with as many sources as one likes: real documents, and archives that are holes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from airflow_provider_dockerbackup.core.attempt import BackupKey
from airflow_provider_dockerbackup.core.audit.event import AuditEvent
from airflow_provider_dockerbackup.core.document import canonical_json, compact_time, sha256_of, utc_text
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.places import backup_path
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url

_MB = 1_000_000
_STEPS = ("ADD", "RUN", "ENV PATH", "COPY", "COPY", "ENV LANG", "USER", "CMD")
_LAYERS = 4
# Of each ten sources: never verified, verified days ago, failed at last, without archives.
_HOPED, _OLD, _FAILED, _DAMAGED = 3, 6, 8, 9


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What is to be made.

    :param sources: names of images, the same on every host.
    :param backups: of each source, one a day, the newest an hour before ``now``.
    :param policy: a rotation took place with it.
    """

    hosts: Sequence[str]
    sources: Sequence[str]
    backups: int
    now: datetime
    policy: dict[str, Any] = field(default_factory=lambda: {"keep_last": 7, "keep_weekly": 4})


def make_fleet(root: Path, fleet: Fleet) -> Path:
    """Make the repository, and return where it is.

    Of ten sources one was never verified, one last verified days ago, one failed its last verification, and of one the
    archives are gone.
    """
    repository = Repository.create(storage_from_url(str(root)), clock=SystemClock())
    events = _Events(root, repository.document.repository_id)
    for number, source in enumerate(_sources(fleet)):
        for back in reversed(range(fleet.backups)):
            captured = fleet.now - timedelta(days=back, hours=1, minutes=number % 60)
            _make_backup(root, source, captured, number=number, back=back, events=events)
    events.add("rotate.planned", fleet.now - timedelta(hours=2), "", {
        "policy": fleet.policy, "hosts": ["*"], "names": ["*"], "own_policies": {}, "decisions": {},
    }, outcome="intent")  # fmt: skip
    return root


def _sources(fleet: Fleet) -> Iterator[Source]:
    for host in fleet.hosts:
        for name in fleet.sources:
            yield Source(host=host, kind=SourceKind.IMAGE, name=name)


def _make_backup(root: Path, source: Source, captured: datetime, *, number: int, back: int, events: _Events) -> None:
    key = BackupKey.of(source, run_time=captured, work=("nightly", str(back), "save", "-1"))
    folder = root / backup_path(source, key.backup_id)
    folder.mkdir(parents=True)
    attempt = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    layers = _layers(source, back=back)
    size = sum(layer["size_bytes"] for layer in layers) + 12_288
    archive = f"image-{attempt}.tar"
    with (folder / archive).open("wb") as file:
        os.truncate(file.fileno(), 0 if number % 10 == _DAMAGED else size)
    record = _record(source, key, captured, attempt=attempt, layers=layers, archive=archive, size=size)
    (folder / "backup.json").write_bytes(canonical_json(record))
    about = {"backup_id": key.backup_id}
    events.add("backup.committed", captured + timedelta(seconds=40), str(source), about)
    newest_verified = {_HOPED: 10**6, _OLD: 4}.get(number % 10, 0)
    if back >= newest_verified and (back < 3 + newest_verified or back % 7 == 0):
        result = "failed" if number % 10 == _FAILED and back == 0 else "passed"
        at = captured + timedelta(minutes=20)
        document = _verification(key.backup_id, at, result=result, size=size)
        (folder / f"verification-{compact_time(at, fraction=True)}.json").write_bytes(canonical_json(document))
        events.add(f"verify.{result}", at, str(source), about, outcome="success" if result == "passed" else "failure")


def _layers(source: Source, *, back: int) -> list[dict[str, Any]]:
    """Return layers of which the lowest are shared by all, and the topmost is each backup's own."""
    sizes = Random(source.name)  # noqa: S311
    names = ("debian", source.name, f"{source.name} libraries {back // 7}", f"{source.name} on {source.host} {back}")
    base = (78, sizes.randint(20, 300), sizes.randint(1, 90), sizes.randint(1, 20) + (90 - back // 3) % 30)
    return [
        {
            "diff_id": sha256_of(name.encode()),
            "member": f"{position}/layer.tar",
            "size_bytes": megabytes * _MB,
            "stored_size_bytes": megabytes * _MB,
            "compression": "none",
        }
        for position, (name, megabytes) in enumerate(zip(names, base, strict=True))
    ]


def _record(
    source: Source, key: BackupKey, captured: datetime, *, attempt: str, layers: list[dict[str, Any]],
    archive: str, size: int,
) -> dict[str, Any]:  # fmt: skip
    config_digest = sha256_of(repr(layers).encode())
    return {
        "schema_version": "1.0",
        "backup_id": key.backup_id,
        "idempotency_key": key.idempotency_key,
        "attempt": attempt,
        "source": source.model_dump(mode="json"),
        "captured_at": utc_text(captured),
        "committed_at": utc_text(captured + timedelta(seconds=40)),
        "capture": "save",
        "engine": {
            "version": "28.2.2",
            "api_version": "1.50",
            "store": "graphdriver",
            "storage_driver": "overlay2",
            "os": "linux",
            "architecture": "amd64",
            "engine_id": source.host,
        },
        "access": {"user": "backup", "address": f"{source.host}.example.com"},
        "actor": {"dag_id": "nightly_backup", "run_id": f"scheduled__{captured:%Y-%m-%d}"},
        "archive": {
            "name": archive,
            "compression": "none",
            "size_bytes": size,
            "stored_size_bytes": size,
            "content_digest": sha256_of(archive.encode()),
        },
        "image": _image(source, captured, config_digest=config_digest, layers=layers),
        "configuration": {"salt": "00" * 16, "values": {"Cmd": "0" * 64, "Env.PATH": "1" * 64, "User": "2" * 64}},
        "not_covered": [],
        "fidelity": {
            "items": [
                _kept("layers", f"all {_LAYERS}", "each compared by its digest"),
                _kept("history", f"all {len(_STEPS)} steps"),
                *(_kept("configuration", name) for name in ("Cmd", "Env.PATH", "User")),
                {**_kept("tags", source.name, "put back on restore only when asked"), "outcome": "changed"},
            ]
        },
        "notes": [],
    }


def _image(source: Source, captured: datetime, *, config_digest: str, layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": config_digest,
        "config_digest": config_digest,
        "known_ids": [config_digest],
        "diff_ids": [layer["diff_id"] for layer in layers],
        "repo_tags": [source.name],
        "repo_digests": [],
        "created": utc_text(captured),
        "os": "linux",
        "architecture": "amd64",
        "layers": layers,
        "history": [
            {"created": utc_text(captured), "created_by": step, "empty_layer": step not in {"ADD", "RUN", "COPY"}}
            for step in _STEPS
        ],
    }


def _kept(subject: str, name: str, reason: str = "") -> dict[str, Any]:
    return {"subject": subject, "name": name, "outcome": "kept", "reason": reason}


def _verification(backup_id: str, at: datetime, *, result: str, size: int) -> dict[str, Any]:
    return {
        "schema_version": "1.0",
        "backup_id": backup_id,
        "level": "load",
        "verified_at": utc_text(at),
        "verification": result,
        "cleanup": "passed",
        "bytes_read": size,
        "actor": {"dag_id": "nightly_drill"},
        "restore_seconds": round(size / 40_000_000, 3) if result == "passed" else None,
        "problem": "" if result == "passed" else "sha256 of layer 3 is not the recorded one",
        "daemon": {"version": "28.2.2", "store": "graphdriver", "engine_id": "test", "disposable": True},
    }


class _Events:
    """Writes audit events, one file each."""

    def __init__(self, root: Path, repository_id: str) -> None:
        self._root = root
        self._repository_id = repository_id

    def add(self, kind: str, at: datetime, source: str, subject: dict[str, Any], *, outcome: str = "success") -> None:
        """Write one."""
        event = AuditEvent.model_validate(
            {
                "type": kind,
                "time": at,
                "repository_id": self._repository_id,
                "source": source,
                "object": subject,
                "outcome": outcome,
                "actor": {"dag_id": "nightly_backup", "run_id": "scheduled"},
            }
        )
        data = event.to_bytes()
        path = self._root / event.path(sha256_of(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
