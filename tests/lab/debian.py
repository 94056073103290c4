# SPDX-License-Identifier: Apache-2.0
"""Programs from Debian's suites, newer than the system's, unpacked beside it and never installed."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.lab.errors import LabError

_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def fetched_packages(name: str, packages: Sequence[str], *, suite: str, check: Callable[[Path], None]) -> Path:
    """Give the folder with unpacked packages, fetched once and kept.

    :param name: of that folder in the cache, ``$LAB_CACHE`` or one below the user's.
    :param suite: such as ``trixie``.
    :param check: raises when the folder does not hold what it must.
    :raises LabError: when they cannot be had.
    """
    cache = Path(os.environ.get("LAB_CACHE") or Path.home() / ".cache" / "airflow-provider-dockerbackup-lab")
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / name
    with _locked(cache / "lock"):
        if not root.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as work:
                unpacked = _fetch(packages, suite=suite, work=Path(work))
                check(unpacked)
                unpacked.rename(root)
    return root


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(packages: Sequence[str], *, suite: str, work: Path) -> Path:
    """Download and unpack with an apt of our own: the system's apt is neither read for packages nor changed."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise LabError(
            f"{', '.join(packages)} of {suite} are taken from Debian's packages: apt-get and dpkg are needed"
        )
    environment = {**os.environ, "APT_CONFIG": str(_apt_configuration(work, suite=suite))}
    debs, root = work / "debs", work / "root"
    debs.mkdir()
    root.mkdir()
    _run(["apt-get", "-qq", "update"], cwd=work, environment=environment)
    _run(["apt-get", "-qq", "download", *packages], cwd=debs, environment=environment)
    for deb in sorted(debs.glob("*.deb")):
        _run(["dpkg", "-x", str(deb), str(root)], cwd=work, environment=environment)
    return root


def _apt_configuration(work: Path, *, suite: str) -> Path:
    apt = work / "apt"
    for name in ("etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_mirror()} {suite} main\n", encoding="utf-8")
    configuration = apt / "apt.conf"
    configuration.write_text(
        f'Dir::Etc "{apt}/etc"; Dir::Etc::sourcelist "{apt}/sources.list"; Dir::Etc::sourceparts "-";\n'
        f'Dir::State "{apt}/state"; Dir::State::status "{apt}/status"; Dir::Cache "{apt}/cache";\n'
        'Acquire::Languages "none"; Acquire::Check-Valid-Until "false"; APT::Sandbox::User "root";\n',
        encoding="utf-8",
    )
    return configuration


def _mirror() -> str:
    """Give the first Debian mirror of the system's own sources, in the new or the old notation.

    :raises LabError: when they name none.
    """
    sources = Path("/etc/apt")
    for path in (*sorted(sources.glob("sources.list.d/*.sources")), sources / "sources.list"):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        match = re.search(r"^(?:URIs:|deb(?: +\[[^]]*\])?) *(\S+/debian/?)(?: |$)", text, re.MULTILINE)
        if match is not None:
            return match[1]
    raise LabError("apt's sources name no Debian mirror, from which other programs than the installed ones come")


def _run(command: list[str], *, cwd: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"`{' '.join(command)}` failed with {done.returncode}: {done.stderr[-2000:]}")
