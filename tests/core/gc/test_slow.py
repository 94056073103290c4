# SPDX-License-Identifier: Apache-2.0
"""Tries and sweepers that were suspended for longer than anybody waits for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.gc.documents import lease_path
from airflow_provider_dockerbackup.core.gc.lease import Lease
from airflow_provider_dockerbackup.core.gc.pins import Pins
from airflow_provider_dockerbackup.core.model import ObjectInfo
from airflow_provider_dockerbackup.core.places import RECORD_FILE, blob_path
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.exceptions import ConflictError, NotFoundError, TransientError
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.memory import FixedClock, MemoryStorage
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.faults import FaultyStorage, Plan
from tests.core.gc.making import Layered, digest_for
from tests.core.world import BEGIN, Notes

HOUR = timedelta(hours=1)

_PINNING = """
import sys, time
from pathlib import Path
from airflow_provider_dockerbackup.core.gc.pins import Pins
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.world import Notes
with Pins(LocalStorage(Path(sys.argv[1])), attempt="0123456789ab", clock=SystemClock(), progress=Notes()) as pins:
    pins.protect([sys.argv[2]])
    print("pinned", flush=True)
    time.sleep(600)
"""


class Ageing(MemoryStorage):
    """A storage without locks: only age tells who is gone, as on S3."""

    def __init__(self, clock: FixedClock) -> None:
        super().__init__(clock=clock)
        self._now = clock

    def is_abandoned(self, path: str, *, older_than_seconds: float) -> bool:
        """Tell by age."""
        return (self._now.now() - self.stat(path).modified).total_seconds() > older_than_seconds


@pytest.fixture
def world() -> tuple[Layered, FixedClock]:
    """Blobs that nobody needs yet, on a storage without locks."""
    clock = FixedClock(BEGIN)
    made = Layered(storage=Ageing(clock), clock=clock)
    for name in ("base", "manifest 1", "config 1"):
        made.blob(name)
    clock.advance(48 * HOUR)
    return made, clock


class After(FaultyStorage):
    """Lets something happen right after a call.

    :param call: how the call's name begins.
    :param nth: which of those calls.
    """

    def __init__(self, inner: Storage, call: str, then: Callable[[], None], *, nth: int = 1) -> None:
        super().__init__(inner, Plan())
        self._call = call
        self._then = then
        self._left = nth

    def _count(self, call: str) -> None:
        if call.startswith(self._call):
            self._left -= 1
            if self._left == 0:
                self._then()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List, then let it happen."""
        found = tuple(super().list(prefix))
        self._count(f"list {prefix}")
        return iter(found)

    def create(self, path: str, data: bytes) -> None:
        """Create, then let it happen."""
        super().create(path, data)
        self._count(f"create {path}")


def test_suspended_try_notices_that_its_pins_may_have_gone(world: tuple[Layered, FixedClock]) -> None:
    """It slept for 30 hours; a collection took it for dead. It records nothing and is tried again."""
    made, clock = world
    path, record = made.record(["base"], files=False)
    with Pins(made.repository, attempt="0123456789ab", clock=clock, progress=Notes()) as pins:
        pins.protect(record.blob_sizes)
        made.collect()
        assert made.has("base")
        clock.advance(30 * HOUR)
        assert made.collect().done.pins == 1
        assert not made.has("base")
        with pytest.raises(TransientError, match="Try again"):
            pins.require_fresh()
    assert path + RECORD_FILE not in made.paths()


def test_record_of_a_try_that_was_suspended_at_the_last_moment_becomes_whole_again(
    world: tuple[Layered, FixedClock],
) -> None:
    """Between its last look and its record it slept for 30 hours: what the record names comes back from the trash."""
    made, clock = world
    path, record = made.record(["base"], files=False)
    pins = Pins(made.repository, attempt="0123456789ab", clock=clock, progress=Notes())
    pins.protect(record.blob_sizes)
    pins.require_fresh()
    clock.advance(30 * HOUR)
    made.collect()
    made.storage.create(path + RECORD_FILE, record.to_bytes())
    with pytest.raises(NotFoundError):
        made.storage.stat(blob_path(digest_for("base")))  # so its try ends in an error
    pins.close()
    assert made.collect().done.returned == 3
    made.require_whole()


