# SPDX-License-Identifier: Apache-2.0
"""Reading one stored layer while it streams by: how it is compressed, and the digest of what it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from airflow_provider_dockerbackup.core.archive.compression import Compression, Inflater, inflater
from airflow_provider_dockerbackup.exceptions import IntegrityError

_MAGIC_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DecompressLimits:
    """How much the compressed layers of one archive may grow to; nothing of it is held, but each byte is hashed.

    :param ratio: uncompressed bytes for each compressed one, over all layers.
    :param free_bytes: uncompressed bytes that are allowed whatever the ratio.
    """

    ratio: int = 200
    free_bytes: int = 1 << 30


def limits_for(image_bytes: int) -> DecompressLimits:
    """Return the limits for an image: what it is said to hold may come, be it a few large files of zeros.

    :param image_bytes: its size as the engine tells it.
    """
    return DecompressLimits(free_bytes=max(DecompressLimits().free_bytes, 2 * image_bytes))


class InflationBudget:
    """What the layers of one archive may still grow to."""

    def __init__(self, limits: DecompressLimits) -> None:
        self._limits = limits
        self._left = limits.free_bytes

    def earn(self, stored_bytes: int) -> None:
        """Take note of compressed bytes read."""
        self._left += stored_bytes * self._limits.ratio

    def spend(self, plain_bytes: int) -> bool:
        """Take note of decompressed bytes; False when that is more than allowed."""
        self._left -= plain_bytes
        return self._left >= 0

    def check(self, name: str) -> None:
        """Raise ``IntegrityError`` naming the member when too much was spent."""
        if self._left < 0:
            raise IntegrityError(
                f"archive member {name}: compressed layers grow to more than {self._limits.ratio} times their size "
                f"and {self._limits.free_bytes} bytes; raise the limits if they are known to"
            )


class LayerConsumer(Protocol):
    """Is handed the layers of an archive while it streams by. What a method raises ends the scan.

    Every member that may be a layer is offered, whatever the archive's documents say of it later; small members that
    are JSON are not. A scan that fails ends without :meth:`end` for the member under way.
    """

    def begin(self, member: str) -> None:
        """Take the name of the next member that may be a layer."""

    def plain(self, piece: memoryview | bytes) -> None:
        """Take the next of its uncompressed bytes, in order; the piece is valid only during the call."""

    def end(self, *, diff_id: str | None, digest: str, size_bytes: int, compression: Compression) -> None:
        """Take note that the member is over.

        :param diff_id: ``sha256:<hex>`` of all bytes that :meth:`plain` was given; None when the member is compressed
            and did not decompress to its end: what was handed on is of no use then.
        :param digest: ``sha256:<hex>`` of the member's body as it stands in the archive.
        :param size_bytes: how many bytes :meth:`plain` was given.
        :param compression: how the member is stored.
        """


class LayerReader:
    """One layer's body, pushed in.

    What does not decompress is a problem only if the layer's digest turns out to be that of the decompressed form:
    an uncompressed tar may begin with any bytes.

    :param name: member, for messages.
    :param budget: shared by the layers of an archive.
    :param consumer: is handed what the layer holds.
    """

    def __init__(self, name: str, budget: InflationBudget, consumer: LayerConsumer | None = None) -> None:
        self.compression = Compression.NONE
        self.problem = ""
        self.plain_size_bytes = 0
        self._name = name
        self._budget = budget
        self._consumer = consumer
        self._begun = False
        self._head: bytearray | None = bytearray()
        self._sha256 = hashlib.sha256()
        self._inflater: Inflater | None = None

    def feed(self, chunk: memoryview) -> None:
        """Read a piece.

        :raises IntegrityError: when the layers grow beyond the limits.
        """
        self._begin()
        if self._head is not None:
            missing = _MAGIC_BYTES - len(self._head)
            self._head += chunk[:missing]
            chunk = chunk[missing:]
            if len(self._head) == _MAGIC_BYTES:
                self._decide(bytes(self._head))
        if self._inflater is not None:
            self._inflate(self._inflater, chunk)
        elif self._head is None:
            self._hand_on(chunk)

    def _begin(self) -> None:
        if not self._begun and self._consumer is not None:
            self._consumer.begin(self._name)
        self._begun = True

    def _decide(self, head: bytes) -> None:
        self._head = None
        self.compression = Compression.of(head)
        if self.compression is Compression.NONE:
            self._hand_on(head)
        else:
            self._inflater = inflater(self.compression)
            self._inflate(self._inflater, memoryview(head))

    def _hand_on(self, piece: memoryview | bytes) -> None:
        """Hand on what is not compressed; it is hashed as the member's body."""
        if self._consumer is not None and self.compression is Compression.NONE and len(piece):
            self._consumer.plain(piece)

    def _inflate(self, stream: Inflater, chunk: memoryview) -> None:
        self._budget.earn(len(chunk))
        for piece in self._inflated(stream, chunk):
            self._sha256.update(piece)
            self.plain_size_bytes += len(piece)
            if not self._budget.spend(len(piece)):
                break
            if self._consumer is not None:
                self._consumer.plain(piece)
        self._budget.check(self._name)

    def _inflated(self, stream: Inflater, chunk: memoryview) -> Iterator[bytes]:
        try:
            yield from stream.feed(chunk)
        except IntegrityError as err:
            self.problem, self._inflater = str(err), None

    def finish(self, *, digest: str, stored_size_bytes: int) -> str | None:
        """Return ``sha256:<hex>`` of the decompressed layer; None when it was not compressed or is corrupt.

        :param digest: that of the body as it stands in the archive.
        :param stored_size_bytes: size of it.
        """
        self._begin()
        if self._head is not None:
            self._hand_on(bytes(self._head))
        plain_digest = self._plain_digest()
        if self._consumer is not None:
            is_plain = self.compression is Compression.NONE
            self._consumer.end(
                diff_id=digest if is_plain else plain_digest,
                digest=digest,
                size_bytes=stored_size_bytes if is_plain else self.plain_size_bytes,
                compression=self.compression,
            )
        return plain_digest

    def _plain_digest(self) -> str | None:
        if self._inflater is None:
            return None
        try:
            self._inflater.finish()
        except IntegrityError as err:
            self.problem = str(err)
            return None
        return f"sha256:{self._sha256.hexdigest()}"
