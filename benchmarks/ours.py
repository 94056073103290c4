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
from typing import get_args

from airflow_provider_dockerbackup.cli.quick_start import quick_imports

with quick_imports():  # as the console script does
    from airflow_provider_dockerbackup.core.archive.compression import Compression
    from airflow_provider_dockerbackup.core.attempt import BackupKey
    from airflow_provider_dockerbackup.core.capture import Tuning
    from airflow_provider_dockerbackup.core.catalog import Backup
    from airflow_provider_dockerbackup.core.gc.collect import GcRequest, collect_garbage
    from airflow_provider_dockerbackup.core.layers.choice import CaptureChoice
    from airflow_provider_dockerbackup.core.model import SourceKind
    from airflow_provider_dockerbackup.core.ports import TestDaemon
    from airflow_provider_dockerbackup.core.record import Source
    from airflow_provider_dockerbackup.core.repository import Layout, Repository
    from airflow_provider_dockerbackup.core.restore import RestoreRequest, restore_backup
    from airflow_provider_dockerbackup.core.save import SaveRequest, save_image
    from airflow_provider_dockerbackup.core.verify import VerifyRequest, verify_backup
    from airflow_provider_dockerbackup.exceptions import DockerBackupError
    from airflow_provider_dockerbackup.transport.clock import SystemClock
    from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
    from airflow_provider_dockerbackup.transport.ssh import CommandResult, SshSession
    from airflow_provider_dockerbackup.transport.ssh_config import ssh_client_factory
    from airflow_provider_dockerbackup.transport.storage import storage_from_url

_THREADS = 2


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
    figures = options.run(options)
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
    save.set_defaults(run=_save)
    _add_backup(save)
    save.add_argument("--storage-options", type=json.loads, default={})
    save.add_argument("--layout", choices=get_args(Layout), default="archive")
    save.add_argument("--compression", type=Compression, help="default: the layout's")
    save.add_argument("--capture", choices=get_args(CaptureChoice), default="auto")
    save.add_argument("--expect", choices=("committed", "unchanged"), default="committed")
    stream = verbs.add_parser("stream", help="read the output of a command")
    stream.set_defaults(run=_stream)
    stream.add_argument("--command", required=True)
    stream.add_argument("--size-bytes", type=int, required=True)
    verify = verbs.add_parser("verify", help="verify the newest backup of an image at level load")
    verify.set_defaults(run=_verify)
    _add_backup(verify)
    verify.add_argument("--directory", type=Path, required=True, help="where the throw-away daemon lives")
    restore = verbs.add_parser("restore", help="restore the newest backup of an image to the host")
    restore.set_defaults(run=_restore)
    _add_backup(restore)
    restore.add_argument("--source-host", required=True, help="which host the backup is of")
    create = verbs.add_parser("create", help="make a repository of layout layers")
    create.set_defaults(run=_create)
    create.add_argument("--repository", required=True)
    collect = verbs.add_parser("gc", help="collect garbage")
    collect.set_defaults(run=_gc)
    collect.add_argument("--repository", required=True)
    collect.add_argument("--dry-run", action="store_true")
    return parser


def _add_backup(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--image", required=True)
    verb.add_argument("--repository", required=True)


class _Peak:
    """Peak memory of this process above what it has when this is made."""

    def __init__(self) -> None:
        self._idle = _status_bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far

    @property
    def figures(self) -> dict[str, float]:
        """Memory before and since."""
        return {"idle_bytes": self._idle, "above_idle_bytes": _status_bytes("VmHWM") - self._idle}


@contextmanager
def _session(options: argparse.Namespace) -> Iterator[SshSession]:
    """Give a connected session with the host."""
    factory = ssh_client_factory(options.host, config_path=options.ssh_config)
    with SshSession(factory, where=options.host) as session:
        session.peer()  # connects
        yield session


def _save(options: argparse.Namespace) -> dict[str, float]:
    repository = Repository.open_or_create(
        storage_from_url(options.repository, **options.storage_options), clock=SystemClock(), layout=options.layout
    )
    with _session(options) as session:
        host = SshDockerHost(session, name=options.host)
        source = _source(options, host=options.host)
        request = SaveRequest(
            key=BackupKey.of(source, run_time=datetime.now(UTC), work=[uuid.uuid4().hex]),
            compression=options.compression,
            capture=options.capture,
            tuning=Tuning(threads=_THREADS),
            force=options.expect == "committed",
        )
        peak = _Peak()
        began = time.monotonic()
        outcome = save_image(request, host=host, repository=repository, progress=_Silent())
        seconds = time.monotonic() - began
    if outcome.status != options.expect:
        raise RuntimeError(f"the save ended as {outcome.status}, expected {options.expect}")
    record = outcome.backup.whole()
    figures = {"work_seconds": seconds, "stored_bytes": record.stored_size_bytes, **peak.figures}
    if record.blobs is not None:
        figures |= {"received_bytes": record.blobs.received_bytes, "new_bytes": record.blobs.new_bytes}
    return figures


def _stream(options: argparse.Namespace) -> dict[str, float]:
    with _session(options) as session:
        began = time.monotonic()
        size = sum(len(piece) for piece in session.stream_out(options.command, explain=_failed))
        seconds = time.monotonic() - began
    if size != options.size_bytes:
        raise RuntimeError(f"{size} bytes came, expected {options.size_bytes}")
    return {"work_seconds": seconds}


def _failed(result: CommandResult) -> DockerBackupError:
    return DockerBackupError(f"exit status {result.exit_status}: {result.stderr!r}")


def _verify(options: argparse.Namespace) -> dict[str, float]:
    # Only this verb needs the Docker SDK: a save starts without it.
    from airflow_provider_dockerbackup.transport.throwaway_daemon import throwaway_daemon

    repository, backup = _newest(options, host=options.host)
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


def _restore(options: argparse.Namespace) -> dict[str, float]:
    repository, backup = _newest(options, host=options.source_host)
    with _session(options) as session:
        host = SshDockerHost(session, name=options.host)
        peak = _Peak()
        done = restore_backup(backup, RestoreRequest(), host=host, repository=repository, progress=_Silent())
    if not done.identical:
        raise RuntimeError(f"the restored image is not the recorded one: {done.notes}")
    return {"work_seconds": done.seconds, **peak.figures}


def _create(options: argparse.Namespace) -> dict[str, float]:
    Repository.open_or_create(storage_from_url(options.repository), clock=SystemClock(), layout="layers")
    return {}


def _gc(options: argparse.Namespace) -> dict[str, float]:
    repository = Repository.open(storage_from_url(options.repository), clock=SystemClock())
    peak = _Peak()
    outcome = collect_garbage(repository, GcRequest(dry_run=options.dry_run), progress=_Silent())
    return {"garbage": len(outcome.plan.garbage), **peak.figures}


def _newest(options: argparse.Namespace, *, host: str) -> tuple[Repository, Backup]:
    """Return the repository, and the newest backup in it of the image on a host."""
    repository = Repository.open(storage_from_url(options.repository), clock=SystemClock())
    backup = repository.catalog.newest(_source(options, host=host))
    if backup is None:
        raise RuntimeError(f"there is no backup of {options.image} on {host}")
    return repository, backup


def _source(options: argparse.Namespace, *, host: str) -> Source:
    return Source(host=host, kind=SourceKind.IMAGE, name=options.image)


def _status_bytes(key: str) -> int:
    """Return one of the sizes that the kernel tells of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


if __name__ == "__main__":
    sys.exit(main())
