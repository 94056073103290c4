# SPDX-License-Identifier: Apache-2.0
"""See that the programs the lab runs are there; on Debian install what is missing."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.lab.errors import LabError

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "runc": "runc",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "busybox": "busybox-static",
    "zstd": "zstd",
    "age": "age",
    "skopeo": "skopeo",
}
# Only these can be had without root: then an existing daemon and one's own sshd are used.
_WITHOUT_ROOT = ("docker", "sshd", "ssh", "ssh-keygen", "busybox")
# Where a Debian package keeps its programs for each of its versions, out of every search path.
_APART = ("/usr/lib/postgresql", "*/bin")
_POLICY = Path("/usr/sbin/policy-rc.d")
_LOCK = Path("/var/lock/dockerbackup-lab-install")
_ELF_HEAD_BYTES = 4096


def is_root() -> bool:
    """Tell whether we may start a daemon, mount and install."""
    return os.geteuid() == 0


def find_program(name: str) -> Path | None:
    """Give a program's path, looked up in the system's directories, in PATH, then where packages keep theirs apart.

    :param name: file name of the program.
    """
    apart = ":".join(str(folder) for folder in Path(_APART[0]).glob(_APART[1]))
    found = shutil.which(name, path=f"{SEARCH_PATH}:{os.environ.get('PATH', '')}:{apart}")
    if found is None or (name == "busybox" and not _is_static(Path(found))):
        return None
    return Path(found)


def require_program(name: str) -> Path:
    """Give a program's path.

    :param name: file name of the program.
    :raises LabError: when it is missing; says which package has it.
    """
    found = find_program(name)
    if found is None:
        raise LabError(_missing_message({name: _PACKAGES.get(name, name)}))
    return found


def ensure_programs(programs: Mapping[str, str] | None = None) -> None:
    """See that programs are there, installing them where that is possible.

    :param programs: their names, each with the Debian package that has it; None is what the lab runs.
    :raises LabError: when some are missing and cannot be installed.
    """
    wanted = _lab_programs() if programs is None else programs
    missing = _missing(wanted)
    if not missing:
        return
    if not is_root() or shutil.which("apt-get") is None:
        raise LabError(_missing_message(missing))
    with _alone():
        # Another process may have installed them meanwhile.
        if packages := sorted(set(_missing(wanted).values())):
            _apt_install(packages)
    still = _missing(wanted)
    if still:
        raise LabError(_missing_message(still))


def _lab_programs() -> Mapping[str, str]:
    return _PACKAGES if is_root() else {name: _PACKAGES[name] for name in _WITHOUT_ROOT}


def _missing(programs: Mapping[str, str]) -> dict[str, str]:
    return {name: package for name, package in programs.items() if find_program(name) is None}


def _missing_message(missing: Mapping[str, str]) -> str:
    packages = " ".join(sorted(set(missing.values())))
    return (
        f"the lab needs {', '.join(missing)}; install them, on Debian and Ubuntu as root with "
        f"`apt-get install {packages}` (busybox must be the statically linked one)"
    )


def _is_static(path: Path) -> bool:
    """A dynamically linked program names its loader near the head of the file."""
    with path.open("rb") as file:
        return b"/ld-" not in file.read(_ELF_HEAD_BYTES)


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other process of ours installs: apt does not, and the policy file is taken away by the first."""
    with _LOCK.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _apt_install(packages: list[str]) -> None:
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_services_started():
        for command in (["apt-get", "--quiet", "update"], install):
            done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
            if done.returncode != 0:
                raise LabError(f"`{' '.join(command)}` failed with {done.returncode}: {done.stderr[-2000:]}")


@contextmanager
def _no_services_started() -> Iterator[None]:
    """Keep the packages from starting a dockerd and an sshd of their own, on all addresses."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
