# SPDX-License-Identifier: Apache-2.0
"""A verification at level ``load`` against ``docker load < FILE`` of the same archive into an empty daemon.

The start and the end of the daemon count on neither side. Ours also proves every digest, compares what was loaded,
creates a container and removes all of it again.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path

from airflow_provider_dockerbackup.transport.throwaway_daemon import throwaway_daemon
from benchmarks.bench import Bench, BenchError, remove
from benchmarks.figures import Goal, Measure, Run, ratio_of
from benchmarks.runner import interleave


class VerifyLoad:
    """See the module."""

    name = "verify_load"
    about = "verification at level load against `docker load < file` into an empty daemon, daemon start on neither side"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the ratio of wall times, Python's start included, the daemon's not."""
        repository = bench.repository()
        arguments = ("--image", bench.image, "--repository", str(repository))
        try:
            bench.ours("save", *arguments)
            archive = next(repository.rglob("image-*.tar"))
            rounds = interleave(
                bench, ours=lambda: _verify(bench, arguments), theirs=lambda: _docker_load(bench, archive)
            )
        finally:
            remove(repository)
        note = "ours also hashes every byte, compares, creates a container and removes what it loaded"
        return (ratio_of(self.name, rounds, goal=Goal(target=1 / 1.15, floor=0.75), note=note),)


def _verify(bench: Bench, arguments: tuple[str, ...]) -> Run:
    run = bench.ours("verify", *arguments, "--directory", str(bench.directory))
    os.sync()
    return replace(run, seconds=run.seconds - run.details["daemon_seconds"])


def _docker_load(bench: Bench, archive: Path) -> Run:
    """Load into a daemon as new and empty as the one that a verification starts: fresh blocks of a disk cost more."""
    with throwaway_daemon(directory=bench.directory) as daemon:
        socket = next(bench.directory.glob("dockerbackup-drill-*/docker.sock"))
        docker = shlex.quote(str(bench.lab.test_daemon.files.docker))
        run = bench.shell(f"DOCKER_HOST=unix://{socket} {docker} load --quiet < {shlex.quote(str(archive))}")
        if not daemon.image_ids():
            raise BenchError("docker load loaded nothing")
    os.sync()
    return run
