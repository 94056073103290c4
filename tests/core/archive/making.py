# SPDX-License-Identifier: Apache-2.0
"""Makes archives for these tests, good and bad, with Python's own tarfile."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from airflow_provider_dockerbackup.core.archive.docker_archive import DockerArchive, DockerArchiveScanner
from airflow_provider_dockerbackup.exceptions import IntegrityError

GOLDEN = Path(__file__).parents[2] / "golden" / "archives"
IMAGES = tuple(sorted(path.name for path in GOLDEN.glob("*.tar") if path.name.startswith(("engine-", "podman-"))))
EXPORTS = ("export-20.10.tar", "export-28.tar")
BLOCK = 512


def golden(name: str) -> bytes:
    """Return a golden archive."""
    return (GOLDEN / name).read_bytes()


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Cut ``data``."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def drained(stream: Iterator[bytes]) -> tuple[bytes, str]:
    """Return all that a stream gives, and the message of the IntegrityError that ends it."""
    out = bytearray()
    try:
        for piece in stream:
            out += piece
    except IntegrityError as err:
        return bytes(out), str(err)
    return bytes(out), ""


def scan(data: bytes, *, piece_bytes: int = 1 << 20) -> DockerArchive:
    """Scan a whole docker-archive."""
    scanner = DockerArchiveScanner()
    for piece in pieces(data, piece_bytes):
        scanner.feed(piece)
    return scanner.finish()


def sha256(data: bytes) -> str:
    """Return bare hex."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class Entry:
    """One member to write."""

    name: str
    body: bytes = b""
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def tar_of(entries: Iterable[Entry], *, tar_format: Literal[0, 1, 2] = tarfile.USTAR_FORMAT) -> bytes:
    """Write a tar, ended by two zero blocks."""
    out = io.BytesIO()
    for entry in entries:
        info = tarfile.TarInfo(entry.name)
        info.size, info.type, info.linkname = len(entry.body), entry.kind, entry.link
        for key, value in entry.extra.items():
            setattr(info, key, value)
        out.write(info.tobuf(tar_format, "utf-8", "surrogateescape"))
        out.write(entry.body + bytes(-len(entry.body) % BLOCK))
    return out.getvalue() + bytes(2 * BLOCK)


def entries_of(data: bytes) -> list[Entry]:
    """Take a good tar apart."""
    entries = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            stream = tar.extractfile(info) if info.isreg() else None
            name = info.name + "/" if info.isdir() else info.name
            extra = {"mode": info.mode, "mtime": info.mtime}
            entries.append(Entry(name, stream.read() if stream else b"", info.type, info.linkname, extra))
    return entries


def layer(*names: str) -> bytes:
    """Return a layer with files of these names, each holding its name."""
    return tar_of(Entry(name, name.encode()) for name in names)


def compact(value: Any) -> bytes:
    """Return JSON as Go writes it."""
    return json.dumps(value, separators=(",", ":")).encode()


def legacy_archive(
    layers: list[bytes], *, config: dict[str, Any] | None = None, tags: list[str] | None = None
) -> list[Entry]:
    """Return the members of an archive as 20.10 writes it."""
    body = compact(config if config is not None else image_config(layers))
    names = [f"{sha256(b'v1' + plain)}/layer.tar" for plain in layers]
    manifest = [{"Config": f"{sha256(body)}.json", "RepoTags": tags, "Layers": names}]
    return [
        *(Entry(name, plain) for name, plain in zip(names, layers, strict=True)),
        Entry(f"{sha256(body)}.json", body),
        Entry("manifest.json", compact(manifest)),
    ]


def image_config(layers: list[bytes]) -> dict[str, Any]:
    """Return the configuration of an image with these plain layers."""
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/one"]},
        "history": [{"created_by": "COPY"} for _ in layers],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(plain)}" for plain in layers]},
    }


def descriptor(body: bytes, kind: str = "manifest", **extra: Any) -> dict[str, Any]:
    """Return the descriptor of a blob."""
    media_type = f"application/vnd.oci.image.{kind}.v1{'.tar' if kind == 'layer' else '+json'}"
    return {"mediaType": media_type, "digest": f"sha256:{sha256(body)}", "size": len(body), **extra}


def blob(body: bytes) -> Entry:
    """Return a blob as a member."""
    return Entry(f"blobs/sha256/{sha256(body)}", body)


def oci_documents(config: bytes, stored: list[bytes], **overrides: Any) -> dict[str, Any]:
    """Return the documents of an archive in OCI form: manifest, index, manifest.json."""
    manifest = {
        "schemaVersion": 2,
        "config": descriptor(config, "config"),
        "layers": [descriptor(body, "layer") for body in stored],
        **overrides,
    }
    body = compact(manifest)
    return {
        "manifest": body,
        "index.json": {"schemaVersion": 2, "manifests": [descriptor(body)]},
        "manifest.json": [
            {"Config": blob(config).name, "RepoTags": ["lab/app:1"], "Layers": [blob(part).name for part in stored]}
        ],
    }


def oci_archive(
    plain: list[bytes], *, stored: list[bytes] | None = None, documents: dict[str, Any] | None = None
) -> list[Entry]:
    """Return the members of an archive in OCI form, as 28 writes it."""
    config = compact(image_config(plain))
    bodies = plain if stored is None else stored
    parts = {**oci_documents(config, bodies), **(documents or {})}
    unique = dict.fromkeys([config, *bodies, parts["manifest"]])
    return [
        *(blob(body) for body in unique),
        Entry("index.json", compact(parts["index.json"])),
        Entry("manifest.json", compact(parts["manifest.json"])),
        Entry("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
    ]
