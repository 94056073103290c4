# SPDX-License-Identifier: Apache-2.0
"""Start, find and end background processes so that a later process can do it too."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tests.lab.errors import LabError, log_tail

PROC = Path("/proc")
_WRITE_PID_AND_EXEC = 'echo $$ >"$0" && exec "$@"'


def wait_until(condition: Callable[[], bool], *, seconds: float, interval: float = 0.02) -> bool:
    """Tell whether the condition came true in time.

    :param condition: called until it is true.
    :param seconds: patience.
    :param interval: seconds between two calls.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(interval)
    return True


def spawn(command: Sequence[str], *, pid_file: Path, log: Path, environment: Mapping[str, str]) -> int:
    """Start a process in a session of its own, as nobody's child, and give its pid.

    :param command: the command; its first element an absolute path.
    :param pid_file: where the pid is written before the command runs.
    :param log: receives standard output and error, appended.
    :param environment: the whole environment.
    :raises LabError: when no pid was written.
    """
    pid_file.unlink(missing_ok=True)
    with log.open("ab") as output:
        subprocess.run(
            ["setsid", "--fork", "sh", "-c", _WRITE_PID_AND_EXEC, str(pid_file), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            check=True,
        )
    if not wait_until(lambda: read_pid(pid_file) is not None, seconds=10):
        raise LabError(f"{command[0]} did not start{log_tail(log)}")
    pid = read_pid(pid_file)
    if pid is None:
        raise LabError(f"{pid_file} vanished while {command[0]} started")
    return pid


def read_pid(pid_file: Path) -> int | None:
    """Give the pid in a pid file, or None if there is none.

    :param pid_file: the file.
    """
    try:
        return int(pid_file.read_text(encoding="ascii").strip() or 0) or None
    except (FileNotFoundError, ValueError):
        return None


def command_line(pid: int) -> str:
    """Give a process's arguments joined by spaces; empty if it is gone or a zombie.

    :param pid: the process.
    """
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode("utf-8", "surrogateescape").strip()


def is_ours(pid: int | None, *, mark: str) -> bool:
    """Tell whether the process lives and its arguments hold our mark; a reused pid does not.

    :param pid: the process, if any.
    :param mark: text that only our process has in its arguments, such as its configuration's path.
    """
    return pid is not None and mark in command_line(pid)


def terminate(pid: int | None, *, mark: str, patience: float) -> None:
    """End our process: SIGTERM, then SIGKILL; return when it is gone.

    :param pid: the process, if any.
    :param mark: see :func:`is_ours`; a foreign process is left alone.
    :param patience: seconds between the two signals.
    :raises LabError: when even SIGKILL does not end it.
    """
    if pid is None:
        return
    for name, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 10.0)):
        if not is_ours(pid, mark=mark):
            return
        send(pid, name)
        if wait_until(lambda: not is_ours(pid, mark=mark), seconds=seconds):
            return
    raise LabError(f"process {pid} ({command_line(pid)}) survives SIGKILL")


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is gone already is fine.

    :param pid: the process.
    :param number: the signal.
    """
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def pids() -> Iterable[int]:
    """Give the pids of all processes that can be seen."""
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def program(pid: int) -> str:
    """Give the file name of the program a process runs, or an empty string if it cannot be told.

    :param pid: the process.
    """
    try:
        return (PROC / str(pid) / "exe").readlink().name.removesuffix(" (deleted)")
    except OSError:
        return ""


def parents() -> dict[int, int]:
    """Give each process's parent."""
    found: dict[int, int] = {}
    for pid in pids():
        try:
            stat = (PROC / str(pid) / "stat").read_bytes()
        except OSError:
            continue
        found[pid] = int(stat.rpartition(b")")[2].split()[1])
    return found


def descendants(pid: int) -> frozenset[int]:
    """Give all children of a process, and theirs.

    :param pid: the process, itself not included.
    """
    above = parents()
    found: set[int] = set()
    grown = True
    while grown:
        more = {child for child, parent in above.items() if parent == pid or parent in found} - found
        grown = bool(more)
        found |= more
    return frozenset(found)


def control_groups(pid: int) -> str:
    """Give the control groups of a process as the kernel lists them; empty if it is gone.

    :param pid: the process.
    """
    try:
        return (PROC / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
