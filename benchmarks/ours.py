# SPDX-License-Identifier: Apache-2.0
"""One of this project's use cases, in a process of its own and without Airflow; prints its figures as JSON."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import BackupKey
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.ports import TestDaemon
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.save import SaveRequest, save_image
from airflow_provider_dockerbackup.core.verify import VerifyRequest, verify_backup
from airflow_provider_dockerbackup.exceptions import DockerBackupError
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from airflow_provider_dockerbackup.transport.ssh import CommandResult, SshSession
from airflow_provider_dockerbackup.transport.ssh_config import ssh_client_factory
from airflow_provider_dockerbackup.transport.storage import storage_from_url


class _Silent:
    """Progress that nobody reads; a warning is an error here."""

    def start(self, what: str, total_bytes: int | None) -> None:
        """Say nothing."""

    def advance(self, done_bytes: int) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Tell it."""
        print(message, file=sys.stderr)

    def finish(self) -> None:
        """Say nothing."""


def main() -> int:
    """Run one verb and print its figures."""
    ready = time.monotonic()
    options = _parser().parse_args()
    factory = ssh_client_factory(options.host, config_path=options.ssh_config)
    with SshSession(factory, where=options.host) as session:
        verbs = {"save": _save, "stream": _stream, "verify": _verify}
        figures = verbs[options.verb](session, options)
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures |= {"ready_at_seconds": ready, "cpu_seconds": used.ru_utime + used.ru_stime}
    if "airflow" in sys.modules:
        raise RuntimeError("Airflow was imported: this is not what is to be measured")
    print(json.dumps(figures))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ours", description=__doc__)
    parser.add_argument("--ssh-config", type=Path, required=True)
    parser.add_argument("--host", required=True)
    verbs = parser.add_subparsers(dest="verb", required=True)
    save = verbs.add_parser("save", help="save an image, or find it unchanged")
    save.add_argument("--image", required=True)
    save.add_argument("--repository", required=True)
    save.add_argument("--storage-options", type=json.loads, default={})
    save.add_argument("--compression", choices=[each.value for each in Compression], default="none")
    save.add_argument("--expect", choices=("committed", "unchanged"), default="committed")
    stream = verbs.add_parser("stream", help="read the output of a command")
    stream.add_argument("--command", required=True)
    stream.add_argument("--size-bytes", type=int, required=True)
    verify = verbs.add_parser("verify", help="verify the newest backup of an image at level load")
    verify.add_argument("--image", required=True)
    verify.add_argument("--repository", required=True)
    verify.add_argument("--directory", type=Path, required=True, help="where the throw-away daemon lives")
    return parser


def _save(session: SshSession, options: argparse.Namespace) -> dict[str, float]:
    repository = Repository.open_or_create(
        storage_from_url(options.repository, **options.storage_options), clock=SystemClock()
    )
    host = SshDockerHost(session, name=options.host)
    session.peer()  # connects
    key = BackupKey.of(_source(options), run_time=datetime.now(UTC), work=[uuid.uuid4().hex])
    request = SaveRequest(key=key, compression=Compression(options.compression), force=options.expect == "committed")
    idle = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    began = time.monotonic()
    outcome = save_image(request, host=host, repository=repository, progress=_Silent())
    seconds = time.monotonic() - began
    if outcome.status != options.expect:
        raise RuntimeError(f"the save ended as {outcome.status}, expected {options.expect}")
    return {
        "work_seconds": seconds,
        "stored_bytes": outcome.backup.whole().archive_file.stored_size_bytes,
        "idle_bytes": idle,
        "above_idle_bytes": _status_bytes("VmHWM") - idle,
    }


def _stream(session: SshSession, options: argparse.Namespace) -> dict[str, float]:
    began = time.monotonic()
    size = sum(len(piece) for piece in session.stream_out(options.command, explain=_failed))
    seconds = time.monotonic() - began
    if size != options.size_bytes:
        raise RuntimeError(f"{size} bytes came, expected {options.size_bytes}")
    return {"work_seconds": seconds}


def _failed(result: CommandResult) -> DockerBackupError:
    return DockerBackupError(f"exit status {result.exit_status}: {result.stderr!r}")


def _verify(_session: SshSession, options: argparse.Namespace) -> dict[str, float]:
    # Only this verb needs the Docker SDK: a save starts without it.
    from airflow_provider_dockerbackup.transport.throwaway_daemon import throwaway_daemon

    repository = Repository.open(storage_from_url(options.repository), clock=SystemClock())
    backup = repository.catalog.newest(_source(options))
    if backup is None:
        raise RuntimeError("there is no backup to verify")
    around = 0.0

    @contextmanager
    def daemon() -> Iterator[TestDaemon]:
        """Lend a throw-away daemon, and count what its start and end take."""
        nonlocal around
        mark = time.monotonic()
        with throwaway_daemon(directory=options.directory) as lent:
            around += time.monotonic() - mark
            try:
                yield lent
            finally:
                mark = time.monotonic()
        around += time.monotonic() - mark

    done = verify_backup(backup, VerifyRequest(), repository=repository, test_daemon=daemon, progress=_Silent())
    if done.verification != "passed" or done.restore_seconds is None:
        raise RuntimeError(f"the verification failed: {done.problem}")
    return {"daemon_seconds": around, "load_seconds": done.restore_seconds}


def _source(options: argparse.Namespace) -> Source:
    return Source(host=options.host, kind=SourceKind.IMAGE, name=options.image)


def _status_bytes(key: str) -> int:
    """Return one of the sizes that the kernel tells of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


if __name__ == "__main__":
    sys.exit(main())
