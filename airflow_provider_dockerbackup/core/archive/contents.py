# SPDX-License-Identifier: Apache-2.0
"""What lies in a docker-archive, collected while it streams by: digests of bodies, links, small JSON documents.

Only the names that engines write may appear: those of 20.10 (``<v1 id>/layer.tar``, ``<hex>.json``), of 25.0 and newer
(``blobs/sha256/<hex>``, ``index.json``, ``oci-layout``), of podman (``<diff_id>.tar``).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.layer_reader import (
    DecompressLimits,
    InflationBudget,
    LayerConsumer,
    LayerReader,
)
from airflow_provider_dockerbackup.core.archive.tar import MemberKind, TarMember, shown_name
from airflow_provider_dockerbackup.exceptions import IntegrityError

DOCUMENT_BYTES = 4 << 20
DOCUMENTS_BYTES = 24 << 20
BLOBS = "blobs/sha256/"
_HEX = r"[0-9a-f]{64}"
_NAMES = re.compile(
    rf"(?P<document>manifest\.json|index\.json|oci-layout|repositories|{_HEX}\.json)"
    rf"|(?P<blob>{BLOBS}{_HEX}|{_HEX}\.tar)|(?P<layer>{_HEX}/layer\.tar)|(?P<v1>{_HEX}/(?:VERSION|json))"
    rf"|(?P<directory>blobs/?|blobs/sha256/?|{_HEX}/?)"
)
_NAMED_BY_DIGEST = re.compile(rf"(?:{BLOBS}({_HEX})|({_HEX})\.(?:json|tar))")
_LINK = re.compile(rf"\.\./({_HEX}/layer\.tar|{_HEX}\.tar)")
_MARKS = (b'"schemaVersion"', b'"rootfs"')


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One regular member.

    :param digest: ``sha256:<hex>`` of the stored body.
    :param size_bytes: size of the stored body.
    :param compression: what its first bytes say.
    :param plain_digest: digest of the decompressed body; None when it was not compressed or did not decompress.
    :param plain_size_bytes: size of it.
    :param problem: why it did not decompress.
    :param looks_like_json: True when the body begins as a JSON object.
    """

    digest: str
    size_bytes: int
    compression: Compression
    plain_digest: str | None
    plain_size_bytes: int
    problem: str
    looks_like_json: bool


@dataclass(slots=True)
class Contents:
    """All of an archive, by member name."""

    files: dict[str, StoredFile] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: dict[str, TarMember] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)


