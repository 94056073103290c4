# SPDX-License-Identifier: Apache-2.0
"""What a host sends of ``docker save`` for layout ``layers``: an archive in frames, the layers in it compressed there.

After a zero byte and the line ``dockerbackup 1`` come frames: ``raw N`` and N bytes; ``packed N`` and one zstd frame or
gzip member that holds N bytes; ``rest`` and everything until the end. What begins otherwise is an archive without
frames, from a host that cannot make them: no tar of an image begins with a zero byte. A frame's length is told before
it, so nothing that a host compresses can grow without bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from airflow_provider_dockerbackup.core.archive.compression import Compression, SingleFrame, single_frame
from airflow_provider_dockerbackup.core.archive.layer_reader import DecompressLimits, InflationBudget
from airflow_provider_dockerbackup.exceptions import IntegrityError

_FIRST_LINE = b"\0dockerbackup 1\n"
_LINE = re.compile(rb"(raw|packed) (0|[1-9][0-9]{0,18})|rest", re.ASCII)
_LINE_BYTES = 32
_MAGIC_BYTES = 4
# A frame's header and its first block, which may be all that says nothing yet.
_SILENT_BYTES = 256 << 10
# What a host may send after a body that ended early, before its failure is told.
_AFTERMATH_BYTES = 1 << 20
# What every reader of OCI images takes; zstd needs more from level 20 on.
_WINDOW_BYTES = 8 << 20


class PackedConsumer(Protocol):
    """Is handed the zstd frames of a stream beside what they hold."""

    def begin_packed(self, *, offset: int) -> None:
        """Take note that what is scanned from now on, from ``offset`` in the archive, comes from one zstd frame."""

    def packed(self, piece: bytes | memoryview) -> None:
        """Take the next piece of that frame, after at least one byte of what it holds was scanned."""

    def end_packed(self, *, size_bytes: int) -> None:
        """Take note that the frame is whole and held ``size_bytes``, all of which were scanned."""


class Arrival:
    """Takes the stream as it comes and hands on the archive in it.

    :param scan: takes the pieces of the archive; raises when it is not what it must be.
    :param consumer: is handed zstd frames.
    :param limits: how much all that is compressed may grow to.
    """

    def __init__(self, scan: Callable[[bytes], None], consumer: PackedConsumer, limits: DecompressLimits) -> None:
        self.received_bytes = 0
        self.archive_bytes = 0
        self._scan = scan
        self._consumer = consumer
        self._limits = limits
        self._budget = InflationBudget(limits)
        self._held = bytearray()
        self._read: Callable[[memoryview], int] = self._first_line
        self._left = 0
        self._packed: _Packed | None = None
        self._problem: IntegrityError | None = None

    def feed(self, chunk: bytes) -> int:
        """Take the next piece and return how many bytes of the archive were in it.

        :raises IntegrityError: when the frames are none, or what they hold is not what was told.
        """
        before = self.archive_bytes
        self.received_bytes += len(chunk)
        left = memoryview(chunk)
        while left:
            left = left[self._read(left) :]
        return self.archive_bytes - before

    def finish(self) -> None:
        """Declare the stream over.

        :raises IntegrityError: when it ended within a frame.
        """
        if self._problem is not None:
            raise self._problem
        if self._read == self._first_line:
            self._hand_on(bytes(self._held))
        elif self._read != self._rest:
            raise IntegrityError("the archive that the host sent in frames ends early")

    def _first_line(self, data: memoryview) -> int:
        taken = min(len(data), len(_FIRST_LINE) - len(self._held))
        self._held += data[:taken]
        if not _FIRST_LINE.startswith(self._held):
            self._read = self._rest
            self._hand_on(bytes(self._held))
        elif len(self._held) == len(_FIRST_LINE):
            self._held.clear()
            self._read = self._line
        return taken

    def _line(self, data: memoryview) -> int:
        piece = bytes(data[:_LINE_BYTES])
        text, newline, _ = piece.partition(b"\n")
        self._held += text
        if len(self._held) > _LINE_BYTES:
            raise _not_a_frame(self._held)
        if newline:
            self._begin(bytes(self._held))
            self._held.clear()
        return len(text) + len(newline)

    def _begin(self, line: bytes) -> None:
        match = _LINE.fullmatch(line)
        if match is None:
            raise _not_a_frame(line)
        if match[1] is None:
            self._read = self._rest
            return
        self._left = int(match[2])
        if match[1] == b"packed":
            self._packed = None
            self._read = self._packed_body
        else:
            self._read = self._raw_body if self._left else self._line

    def _rest(self, data: memoryview) -> int:
        self._hand_on(bytes(data))
        return len(data)

    def _raw_body(self, data: memoryview) -> int:
        taken = min(len(data), self._left)
        self._hand_on(bytes(data[:taken]))
        self._left -= taken
        if not self._left:
            self._read = self._line
        return taken

    def _packed_body(self, data: memoryview) -> int:
        if self._packed is None:
            taken = min(len(data), _MAGIC_BYTES - len(self._held))
            self._held += data[:taken]
            if len(self._held) == _MAGIC_BYTES:
                self._packed = _Packed(bytes(self._held), self._left, self._consumer, self.archive_bytes)
                self._held.clear()
                self._unpack(self._packed, memoryview(self._packed.head))
            return taken
        return self._unpack(self._packed, data)

    def _unpack(self, packed: _Packed, data: memoryview) -> int:
        taken = 0
        for piece, plain in packed.frame.feed(data):
            taken += len(piece)
            self._budget.earn(len(piece))
            if not self._budget.spend(len(plain)):
                raise IntegrityError(
                    f"what the host compressed grows to more than {self._limits.ratio} times its size and "
                    f"{self._limits.free_bytes} bytes"
                )
            packed.take(len(plain))
            if plain:
                self._hand_on(plain)
            packed.forward(piece)
        if packed.frame.ended:
            self._packed, self._read = None, self._line
            self._problem = packed.end()
            if self._problem is not None:
                self._left, self._read = _AFTERMATH_BYTES, self._aftermath
        return taken

    def _aftermath(self, data: memoryview) -> int:
        """Pass over what follows a body that ended early: the host is about to say why it failed."""
        self._left -= len(data)
        if self._left < 0 and self._problem is not None:
            raise self._problem
        return len(data)

    def _hand_on(self, piece: bytes) -> None:
        self.archive_bytes += len(piece)
        self._scan(piece)


class _Packed:
    """One compressed frame that is being read."""

    def __init__(self, head: bytes, size_bytes: int, consumer: PackedConsumer, offset: int) -> None:
        compression = Compression.of(head)
        if compression is Compression.NONE:
            raise IntegrityError(f"what the host compressed begins with {head.hex()}, which is neither zstd nor gzip")
        self.head = head
        self.frame: SingleFrame = single_frame(compression, max_window_bytes=_WINDOW_BYTES)
        self._size_bytes = size_bytes
        self._plain_bytes = 0
        self._consumer = consumer if compression is Compression.ZSTD else None
        self._waiting: bytearray | None = bytearray()
        if self._consumer is not None:
            self._consumer.begin_packed(offset=offset)

    def take(self, plain_bytes: int) -> None:
        """Count what came out."""
        self._plain_bytes += plain_bytes
        if self._plain_bytes > self._size_bytes:
            raise self._wrong_size()

    def forward(self, piece: memoryview) -> None:
        """Hand on a piece of the frame, once something that it holds was scanned."""
        if self._consumer is None:
            return
        if self._waiting is not None:
            self._waiting += piece
            if not self._plain_bytes:
                if len(self._waiting) > _SILENT_BYTES:
                    raise IntegrityError(f"what the host compressed says nothing in {len(self._waiting)} bytes")
                return
            piece, self._waiting = memoryview(self._waiting), None
        self._consumer.packed(piece)

    def end(self) -> IntegrityError | None:
        """Return what is wrong when less came than was announced; a save that failed is why, most likely."""
        if self._plain_bytes != self._size_bytes:
            return self._wrong_size()
        if self._consumer is not None:
            self._consumer.end_packed(size_bytes=self._plain_bytes)
        return None

    def _wrong_size(self) -> IntegrityError:
        return IntegrityError(
            f"what the host compressed holds {self._plain_bytes} bytes or more, it announced {self._size_bytes}"
        )


def _not_a_frame(line: bytes | bytearray) -> IntegrityError:
    return IntegrityError(f"{bytes(line[:_LINE_BYTES])!r} is not the beginning of a frame of an archive")
