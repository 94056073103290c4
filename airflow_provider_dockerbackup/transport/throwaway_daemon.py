# SPDX-License-Identifier: Apache-2.0
"""An own, empty Docker daemon for one verification: started, used, removed without a trace.

Everything it owns is in one private folder, ``dockerbackup-drill-<pid>-…``, that holds a locked file as long as the
process that started it lives. Whoever starts the next daemon there removes folders whose lock is free, and the
daemons that belong to them.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from airflow_provider_dockerbackup.core.ports import TestDaemon
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, TransientError
from airflow_provider_dockerbackup.transport.test_daemon import SdkTestDaemon

_log = logging.getLogger(__name__)

_PREFIX: Final = "dockerbackup-drill-"
_LONGEST_FOLDER: Final = 60  # bytes; containerd's sockets below it take 45 of the kernel's 107
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 20.0
_UNLOCKED_SECONDS: Final = 600.0
_PROGRAMS: Final = re.compile(r"dockerd|containerd|containerd-shim[a-z0-9-]*|runc|docker-proxy|docker-init")
_SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@contextmanager
def throwaway_daemon(
    *, dockerd: str = "dockerd", directory: Path | None = None, config: Mapping[str, Any] | None = None
) -> Iterator[TestDaemon]:
    """Run an own, empty Docker daemon and lend it; afterwards nothing of it is left.

    It has no network, no bridge and no firewall rules. Starting takes well under a second. What earlier ones left
    whose process was killed is removed first.

    :param dockerd: name or path of the daemon's program.
    :param directory: where its folder is made, with room for the unpacked image twice; at most 24 characters long,
        for socket paths are short. The system's temporary directory when not given.
    :param config: content of its ``daemon.json``, such as ``{"features": {"containerd-snapshotter": True}}``.
    :raises ConfigurationError: when this is not root, there is no such program, or ``directory`` does not fit.
    :raises TransientError: when it does not come up; shows the end of its log.
    """
    program = _program(dockerd)
    base = _base(directory)
    reap_throwaway_daemons(base)
    folder, lock = _private_folder(base)
    try:
        process = _start(program, folder, dict(config or {}))
        try:
            _wait_until_ready(process, folder)
            with SdkTestDaemon.connect(f"unix://{_socket(folder)}", disposable=True) as daemon:
                yield daemon
        finally:
            _stop(process)
    finally:
        try:
            _remove(folder)
        except (OSError, DockerBackupError) as err:
            _log.warning("the next verification will try again to remove %s: %s", folder, err)
        finally:
            lock.close()


def reap_throwaway_daemons(directory: Path) -> tuple[Path, ...]:
    """End daemons below ``directory`` whose starter is dead, remove their folders and return these."""
    removed: list[Path] = []
    for folder in sorted(directory.glob(f"{_PREFIX}*")):
        try:
            if folder.lstat().st_uid == os.geteuid() and folder.is_dir() and not folder.is_symlink():
                removed += _reap(folder)
        except (OSError, DockerBackupError) as err:
            _log.warning("cannot remove what a killed verification left in %s: %s", folder, err)
    return tuple(removed)


def _program(dockerd: str) -> str:
    advice = "install docker.io (or Docker Engine) on the worker, or give test_daemon=… to use a daemon that runs"
    if os.geteuid() != 0:
        raise ConfigurationError(
            f"a throw-away test daemon needs root, this runs as user {os.geteuid()}; "
            "give test_daemon=… to use a daemon that runs, or verify at level 'digests'"
        )
    found = shutil.which(dockerd, path=f"{os.environ.get('PATH', '')}:{_SEARCH_PATH}")
    if found is None:
        raise ConfigurationError(f"a throw-away test daemon needs the program {dockerd!r}, which is not here; {advice}")
    return found


def _base(directory: Path | None) -> Path:
    longest = _LONGEST_FOLDER - len(f"/{_PREFIX}4194304-12345678")
    candidates = [directory] if directory is not None else [Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/tmp")]  # noqa: S108 - made private by mkdtemp
    for candidate in candidates:
        if candidate.is_dir() and len(os.fsencode(candidate.absolute())) <= longest:
            return candidate.absolute()
    raise ConfigurationError(
        f"a throw-away test daemon cannot live in {candidates[0]}: give a folder that exists and whose path has at "
        f"most {longest} characters, for socket paths are short"
    )


def _private_folder(base: Path) -> tuple[Path, FileIO]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base))
        try:
            lock = FileIO(folder / "lock", "x")
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        except FileNotFoundError:
            continue
        if (folder / "lock").exists():
            return folder, lock
        lock.close()  # someone who removes leftovers was faster than our lock


def _start(program: str, folder: Path, config: dict[str, Any]) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
    # An engine brings its own containerd, which lies beside it.
    environment["PATH"] = f"{Path(program).parent}:{os.environ.get('PATH', '')}:{_SEARCH_PATH}"
    _give_identity(program, folder, config, environment)
    command = [
        program,
        *("--config-file", str(folder / "daemon.json"), "--data-root", str(folder / "data")),
        *("--exec-root", str(folder / "x"), "--pidfile", str(folder / "pid"), "--host", f"unix://{_socket(folder)}"),
        *("--iptables=false", "--ip6tables=false", "--bridge=none"),
    ]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _give_identity(program: str, folder: Path, config: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Write the daemon's configuration so that its ID is its own.

    Left alone, engines up to 22 take it from ``/etc/docker/key.json``, and so do later ones that find that file: all
    daemons of a machine would be one and the same.
    """
    (folder / "data").mkdir(mode=0o710)
    (folder / "data" / "engine-id").write_text(str(uuid4()), encoding="ascii")
    done = subprocess.run([program, "--version"], capture_output=True, check=False, env=environment, text=True)
    version = re.search(r"version (\d+)\.", done.stdout)
    if version and int(version[1]) < 23:
        config = {"deprecated-key-path": str(folder / "key.json"), **config}
    (folder / "daemon.json").write_text(json.dumps(config), encoding="utf-8")


