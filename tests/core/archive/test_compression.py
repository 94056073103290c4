# SPDX-License-Identifier: Apache-2.0
"""Compression and its opposite, in bounded memory."""

from __future__ import annotations

import gzip
import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_dockerbackup.core.archive.compression import (
    Compression,
    compressor,
    decompressed,
    layer_compressor,
)
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError

from .making import pieces

TEXT = b"".join(b"line %d of something that compresses\n" % (number % 977) for number in range(20_000))
MIXED = TEXT + os.urandom(300_000) + bytes(3 << 20)
REAL = [Compression.GZIP, Compression.ZSTD]


def packed(data: bytes, compression: Compression, *, level: int | None = None, threads: int = 1) -> bytes:
    """Compress ``data`` in pieces."""
    stream = compressor(compression, level=level, threads=threads)
    return b"".join(stream.compress(piece) for piece in pieces(data, 70_000)) + stream.flush()


def unpacked(data: bytes, compression: Compression, *, piece_bytes: int = 1 << 20) -> bytes:
    """Decompress ``data`` in pieces."""
    return b"".join(decompressed(pieces(data, piece_bytes), compression))


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("data", [b"", b"x", TEXT, MIXED], ids=["empty", "byte", "text", "mixed"])
@pytest.mark.parametrize("piece_bytes", [1 << 20, 4096, 7])
def test_what_was_compressed_comes_back(compression: Compression, data: bytes, piece_bytes: int) -> None:
    """Whatever the size of the pieces."""
    stored = packed(data, compression)
    if len(stored) // piece_bytes < 200_000:
        assert unpacked(stored, compression, piece_bytes=piece_bytes) == data


@pytest.mark.parametrize("compression", list(Compression))
def test_the_same_input_gives_the_same_bytes_and_a_suffix_of_its_own(compression: Compression) -> None:
    """No time or name is in them."""
    assert packed(TEXT, compression) == packed(TEXT, compression)
    assert compression.suffix == {"none": "", "gzip": ".gz", "zstd": ".zst"}[compression]


def test_the_usual_tools_read_what_is_written() -> None:
    """Nothing of this package is needed to restore."""
    for command, compression in (("gzip", Compression.GZIP), ("zstd", Compression.ZSTD)):
        out = subprocess.run([command, "-dc"], input=packed(MIXED, compression), capture_output=True, check=True)
        assert out.stdout == MIXED


def test_threads_and_levels_are_used() -> None:
    """More of either gives another stream that holds the same."""
    for level in (1, 19):
        assert unpacked(packed(TEXT, Compression.ZSTD, level=level, threads=2), Compression.ZSTD) == TEXT
    assert len(packed(TEXT, Compression.GZIP, level=9)) != len(packed(TEXT, Compression.GZIP, level=1))
    for compression, level in ((Compression.GZIP, 0), (Compression.GZIP, 10), (Compression.ZSTD, 23)):
        with pytest.raises(ConfigurationError, match=f"no level {level}"):
            compressor(compression, level=level)
    with pytest.raises(ConfigurationError, match=r"threads"):
        compressor(Compression.ZSTD, threads=0)


