# SPDX-License-Identifier: Apache-2.0
"""A restore from layout ``layers`` over SSH against ``docker load < FILE`` of a plain tar on the target host itself."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import Bench, remove
from benchmarks.figures import Goal, Measure, Run, ratio_of
from benchmarks.generations import DEPLOYED, generation
from benchmarks.runner import interleave

_NOTE = "ours also reads, decompresses and hashes every byte, sends it over SSH, and compares what was loaded"


class Restore:
    """See the module."""

    name = "restore"
    about = "restore from layout layers over SSH against `docker load < file` of a plain tar on the target itself"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the ratios of wall times, Python's start included: all layers, and the top layer alone."""
        earlier, later = (
            generation(bench.host.daemon, DEPLOYED, number, size_mb=bench.options.size_mb) for number in (1, 2)
        )
        with _stored(bench, later) as (repository, tar):
            whole = interleave(bench, ours=lambda: _ours(bench, repository, later), theirs=lambda: _load(bench, tar))
            with _loaded(bench, earlier):
                thin = interleave(bench, ours=lambda: _ours(bench, repository, later), theirs=lambda: _load(bench, tar))
        return (
            ratio_of(self.name, whole, goal=Goal(target=1 / 1.15, floor=1 / 1.15), note=_NOTE),
            ratio_of(
                "restore thin",
                thin,
                goal=Goal(target=1.0, floor=1.0),
                note="the target has all layers but the top one, for both sides",
            ),
        )


@contextmanager
def _stored(bench: Bench, image: str) -> Iterator[tuple[Path, Path]]:
    """Give a repository with the image, and a plain tar of it."""
    repository, tar = bench.repository(), bench.fresh("plain-tar")
    try:
        bench.ours("save", "--image", image, "--repository", str(repository), "--layout", "layers")
        bench.on_host(f"docker save {image} > {shlex.quote(str(tar))}")
        yield repository, tar
    finally:
        remove(repository)
        remove(tar)


@contextmanager
def _loaded(bench: Bench, image: str) -> Iterator[None]:
    """Have the image on the target, loaded from a tar of its own."""
    tar = bench.fresh("earlier-tar")
    try:
        bench.on_host(f"docker save {image} > {shlex.quote(str(tar))}")
        bench.on_host(f"docker load --quiet < {shlex.quote(str(tar))}", host=bench.target)
        yield
    finally:
        remove(tar)
        bench.empty_target()


def _ours(bench: Bench, repository: Path, image: str) -> Run:
    before = bench.target_images()
    arguments = ("--image", image, "--repository", str(repository), "--source-host", bench.host.name)
    try:
        return bench.ours("restore", *arguments, host=bench.target)
    finally:
        bench.empty_target(but=before)


def _load(bench: Bench, tar: Path) -> Run:
    before = bench.target_images()
    try:
        return bench.on_host(f"docker load --quiet < {shlex.quote(str(tar))}", host=bench.target)
    finally:
        bench.empty_target(but=before)
