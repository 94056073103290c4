# SPDX-License-Identifier: Apache-2.0
"""Compression of archives: gzip and zstd, streamed, in bounded memory whatever the input claims.

Formats: gzip (RFC 1952, DEFLATE) and zstd (RFC 8878). Both allow a file to be a series of members or frames, so a
series is read; anything else behind the last one is refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Protocol, cast

import zstandard
from zlib_ng import zlib_ng

from airflow_provider_dockerbackup.core.archive.zstd_frames import MAX_WINDOW_BYTES, FrameError, FrameWalker
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError

PIECE_BYTES = 1 << 20
# Costs half a percent of what layers are stored in.
_JOB_BYTES = 2 << 20
_GZIP = zlib.MAX_WBITS | 16
_GZIP_ERROR = cast("type[Exception]", zlib_ng.error)  # its stub calls it an instance
_DEFAULT_LEVEL = {"gzip": 6, "zstd": 3}
_LEVELS = {"none": range(1), "gzip": range(1, 10), "zstd": range(-7, 23)}


class Compression(StrEnum):
    """How an archive or a layer is stored."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def suffix(self) -> str:
        """What is added to the file name."""
        return {"none": "", "gzip": ".gz", "zstd": ".zst"}[self.value]

    @classmethod
    def of(cls, start: bytes) -> Compression:
        """Return the compression that the first bytes of a stream announce (at least four, if it has them)."""
        if start.startswith(b"\x1f\x8b\x08"):
            return cls.GZIP
        return cls.ZSTD if start.startswith(b"\x28\xb5\x2f\xfd") else cls.NONE


class Compressor(Protocol):
    """Compresses one stream."""

    def compress(self, chunk: bytes | memoryview, /) -> bytes:
        """Take a piece, return what is ready, often nothing."""

    def flush(self) -> bytes:
        """Return the rest; the stream is then complete."""


class _Plain:
    def compress(self, chunk: bytes | memoryview, /) -> bytes:
        return bytes(chunk)

    def flush(self) -> bytes:
        return b""


def compressor(compression: Compression, *, level: int | None = None, threads: int = 1) -> Compressor:
    """Return a compressor whose output depends on input, level and threads alone: no times, no names.

    :param level: 1 to 9 for gzip (default 6), -7 to 22 for zstd (default 3).
    :param threads: threads that zstd may use; gzip has one.
    :raises ConfigurationError: when the compression has no such level, or ``threads`` is below 1.
    """
    _check_level(compression, level, threads)
    if compression is Compression.NONE:
        return _Plain()
    chosen = _DEFAULT_LEVEL[compression] if level is None else level
    if compression is Compression.GZIP:
        return zlib.compressobj(chosen, zlib.DEFLATED, _GZIP)  # zlib writes 0 as the time
    threads_of_zstd = 0 if threads == 1 else threads
    return zstandard.ZstdCompressor(level=chosen, write_checksum=True, threads=threads_of_zstd).compressobj()


def layer_compressor(*, level: int | None = None, threads: int = 1) -> Compressor:
    """Return a zstd compressor whose output does not depend on the number of threads.

    zstd cuts its input into jobs only when it has a worker thread, so there is always at least one. Its own jobs are
    four windows long, and a few for each thread are in memory: 200 MB for two threads. Ours are a quarter of that.

    :param level: -7 to 22, default 3.
    :raises ConfigurationError: when there is no such level, or ``threads`` is below 1.
    """
    _check_level(Compression.ZSTD, level, threads)
    chosen = _DEFAULT_LEVEL[Compression.ZSTD] if level is None else level
    parameters = zstandard.ZstdCompressionParameters.from_level(
        chosen, job_size=_JOB_BYTES, threads=threads, write_checksum=True
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compressobj()


def zstd_frame(data: bytes) -> bytes:
    """Return ``data`` as one zstd frame of its own, to stand between others; it depends on ``data`` alone."""
    return zstandard.ZstdCompressor(level=_DEFAULT_LEVEL[Compression.ZSTD], write_checksum=True).compress(data)


def _check_level(compression: Compression, level: int | None, threads: int) -> None:
    if level is not None and level not in _LEVELS[compression]:
        raise ConfigurationError(f"compression level: {compression} has no level {level}")
    if threads < 1:
        raise ConfigurationError(f"compression threads: expected a number >= 1, got {threads}")


class Inflater(Protocol):
    """Decompresses one stream, pushed in, in bounded memory."""

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Yield what ``data`` decompresses to, in pieces of at most 1 MiB; it must be drawn to its end.

        :raises IntegrityError: when the data is corrupt.
        """

    def finish(self) -> None:
        """Declare the stream over.

        :raises IntegrityError: when it ends within a member or frame, or never began.
        """


def inflater(compression: Compression) -> Inflater:
    """Return an :class:`Inflater`; zstd windows above 128 MiB are refused."""
    if compression is Compression.GZIP:
        return _GzipInflater()
    return _ZstdInflater() if compression is Compression.ZSTD else _PlainInflater()


def decompressed(chunks: Iterable[bytes], compression: Compression) -> Iterator[bytes]:
    """Yield the uncompressed stream in pieces of at most 1 MiB, in bounded memory.

    :raises IntegrityError: when the stream is corrupt, ends early, or something follows it.
    """
    stream = inflater(compression)
    for chunk in chunks:
        yield from stream.feed(chunk)
    stream.finish()


class _PlainInflater:
    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        if len(data) <= PIECE_BYTES:
            yield bytes(data)
            return
        view = memoryview(data)
        for start in range(0, len(view), PIECE_BYTES):
            yield bytes(view[start : start + PIECE_BYTES])

    def finish(self) -> None:
        """Any end is a proper end."""


class _GzipInflater:
    def __init__(self) -> None:
        # zlib's interface, and for what images hold half of the time that zlib takes.
        self._member = zlib_ng.decompressobj(_GZIP)
        self._begun = False

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        left: bytes | memoryview = data
        while len(left) or self._begun:
            if self._member.eof:
                if not len(left):
                    return
                self._member = zlib_ng.decompressobj(_GZIP)
            self._begun = True
            try:
                piece = self._member.decompress(left, PIECE_BYTES)
            except _GZIP_ERROR as err:
                raise IntegrityError(f"gzip stream is corrupt: {err}") from err
            if piece:
                yield piece
            left = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if not len(left) and len(piece) < PIECE_BYTES:
                return

    def finish(self) -> None:
        if not self._begun or not self._member.eof:
            raise IntegrityError("gzip stream ends early")


class _ZstdInflater:
    def __init__(self) -> None:
        context = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._frames = context.decompressobj(read_across_frames=True)
        self._walker = FrameWalker()

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        try:
            for piece in self._walker.pieces(memoryview(data), output_bytes=PIECE_BYTES):
                plain = self._frames.decompress(piece)
                if plain:
                    yield plain
        except (FrameError, zstandard.ZstdError) as err:
            raise IntegrityError(f"zstd stream is corrupt: {err}") from err

    def finish(self) -> None:
        if not self._walker.at_frame_end:
            raise IntegrityError("zstd stream ends early")


def check_compression(compression: str | None, *, level: int | None = None) -> None:
    """Refuse a compression that is not known, or that has no such level.

    :raises ConfigurationError: which names the known ones.
    """
    known = [each.value for each in Compression]
    if compression is not None and compression not in known:
        raise ConfigurationError(f"compression: expected one of {', '.join(known)}, got {compression!r}")
    if compression is not None:
        compressor(Compression(compression), level=level)
