# SPDX-License-Identifier: Apache-2.0
"""Reading one stored layer while it streams by: how it is compressed, and the digest of what it holds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

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


class LayerReader:
    """One layer's body, pushed in.

    What does not decompress is a problem only if the layer's digest turns out to be that of the decompressed form:
    an uncompressed tar may begin with any bytes.

    :param name: member, for messages.
    :param budget: shared by the layers of an archive.
    """

    def __init__(self, name: str, budget: InflationBudget) -> None:
        self.compression = Compression.NONE
        self.problem = ""
        self.plain_size_bytes = 0
        self._name = name
        self._budget = budget
        self._head: bytearray | None = bytearray()
        self._sha256 = hashlib.sha256()
        self._inflater: Inflater | None = None

    def feed(self, chunk: memoryview) -> None:
        """Read a piece.

        :raises IntegrityError: when the layers grow beyond the limits.
        """
        if self._head is not None:
            missing = _MAGIC_BYTES - len(self._head)
            self._head += chunk[:missing]
            chunk = chunk[missing:]
            if len(self._head) == _MAGIC_BYTES:
                self._decide(bytes(self._head))
        if self._inflater is not None:
            self._inflate(self._inflater, chunk)

    def _decide(self, head: bytes) -> None:
        self._head = None
        self.compression = Compression.of(head)
        if self.compression is not Compression.NONE:
            self._inflater = inflater(self.compression)
            self._inflate(self._inflater, memoryview(head))

    def _inflate(self, stream: Inflater, chunk: memoryview) -> None:
        self._budget.earn(len(chunk))
        try:
            for piece in stream.feed(chunk):
                self._sha256.update(piece)
                self.plain_size_bytes += len(piece)
                if not self._budget.spend(len(piece)):
                    break
        except IntegrityError as err:
            self.problem, self._inflater = str(err), None
        self._budget.check(self._name)

    def finish(self) -> str | None:
        """Return ``sha256:<hex>`` of the decompressed layer; None when it was not compressed or is corrupt."""
        if self._inflater is None:
            return None
        try:
            self._inflater.finish()
        except IntegrityError as err:
            self.problem = str(err)
            return None
        return f"sha256:{self._sha256.hexdigest()}"