def test_sweeper_that_was_suspended_leaves_the_rest_to_its_successor(world: tuple[Layered, FixedClock]) -> None:
    """After its second look it slept for 20 minutes; another one took over and is done. It takes nothing away."""
    made, clock = world
    seen: list[int] = []

    def successor() -> None:
        clock.advance(timedelta(minutes=20))
        seen.append(made.collect().done.trashed)
        made.blob("base")
        clock.advance(timedelta(seconds=1))

    with pytest.raises(TransientError, match="held up"):
        made.collect(After(made.storage, "list backups", successor, nth=2))
    assert seen == [3]
    assert made.has("base")


def test_sweeper_that_looks_alive_to_nobody_for_17_minutes_is_waited_for(world: tuple[Layered, FixedClock]) -> None:
    """A lease without locks ends by the storage's clock."""
    made, clock = world
    tries: list[str] = []

    def other() -> None:
        for _ in range(2):
            try:
                made.collect()
                tries.append("done")
            except ConflictError:
                tries.append("refused")
                clock.advance(timedelta(minutes=18))

    with pytest.raises(TransientError):
        made.collect(After(made.storage, "create gc/condemned", other))
    assert tries == ["refused", "done"]


def test_two_that_take_a_lease_at_once_are_not_both_let_in(world: tuple[Layered, FixedClock]) -> None:
    """Of two that want the same number one gets it."""
    made, _ = world
    done: list[str] = []
    with pytest.raises(ConflictError):
        made.collect(After(made.storage, "list gc/lease", lambda: done.append(made.collect().gc)))
    assert len(done) == 1


@pytest.mark.parametrize("still_at_work", [True, False])
def test_number_that_became_free_again_lets_nobody_in(world: tuple[Layered, FixedClock], still_at_work: bool) -> None:
    """While one chose its number, others came and went: whoever took a lease looks again before relying on it."""
    made, clock = world
    with ExitStack() as others:

        def come_and_go() -> None:
            for number in (1, 2):
                lease = Lease(made.storage, gc=f"other {number}", actor={}, clock=clock, progress=Notes())
                if number == 2 and still_at_work:
                    others.enter_context(lease)
                else:
                    with lease:
                        assert lease.number == number
            assert lease_path(1) not in made.paths()

        before = made.blobs()
        with pytest.raises(ConflictError, match="another garbage collection"):
            made.collect(After(made.storage, "list gc/lease", come_and_go))
        assert made.blobs() == before
    assert made.collect().done.trashed == 3


@contextmanager
def pinning(root: Path, digest: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has pinned a blob."""
    process = subprocess.Popen([sys.executable, "-c", _PINNING, str(root), digest], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"pinned\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_stopped_process_keeps_its_pins_on_local_disk_until_it_is_killed(tmp_path: Path) -> None:
    """SIGSTOP for days is no death: the lock says so. SIGKILL is, at once."""
    root = tmp_path / "repository"
    made = Layered(storage=LocalStorage(root), clock=SystemClock())
    digest = made.blob("base")
    with pinning(root, digest) as process:
        process.send_signal(signal.SIGSTOP)
        old = time.time() - 72 * 3600
        for path in root.rglob("*"):
            if path.is_file():
                os.utime(path, (old, old))
        assert made.collect().done.trashed == 0
        assert len(made.paths("pins")) == 1
        process.kill()
        process.wait()
        outcome = made.collect()
    assert (outcome.done.trashed, outcome.done.pins) == (1, 1)
    assert not made.has("base")
