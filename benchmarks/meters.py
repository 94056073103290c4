# SPDX-License-Identifier: Apache-2.0
"""What a command took besides its time: bytes on the wire, CPU of both sides, peak memory, what the host wrote."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import cpu_seconds, with_descendants
from benchmarks.wire import WireMeter
from tests.lab.install import require_program
from tests.lab.lab import LabHost
from tests.lab.processes import PROC, command_line, pids, program

_HOST_PROGRAMS = frozenset({"dockerd", "sshd"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """One command that ran.

    :param returncode: its exit status.
    :param seconds: wall time.
    :param began: on the clock of :func:`time.monotonic`.
    :param figures: what it took besides, by name with unit.
    """

    returncode: int
    seconds: float
    began: float
    stdout: bytes
    stderr: bytes
    figures: Mapping[str, float]


class Meters:
    """Runs commands on the worker's side and reads what they took on both.

    ``wire_bytes`` is the traffic of the host's sshd. ``cpu_seconds`` and ``peak_bytes`` are those of the command with
    all that it started and waited for; the peak is that of the largest process. ``host_cpu_seconds`` and
    ``host_written_bytes`` are those of the host's sshd and dockerd with all that they started.

    :param host: whom the commands talk to.
    :param directory: for small files.
    """

    def __init__(self, host: LabHost, directory: Path) -> None:
        self._mark = f"{host.daemon.directory}/"
        self._wire = WireMeter(host.ssh_port)
        self._report = directory / "time"

    def run(
        self, command: Sequence[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Metered:
        """Run a command to its end; one that fails is returned like any other.

        :param environment: the whole environment; None is this process's.
        """
        # A process counts its peak from that of the one it was forked from: GNU time is small, this process is not.
        small = [str(require_program("time")), "--format=%U %S %M", f"--output={self._report}"]
        cpu, written = self._host()
        with self._wire.counting():
            began = time.monotonic()
            done = subprocess.run(
                [*small, *command], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
            seconds = time.monotonic() - began
        cpu_after, written_after = self._host()
        user, system, peak = self._report.read_text(encoding="ascii").splitlines()[-1].split()
        figures = {
            "wire_bytes": float(self._wire.traffic.bytes),
            "cpu_seconds": float(user) + float(system),
            "peak_bytes": float(peak) * 1024,
            "host_cpu_seconds": cpu_after - cpu,
            "host_written_bytes": written_after - written,
        }
        return Metered(
            returncode=done.returncode,
            seconds=seconds,
            began=began,
            stdout=done.stdout,
            stderr=done.stderr,
            figures=figures,
        )

    def _host(self) -> tuple[float, float]:
        """Return the CPU that the host's processes used so far, in seconds, and the bytes that they wrote to disk."""
        roots = (pid for pid in pids() if program(pid) in _HOST_PROGRAMS and self._mark in command_line(pid))
        family = with_descendants(roots)
        return cpu_seconds(family), sum(_written_bytes(pid) for pid in family)


def _written_bytes(pid: int) -> float:
    with suppress(OSError):
        for line in (PROC / str(pid) / "io").read_text(encoding="ascii").splitlines():
            if line.startswith("write_bytes:"):
                return float(line.split()[1])
    return 0.0
