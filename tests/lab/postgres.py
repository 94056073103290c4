# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of its own on loopback, for an Airflow whose processes all write to its database at once."""

from __future__ import annotations

import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.lab.errors import LabError, log_tail
from tests.lab.install import ensure_programs, is_root, require_program
from tests.lab.processes import wait_until
from tests.lab.sshd import ADDRESS, free_port

_PROGRAMS: Final = {"initdb": "postgresql", "postgres": "postgresql", "pg_isready": "postgresql"}
# The package's own account: the server refuses to run as root.
_ACCOUNT: Final = "postgres"
_USER: Final = "lab"
# All of it is thrown away, so nothing needs to reach the disk.
_SETTINGS: Final = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")
_START_SECONDS: Final = 60


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server with an empty database and give the database's SQLAlchemy URL.

    It ends with the thread that started it, also if that is killed.

    :raises LabError: when it cannot be installed or does not start.
    """
    ensure_programs(_PROGRAMS)
    # Not below pytest's folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="dockerbackup-postgres-"))
    try:
        account = _account(folder)
        _make(folder, account)
        port = free_port()
        with _running(folder, port, account):
            yield f"postgresql+psycopg2://{_USER}@{ADDRESS}:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _account(folder: Path) -> dict[str, Any]:
    """How a program is started as whom the server may run as, and who owns its folder."""
    if not is_root():
        return {}
    account = pwd.getpwnam(_ACCOUNT)
    shutil.chown(folder, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _make(folder: Path, account: dict[str, Any]) -> None:
    command = [str(require_program("initdb")), "--pgdata", str(folder / "data"), "--username", _USER, "--auth", "trust"]
    more = ["--no-sync", "--encoding", "UTF8", "--locale", "C"]
    done = subprocess.run([*command, *more], cwd=folder, capture_output=True, text=True, check=False, **account)
    if done.returncode:
        raise LabError(f"initdb failed with {done.returncode}: {done.stdout}{done.stderr}")


@contextmanager
def _running(folder: Path, port: int, account: dict[str, Any]) -> Iterator[None]:
    log = folder / "log"
    serve = [str(require_program("postgres")), "-D", str(folder / "data"), "-h", ADDRESS, "-p", str(port), "-k", ""]
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    # It takes SIGINT as "end every connection and stop".
    tied = [str(require_program("setpriv")), "--pdeathsig", "INT", *serve, *settings]
    with log.open("wb") as output:
        server = subprocess.Popen(tied, cwd=folder, stdout=output, stderr=output, **account)
    try:
        ready = [str(require_program("pg_isready")), "--quiet", "--host", ADDRESS, "--port", str(port)]

        def settled() -> bool:
            return server.poll() is not None or subprocess.run(ready, check=False).returncode == 0

        if not wait_until(settled, seconds=_START_SECONDS, interval=0.1) or server.poll() is not None:
            raise LabError(f"PostgreSQL did not start{log_tail(log)}")
        yield
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
