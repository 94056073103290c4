# SPDX-License-Identifier: Apache-2.0
"""An image as the one archive that every engine from 20.10 on loads: an OCI layout with ``manifest.json`` beside it.

Layers are uncompressed and named by their diff_ids; or, for engines that take them so, they are the blobs that a
repository holds. ``index.json``, ``manifest.json`` and the end of the tar come last, and only if every layer was the
announced one: without them no engine loads anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from airflow_provider_dockerbackup.core.archive.compression import Compression, inflater, zstd_frame
from airflow_provider_dockerbackup.core.archive.contents import BLOBS
from airflow_provider_dockerbackup.core.archive.load_form import compact_json, tag_references
from airflow_provider_dockerbackup.core.archive.oci_layout import (
    LayerName,
    blob_member,
    check_digest,
    image_index,
    image_manifest,
    oci_layout,
)
from airflow_provider_dockerbackup.core.archive.tar_header import ZERO_BLOCK, file_header, padding, whole_file
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.exceptions import BadBlobError, IntegrityError

NOTHING_HELD: Mapping[str, LayerName] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainLayer:
    """One uncompressed layer.

    :param diff_id: ``sha256:<hex>`` of it.
    :param chunks: gives its bytes, each time anew.
    :param blob: digest of the blob that they are read from, for who must know when they are wrong; else empty.
    :param frames: gives the same as whole zstd frames, compared with the blob's name when drawn to its end; None where
        there are none.
    :param stored_size_bytes: size of the blob, where the frames are all of it.
    """

    diff_id: str
    size_bytes: int
    chunks: Callable[[], AbstractContextManager[Iterable[bytes]]]
    blob: str = ""
    frames: Callable[[], AbstractContextManager[Iterable[bytes]]] | None = None
    stored_size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """A layer as it stands in the archive.

    :param digest: names it.
    :param size_bytes: its length in the tar.
    :param body: gives its bytes, or what decompresses to them; raises before their end when they are wrong.
    """

    digest: str
    size_bytes: int
    body: Callable[[], Iterator[bytes]]


def layer_names(
    layers: Iterable[PlainLayer], *, stored: bool, held: Mapping[str, LayerName] = NOTHING_HELD
) -> list[LayerName]:
    """Return by which names the archive of an image calls its layers.

    :param layers: lowest first.
    :param stored: whether as :func:`stored_archive` does, by their blobs; else as :func:`image_archive` does, by their
        diff_ids.
    :param held: by diff_id, other names, by which a daemon has them.
    """

    def own(layer: PlainLayer) -> LayerName:
        if stored:
            return LayerName.stored(layer.blob, layer.stored_size_bytes)
        return LayerName.plain(layer.diff_id, layer.size_bytes)

    return [held.get(layer.diff_id) or own(layer) for layer in layers]


def image_archive(
    *,
    config: bytes,
    layers: Sequence[PlainLayer],
    tags: Sequence[str],
    without: Collection[str] = (),
    held: Mapping[str, LayerName] = NOTHING_HELD,
    packed: bool = False,
    prove: bool = True,
) -> Generator[bytes, None, None]:
    """Yield the archive of an image with uncompressed layers; it depends on the arguments alone.

    :param config: the image's configuration.
    :param layers: its layers, lowest first; one that comes twice is written once.
    :param tags: ``name:tag`` each; none leaves the image untagged.
    :param without: diff_ids of layers that are named and left out, for a daemon that has them.
    :param held: by diff_id, the blobs by which a daemon has layers; these are left out, and called so.
    :param packed: as a series of zstd frames (RFC 8878), which decompress to the same archive.
    :param prove: whether layers in frames are compared with their diff_ids here; their lengths are in any case. Not
        needed for a daemon that itself compares every layer that it keeps.
    :raises ConfigurationError: when a tag or a digest is not one.
    :raises BadBlobError: when a layer has another size or digest.
    """
    for layer in layers:
        check_digest(layer.diff_id)
    head, tail = _around(config, layer_names(layers, stored=False, held=held), tags)
    body = partial(_frames, digests=prove) if packed else _plain
    members = {
        layer.diff_id: _Member(digest=layer.diff_id, size_bytes=layer.size_bytes, body=partial(body, layer))
        for layer in layers
        if layer.diff_id not in without and layer.diff_id not in held
    }
    return _streamed(head, list(members.values()), tail, form=zstd_frame if packed else bytes)


def stored_archive(
    *,
    config: bytes,
    layers: Sequence[PlainLayer],
    tags: Sequence[str],
    without: Collection[str] = (),
    held: Mapping[str, LayerName] = NOTHING_HELD,
    prove: bool = True,
) -> Generator[bytes, None, None]:
    """Yield the archive of an image with its layers as a repository holds them, compressed.

    It names them by a manifest, whose digest containerd stores take for ``.Id``: :func:`stored_manifest`, where nothing
    is ``held`` by another name.

    :param config: the image's configuration.
    :param layers: its layers, lowest first, with their frames; a blob that comes twice is written once.
    :param tags: ``name:tag`` each; none leaves the image untagged.
    :param without: diff_ids of layers that are named and left out, for a daemon that has them.
    :param held: by diff_id, the blobs by which a daemon has layers; these are left out, and called so.
    :param prove: whether each layer is decompressed and compared with its diff_id here; not needed for a daemon that
        itself compares every layer that it keeps.
    :raises ConfigurationError: when a tag or a digest is not one.
    :raises BadBlobError: when a layer has another size or digest, or one blob is to be two layers.
    """
    diff_ids: dict[str, str] = {}
    for layer in layers:
        check_digest(layer.diff_id)
        check_digest(layer.blob)
        if (other := diff_ids.setdefault(layer.blob, layer.diff_id)) != layer.diff_id:
            raise _wrong(layer, f"one blob cannot be both layer {other} and layer {layer.diff_id}")
    body = partial(_frames, digests=True) if prove else _unread
    members = {
        layer.blob: _Member(digest=layer.blob, size_bytes=layer.stored_size_bytes, body=partial(_exact, layer, body))
        for layer in layers
        if layer.diff_id not in without and layer.diff_id not in held
    }
    head, tail = _around(config, layer_names(layers, stored=True, held=held), tags)
    return _streamed(head, list(members.values()), tail, form=bytes)


def archive_size(config: bytes, layers: Sequence[tuple[str, int]]) -> int:
    """Return how long :func:`image_archive` is without tags.

    :param layers: diff_id and size of each layer.
    """
    head, tail = _around(config, [LayerName.plain(*each) for each in layers], ())
    bodies = dict(layers)
    framing = (len(file_header(BLOBS + diff_id[7:], size)) + len(padding(size)) for diff_id, size in bodies.items())
    return len(head) + len(tail) + sum(bodies.values()) + sum(framing)


def _around(config: bytes, names: Sequence[LayerName], tags: Sequence[str]) -> tuple[bytes, bytes]:
    """Return what comes before layers of these names, and what comes after them."""
    references, manifest = tag_references(tags), image_manifest(config, names)
    entry = {
        "Config": BLOBS + sha256_of(config)[7:],
        "RepoTags": [str(tag) for tag in references] or None,
        "Layers": [BLOBS + name.digest[7:] for name in names],
    }
    tail = whole_file("oci-layout", oci_layout()) + whole_file("index.json", image_index(manifest, tags=tags))
    tail += whole_file("manifest.json", compact_json([entry])) + 2 * ZERO_BLOCK
    return blob_member(config) + blob_member(manifest), tail


def _streamed(
    head: bytes, members: Sequence[_Member], tail: bytes, *, form: Callable[[bytes], bytes]
) -> Generator[bytes, None, None]:
    yield form(head)
    for member in members:
        # A size of 8 GiB and more needs a header of several blocks.
        yield form(file_header(BLOBS + member.digest[7:], member.size_bytes))
        yield from member.body()
        if end := padding(member.size_bytes):
            yield form(end)
    yield form(tail)


def _exact(layer: PlainLayer, body: Callable[[PlainLayer], Iterator[bytes]]) -> Iterator[bytes]:
    """Pass a blob on, and never more of it than its tar header says: what follows would be further members."""
    seen = 0
    for chunk in body(layer):
        seen += len(chunk)
        if seen > layer.stored_size_bytes:
            raise _wrong(layer, f"the blob is longer than its recorded {layer.stored_size_bytes} bytes")
        yield chunk
    if seen != layer.stored_size_bytes:
        raise _wrong(layer, f"the blob has {seen} bytes, the record says {layer.stored_size_bytes}")


def _unread(layer: PlainLayer) -> Iterator[bytes]:
    """Pass on a layer as it is stored; only the blob is compared, with its name."""
    if layer.frames is None:
        raise _wrong(layer, f"layer {layer.diff_id} is not stored in frames")
    with layer.frames() as frames:
        yield from frames


def _plain(layer: PlainLayer) -> Iterator[bytes]:
    proof = _Proof(layer)
    with layer.chunks() as chunks:
        for chunk in chunks:
            proof.take(chunk)
            yield chunk
    proof.finish()


def _frames(layer: PlainLayer, *, digests: bool) -> Iterator[bytes]:
    """Pass on a layer as it is stored, if it is; what it decompresses to is compared beside that.

    :param digests: whether its digest is, and not its length alone.
    """
    if layer.frames is None:
        yield from map(zstd_frame, _plain(layer))
        return
    stream, proof = inflater(Compression.ZSTD), _Proof(layer, digest=digests)
    with layer.frames() as frames:
        try:
            for chunk in frames:
                for piece in stream.feed(chunk):
                    proof.take(piece)
                yield chunk
            stream.finish()
        except BadBlobError:
            raise
        except IntegrityError as err:
            raise _wrong(layer, f"layer {layer.diff_id}: {err}") from err
    proof.finish()


class _Proof:
    """Compares a layer with the length in its tar header before it is sent on, and with its digest at its end.

    What follows a layer is read as further members, and with them another image could take over any tag.

    :param digest: whether the digest is compared.
    """

    def __init__(self, layer: PlainLayer, *, digest: bool = True) -> None:
        self._layer = layer
        self._digest = hashlib.sha256() if digest else None
        self._seen = 0

    def take(self, piece: bytes) -> None:
        self._seen += len(piece)
        if self._seen > self._layer.size_bytes:
            said = f"layer {self._layer.diff_id} is longer than its recorded {self._layer.size_bytes} bytes"
            raise _wrong(self._layer, said)
        if self._digest is not None:
            self._digest.update(piece)

    def finish(self) -> None:
        if self._seen != self._layer.size_bytes:
            said = f"layer {self._layer.diff_id} has {self._seen} bytes, the record says {self._layer.size_bytes}"
            raise _wrong(self._layer, said)
        if self._digest is None:
            return
        if (found := f"sha256:{self._digest.hexdigest()}") != self._layer.diff_id:
            raise _wrong(self._layer, f"a layer has {found}, the record says {self._layer.diff_id}")


def _wrong(layer: PlainLayer, said: str) -> BadBlobError:
    return BadBlobError(f"{said}; it was read from blob {layer.blob}" if layer.blob else said, digest=layer.blob)
