# SPDX-License-Identifier: Apache-2.0
"""What a comparison has at hand: a Docker host behind sshd, an image, a disk, and ways to run either side."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.figures import Run, Series
from benchmarks.generations import DEPLOYED, generation
from benchmarks.load import LoadMeter
from benchmarks.meters import Metered, Meters
from tests.lab.install import require_program
from tests.lab.lab import Lab, LabHost

ROOT = Path(__file__).parent.parent


class BenchError(Exception):
    """A run failed, so there is nothing to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for.

    :param rounds: how many rounds a figure is from.
    :param warm_up: how many rounds before them are thrown away.
    :param size_mb: size of the image and of the streamed file, in 10^6 bytes.
    :param large_mb: size of the large image of the memory test, in 10^6 bytes.
    :param generations: how many generations of an image are backed up one after the other; half as many of the
        further kinds of change.
    :param blobs: how many blobs garbage collection goes over; a fifth as many records.
    :param sources: how many unchanged sources a fleet has.
    :param patience_seconds: how long each comparison may wait for quiet moments.
    """

    rounds: int
    warm_up: int = 1
    size_mb: int
    large_mb: int
    generations: int
    blobs: int
    sources: int
    patience_seconds: float


class Bench:
    """A started lab and a folder on the disk that both sides write to.

    :param lab: with two hosts, the second for restores, and a test daemon.
    :param directory: where files go; its path is short, for a test daemon's sockets lie below it.
    """

    def __init__(self, lab: Lab, directory: Path, options: Options) -> None:
        self.lab = lab
        self.directory = directory
        self.options = options
        self.series: dict[str, Series] = {}
        self.load = LoadMeter(directory, patience_seconds=options.patience_seconds)
        self._meters = {host.name: Meters(host, directory) for host in lab.hosts}

    def renew_patience(self) -> None:
        """Wait for quiet moments as long as at the beginning: each comparison has its share."""
        self.load = LoadMeter(self.directory, patience_seconds=self.options.patience_seconds)

    @property
    def host(self) -> LabHost:
        """The Docker host that is backed up."""
        return self.lab.hosts[0]

    @property
    def target(self) -> LabHost:
        """The Docker host that is restored to."""
        return self.lab.hosts[1]

    @cached_property
    def image(self) -> str:
        """The image of realistic data, built when first asked for."""
        return generation(self.host.daemon, DEPLOYED, 1, size_mb=self.options.size_mb)

    @property
    def ssh(self) -> str:
        """OpenSSH's client with its defaults, host included, quoted for a shell."""
        return self.ssh_to(self.host)

    def ssh_to(self, host: LabHost) -> str:
        """Return OpenSSH's client with its defaults, host included, quoted for a shell."""
        return shlex.join([str(require_program("ssh")), "-F", str(host.ssh_config_path), host.name])

    def save_compressed(self, image: str) -> str:
        """Return ``'docker save IMAGE | zstd -3'`` as an argument of ``ssh``; a failure of either counts."""
        zstd = shlex.quote(str(require_program("zstd")))
        return shlex.quote(f"bash -o pipefail -c {shlex.quote(f'docker save {image} | {zstd} -q -3')}")

    def engine_events(self, since: float, *names: str) -> int:
        """Return how many events of these names the host's engine had since a moment.

        :param since: seconds since 1970.
        """
        filters = [f"--filter=event={name}" for name in names]
        window = (f"--since={since:.3f}", f"--until={time.time():.3f}")
        return len(self.host.daemon.docker("events", *window, *filters).stdout.splitlines())

    def fresh(self, stem: str) -> Path:
        """Return a path below :attr:`directory` that does not exist yet."""
        return self.directory / f"{stem}-{secrets.token_hex(4)}"

    def target_images(self) -> frozenset[str]:
        """Return the IDs of the images that the target has."""
        return frozenset(self.target.daemon.docker("image", "ls", "-q", "--no-trunc").stdout.decode().split())

    def empty_target(self, *, but: frozenset[str] = frozenset()) -> None:
        """Remove all images from the target.

        :param but: IDs of images that stay.
        """
        for image in self.target_images() - but:
            self.target.daemon.docker("image", "rm", "--force", image)
        os.sync()

    def repository(self) -> Path:
        """Return a new folder for a repository."""
        folder = self.fresh("repository")
        folder.mkdir()
        return folder

    def shell(self, line: str, *, environment: Mapping[str, str] | None = None, host: LabHost | None = None) -> Run:
        """Run what a user would type; a failure anywhere in a pipe counts.

        :param environment: more variables.
        :param host: whose work is metered; None is the host that is backed up.
        :raises BenchError: when it fails.
        """
        done = self._meters[(host or self.host).name].run(
            ["/bin/bash", "-o", "pipefail", "-c", line], environment={**os.environ, **(environment or {})}
        )
        _require_success(done, line)
        return Run(seconds=done.seconds, details=done.figures)

    def on_host(self, line: str, *, host: LabHost | None = None) -> Run:
        """Run what a user would type on a Docker host itself, where ``docker`` is the engine's own client.

        :param host: None is the host that is backed up.
        :raises BenchError: when it fails.
        """
        chosen = host or self.host
        return self.shell(line, environment=chosen.daemon.environment(), host=chosen)

    def ours(self, verb: str, *arguments: str, host: LabHost | None = None) -> Run:
        """Run one of this project's use cases in a Python process of its own, its start from bytecode included.

        :param verb: as :mod:`benchmarks.ours` takes it.
        :param host: whom it talks to; None is the host that is backed up.
        :raises BenchError: when it fails.
        """
        chosen = host or self.host
        config = ("--ssh-config", str(chosen.ssh_config_path), "--host", chosen.name)
        command = [sys.executable, "-m", "benchmarks.ours", *config, verb, *arguments]
        # As an installed package has it; the round that is thrown away writes it.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(self.directory / "bytecode")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        done = self._meters[chosen.name].run(command, cwd=ROOT, environment=environment)
        _require_success(done, shlex.join(command))
        details: dict[str, float] = json.loads(done.stdout)
        details["start_seconds"] = details.pop("ready_at_seconds") - done.began
        # Of the whole process, reaped children included, in place of what it says of itself.
        return Run(seconds=done.seconds, details={**details, **done.figures})


def _require_success(done: Metered, line: str) -> None:
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace")[-3000:]
        raise BenchError(f"`{line}` failed with {done.returncode}: {said}")


def remove(path: Path) -> None:
    """Remove a file or a folder, and let the disk come to rest."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    os.sync()