class ContentsCollector:
    """A member handler that fills :class:`Contents` and hashes the framing, bodies replaced by their digests.

    :param limits: how far layers may be decompressed.
    :param layers: is handed what layers hold.
    """

    def __init__(self, limits: DecompressLimits, *, layers: LayerConsumer | None = None) -> None:
        self.contents = Contents()
        self._layers = layers
        self._content = hashlib.sha256()
        self._member: TarMember | None = None
        self._sha256 = hashlib.sha256()
        self._document: bytearray | None = None
        self._documents_bytes = 0
        self._budget = InflationBudget(limits)
        self._layer: LayerReader | None = None
        self._looks_like_json = False
        self._begun = False

    @property
    def content_digest(self) -> str:
        """Digest over framing and digests of bodies so far, as :class:`DockerArchiveScanner` defines it."""
        return f"sha256:{self._content.hexdigest()}"

    def framing(self, block: bytes) -> None:
        """Take headers and the end of the tar."""
        self._content.update(block)

    def begin(self, member: TarMember) -> None:
        """Refuse what no engine writes; prepare for the body."""
        self._member = member
        match = _NAMES.fullmatch(member.name)
        if match is None:
            raise IntegrityError(f"archive member {shown_name(member.name)}: no engine writes such a name")
        self._check_new(member)
        role = match.lastgroup
        wanted = MemberKind.DIRECTORY if role == "directory" else MemberKind.FILE
        if member.kind is MemberKind.SYMLINK and role == "layer":
            self._take_link(member)
        elif member.kind is not wanted:
            raise IntegrityError(f"archive member {shown_name(member.name)}: must be a {wanted}, is a {member.kind}")
        elif role == "directory":
            self.contents.directories[member.name] = member
        else:
            self._begin_file(member, role)

    def _check_new(self, member: TarMember) -> None:
        """A second member of the same name would override the first when loaded; only equal directories do no harm."""
        contents = self.contents
        earlier = contents.directories.get(member.name)
        if earlier is not None and earlier != member:
            raise IntegrityError(f"archive member {shown_name(member.name)}: directory comes twice and differs")
        if member.name in contents.files or member.name in contents.links:
            raise IntegrityError(f"archive member {shown_name(member.name)}: the name comes twice")

    def _take_link(self, member: TarMember) -> None:
        target = _LINK.fullmatch(member.link_name)
        if target is None or target[1] == member.name:
            shown = shown_name(member.link_name)
            raise IntegrityError(f"archive member {shown_name(member.name)}: links to {shown}, not to another layer")
        self.contents.links[member.name] = target[1]

    def _begin_file(self, member: TarMember, role: str | None) -> None:
        self._sha256 = hashlib.sha256()
        self._document = self._layer = None
        self._looks_like_json = self._begun = False
        if role == "document":
            if member.size_bytes > DOCUMENT_BYTES:
                raise IntegrityError(
                    f"archive member {member.name}: a document of {member.size_bytes} bytes, "
                    f"allowed are {DOCUMENT_BYTES}"
                )
            self._keep_document(member)
        elif role != "v1":
            self._layer = LayerReader(member.name, self._budget, self._layers)

    def _keep_document(self, member: TarMember) -> None:
        self._documents_bytes += member.size_bytes
        if self._documents_bytes > DOCUMENTS_BYTES:
            raise IntegrityError(f"archive member {member.name}: more than {DOCUMENTS_BYTES} bytes of JSON documents")
        self._document = bytearray()

    def data(self, chunk: memoryview) -> None:
        """Hash a piece of the body, and keep it as a document or read it as a layer."""
        self._sha256.update(chunk)
        if not self._begun:
            self._begun = True
            self._see_first(chunk)
        if self._document is not None:
            self._document += chunk
        elif self._layer is not None:
            self._layer.feed(chunk)

    def _see_first(self, chunk: memoryview) -> None:
        """A small blob that begins as a JSON object is kept, while there is room; it may be a manifest."""
        member = self._member
        if self._layer is None or member is None or member.size_bytes > DOCUMENT_BYTES or bytes(chunk[:1]) != b"{":
            return
        self._looks_like_json = True
        if self._documents_bytes + member.size_bytes <= DOCUMENTS_BYTES:
            self._keep_document(member)
            self._layer = None

    def end(self) -> None:
        """Enter the member, its body whole."""
        member = self._member
        if member is None or member.kind is not MemberKind.FILE:
            return
        body = self._sha256.digest()
        self._content.update(body)
        digest = f"sha256:{body.hex()}"
        named = _NAMED_BY_DIGEST.fullmatch(member.name)
        if named is not None and digest[7:] != (named[1] or named[2]):
            raise IntegrityError(f"archive member {member.name}: its sha256 is {digest[7:]}, not its name")
        if self._document is not None:
            self._enter_document(member.name, bytes(self._document))
        self.contents.files[member.name] = self._stored(member, digest)

    def _stored(self, member: TarMember, digest: str) -> StoredFile:
        layer = self._layer
        compression = Compression.NONE if layer is None else layer.compression
        return StoredFile(
            digest=digest,
            size_bytes=member.size_bytes,
            compression=compression,
            plain_digest=None if layer is None else layer.finish(digest=digest, stored_size_bytes=member.size_bytes),
            plain_size_bytes=0 if layer is None else layer.plain_size_bytes,
            problem="" if layer is None else layer.problem,
            looks_like_json=self._looks_like_json,
        )

    def _enter_document(self, name: str, document: bytes) -> None:
        """Of blobs only those are kept that can be an index, a manifest or a configuration.

        A tar whose first name begins with a brace is read as a layer after all: JSON holds no NUL.
        """
        if self._looks_like_json and b"\0" in document:
            self._documents_bytes -= len(document)
            self._looks_like_json = False
            self._layer = LayerReader(name, self._budget, self._layers)
            self._layer.feed(memoryview(document))
        elif name.startswith(BLOBS) and not any(mark in document for mark in _MARKS):
            self._documents_bytes -= len(document)
        else:
            self.contents.documents[name] = document
