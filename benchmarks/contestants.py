# SPDX-License-Identifier: Apache-2.0
"""Who backs up generation after generation: this project in its ways, and what people use in its place.

Each at its default settings, over the same SSH where it reads from a host, with what it stores in a folder of its own.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from benchmarks.bench import Bench
from benchmarks.figures import Run

PROGRAMS: Final = {"restic": "restic", "borg": "borgbackup", "skopeo": "skopeo", "time": "time"}
"""What must be installed, each with its Debian package."""
_SECRET: Final = "of no use"  # noqa: S105 - guards nothing


class Contestant(Protocol):
    """One way to back up images."""

    def back_up(self, image: str) -> Run:
        """Back up an image; what it stores stays."""


class ByHand:
    """``ssh HOST 'docker save IMAGE | zstd -3' > FILE``, one file an image."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._folder = _folder(bench, "by-hand")

    def back_up(self, image: str) -> Run:
        """Save the image into a file of its own, which is synced."""
        file = shlex.quote(str(self._folder / image.replace("/", "-")))
        line = f"{self._bench.ssh} {self._bench.save_compressed(image)} > {file} && sync {file}"
        return storing(self._bench.shell(line), self._folder)


class SaveOnly:
    """``docker save IMAGE > /dev/null`` on the host itself: what the engine alone takes."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def back_up(self, image: str) -> Run:
        """Save the image to nowhere."""
        return self._bench.on_host(f"docker save {image} > /dev/null")


class Restic:
    """``ssh HOST docker save IMAGE | restic backup --stdin``."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._folder = _folder(bench, "restic")
        self._environment = {
            "RESTIC_REPOSITORY": str(self._folder),
            "RESTIC_PASSWORD": _SECRET,
            "RESTIC_CACHE_DIR": str(_folder(bench, "restic-cache")),
        }
        bench.shell("restic init", environment=self._environment)

    def back_up(self, image: str) -> Run:
        """Back up the image's stream under the name of a file."""
        line = f"{self._bench.ssh} docker save {image} | restic backup --quiet --stdin --stdin-filename image.tar"
        return storing(self._bench.shell(line, environment=self._environment), self._folder)


class Borg:
    """``ssh HOST docker save IMAGE | borg create ARCHIVE -``.

    :param options: of ``borg create``.
    """

    def __init__(self, bench: Bench, *, options: str = "") -> None:
        self._bench = bench
        self._options = options
        self._folder = bench.fresh("borg")
        self._environment = {
            "BORG_REPO": str(self._folder),
            "BORG_PASSPHRASE": _SECRET,
            "BORG_BASE_DIR": str(_folder(bench, "borg-base")),
        }
        bench.shell("borg init --encryption=repokey", environment=self._environment)

    def back_up(self, image: str) -> Run:
        """Back up the image's stream into an archive of its own."""
        archive = shlex.quote(f"::{image.replace('/', '-').replace(':', '-')}")
        line = f"{self._bench.ssh} docker save {image} | borg create {self._options} {archive} -"
        return storing(self._bench.shell(line, environment=self._environment), self._folder)


class Skopeo:
    """``ssh HOST docker save IMAGE > TAR``, then ``skopeo copy`` of that into an OCI layout with shared blobs."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._folder = _folder(bench, "skopeo")

    def back_up(self, image: str) -> Run:
        """Copy the image into a layout of its own; the plain tar goes again."""
        tar, layout = shlex.quote(str(self._bench.fresh("skopeo-tar"))), self._folder / image.replace("/", "-")
        layout = layout.with_name(layout.name.replace(":", "-"))
        blobs = shlex.quote(str(self._folder / "blobs"))
        line = (
            f"{self._bench.ssh} docker save {image} > {tar} && skopeo copy --quiet --insecure-policy "
            f"--dest-shared-blob-dir {blobs} docker-archive:{tar} oci:{shlex.quote(str(layout))}:latest && rm {tar}"
        )
        return storing(self._bench.shell(line), self._folder)


class Layers:
    """This project, layout ``layers`` with zstd.

    :param capture: how layers are fetched.
    """

    def __init__(self, bench: Bench, *, capture: str) -> None:
        self._bench = bench
        self._capture = capture
        self._folder = bench.repository()

    def back_up(self, image: str) -> Run:
        """Save the image."""
        where = ("--image", image, "--repository", str(self._folder), "--layout", "layers")
        run = self._bench.ours("save", *where, "--capture", self._capture, "--compression", "zstd")
        return storing(run, self._folder)


CONTESTANTS: Final[Mapping[str, Callable[[Bench], Contestant]]] = {
    "push": lambda bench: Layers(bench, capture="push"),
    "filtered save": lambda bench: Layers(bench, capture="save"),
    "by hand": ByHand,
    "docker save": SaveOnly,
    "restic": Restic,
    "borg": Borg,
    "borg zstd": lambda bench: Borg(bench, options="--compression zstd,3"),
    "skopeo": Skopeo,
}
OURS: Final = ("push", "filtered save")
STORING: Final = ("push", "filtered save", "by hand", "restic", "borg", "borg zstd", "skopeo")
"""Those that keep something."""


def apparent_bytes(folder: Path) -> int:
    """Return the size of all files below a folder, each file once whatever its number of links."""
    sizes = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            status = Path(parent, name).lstat()
            sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def storing(run: Run, folder: Path) -> Run:
    """Return the run with what is stored by now among its details."""
    return replace(run, details={**run.details, "stored_bytes": apparent_bytes(folder)})


def _folder(bench: Bench, stem: str) -> Path:
    folder = bench.fresh(stem)
    folder.mkdir()
    return folder