def _wait_until_ready(process: subprocess.Popen[bytes], folder: Path) -> None:
    if _wait(lambda: process.poll() is not None or _answers(folder), _START_SECONDS) and process.poll() is None:
        return
    lines = (folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    state = (
        f"ended with {process.poll()}" if process.poll() is not None else f"did not answer in {_START_SECONDS:.0f} s"
    )
    raise TransientError(
        f"the throw-away test daemon {state}; give test_daemon=… to use another. Its log ends:\n" + "\n".join(lines)
    )


def _answers(folder: Path) -> bool:
    """Tell whether a daemon serves requests on the folder's socket."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        try:
            link.connect(str(_socket(folder)))
            link.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in link.recv(64)
        except OSError:
            return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _reap(folder: Path) -> list[Path]:
    try:
        lock = FileIO(folder / "lock", "r+")
    except FileNotFoundError:
        if time.time() - folder.stat().st_mtime < _UNLOCKED_SECONDS:
            return []  # its maker may be about to lock it
        _remove(folder)
        return [folder]
    with lock:
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return []
        _remove(folder)
        return [folder]


def _remove(folder: Path) -> None:
    """End what runs in the folder, undo its mounts and remove it.

    :raises TransientError: when something of it stays.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _processes(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if _wait(lambda: not _processes(folder), _STOP_SECONDS):
            break
    if _answers(folder):
        raise TransientError(
            f"a daemon still runs in {folder}, perhaps in another container; stop it, then remove that"
        )
    for point in _mounts(folder):
        done = subprocess.run(["umount", str(point)], capture_output=True, check=False)
        if done.returncode != 0:
            subprocess.run(["umount", "--lazy", str(point)], capture_output=True, check=False)
    if _mounts(folder):
        raise TransientError(f"{folder} holds mounts that cannot be undone; unmount them, then remove it")
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        _log.warning("%s could not be removed entirely; the next verification tries again", folder)


def _processes(folder: Path) -> list[int]:
    """Return the live engine processes whose arguments name the folder; its name is unique."""
    found = []
    mark = os.fsencode(folder)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes()
            # A program that was updated meanwhile is shown as deleted.
            name = (entry / "exe").readlink().name.removesuffix(" (deleted)") if mark in arguments else ""
        except OSError:
            continue
        if _PROGRAMS.fullmatch(name):
            found.append(int(entry.name))
    return found


def _mounts(folder: Path) -> list[Path]:
    """Return the mount points at or below the folder, the latest first."""
    found: list[Path] = []
    resolved = folder.resolve()
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split(" ")[4]))
        if point.is_relative_to(resolved):
            found.insert(0, point)
    return found


def _socket(folder: Path) -> Path:
    return folder / "docker.sock"


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
