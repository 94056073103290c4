# SPDX-License-Identifier: Apache-2.0
"""Docker engines: the installed one, and others taken from Debian's suites without installing them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.debian import fetched_packages
from tests.lab.errors import LabError
from tests.lab.install import SEARCH_PATH, find_program, require_program

SUITES: Final = {"20.10": "bookworm", "26": "trixie", "28": "forky"}
_PACKAGES: Final = {
    "20.10": ("docker.io", "containerd"),
    "26": ("docker.io", "containerd", "docker-cli"),
    "28": ("docker.io", "containerd", "docker-cli"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Which engine a daemon runs.

    :param version: ``20.10``, ``26`` or ``28``; None is the installed one, whatever it is.
    :param containerd_store: use the containerd image store in place of the classic one; 26 and 28 only.
    """

    version: str | None = None
    containerd_store: bool = False

    def __post_init__(self) -> None:
        """Refuse what does not exist.

        :raises ValueError: for an unknown version, or one without that store.
        """
        if self.version is not None and self.version not in SUITES:
            raise ValueError(f"engine.version: expected one of {', '.join(SUITES)}, got {self.version!r}")
        if self.containerd_store and self.version == "20.10":
            raise ValueError("engine.containerd_store: engine 20.10 has no containerd image store, take 26 or 28")

    def __str__(self) -> str:
        """Give the name shown to people."""
        return (self.version or "installed") + ("+containerd" if self.containerd_store else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFiles:
    """Where the programs of an engine are.

    :param dockerd: the daemon.
    :param docker: the command line client that came with it.
    :param search_path: PATH under which the daemon finds its containerd, and a session its client.
    """

    dockerd: Path
    docker: Path
    search_path: str


def provide(engine: Engine) -> EngineFiles:
    """Give an engine's programs: installed ones if the version fits, else fetched once and kept.

    :param engine: which.
    :raises LabError: when it cannot be had.
    """
    installed = find_program("dockerd")
    if engine.version is None:
        return _installed()
    if installed is not None and version_of(installed).startswith(f"{engine.version}."):
        return _installed()
    root = _fetched_root(engine.version)
    return EngineFiles(
        dockerd=root / "usr/sbin/dockerd",
        docker=root / "usr/bin/docker",
        search_path=f"{root}/usr/sbin:{root}/usr/bin:{SEARCH_PATH}",
    )


def version_of(dockerd: Path) -> str:
    """Give a daemon's version, such as ``20.10.24``.

    :param dockerd: the program.
    :raises LabError: when it does not say.
    """
    done = subprocess.run([str(dockerd), "--version"], check=False, capture_output=True, text=True)
    match = re.search(r"version (\d[^,+ ]*)", done.stdout)
    if done.returncode != 0 or match is None:
        raise LabError(f"{dockerd} --version failed with {done.returncode}: {done.stdout}{done.stderr}")
    return match[1]


def _installed() -> EngineFiles:
    dockerd = require_program("dockerd")
    # The client that belongs to the daemon, should there be a newer one in another directory.
    beside = dockerd.parent.parent / "bin" / "docker"
    docker = beside if beside.exists() else require_program("docker")
    return EngineFiles(dockerd=dockerd, docker=docker, search_path=f"{docker.parent}:{SEARCH_PATH}")


def _fetched_root(version: str) -> Path:
    suite = SUITES[version]

    def check(root: Path) -> None:
        found = version_of(root / "usr/sbin/dockerd")
        if not found.startswith(f"{version}."):
            raise LabError(f"Debian {suite} has engine {found} now, expected {version}")

    # Never runc: later suites' needs a newer C library than an older system has.
    return fetched_packages(f"engine-{version}-{suite}", _PACKAGES[version], suite=suite, check=check)
