# SPDX-License-Identifier: Apache-2.0
"""Where the frames and blocks of a zstd stream begin and end (RFC 8878, section 3.1).

The binding decompresses whatever it is given at once and does not say whether a frame was complete. Walking the
framing tells both: how much a piece of input can grow to, and whether the stream ended where a frame did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

MAX_WINDOW_BYTES = 128 << 20
_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
_BLOCK_BYTES = 128 << 10
_CONTENT_SIZE_BYTES = (0, 2, 4, 8)
_DICTIONARY_ID_BYTES = (0, 1, 2, 4)


class FrameError(ValueError):
    """The framing breaks the format."""


class FrameWalker:
    """Walks one stream, fed in pieces, and cuts it where its output would grow too large."""

    def __init__(self) -> None:
        self._need = 4
        self._held = bytearray()
        self._take: Callable[[bytes], None] = self._magic
        self._skip = 0
        self._last_block = False
        self._has_checksum = False
        self._blocks = 0
        self._begun = False
        self._between = True

    @property
    def at_frame_end(self) -> bool:
        """True when at least one frame was read and none is open."""
        return self._begun and self._between and not self._held and not self._skip

    def pieces(self, data: memoryview, *, output_bytes: int) -> Iterator[memoryview]:
        """Yield ``data`` cut so that no piece decompresses to more than ``output_bytes`` (at least one block's worth).

        :raises FrameError: when the framing breaks the format.
        """
        most = max(1, output_bytes // _BLOCK_BYTES - 1)
        start = position = 0
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
                if self._blocks >= most and not self._skip:
                    yield data[start:position]
                    start, self._blocks = position, 0
                continue
            step = min(self._need - len(self._held), len(data) - position)
            self._held += data[position : position + step]
            position += step
            if len(self._held) == self._need:
                field = bytes(self._held)
                self._held.clear()
                self._take(field)
        if start < position:
            yield data[start:position]

    def _expect(self, need: int, take: Callable[[bytes], None]) -> None:
        self._need = need
        self._take = take

    def _magic(self, field: bytes) -> None:
        magic = int.from_bytes(field, "little")
        self._between = False
        if magic == _MAGIC:
            self._expect(1, self._descriptor)
        elif magic & ~0xF == _SKIPPABLE:
            self._expect(4, self._skippable)
        else:
            raise FrameError(f"no frame begins with {field.hex()}")

    def _skippable(self, field: bytes) -> None:
        self._skip = int.from_bytes(field, "little")
        self._end_frame(begun=False)

    def _descriptor(self, field: bytes) -> None:
        descriptor = field[0]
        single_segment = descriptor & 0x20
        if descriptor & 0x08:
            raise FrameError("a reserved bit is set")
        self._has_checksum = bool(descriptor & 0x04)
        content_size = _CONTENT_SIZE_BYTES[descriptor >> 6] or (1 if single_segment else 0)
        need = (0 if single_segment else 1) + _DICTIONARY_ID_BYTES[descriptor & 3] + content_size
        if need:
            self._expect(need, self._frame_header)
        else:
            self._expect(3, self._block)

    def _frame_header(self, field: bytes) -> None:
        del field  # the library reads it, and refuses too large a window
        self._expect(3, self._block)

    def _block(self, field: bytes) -> None:
        header = int.from_bytes(field, "little")
        kind, size = header >> 1 & 3, header >> 3
        if kind == 3 or size > _BLOCK_BYTES:
            raise FrameError(f"a block of type {kind} with {size} bytes")
        self._blocks += 1
        self._skip = 1 if kind == 1 else size
        if not header & 1:
            return
        if self._has_checksum:
            self._expect(4, self._checksum)
        else:
            self._end_frame(begun=True)

    def _checksum(self, field: bytes) -> None:
        del field  # the library compares it
        self._end_frame(begun=True)

    def _end_frame(self, *, begun: bool) -> None:
        self._begun = self._begun or begun
        self._between = True
        self._expect(4, self._magic)
