# SPDX-License-Identifier: Apache-2.0
"""Where an engine pushes an image: each blob is decompressed, compared, and stored as a layer while it comes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_dockerbackup.core.archive.completeness import history_of
from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.contents import BLOBS, DOCUMENT_BYTES, DOCUMENTS_BYTES
from airflow_provider_dockerbackup.core.archive.image import ArchivedImage, ArchivedLayer
from airflow_provider_dockerbackup.core.archive.layer_reader import InflationBudget, LayerReader, limits_for
from airflow_provider_dockerbackup.core.archive.manifests import in_order, manifest_of
from airflow_provider_dockerbackup.core.archive.wire import (
    Descriptor,
    ImageConfig,
    OciIndex,
    OciManifest,
    parse,
    strict_json,
)
from airflow_provider_dockerbackup.core.layers.documents import EngineHint
from airflow_provider_dockerbackup.core.layers.store import LayerStore, LayerWriter
from airflow_provider_dockerbackup.core.model import ImageInspect, ImageManifest
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.push import PushedManifest
from airflow_provider_dockerbackup.core.record import LayerBlob
from airflow_provider_dockerbackup.core.throttle import Throttle
from airflow_provider_dockerbackup.exceptions import IntegrityError, NotFoundError

_DEEPEST = 4
_HEAD_BYTES = 512


class LayerTarget:
    """A :class:`~airflow_provider_dockerbackup.core.push.PushTarget` that stores the layers of one image.

    :param store: where to.
    :param engine_id: identifier of the engine that pushes.
    :param image: what it pushes.
    :param held: blobs of the image's layers that are there.
    :param hints: by which digests the engine is known to call them.
    :param manifests: what the engine says that the image's index names.
    """

    # Each layer that is compressed takes a thread and its buffers. Engines send five at once: the others wait.

    def __init__(
        self,
        store: LayerStore,
        *,
        engine_id: str,
        image: ImageInspect,
        held: Mapping[str, LayerBlob],
        hints: Sequence[EngineHint],
        manifests: Sequence[ImageManifest] = (),
        throttle: Throttle,
        progress: Progress,
    ) -> None:
        self.store = store
        self.throttle = throttle
        self.progress = progress
        self.stored: dict[str, LayerBlob] = {}
        self._engine_id = engine_id
        self._image = image
        self._held = dict(held)
        self._index = {each.digest: each for each in manifests}
        self._known = {hint.digest: hint for hint in hints if hint.diff_id in held}
        self._learned: dict[str, EngineHint] = {}
        self._documents: dict[str, bytes] = {}
        self._documents_bytes = 0
        self._manifests: dict[str, PushedManifest] = {}
        self._lock = threading.Lock()
        self.limits = limits_for(image.size_bytes)
        self.slots = threading.BoundedSemaphore(store.threads)

    @property
    def learned(self) -> tuple[EngineHint, ...]:
        """By which digests the engine calls the layers that it sent."""
        with self._lock:
            return tuple(self._learned.values())

    def blob_size(self, digest: str) -> int | None:
        """Return the size of the engine's blob, if its layer is held or it was sent in this push."""
        with self._lock:
            if digest in self._documents:
                return len(self._documents[digest])
            hint = self._known.get(digest)
            return None if hint is None else hint.size_bytes

    def upload(self) -> _Upload:
        """Begin a blob."""
        return _Upload(self)

    def manifest(self, reference: str, *, media_type: str, data: bytes) -> None:
        """Take a manifest or an index; what it names must be known.

        :raises IntegrityError: when it cannot be read, or another one was put under this name.
        :raises NotFoundError: when it names a blob that is not known.
        """
        pushed = PushedManifest(media_type=media_type, data=data)
        where = f"manifest {pushed.digest}"
        value = strict_json(data, where=where)
        if not isinstance(value, dict):
            raise IntegrityError(f"{where} is no JSON object")
        if "manifests" in value:
            parse(OciIndex, value, where=where)
        else:
            manifest = parse(OciManifest, value, where=where)
            for named in (manifest.config, *(manifest.layers or ())):
                self._require_known(named, where)
        with self._lock:
            if pushed.digest not in self._manifests:
                self._count_document(data)
            self._manifests[reference] = self._manifests[pushed.digest] = pushed

    def manifest_of(self, reference: str) -> PushedManifest | None:
        """Return what was put under ``reference``."""
        with self._lock:
            return self._manifests.get(reference)

    def pushed_image(self, top: PushedManifest) -> ArchivedImage:
        """Return the image that was pushed, every digest followed, once the push is over.

        :param top: what was put last.
        :raises IntegrityError: when it is not exactly the image that the engine announced.
        """
        found = self._find(top, seen=set(), depth=1)
        if found is None:
            raise IntegrityError(
                f"what the engine pushed does not lead to an image with the layers of {self._image.id}; "
                "was it replaced meanwhile?"
            )
        manifest, path = found
        config = self._document(manifest.config.digest)
        ids = frozenset({manifest.config.digest, *path})
        if self._image.id not in ids and not self._is_in_index(top.digest):
            raise IntegrityError(
                f"the engine pushed image {manifest.config.digest}, not {self._image.id} that was asked for; "
                "was it replaced meanwhile?"
            )
        where = f"configuration {manifest.config.digest}"
        parsed = parse(ImageConfig, strict_json(config, where=where), where=where)
        history, notes = history_of(parsed.history, self._image.diff_ids)
        return ArchivedImage(
            config=config,
            config_digest=manifest.config.digest,
            diff_ids=self._image.diff_ids,
            layers=tuple(self._layer(each, diff_id) for each, diff_id in self._pairs(manifest)),
            repo_tags=(),
            image_ids=ids | {self._image.id},
            history=history,
            format="oci",
            notes=notes,
            others=in_order(self._others(top, seen={path[-1]}, depth=1)),
        )

    def _is_in_index(self, digest: str) -> bool:
        """Tell whether the engine pushed the one manifest that was asked for, of those that the image's index names."""
        named = self._index.get(digest)
        return named is not None and named.kind == "platform" and named.whole

    def _find(
        self, pushed: PushedManifest, *, seen: set[str], depth: int
    ) -> tuple[OciManifest, tuple[str, ...]] | None:
        """Return the image's manifest and the digests that lead to it, or None when it is not behind this one.

        :param seen: digests of those that were looked at; many ways may lead to one. Grows.
        """
        seen.add(pushed.digest)
        where = f"manifest {pushed.digest}"
        value = strict_json(pushed.data, where=where)
        if "manifests" not in value:
            manifest = parse(OciManifest, value, where=where)
            return (manifest, (pushed.digest,)) if self._is_image(manifest) else None
        _require_shallow(pushed, depth)
        for named in parse(OciIndex, value, where=where).manifests or ():
            inner = self.manifest_of(named.digest) if named.digest not in seen else None
            found = self._find(inner, seen=seen, depth=depth + 1) if inner is not None else None
            if found is not None:
                return found[0], (pushed.digest, *found[1])
        return None

    def _is_image(self, manifest: OciManifest) -> bool:
        """Tell whether a manifest is that of the image: its configuration names its layers, and it the same ones."""
        config = self._documents.get(manifest.config.digest)
        if config is None:
            return False
        where = f"configuration {manifest.config.digest}"
        value: Any = strict_json(config, where=where)
        if not isinstance(value, dict) or "rootfs" not in value or not self._is_of_platform(value):
            return False
        if tuple(parse(ImageConfig, value, where=where).rootfs.diff_ids or ()) != self._image.diff_ids:
            return False
        return [self._diff_id(each.digest) for each in manifest.layers or ()] == list(self._image.diff_ids)

    def _is_of_platform(self, config: Mapping[str, Any]) -> bool:
        """Tell whether a configuration is for the announced platform: images of several may have equal layers."""
        announced = {"os": self._image.os, "architecture": self._image.architecture, "variant": self._image.variant}
        return all((config.get(key) or shown) == shown for key, shown in announced.items())

    def _pairs(self, manifest: OciManifest) -> list[tuple[Descriptor, str]]:
        return list(zip(manifest.layers or (), self._image.diff_ids, strict=True))

    def _layer(self, named: Descriptor, diff_id: str) -> ArchivedLayer:
        blob = self.stored.get(diff_id) or self._held[diff_id]
        return ArchivedLayer(
            diff_id=diff_id,
            member=BLOBS + diff_id[7:],
            digest=named.digest,
            size_bytes=blob.size_bytes,
            stored_size_bytes=named.size,
            compression=Compression.GZIP if named.digest != diff_id else Compression.NONE,
            held=diff_id not in self.stored,
        )

    def _others(self, top: PushedManifest, *, seen: set[str], depth: int) -> Iterator[ImageManifest]:
        """Yield what the image's index names beside it: by what was pushed, else by what the engine says.

        :param seen: digests that are done with, the image's own manifest among them. Grows.
        """
        value = strict_json(top.data, where=f"manifest {top.digest}")
        if "manifests" not in value:
            yield from (each for each in self._index.values() if each.digest not in seen)
            return
        _require_shallow(top, depth)
        for named in parse(OciIndex, value, where=f"manifest {top.digest}").manifests or ():
            if named.digest in seen:
                continue
            seen.add(named.digest)
            inner = self.manifest_of(named.digest)
            if inner is not None and "manifests" in strict_json(inner.data, where=f"manifest {inner.digest}"):
                yield from self._others(inner, seen=seen, depth=depth + 1)
            else:
                yield manifest_of(named, whole=inner is not None)

    def _require_known(self, named: Descriptor, where: str) -> None:
        size = self.blob_size(named.digest)
        if size is None:
            raise NotFoundError(f"{where} names blob {named.digest}, which was not pushed and is not held")
        if size != named.size:
            raise IntegrityError(f"{where} says that {named.digest} has {named.size} bytes, it has {size}")

    def _diff_id(self, digest: str) -> str | None:
        with self._lock:
            hint = self._known.get(digest)
            return None if hint is None else hint.diff_id

    def _document(self, digest: str) -> bytes:
        with self._lock:
            return self._documents[digest]

    def _take_document(self, digest: str, data: bytes) -> None:
        with self._lock:
            if digest not in self._documents:
                self._count_document(data)
            self._documents[digest] = data

    def _count_document(self, data: bytes) -> None:
        """Refuse more than an image can need, so that no engine fills our memory."""
        self._documents_bytes += len(data)
        if self._documents_bytes > DOCUMENTS_BYTES:
            raise IntegrityError(f"more than {DOCUMENTS_BYTES} bytes of JSON documents were pushed")

    def _take_layer(
        self, writer: LayerWriter, *, diff_id: str, digest: str, size_bytes: int, compression: Compression
    ) -> None:
        """Keep a layer of the image; that of another platform is only noted."""
        if diff_id in self._image.diff_ids and diff_id not in self._held:
            blob = writer.publish(diff_id=diff_id)
            with self._lock:
                self.stored[diff_id] = blob
        hint = EngineHint(
            engine_id=self._engine_id,
            diff_id=diff_id,
            digest=digest,
            size_bytes=size_bytes,
            compression=compression,
        )
        with self._lock:
            self._known[digest] = hint
            if diff_id in self._image.diff_ids:
                self._learned[digest] = hint