@pytest.mark.parametrize("compression", REAL)
def test_a_stream_cut_anywhere_is_refused(compression: Compression) -> None:
    """The library passes over a cut zstd frame without a word."""
    stored = packed(TEXT, compression)
    for length in [*range(0, len(stored), 1 + len(stored) // 300), *range(len(stored) - 20, len(stored))]:
        with pytest.raises(IntegrityError, match=r"ends early"):
            unpacked(stored[:length], compression)


@pytest.mark.parametrize("compression", REAL)
def test_a_flipped_bit_is_refused(compression: Compression) -> None:
    """Checksums are written and compared; a few bits of the headers carry no meaning."""
    stored = packed(TEXT, compression)
    header = 10 if compression is Compression.GZIP else 6
    for position in range(header, len(stored), 1 + len(stored) // 300):
        damaged = bytearray(stored)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(IntegrityError):
            unpacked(bytes(damaged), compression)


@pytest.mark.parametrize("compression", REAL)
@pytest.mark.parametrize("tail", [b"x", b"\0" * 512, b"Connection closed.\n"])
def test_anything_behind_the_stream_is_refused(compression: Compression, tail: bytes) -> None:
    """But a further member or frame, which the formats allow."""
    stored = packed(TEXT, compression)
    for piece_bytes in (1 << 20, 100):
        with pytest.raises(IntegrityError):
            unpacked(stored + tail, compression, piece_bytes=piece_bytes)
    assert unpacked(stored + packed(b"more", compression), compression, piece_bytes=100) == TEXT + b"more"


def test_skippable_frames_are_skipped_but_are_no_stream_by_themselves() -> None:
    """Registries' zstd layers carry their table of contents in one."""
    skippable = struct.pack("<II", 0x184D2A50, 5) + b"hello"
    stored = packed(TEXT, Compression.ZSTD)
    for piece_bytes in (1 << 20, 3):
        data = skippable + stored + skippable + stored + skippable
        assert unpacked(data, Compression.ZSTD, piece_bytes=piece_bytes) == TEXT + TEXT
    with pytest.raises(IntegrityError, match=r"ends early"):
        unpacked(skippable, Compression.ZSTD)
    with pytest.raises(IntegrityError, match=r"ends early"):
        unpacked(stored + skippable[:-1], Compression.ZSTD)


@pytest.mark.parametrize("compression", REAL)
def test_a_bomb_is_decompressed_in_bounded_memory(compression: Compression) -> None:
    """Pieces never exceed 1 MiB, whatever one piece of input grows to."""
    bomb = gzip.compress(bytes(256 << 20)) if compression is Compression.GZIP else _rle_bomb(blocks=2048)
    tracemalloc.start()
    total = 0
    for piece in decompressed([bomb], compression):
        assert len(piece) <= 1 << 20
        total += len(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 256 << 20
    assert peak < 8 << 20


def _rle_bomb(*, blocks: int) -> bytes:
    """Return a zstd frame in which every four bytes become 128 KiB."""
    size = 128 << 10
    block = [((size << 3) | (1 << 1) | last).to_bytes(3, "little") + b"\0" for last in (0, 1)]
    window = 0x38  # 128 KiB
    return b"\x28\xb5\x2f\xfd\x00" + bytes([window]) + block[0] * (blocks - 1) + block[1]


def test_a_zstd_window_above_128_mib_is_refused() -> None:
    """A frame's header alone could ask for gigabytes."""
    huge = b"\x28\xb5\x2f\xfd\x00" + bytes([(28 - 10) << 3]) + b"\x01\x00\x00"
    with pytest.raises(IntegrityError, match=r"zstd stream is corrupt"):
        unpacked(huge, Compression.ZSTD)
    fits = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    ).compress(TEXT)
    assert unpacked(fits, Compression.ZSTD) == TEXT


@given(data=st.binary(max_size=5000), compression=st.sampled_from(REAL), piece_bytes=st.integers(1, 5000))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_raise_nothing_but_integrity_errors(
    data: bytes, compression: Compression, piece_bytes: int
) -> None:
    """Behind a good start as well."""
    starts = {Compression.GZIP: b"\x1f\x8b\x08\0\0\0\0\0\0\3", Compression.ZSTD: b"\x28\xb5\x2f\xfd"}
    for stream in (data, starts[compression] + data, packed(TEXT[:500], compression)[:-6] + data):
        try:
            unpacked(stream, compression, piece_bytes=piece_bytes)
        except IntegrityError:
            continue


@given(data=st.binary(max_size=300_000), level=st.integers(1, 5), piece_bytes=st.integers(50, 200_000))
@settings(max_examples=50, deadline=None)
def test_frames_of_all_shapes_come_back(data: bytes, level: int, piece_bytes: int) -> None:
    """With and without content size and checksum, in any pieces."""
    for checksum in (True, False):
        for stored in (
            zstandard.ZstdCompressor(level=level, write_checksum=checksum).compress(data * 3),
            zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=False).compress(data * 3),
        ):
            assert unpacked(stored, Compression.ZSTD, piece_bytes=piece_bytes) == data * 3
    assert unpacked(zlib.compress(data, wbits=31), Compression.GZIP, piece_bytes=piece_bytes) == data


@pytest.mark.parametrize("level", [None, -3, 9])
def test_a_layer_is_compressed_to_the_same_bytes_by_any_number_of_threads(level: int | None) -> None:
    """A blob is named by what it is: the same layer must not get two names, however it came in pieces."""
    plain = random.Random(1).randbytes(500_000) * 12  # noqa: S311 - it shall be the same each time
    found = set()
    for threads, size in ((1, 1 << 20), (2, 33_333), (5, len(plain))):
        stream = layer_compressor(level=level, threads=threads)
        pieces = [stream.compress(plain[at : at + size]) for at in range(0, len(plain), size)]
        found.add(b"".join([*pieces, stream.flush()]))
    assert len(found) == 1
    assert unpacked(found.pop(), Compression.ZSTD) == plain


def test_a_layer_that_cannot_be_compressed_needs_little_memory() -> None:
    """Two threads, and all that waits between them."""
    script = """
import os, pathlib
from airflow_provider_dockerbackup.core.archive.compression import layer_compressor
def kib(key):
    lines = pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))
stream, piece = layer_compressor(threads=2), os.urandom(1 << 20)
idle = kib("VmRSS:")
for _ in range(100):
    stream.compress(piece)
stream.flush()
print(kib("VmHWM:") - idle)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 80_000
