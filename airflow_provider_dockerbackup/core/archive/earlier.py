# SPDX-License-Identifier: Apache-2.0
"""An archived image as it was at an earlier step of its own history, streamed in the form that every engine loads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.contents import BLOBS, DOCUMENT_BYTES
from airflow_provider_dockerbackup.core.archive.load_form import compact_json, name_annotations, tag_references
from airflow_provider_dockerbackup.core.archive.replay import replayed
from airflow_provider_dockerbackup.core.archive.tar import TarMember, TarScanner
from airflow_provider_dockerbackup.core.archive.tar_header import ZERO_BLOCK, file_header, padding, whole_file
from airflow_provider_dockerbackup.core.archive.wire import History, ImageConfig, parse, strict_json
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError

_OCI = "application/vnd.oci.image."
_BLOB = re.compile(rf"{BLOBS}([0-9a-f]{{64}})")
_MEDIA_TYPES = {
    Compression.NONE: f"{_OCI}layer.v1.tar",
    Compression.GZIP: f"{_OCI}layer.v1.tar+gzip",
    Compression.ZSTD: f"{_OCI}layer.v1.tar+zstd",
}
# What tells of the last step only: who made it and why, in which container, and where its layers are cached. The
# comments of the others are in the history, where engines look when there is no other.
_OF_LAST_STEP = ("author", "comment", "container", "container_config", "moby.buildkit.cache.v0")


class StoredLayer(Protocol):
    """One layer of an archived image, as its record describes it."""

    @property
    def diff_id(self) -> str:
        """sha256 of the uncompressed layer."""

    @property
    def member(self) -> str:
        """Name of the member that holds it."""

    @property
    def stored_size_bytes(self) -> int:
        """Size of the member."""

    @property
    def compression(self) -> Compression:
        """How it is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """The configuration of an image at an earlier step.

    :param document: the image configuration's bytes; secret-bearing.
    :param config: the ``config`` object in it.
    :param diff_ids: its layers, lowest first.
    :param exact: names of values that the history proves.
    :param guessed: names of values that it does not.
    """

    document: bytes
    config: dict[str, Any]
    diff_ids: tuple[str, ...]
    exact: tuple[str, ...]
    guessed: tuple[str, ...]


def earlier_configuration(document: bytes, *, step: int) -> Earlier:
    """Return the configuration that an image had after the first ``step`` steps of its history.

    With all of its steps it is the image itself, byte for byte.

    :param document: the image configuration (docker image specification v1.2).
    :raises ConfigurationError: when there is no such step, or no layer yet at it, or when the history does not tell
        which step made which layer.
    :raises IntegrityError: when the document is none.
    """
    value = strict_json(document, where="the image configuration")
    parsed = parse(ImageConfig, value, where="the image configuration")
    diff_ids, history = parsed.rootfs.diff_ids or [], parsed.history or []
    if sum(not each.empty_layer for each in history) != len(diff_ids):
        raise ConfigurationError(
            "step: the image's history does not tell which step made which layer, as some builders write none; leave "
            "step out, or take an earlier backup"
        )
    if not 1 <= step <= len(history):
        raise ConfigurationError(f"step: expected 1 to {len(history)}, got {step}")
    layers = sum(not each.empty_layer for each in history[:step])
    if not layers:
        raise ConfigurationError(f"step: at step {step} the image has no layer yet; take a later one")
    result = replayed(value.get("config") or {}, value["history"], step=step)
    if step == len(history):
        return Earlier(
            document=document,
            config=result.config,
            diff_ids=tuple(diff_ids),
            exact=result.exact,
            guessed=result.guessed,
        )
    kept = {key: content for key, content in value.items() if key not in _OF_LAST_STEP}
    created = history[step - 1].created
    kept |= {
        "config": result.config,
        "history": value["history"][:step],
        "rootfs": {**value["rootfs"], "diff_ids": diff_ids[:layers]},
        **({"created": created} if created else {}),
        **({"author": author} if (author := _author(value.get("author"), history, step)) else {}),
    }
    return Earlier(
        document=json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode(),
        config=result.config,
        diff_ids=tuple(diff_ids[:layers]),
        exact=result.exact,
        guessed=(*result.guessed, *(() if created else ("created",))),
    )


def _author(last: str | None, history: Sequence[History], step: int) -> str:
    """Return who made the image at a step: the classic builder and commits say so at each, BuildKit at the end only."""
    named = any(each.author or "MAINTAINER " in (each.created_by or "") for each in history[step:])
    return history[step - 1].author or ("" if named else last or "")


def member_bytes(chunks: Iterable[bytes], *, digest: str) -> bytes:
    """Return the document in a docker-archive whose name is its digest, reading no further than it.

    :param digest: ``sha256:<hex>``; what is returned has it.
    :raises IntegrityError: when it is not there, or other bytes are.
    """
    finder = _Finder({f"{BLOBS}{digest[7:]}", f"{digest[7:]}.json"})
    scanner = TarScanner(finder)
    for chunk in chunks:
        scanner.feed(chunk)
        if finder.found is not None:
            break
    if finder.found is None or sha256_of(finder.found) != digest:
        raise IntegrityError(f"the archive has no image configuration {digest}")
    return finder.found


