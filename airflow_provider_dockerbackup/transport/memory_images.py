# SPDX-License-Identifier: Apache-2.0
"""Images of the in-memory twins, read from docker-archives as an engine reads them.

Written apart from ``core.archive`` on purpose, so that a twin does not repeat its mistakes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import zstandard

from airflow_provider_dockerbackup.core.model import EngineInfo, FilteredBy, HistoryLine, ImageInspect, LoadedImage
from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError, IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport import docker_output

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
CHUNK_BYTES: Final = 1024 * 1024
_UNREADABLE: Final = (
    tarfile.TarError,
    OSError,
    EOFError,
    zlib.error,
    zstandard.ZstdError,
    ValueError,
    KeyError,
    TypeError,
    RecursionError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryImage:
    """One image of a twin.

    :param id: digest of ``config_bytes``, as on graphdriver stores.
    :param tags: the tags it was loaded with.
    :param archive: the docker-archive it came in.
    :param filesystem: its root filesystem as one tar; None when it has several layers.
    """

    id: str
    tags: tuple[str, ...]
    config_bytes: bytes
    archive: bytes
    filesystem: bytes | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The image's whole configuration document."""
        parsed: dict[str, Any] = json.loads(self.config_bytes)
        return parsed

    @property
    def config(self) -> dict[str, Any]:
        """The ``config`` object: what containers inherit."""
        return self.document.get("config") or {}

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of its uncompressed layers, lowest first."""
        return tuple(self.document["rootfs"]["diff_ids"])

    @property
    def history(self) -> tuple[HistoryLine, ...]:
        """Its history, oldest first."""
        return tuple(
            HistoryLine(
                created=str(line.get("created") or ""),
                created_by=str(line.get("created_by") or ""),
                comment=str(line.get("comment") or ""),
                author=str(line.get("author") or ""),
                empty_layer=bool(line.get("empty_layer")),
            )
            for line in self.document.get("history") or ()
        )

    def inspect_document(self, *, tags: tuple[str, ...]) -> dict[str, Any]:
        """Return what ``docker image inspect`` shows of it."""
        document = self.document
        return {
            "Id": self.id,
            "RepoTags": list(tags),
            "RepoDigests": [],
            "Created": document.get("created") or "",
            "Os": document.get("os") or "linux",
            "Architecture": document.get("architecture") or "amd64",
            "Variant": document.get("variant") or "",
            "Author": document.get("author") or "",
            "Size": len(self.archive),
            "Config": self.config,
            "RootFS": {"Type": "layers", "Layers": list(self.diff_ids)},
        }


@dataclass(slots=True)
class MemoryImages:
    """Images by ID, and what tags point to, as a daemon keeps them."""

    by_id: dict[str, MemoryImage] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def find(self, reference: str) -> MemoryImage:
        """Return the image that a tag, a bare repository or an ID stands for."""
        name = reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest"
        image_id = reference if reference in self.by_id else self.tags.get(name)
        if image_id is None:
            raise NotFoundError(f"no such image: {reference}")
        return self.by_id[image_id]

    def load(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Read a docker-archive and return what a daemon would say."""
        names: list[str] = []
        for image in images_of_archive(b"".join(chunks), known=self.diff_ids()):
            self.by_id.setdefault(image.id, image)
            self.tags.update(dict.fromkeys(image.tags, image.id))
            names += image.tags or (image.id,)
        lines = tuple(f"Loaded image{' ID' if name.startswith('sha256:') else ''}: {name}" for name in names)
        return LoadedImage(names=tuple(names), output=lines)

    def diff_ids(self) -> frozenset[str]:
        """Return the diff_ids of all layers."""
        return frozenset(diff_id for image in self.by_id.values() for diff_id in image.diff_ids)

    def plain_layers(self, image: MemoryImage) -> tuple[bytes, ...]:
        """Return an image's layers, uncompressed, lowest first; some may have come with other images."""
        held: dict[str, bytes] = {}
        for each in (image, *self.by_id.values()):
            if not held.keys() >= set(image.diff_ids):
                held = {**layers_of_archive(each.archive), **held}
        return tuple(held[diff_id] for diff_id in image.diff_ids)

    def tags_of(self, image_id: str) -> tuple[str, ...]:
        """Return the tags of an image."""
        return tuple(sorted(tag for tag, target in self.tags.items() if target == image_id))

    def inspect(self, reference: str) -> ImageInspect:
        """Return an image's inspect document, read."""
        image = self.find(reference)
        return docker_output.image(image.inspect_document(tags=self.tags_of(image.id)))

    def remove(self, reference: str) -> None:
        """Remove one tag, or an image by ID; one that is not there is no error."""
        try:
            image = self.find(reference)
        except NotFoundError:
            return
        if reference == image.id and len(self.tags_of(image.id)) > 1:
            raise ConflictError(f"image {reference} has several tags; remove them one by one")
        for tag in self.tags_of(image.id) if reference == image.id else (reference,):
            self.tags.pop(tag if tag in self.tags else f"{tag}:latest", None)
        if not self.tags_of(image.id):
            del self.by_id[image.id]


