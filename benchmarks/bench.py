# SPDX-License-Identifier: Apache-2.0
"""What a comparison has at hand: a Docker host behind sshd, an image, a disk, and ways to run either side."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.figures import Run
from benchmarks.load import LoadMeter
from tests.lab.images import LARGE, build_large
from tests.lab.install import require_program
from tests.lab.lab import Lab, LabHost

ROOT = Path(__file__).parent.parent


class BenchError(Exception):
    """A run failed, so there is nothing to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for.

    :param rounds: how many rounds a figure is from.
    :param size_mb: size of the image and of the streamed file, in 10^6 bytes.
    :param large_mb: size of the large image of the memory test, in 10^6 bytes.
    :param patience_seconds: how long each comparison may wait for quiet moments.
    """

    rounds: int
    size_mb: int
    large_mb: int
    patience_seconds: float


class Bench:
    """A started lab and a folder on the disk that both sides write to.

    :param lab: with one host and a test daemon.
    :param directory: where files go; its path is short, for a test daemon's sockets lie below it.
    """

    def __init__(self, lab: Lab, directory: Path, options: Options) -> None:
        self.lab = lab
        self.directory = directory
        self.options = options
        self.load = LoadMeter(directory, patience_seconds=options.patience_seconds)

    @property
    def host(self) -> LabHost:
        """The Docker host."""
        return self.lab.hosts[0]

    @cached_property
    def image(self) -> str:
        """The image of realistic data, built when first asked for."""
        build_large(self.host.daemon, size_mb=self.options.size_mb)
        return LARGE

    @property
    def ssh(self) -> str:
        """OpenSSH's client with its defaults, host included, quoted for a shell."""
        return shlex.join([str(require_program("ssh")), "-F", str(self.host.ssh_config_path), self.host.name])

    def fresh(self, stem: str) -> Path:
        """Return a path below :attr:`directory` that does not exist yet."""
        return self.directory / f"{stem}-{secrets.token_hex(4)}"

    def repository(self) -> Path:
        """Return a new folder for a repository."""
        folder = self.fresh("repository")
        folder.mkdir()
        return folder

    def shell(self, line: str) -> Run:
        """Run what a user would type; a failure anywhere in a pipe counts.

        :raises BenchError: when it fails.
        """
        began = time.monotonic()
        done = subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        seconds = time.monotonic() - began
        if done.returncode != 0:
            raise BenchError(
                f"`{line}` failed with {done.returncode}: {done.stderr.decode('utf-8', 'replace')[-2000:]}"
            )
        return Run(seconds=seconds)

    def ours(self, verb: str, *arguments: str) -> Run:
        """Run one of this project's use cases in a Python process of its own, its start from bytecode included.

        :param verb: as :mod:`benchmarks.ours` takes it.
        :raises BenchError: when it fails.
        """
        config = ("--ssh-config", str(self.host.ssh_config_path), "--host", self.host.name)
        command = [sys.executable, "-m", "benchmarks.ours", *config, verb, *arguments]
        # As an installed package has it; the round that is thrown away writes it.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(self.directory / "bytecode")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        seconds = time.monotonic() - began
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace")[-3000:]
            raise BenchError(f"`{shlex.join(command)}` failed with {done.returncode}: {said}")
        details: dict[str, float] = json.loads(done.stdout)
        details["start_seconds"] = details.pop("ready_at_seconds") - began
        return Run(seconds=seconds, details=details)


def remove(path: Path) -> None:
    """Remove a file or a folder, and let the disk come to rest."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    os.sync()
