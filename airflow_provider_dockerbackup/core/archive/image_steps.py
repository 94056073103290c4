# SPDX-License-Identifier: Apache-2.0
"""The configuration of an archived image and the sizes of files in its layers, taken while the archive streams by.

It trusts the archive to be the one that a :class:`DockerArchiveScanner` accepts; read it beside one.
"""

from __future__ import annotations

from collections.abc import Collection

from airflow_provider_dockerbackup.core.archive.compression import Compression, Inflater, inflater
from airflow_provider_dockerbackup.core.archive.contents import BLOBS, DOCUMENT_BYTES
from airflow_provider_dockerbackup.core.archive.tar import MemberKind, TarLimits, TarMember, TarScanner
from airflow_provider_dockerbackup.exceptions import IntegrityError

_MAGIC_BYTES = 4
_LAYER_LIMITS = TarLimits(members=4_000_000)


class ImageStepsScanner:
    """Reads one docker-archive whose members are known from its record.

    :param config_digest: ``sha256:<hex>`` of the configuration.
    :param layer_members: names of the members that hold layers.
    """

    def __init__(self, *, config_digest: str, layer_members: Collection[str]) -> None:
        self._steps = _Steps(config_digest.removeprefix("sha256:"), frozenset(layer_members))
        self._tar = TarScanner(self._steps)

    def feed(self, chunk: bytes | memoryview) -> None:
        """Scan the next piece, of any length.

        :raises IntegrityError: when it is no tar.
        """
        self._tar.feed(chunk)

    def finish(self) -> tuple[bytes, dict[str, int | None]]:
        """Return the configuration's bytes, and by member the size of the files and symbolic links in the layer.

        The sum is what Docker's classic store gives as a layer's size; None where a layer is written in a way that the
        strict scanner does not read.

        :raises IntegrityError: when the tar was cut short or holds no such configuration.
        """
        self._tar.finish()
        if self._steps.config is None:
            raise IntegrityError("the archive holds no configuration under its digest")
        return bytes(self._steps.config), self._steps.sizes


class _Steps:
    """A member handler that keeps the configuration and measures layers."""

    def __init__(self, config_hex: str, layer_members: frozenset[str]) -> None:
        self.config: bytearray | None = None
        self.sizes: dict[str, int | None] = {}
        self._config_names = (f"{config_hex}.json", BLOBS + config_hex)
        self._layer_members = layer_members
        self._member: TarMember | None = None
        self._layer: _LayerSize | None = None

    def begin(self, member: TarMember) -> None:
        self._member = member
        self._layer = None
        if member.name in self._config_names and member.kind is MemberKind.FILE:
            if member.size_bytes > DOCUMENT_BYTES:
                raise IntegrityError(f"archive member {member.name}: a configuration of {member.size_bytes} bytes")
            self.config = bytearray()
        elif member.name in self._layer_members and member.kind is MemberKind.FILE:
            self._layer = _LayerSize()

    def data(self, chunk: memoryview) -> None:
        if self._layer is not None:
            self._layer.feed(chunk)
        elif self.config is not None and self._member is not None and self._member.name in self._config_names:
            self.config += chunk

    def end(self) -> None:
        if self._layer is not None and self._member is not None:
            self.sizes[self._member.name] = self._layer.size_bytes


class _LayerSize:
    """Sums the sizes of the files in one stored layer, compressed or not."""

    def __init__(self) -> None:
        self._sum = _Sum()
        self._tar: TarScanner | None = TarScanner(self._sum, limits=_LAYER_LIMITS)
        self._head: bytearray | None = bytearray()
        self._inflater: Inflater | None = None

    @property
    def size_bytes(self) -> int | None:
        """The sum so far; None when the layer cannot be read."""
        return self._sum.size_bytes if self._tar is not None else None

    def feed(self, chunk: memoryview) -> None:
        try:
            self._feed(chunk)
        except IntegrityError:
            self._tar = None

    def _feed(self, chunk: memoryview) -> None:
        if self._head is not None:
            missing = _MAGIC_BYTES - len(self._head)
            self._head += chunk[:missing]
            chunk = chunk[missing:]
            if len(self._head) < _MAGIC_BYTES:
                return
            head, self._head = bytes(self._head), None
            compression = Compression.of(head)
            self._inflater = inflater(compression) if compression is not Compression.NONE else None
            self._scan(memoryview(head))
        self._scan(chunk)

    def _scan(self, chunk: memoryview) -> None:
        if self._tar is None:
            return
        for piece in self._inflater.feed(chunk) if self._inflater is not None else (chunk,):
            self._tar.feed(piece)


class _Sum:
    """A member handler that adds up sizes."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def begin(self, member: TarMember) -> None:
        """Add what ``lstat`` gives: a symbolic link is as long as its target, a hard link counts no second time."""
        self.size_bytes += member.size_bytes
        if member.kind is MemberKind.SYMLINK:
            self.size_bytes += len(member.link_name.encode("utf-8", "surrogateescape"))

    def data(self, chunk: memoryview) -> None:
        """Take no note of contents."""

    def end(self) -> None:
        """Take no note of ends."""