class MemoryStream:
    """Standard output of a command that succeeded; closing it calls ``at_end`` once."""

    def __init__(
        self, data: bytes, *, at_end: Callable[[], None] = lambda: None, filtered_by: FilteredBy | None = None
    ) -> None:
        self._data = data
        self._at_end: Callable[[], None] | None = at_end
        self._filtered_by = filtered_by
        self.pause_seconds: float | None = None
        self.filtered_by: FilteredBy | None = None

    def __iter__(self) -> Iterator[bytes]:
        """Yield the output in pieces of 1 MiB."""
        try:
            for at in range(0, len(self._data), CHUNK_BYTES):
                yield self._data[at : at + CHUNK_BYTES]
            self.filtered_by = self._filtered_by
        finally:
            self.close()

    def close(self) -> None:
        """End the command; safe to call at any time, any number of times."""
        at_end, self._at_end = self._at_end, None
        if at_end is not None:
            at_end()


def memory_engine(name: str) -> EngineInfo:
    """Return what the daemon of a twin says of itself."""
    return EngineInfo(
        version="28.0.0",
        api_version="1.48",
        store="graphdriver",
        storage_driver="memory",
        os="linux",
        architecture="amd64",
        engine_id=f"memory-{name}",
        data_root="/var/lib/docker",
    )


def images_of_archive(archive: bytes, *, known: frozenset[str] = frozenset()) -> tuple[MemoryImage, ...]:
    """Return the images of a docker-archive.

    :param known: diff_ids of layers that the daemon has: it does not read these.
    :raises IntegrityError: when the archive is damaged or incomplete.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            manifest = json.loads(_member(tar, "manifest.json"))
            return tuple(_image(tar, entry, archive, known) for entry in manifest)
    except DockerBackupError:
        raise
    except _UNREADABLE as err:
        raise IntegrityError(f"the daemon refuses the archive: {type(err).__name__}: {err}") from err


def layers_of_archive(archive: bytes) -> dict[str, bytes]:
    """Return the layers that a docker-archive holds, uncompressed, by diff_id."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = set(tar.getnames())
        for entry in json.loads(_member(tar, "manifest.json")):
            for name in names.intersection(entry["Layers"]):
                plain = _plain(_member(tar, name))
                found[f"sha256:{hashlib.sha256(plain).hexdigest()}"] = plain
    return found


def without_members(archive: bytes, names: Collection[str]) -> bytes:
    """Return a docker-archive without the members named; all else stays as it is."""
    kept = bytearray()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = tar.getmembers()
        ends = [*(member.offset for member in members[1:]), tar.offset]
        for member, end in zip(members, ends, strict=True):
            if member.name not in names:
                kept += archive[member.offset : end]
    return bytes(kept) + archive[ends[-1] :]


def image_of_filesystem(
    filesystem: bytes, *, config: Mapping[str, Any], comment: str, author: str, now: datetime
) -> MemoryImage:
    """Return an image with one layer, as ``docker commit`` and ``docker import`` would leave it flattened."""
    diff_id = f"sha256:{hashlib.sha256(filesystem).hexdigest()}"
    created = now.isoformat()
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "author": author,
        "config": {key: value for key, value in config.items() if key != "Image"},
        "history": [{"created": created, "created_by": "", "comment": comment, "author": author}],
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    config_bytes = json.dumps(document, sort_keys=True).encode()
    digest = hashlib.sha256(config_bytes).hexdigest()
    layer = f"blobs/sha256/{diff_id.removeprefix('sha256:')}"
    manifest = [{"Config": f"blobs/sha256/{digest}", "RepoTags": None, "Layers": [layer]}]
    archive = _tar(
        {layer: filesystem, f"blobs/sha256/{digest}": config_bytes, "manifest.json": json.dumps(manifest).encode()}
    )
    return MemoryImage(
        id=f"sha256:{digest}", tags=(), config_bytes=config_bytes, archive=archive, filesystem=filesystem
    )


def _image(tar: tarfile.TarFile, entry: dict[str, Any], archive: bytes, known: frozenset[str]) -> MemoryImage:
    config_bytes = _member(tar, entry["Config"])
    diff_ids = json.loads(config_bytes)["rootfs"]["diff_ids"]
    layers = entry["Layers"]
    if len(layers) != len(diff_ids):
        raise IntegrityError(f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(layers)}")
    plain = b""
    for number, (name, diff_id) in enumerate(zip(layers, diff_ids, strict=True)):
        if diff_id in known:
            continue
        plain = _plain(_member(tar, name))
        found = f"sha256:{hashlib.sha256(plain).hexdigest()}"
        if found != diff_id:
            raise IntegrityError(f"invalid diffID for layer {number}: expected {diff_id!r}, got {found!r}")
    return MemoryImage(
        id=f"sha256:{hashlib.sha256(config_bytes).hexdigest()}",
        tags=tuple(entry.get("RepoTags") or ()),
        config_bytes=config_bytes,
        archive=archive,
        filesystem=plain if len(layers) == 1 and plain else None,
    )


def _plain(layer: bytes) -> bytes:
    """Return a layer uncompressed."""
    if layer.startswith(_GZIP):
        return gzip.decompress(layer)
    if layer.startswith(_ZSTD):
        with zstandard.ZstdDecompressor().stream_reader(layer, read_across_frames=True) as reader:
            return reader.read()
    return layer


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise IntegrityError(f"the daemon refuses the archive: {name} is not a file")
    with file:
        return file.read()


def _tar(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