def _require_shallow(pushed: PushedManifest, depth: int) -> None:
    if depth > _DEEPEST:
        raise IntegrityError(f"image indexes are nested deeper than {_DEEPEST} at {pushed.digest}")


class _Upload:
    """One blob on its way in; a :class:`~airflow_provider_dockerbackup.core.push.BlobUpload`."""

    def __init__(self, target: LayerTarget) -> None:
        self._target = target
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0
        self._head: bytearray | None = bytearray()
        self._document: bytearray | None = None
        self._writer: LayerWriter | None = None
        self._reader: LayerReader | None = None
        self._has_slot = False

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``."""
        self._sha256.update(data)
        self._size_bytes += len(data)
        self._target.progress.advance(len(data))
        self._target.throttle.passed(len(data))
        if self._head is not None:
            self._head += data
            if len(self._head) >= _HEAD_BYTES:
                self._decide()
        else:
            self._take(memoryview(data))

    def finish(self, digest: str) -> None:
        """Keep the blob."""
        if self._head is not None:
            self._decide()
        found = f"sha256:{self._sha256.hexdigest()}"
        if found != digest:
            raise IntegrityError(f"the blob that the engine calls {digest} has {found}")
        if self._document is not None:
            self._target._take_document(digest, bytes(self._document))
            return
        if self._reader is None or self._writer is None:
            raise IntegrityError(f"blob {digest} was given up before it was whole")
        plain = self._reader.finish(digest=digest, stored_size_bytes=self._size_bytes)
        if plain is None and self._reader.compression is not Compression.NONE:
            raise IntegrityError(f"blob {digest}: {self._reader.problem}")
        self._target._take_layer(
            self._writer,
            diff_id=plain or digest,
            digest=digest,
            size_bytes=self._size_bytes,
            compression=self._reader.compression,
        )

    def abort(self) -> None:
        """Release everything."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.close()
        finally:
            if self._has_slot:
                self._has_slot = False
                self._target.slots.release()

    def _decide(self) -> None:
        """A small blob that begins as a JSON object is a document: no tar comes without a NUL in its first block."""
        head, self._head = bytes(self._head or b""), None
        if head.startswith(b"{") and b"\0" not in head[:_HEAD_BYTES]:
            self._document = bytearray()
        else:
            self._target.slots.acquire()
            self._has_slot = True
            self._writer = self._target.store.layer(threads=1)
            consumer = _Plain(self._writer)
            self._reader = LayerReader("pushed layer", InflationBudget(self._target.limits), consumer)
        self._take(memoryview(head))

    def _take(self, piece: memoryview) -> None:
        if self._document is not None:
            self._document += piece
            if len(self._document) > DOCUMENT_BYTES:
                raise IntegrityError(f"a JSON document of over {DOCUMENT_BYTES} bytes was pushed")
        elif self._reader is not None:
            self._reader.feed(piece)


class _Plain:
    """Hands the uncompressed bytes of a layer to its writer."""

    def __init__(self, writer: LayerWriter) -> None:
        self._writer = writer

    def begin(self, member: str) -> None:
        """Nothing to do: the writer is new."""

    def plain(self, piece: memoryview | bytes) -> None:
        """Write a piece."""
        self._writer.write(piece)

    def end(self, *, diff_id: str | None, digest: str, size_bytes: int, compression: Compression) -> None:
        """Nothing to do: whoever reads keeps the layer."""
