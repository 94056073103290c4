# SPDX-License-Identifier: Apache-2.0
"""What the host sends of a filtered archive: plain, or compressed there."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_dockerbackup.core.archive.compression import Compression, Inflater, inflater
from airflow_provider_dockerbackup.core.archive.layer_reader import DecompressLimits, InflationBudget
from airflow_provider_dockerbackup.exceptions import IntegrityError

_MAGIC_BYTES = 4


class Arrival:
    """Takes the stream as it comes and hands on the archive in it.

    A tar begins with a member's name, never with the first bytes of gzip or zstd.

    :param scan: takes the pieces of the archive; raises when it is not what it must be.
    :param limits: how much a compressed stream may grow to.
    """

    def __init__(self, scan: Callable[[bytes], None], limits: DecompressLimits) -> None:
        self.received_bytes = self._archive_bytes = 0
        self._scan = scan
        self._limits = limits
        self._budget = InflationBudget(limits)
        self._head: bytearray | None = bytearray()
        self._inflater: Inflater | None = None

    def feed(self, chunk: bytes) -> int:
        """Take the next piece and return how many bytes of the archive were in it.

        :raises IntegrityError: when it does not decompress, or grows beyond the limits.
        """
        before = self._archive_bytes
        self.received_bytes += len(chunk)
        if self._head is None:
            self._hand_on(chunk)
        else:
            self._head += chunk
            if len(self._head) >= _MAGIC_BYTES:
                self._begin(bytes(self._head))
        return self._archive_bytes - before

    def finish(self) -> None:
        """Declare the stream over.

        :raises IntegrityError: when it was compressed and lacks its end.
        """
        if self._head:
            self._begin(bytes(self._head))
        if self._inflater is not None:
            self._inflater.finish()

    def _begin(self, head: bytes) -> None:
        self._head = None
        compression = Compression.of(head)
        if compression is not Compression.NONE:
            self._inflater = inflater(compression)
        self._hand_on(head)

    def _hand_on(self, chunk: bytes) -> None:
        if self._inflater is None:
            self._archive_bytes += len(chunk)
            self._scan(chunk)
            return
        self._budget.earn(len(chunk))
        for piece in self._inflater.feed(chunk):
            if not self._budget.spend(len(piece)):
                raise IntegrityError(
                    f"what the host compressed of docker save grows to more than {self._limits.ratio} times its size "
                    f"and {self._limits.free_bytes} bytes"
                )
            self._archive_bytes += len(piece)
            self._scan(piece)
