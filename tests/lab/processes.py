# SPDX-License-Identifier: Apache-2.0
"""Start, find and end background processes so that a later process can do it too."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.lab.errors import LabError, log_tail

PROC = Path("/proc")
# The pid and, as field 22 of its stat, when it started; both stay over exec. The name in field 2 is `sh`.
_WRITE_PID_AND_EXEC = 'echo $$ $(cut -d " " -f 22 /proc/$$/stat) >"$0" && exec "$@"'
# Index from the third field on.
_SESSION = 3
_START_TIME = 19


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


def spawn(command: Sequence[str], *, pid_file: Path, log: Path, environment: Mapping[str, str]) -> None:
    """Start a process in a session of its own, as nobody's child.

    :param command: the command; its first element an absolute path.
    :param pid_file: where pid and start time are written before the command runs.
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
    if not wait_until(lambda: pid_file.exists() and pid_file.stat().st_size > 0, seconds=10):
        raise LabError(f"{command[0]} did not start{log_tail(log)}")


def live_pid(pid_file: Path) -> int | None:
    """Give the pid of the process that was started with this pid file, or None if it has ended.

    A pid that went to another process since is told by the time at which that one started.

    :param pid_file: as given to :func:`spawn`.
    """
    try:
        pid, started = (int(word) for word in pid_file.read_text(encoding="ascii").split())
    except (FileNotFoundError, ValueError):
        return None
    state = _stat(pid)
    # Of a zombie only its parent's interest is left.
    return pid if state is not None and state[0] != b"Z" and int(state[_START_TIME]) == started else None


def _stat(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat from the third, the state, on; None if there is no such process."""
    try:
        return (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
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


def session_processes(session: int, *words: str) -> list[int]:
    """Give the pids of a session's live processes whose command lines have all of ``words``.

    :param session: pid of the process that began it.
    """
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (state := _stat(int(entry.name))) is not None:
            line = command_line(int(entry.name))
            if int(state[_SESSION]) == session and line and all(word in line for word in words):
                found.append(int(entry.name))
    return found


def is_stopped(pid: int) -> bool:
    """Tell whether SIGSTOP has stopped a process.

    :param pid: the process.
    """
    state = _stat(pid)
    return state is not None and state[0] == b"T"


def commands_with(variable: str) -> list[str]:
    """Give the command lines of the live processes that have a variable in their environment.

    :param variable: ``NAME=value``.
    """
    mark = variable.encode() + b"\0"
    found = []
    for pid in pids():
        with suppress(OSError):
            if mark in (PROC / str(pid) / "environ").read_bytes():
                found.append(command_line(pid))
    return [line for line in found if line]


def terminate(pid_file: Path, *, patience: float) -> None:
    """End the process that was started with this pid file: SIGTERM, then SIGKILL; return when it is gone.

    :param pid_file: as given to :func:`spawn`.
    :param patience: seconds between the two signals.
    :raises LabError: when even SIGKILL does not end it.
    """
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 10.0)):
        pid = live_pid(pid_file)
        if pid is None:
            return
        send(pid, number)
        if wait_until(lambda: live_pid(pid_file) is None, seconds=seconds):
            return
    raise LabError(f"the process of {pid_file} survives SIGKILL")


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
    states = ((pid, _stat(pid)) for pid in pids())
    return {pid: int(state[1]) for pid, state in states if state is not None}


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
