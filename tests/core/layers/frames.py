# SPDX-License-Identifier: Apache-2.0
"""What a host sends for layout ``layers``, made and read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable

from airflow_provider_dockerbackup.core.archive.compression import Compression, compressor
from airflow_provider_dockerbackup.core.archive.layer_reader import DecompressLimits
from airflow_provider_dockerbackup.core.layers.arrival import Arrival

FIRST_LINE = b"\0dockerbackup 1\n"


class Frames:
    """A consumer that keeps the zstd frames handed to it."""

    def __init__(self) -> None:
        self.whole: list[tuple[bytes, int]] = []
        self.offsets: list[int] = []
        self._open = bytearray()

    def begin_packed(self, *, offset: int) -> None:
        """Begin one."""
        self.offsets.append(offset)
        self._open.clear()

    def packed(self, piece: bytes | memoryview) -> None:
        """Keep a piece."""
        self._open += piece

    def end_packed(self, *, size_bytes: int) -> None:
        """Keep it."""
        self.whole.append((bytes(self._open), size_bytes))


def unframed(stream: Iterable[bytes], frames: Frames | None = None) -> bytes:
    """Return the archive in a stream."""
    pieces: list[bytes] = []
    arrival = Arrival(pieces.append, frames or Frames(), DecompressLimits())
    counted = sum(arrival.feed(piece) for piece in stream)
    arrival.finish()
    archive = b"".join(pieces)
    assert arrival.archive_bytes == len(archive)
    assert counted in {len(archive), 0}
    return archive


def packed(body: bytes, compression: Compression = Compression.ZSTD, *, size_bytes: int | None = None) -> bytes:
    """Return a frame with a compressed body.

    :param size_bytes: what it says of its length.
    """
    tool = compressor(compression)
    size = len(body) if size_bytes is None else size_bytes
    return b"packed %d\n" % size + tool.compress(body) + tool.flush()


def raw(body: bytes) -> bytes:
    """Return a frame with bytes as they are."""
    return b"raw %d\n" % len(body) + body


def framed(archive: bytes, compression: Compression) -> bytes:
    """Return an archive in frames, the body of each member compressed."""
    made, position = [FIRST_LINE], 0
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if member.isreg() and member.size:
                end = member.offset_data + member.size
                made += [
                    raw(archive[position : member.offset_data]),
                    packed(archive[member.offset_data : end], compression),
                ]
                position = end
    return b"".join([*made, b"rest\n", archive[position:]])
