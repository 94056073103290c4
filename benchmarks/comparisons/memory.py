# SPDX-License-Identifier: Apache-2.0
"""Peak memory of transfers above that of the idle process, for an image of 1 GB and a larger one.

Saves into each layout and kind of storage, with two threads that compress; a push, and a restore.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from benchmarks.bench import ROOT, Bench, BenchError, remove
from benchmarks.figures import Goal, Measure, Run, figure_of
from benchmarks.runner import one_run
from tests.lab.daemon import LabDaemon
from tests.lab.s3 import LabS3

_MEGABYTE = 1_000_000
_SMALL_MB = 1000
# The S3 server keeps each object in its own memory twice.
_LARGEST_S3_MB = 1000
_PIECE_BYTES = 8 * _MEGABYTE
_GOAL = Goal(target=150.0, floor=150.0, upward=False)
_SAVES = {
    "archive none": ("--compression", "none"),
    "archive zstd": ("--compression", "zstd"),
    "layers save": ("--layout", "layers", "--capture", "save"),
    "layers push": ("--layout", "layers", "--capture", "push"),
}


class Memory:
    """See the module."""

    name = "memory"
    about = "peak memory above the idle process (all imported, host connected), a layer, a quarter random, single runs"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return one figure for each size, kind of storage and way."""
        found: list[Measure] = []
        large_mb = bench.options.large_mb
        for size_mb in sorted({min(_SMALL_MB, large_mb), large_mb}):
            with _image(bench.host.daemon, size_mb) as image:
                for case, arguments in _SAVES.items():
                    found.append(_on_disk(bench, image, size_mb, case, arguments))
                found.append(_restored(bench, image, size_mb))
                if size_mb <= _LARGEST_S3_MB:
                    found.append(_on_s3(bench, image, size_mb))
        return tuple(found)


def _on_disk(bench: Bench, image: str, size_mb: int, case: str, arguments: Sequence[str]) -> Measure:
    repository = bench.repository()
    try:
        run = one_run(bench, lambda: bench.ours("save", "--image", image, "--repository", str(repository), *arguments))
    finally:
        remove(repository)
    return _measure(case, size_mb, run)


def _restored(bench: Bench, image: str, size_mb: int) -> Measure:
    repository = bench.repository()
    where = ("--image", image, "--repository", str(repository))
    try:
        bench.ours("save", *where, "--layout", "layers")
        source = ("--source-host", bench.host.name)
        run = one_run(bench, lambda: bench.ours("restore", *where, *source, host=bench.target))
    finally:
        bench.empty_target()
        remove(repository)
    return _measure("layers restore", size_mb, run)


def _on_s3(bench: Bench, image: str, size_mb: int) -> Measure:
    with _s3() as server:
        where = ("--repository", f"s3://{server.bucket}/backups", "--layout", "layers")
        options = ("--storage-options", json.dumps(server.storage_options))
        run = one_run(bench, lambda: bench.ours("save", "--image", image, *where, *options))
    return _measure("layers save on s3", size_mb, run)


def _measure(case: str, size_mb: int, run: Run) -> Measure:
    above = run.details["above_idle_bytes"] / _MEGABYTE
    measure = figure_of(f"memory {case} {size_mb} MB", [run], [above], unit="MB", goal=_GOAL)
    print(f"  {measure.name}: {above:.1f} MB above {run.details['idle_bytes'] / _MEGABYTE:.0f} MB idle", flush=True)
    return measure


@contextmanager
def _image(daemon: LabDaemon, size_mb: int) -> Iterator[str]:
    """Give an image of one layer, streamed into ``docker import``, and remove it again.

    A quarter of it is random, the rest zeros: else ten gigabytes would take hours and the whole disk.
    """
    reference = f"lab/memory:{size_mb}"
    process = subprocess.Popen(
        [str(daemon.files.docker), "import", "-", reference],
        env=daemon.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    with process:
        if process.stdin is None:
            raise BenchError("no pipe to docker import")
        source = random.Random(size_mb)  # noqa: S311 - it shall be the same each time
        with suppress(BrokenPipeError), tarfile.open(fileobj=process.stdin, mode="w|", bufsize=1 << 20) as tar:
            for number, left in enumerate(range(size_mb * _MEGABYTE, 0, -_PIECE_BYTES)):
                info = tarfile.TarInfo(f"data/{number:05}")
                info.size = min(left, _PIECE_BYTES)
                tar.addfile(info, io.BytesIO(source.randbytes(info.size // 4) + bytes(info.size - info.size // 4)))
        process.stdin.close()
    if process.returncode != 0:
        raise BenchError(f"docker import of {size_mb} MB failed with {process.returncode}")
    try:
        yield reference
    finally:
        daemon.docker("image", "rm", reference)


@contextmanager
def _s3() -> Iterator[LabS3]:
    """Run an S3 server in a process of its own, which takes what it keeps in memory with it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.lab.s3"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        if process.stdout is None:
            raise BenchError("no pipe from the S3 server")
        announced = next((line for line in process.stdout if line.startswith("# s3://")), "")
        if not announced:
            raise BenchError("the S3 server did not start")
        _, url, _, endpoint = announced.split()
        yield LabS3(endpoint_url=endpoint, bucket=url.removeprefix("s3://").rstrip("/").rpartition("@")[2])
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
