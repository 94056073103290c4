# SPDX-License-Identifier: Apache-2.0
"""Peak memory of a save above that of the idle process, for a small and a large image and each kind of storage."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks.bench import ROOT, Bench, BenchError, remove
from benchmarks.figures import DISTURBED_CORES, Goal, Measure, Run
from benchmarks.runner import one_run
from tests.lab.daemon import LabDaemon
from tests.lab.s3 import LabS3

_MEGABYTE = 1_000_000
_SMALL_MB = 100
# The S3 server keeps each object in its own memory twice.
_LARGEST_S3_MB = 2000
_PIECE_BYTES = 8 * _MEGABYTE
_GOAL = Goal(target=100.0, floor=100.0, upward=False)


class Memory:
    """See the module."""

    name = "memory"
    about = "peak memory of a save above the idle process (modules imported, host connected), single runs"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return one figure for each size and kind of storage."""
        found: list[Measure] = []
        large_mb = bench.options.large_mb
        largest_on_s3 = min(_LARGEST_S3_MB, large_mb)
        for size_mb in sorted({_SMALL_MB, largest_on_s3, large_mb}):
            with _image(bench.host.daemon, size_mb) as image:
                if size_mb in {_SMALL_MB, large_mb}:
                    found += [_on_disk(bench, image, size_mb, each) for each in ("none", "zstd")]
                if size_mb in {_SMALL_MB, largest_on_s3}:
                    found.append(_on_s3(bench, image, size_mb))
        return tuple(found)


def _on_disk(bench: Bench, image: str, size_mb: int, compression: str) -> Measure:
    repository = bench.repository()
    arguments = ("--image", image, "--repository", str(repository), "--compression", compression)
    try:
        run = one_run(bench, lambda: bench.ours("save", *arguments))
    finally:
        remove(repository)
    return _measure(f"disk {compression}", size_mb, run)


def _on_s3(bench: Bench, image: str, size_mb: int) -> Measure:
    with _s3() as server:
        where = ("--repository", f"s3://{server.bucket}/backups")
        options = ("--storage-options", json.dumps(server.storage_options))
        run = one_run(bench, lambda: bench.ours("save", "--image", image, *where, *options))
    return _measure("s3 none", size_mb, run)


def _measure(case: str, size_mb: int, run: Run) -> Measure:
    above = run.details["above_idle_bytes"] / _MEGABYTE
    measure = Measure(
        name=f"memory {case} {size_mb} MB",
        value=above,
        low=above,
        high=above,
        unit="MB",
        goal=_GOAL,
        details={"ours_seconds": run.seconds, "idle_mb": run.details["idle_bytes"] / _MEGABYTE},
        rounds=1,
        disturbed=int(run.others_cores > DISTURBED_CORES),
        others_cores=run.others_cores,
    )
    print(f"  {measure.name}: {above:.1f} MB above {measure.details['idle_mb']:.0f} MB idle", flush=True)
    return measure


@contextmanager
def _image(daemon: LabDaemon, size_mb: int) -> Iterator[str]:
    """Give an image of one layer of random bytes, streamed into ``docker import``, and remove it again."""
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
                tar.addfile(info, io.BytesIO(source.randbytes(info.size)))
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