def earlier_image(
    chunks: Iterable[bytes], *, document: bytes, layers: Sequence[StoredLayer], tags: Sequence[str]
) -> Iterator[bytes]:
    """Yield a docker-archive of ``document`` and ``layers``, in the one form that every engine from 20.10 on loads.

    Layers are taken out of ``chunks`` as they come, in whatever order, and stay as they are stored. ``index.json``,
    ``manifest.json`` and the end of the tar come last and only if ``chunks`` ended well: without them no engine loads
    anything.

    :param chunks: the whole docker-archive; raises at its end if anything in it is not what was recorded.
    :param document: the new image's configuration.
    :param layers: its layers, lowest first.
    :param tags: ``name:tag`` each; none leaves the image untagged.
    :raises IntegrityError: when a layer is missing.
    """
    references = tag_references(tags)
    digests = {layer.member: _digest(layer) for layer in layers}
    manifest = compact_json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}manifest.v1+json",
            "config": _descriptor("config.v1+json", document),
            "layers": [
                {
                    "mediaType": _MEDIA_TYPES[layer.compression],
                    "digest": digests[layer.member],
                    "size": layer.stored_size_bytes,
                }
                for layer in layers
            ],
        }
    )
    index = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}index.v1+json",
        "manifests": [
            {**_descriptor("manifest.v1+json", manifest), **extra}
            for extra in [{"annotations": name_annotations(tag)} for tag in references] or [{}]
        ],
    }
    entry = {
        "Config": BLOBS + sha256_of(document)[7:],
        "RepoTags": [str(tag) for tag in references] or None,
        "Layers": [BLOBS + digests[layer.member][7:] for layer in layers],
    }
    head = b"".join(whole_file(BLOBS + sha256_of(body)[7:], body) for body in (document, manifest))
    tail = whole_file("oci-layout", compact_json({"imageLayoutVersion": "1.0.0"}))
    tail += whole_file("index.json", compact_json(index)) + whole_file("manifest.json", compact_json([entry]))
    return _streamed(head, chunks, _Layers(digests), tail + 2 * ZERO_BLOCK)


def _streamed(head: bytes, chunks: Iterable[bytes], layers: _Layers, tail: bytes) -> Iterator[bytes]:
    yield head
    scanner = TarScanner(layers)
    for chunk in chunks:
        scanner.feed(chunk)
        yield from layers.ready()
    scanner.finish()
    layers.require_all()
    yield from layers.ready()
    yield tail


class _Finder:
    """A member handler that keeps the one document it looks for."""

    def __init__(self, names: set[str]) -> None:
        self.found: bytes | None = None
        self._names = names
        self._body: bytearray | None = None

    def begin(self, member: TarMember) -> None:
        self._body = None
        if member.name in self._names and self.found is None:
            if member.size_bytes > DOCUMENT_BYTES:
                raise IntegrityError(f"archive member {member.name}: a document of {member.size_bytes} bytes")
            self._body = bytearray()

    def data(self, chunk: memoryview) -> None:
        if self._body is not None:
            self._body += chunk

    def end(self) -> None:
        if self._body is not None:
            self.found, self._body = bytes(self._body), None


class _Layers:
    """A member handler that passes some layers on, each under its digest and once."""

    def __init__(self, digests: dict[str, str]) -> None:
        self._digests = digests
        self._missing = set(digests.values())
        self._out: list[bytes] = []
        self._size_bytes: int | None = None

    def begin(self, member: TarMember) -> None:
        digest = self._digests.get(member.name)
        self._size_bytes = None
        if digest is not None and digest in self._missing:
            self._missing.discard(digest)
            self._size_bytes = member.size_bytes
            self._out.append(file_header(BLOBS + digest[7:], member.size_bytes))

    def data(self, chunk: memoryview) -> None:
        if self._size_bytes is not None:
            self._out.append(bytes(chunk))

    def end(self) -> None:
        if self._size_bytes is not None:
            self._out.append(padding(self._size_bytes))

    def ready(self) -> list[bytes]:
        """Return what can leave now."""
        ready, self._out = [piece for piece in self._out if piece], []
        return ready

    def require_all(self) -> None:
        """Return only if every layer was there."""
        if self._missing:
            raise IntegrityError(f"the archive lacks the layers {', '.join(sorted(self._missing))}")


def _digest(layer: StoredLayer) -> str:
    """Return the digest of a layer as it is stored, which is known before its bytes come."""
    if match := _BLOB.fullmatch(layer.member):
        return f"sha256:{match[1]}"
    if layer.compression is Compression.NONE:
        return layer.diff_id
    raise IntegrityError(f"layer {layer.member} is compressed and not named by its digest; no engine writes that")


def _descriptor(kind: str, body: bytes) -> dict[str, Any]:
    return {"mediaType": _OCI + kind, "digest": sha256_of(body), "size": len(body)}
