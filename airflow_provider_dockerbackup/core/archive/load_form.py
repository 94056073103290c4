# SPDX-License-Identifier: Apache-2.0
"""A docker-archive under other tags, for ``docker load``, which silently takes over every tag that an archive names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from airflow_provider_dockerbackup.core.archive.contents import DOCUMENT_BYTES
from airflow_provider_dockerbackup.core.archive.tar import TarMember, TarScanner
from airflow_provider_dockerbackup.core.archive.tar_header import LATEST_MTIME, file_header, padding
from airflow_provider_dockerbackup.core.archive.wire import ManifestEntry, OciIndex, parse, strict_json
from airflow_provider_dockerbackup.core.reference import ImageReference
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError

_IMAGE_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_DROPPED = "repositories"
_REWRITTEN = ("manifest.json", "index.json")


def retagged(chunks: Iterable[bytes], *, tags: Sequence[str]) -> Iterator[bytes]:
    """Yield the same archive, naming ``tags`` and no others; layers, configuration and all else stay as they are.

    ``RepoTags`` of ``manifest.json`` and the names in the annotations of ``index.json`` are replaced, the legacy file
    ``repositories`` is left out. The end of the tar leaves only after the whole input proved to be a tar; digests are
    not looked at here.

    :param chunks: an uncompressed docker-archive.
    :param tags: ``name:tag`` each; none leaves the image untagged.
    :raises ConfigurationError: when one is not a name with a tag.
    :raises IntegrityError: when the input is no tar, has no ``manifest.json``, or one that names several images.
    """
    references = tag_references(tags)
    rewriter = _Rewriter(references)
    scanner = TarScanner(rewriter, framing=rewriter.framing)
    return _pass(chunks, scanner, rewriter)


def _pass(chunks: Iterable[bytes], scanner: TarScanner, rewriter: _Rewriter) -> Iterator[bytes]:
    for chunk in chunks:
        scanner.feed(chunk)
        yield from rewriter.ready()
    scanner.finish()
    yield from rewriter.rest()


def tag_references(tags: Iterable[str]) -> tuple[ImageReference, ...]:
    """Return ``tags`` parsed, each a name with a tag and without a digest.

    :raises ConfigurationError: when one is anything else.
    """
    references = tuple(ImageReference.parse(tag) for tag in tags)
    for reference in references:
        if not reference.repository or reference.digest:
            raise ConfigurationError(f"tag {str(reference)!r}: expected NAME:TAG, without a digest")
    return references


def name_annotations(reference: ImageReference) -> dict[str, str]:
    """Return the annotations with which ``index.json`` names an image: as containerd wants it, and the bare tag.

    Docker's short names are written out: ``app:1`` is ``docker.io/library/app:1`` (distribution/reference).
    """
    domain, slash, _ = reference.repository.partition("/")
    full = reference.repository
    if not slash or not (set(domain) & set(".:") or domain == "localhost" or domain != domain.lower()):
        full = f"docker.io/{full}" if slash else f"docker.io/library/{full}"
    elif domain == "index.docker.io":
        full = "docker.io" + full[len(domain) :]
    return {_IMAGE_NAME: f"{full}:{reference.tag}", _REF_NAME: reference.tag}


def compact_json(value: Any) -> bytes:
    """Return JSON without blanks, in the order given, not escaped beyond need."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class _Rewriter:
    """A member handler that passes everything on but the names."""

    def __init__(self, tags: Sequence[ImageReference]) -> None:
        self._tags = tags
        self._out: list[bytes] = []
        self._framing = bytearray()
        self._member: TarMember | None = None
        self._document: bytearray | None = None
        self._drop = False
        self._has_manifest = False

    def framing(self, block: bytes) -> None:
        """Hold headers back until the member is known; at the end these are the zero blocks."""
        self._framing += block

    def begin(self, member: TarMember) -> None:
        self._member = member
        self._drop = member.name == _DROPPED
        self._document = None
        if member.name in _REWRITTEN:
            if member.size_bytes > DOCUMENT_BYTES:
                raise IntegrityError(f"archive member {member.name}: a document of {member.size_bytes} bytes")
            self._document = bytearray()
        elif not self._drop:
            self._out.append(bytes(self._framing))
        self._framing.clear()

    def data(self, chunk: memoryview) -> None:
        if self._document is not None:
            self._document += chunk
        elif not self._drop:
            self._out.append(bytes(chunk))

    def end(self) -> None:
        member = self._member
        if member is None or self._drop:
            return
        if self._document is None:
            self._out.append(padding(member.size_bytes))
            return
        value = strict_json(bytes(self._document), where=member.name)
        if member.name == "manifest.json":
            self._has_manifest = True
            body = compact_json(_manifest_with(value, [str(tag) for tag in self._tags]))
        else:
            body = compact_json(_index_with(value, self._tags))
        mtime = min(max(0, member.mtime_ns // 1_000_000_000), LATEST_MTIME)
        header = file_header(member.name, len(body), mode=member.mode & 0o7777777, mtime=mtime)
        self._out.append(header + body + padding(len(body)))

    def ready(self) -> list[bytes]:
        """Return what can leave now."""
        ready, self._out = [piece for piece in self._out if piece], []
        return ready

    def rest(self) -> list[bytes]:
        """Return the end of the tar."""
        if not self._has_manifest:
            raise IntegrityError("manifest.json is missing; this is no archive of docker save")
        return [*self.ready(), bytes(self._framing)]


def _manifest_with(value: Any, tags: list[str]) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) != 1:
        raise IntegrityError("manifest.json must describe exactly one image")
    parse(ManifestEntry, value[0], where="manifest.json")
    return [{**value[0], "RepoTags": tags or None}]


def _index_with(value: Any, tags: Sequence[ImageReference]) -> dict[str, Any]:
    """Each manifest once for every tag; entries that differed by their names alone become one."""
    parse(OciIndex, value, where="index.json")
    unnamed: list[dict[str, Any]] = []
    for descriptor in value["manifests"] or ():
        bare = _without_names(descriptor)
        if bare not in unnamed:
            unnamed.append(bare)
    named = [_with_names(bare, tag) for bare in unnamed for tag in tags]
    return {**value, "manifests": named if tags else unnamed}


def _without_names(descriptor: dict[str, Any]) -> dict[str, Any]:
    annotations = descriptor.get("annotations") or {}
    kept = {key: content for key, content in annotations.items() if key not in (_IMAGE_NAME, _REF_NAME)}
    bare = {key: content for key, content in descriptor.items() if key != "annotations"}
    return {**bare, "annotations": kept} if kept else bare


def _with_names(bare: dict[str, Any], tag: ImageReference) -> dict[str, Any]:
    return {**bare, "annotations": {**bare.get("annotations", {}), **name_annotations(tag)}}
