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

from benchmarks.bench import Bench, BenchError, remove
from benchmarks.figures import Goal, Measure, Run, ratio_of
from benchmarks.runner import interleave
from tests.lab.images import has_image


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
    daemon = bench.lab.test_daemon
    if daemon.docker("image", "ls", "--all", "--quiet").stdout.strip():
        raise BenchError("the daemon to load into is not empty")
    client = f"DOCKER_HOST={shlex.quote(daemon.docker_host)} {shlex.quote(str(daemon.files.docker))}"
    run = bench.shell(f"{client} load --quiet < {shlex.quote(str(archive))}")
    loaded = daemon.docker("image", "ls", "--all", "--quiet", "--no-trunc").stdout.decode().split()
    daemon.docker("image", "rm", "--force", *loaded)
    if not loaded or has_image(daemon, loaded[0]):
        raise BenchError("docker load loaded nothing, or what it loaded cannot be removed")
    os.sync()
    return run
