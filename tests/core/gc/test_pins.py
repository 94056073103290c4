# SPDX-License-Identifier: Apache-2.0
"""Pins: what they say, whom they wait for, when they are too old, and what is left of them."""

from __future__ import annotations

import gc as python_gc
from collections.abc import Callable
from datetime import timedelta

import pytest

from airflow_provider_dockerbackup.core.gc.documents import (
    CondemnedDocument,
    LeaseDocument,
    PinDocument,
    condemned_path,
    lease_path,
    release_path,
)
from airflow_provider_dockerbackup.core.gc.pins import FRESH_SECONDS, LONGEST_WAIT_SECONDS, Pins
from airflow_provider_dockerbackup.core.model import ObjectInfo
from airflow_provider_dockerbackup.core.ports import ObjectWriter, Storage
from airflow_provider_dockerbackup.core.repository import ABANDONED_AFTER_SECONDS
from airflow_provider_dockerbackup.exceptions import DockerBackupError, TransientError
from airflow_provider_dockerbackup.transport.memory import FixedClock, MemoryStorage
from tests.core.faults import Death, Fault, FaultyStorage, Plan
from tests.core.world import Notes

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


class Waiting(FixedClock):
    """A clock with which something happens while somebody sleeps.

    :param then: called at the first sleep.
    """

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self.then: Callable[[], None] | None = then
        self.slept = 0.0

    def sleep(self, seconds: float) -> None:
        """Let it happen, and move on."""
        self.slept += seconds
        if self.then is not None:
            then, self.then = self.then, None
            then()
        super().sleep(seconds)


def pins(storage: Storage, clock: FixedClock | None = None, notes: Notes | None = None) -> Pins:
    """Pins of a try."""
    return Pins(storage, attempt="0123456789ab", clock=clock or FixedClock(), progress=notes or Notes())


def lease(storage: Storage, number: int = 1) -> ObjectWriter:
    """Take a lease as a sweeper does; it is live until the writer is closed."""
    document = LeaseDocument(gc="g1", taken_at=FixedClock().now(), actor={})
    writer = storage.writer(lease_path(number))
    writer.write(document.to_bytes())
    writer.commit()
    return writer


def condemn(storage: Storage, *digests: str, number: int = 1) -> str:
    """Condemn blobs as a sweeper does."""
    path = condemned_path("g1", 0)
    storage.create(path, CondemnedDocument(gc="g1", lease=number, digests=digests).to_bytes())
    return path


def paths(storage: Storage) -> list[str]:
    """What is there."""
    return sorted(info.path for info in storage.list(""))


def test_pins_say_what_they_keep_and_go_at_the_end() -> None:
    """Each call that pins something new is one document; the last one out removes them all."""
    storage = MemoryStorage()
    with pins(storage) as kept:
        kept.protect([A, B, A])
        kept.protect([B])
        kept.protect([C])
        assert paths(storage) == ["pins/0123456789ab/0000.json", "pins/0123456789ab/0001.json"]
        told = PinDocument.from_bytes(storage.read("pins/0123456789ab/0000.json"), where="pin")
        assert (told.attempt, told.digests) == ("0123456789ab", (A, B))
        kept.require_fresh()
    assert paths(storage) == []


def test_many_blobs_are_pinned_in_documents_of_bounded_size() -> None:
    """No document grows without bounds."""
    storage = MemoryStorage()
    with pins(storage) as kept:
        kept.protect(f"sha256:{number:064x}" for number in range(2500))
        documents = [PinDocument.from_bytes(storage.read(path), where=path) for path in paths(storage)]
        assert [len(each.digests) for each in documents] == [1000, 1000, 500]


def test_pins_stand_before_condemnations_are_looked_for() -> None:
    """The other way round both sides could miss each other."""
    plan = Plan()
    with pins(FaultyStorage(MemoryStorage(), plan)) as kept:
        kept.protect([A])
        calls = [call for call in plan.calls if call.startswith(("commit", "list"))]
        assert calls == ["commit pins/0123456789ab/0000.json", "list gc/condemned"]


def test_live_pins_are_not_abandoned() -> None:
    """Their writers stay open, so that a sweeper can tell them from those of the dead."""
    storage = MemoryStorage()
    with pins(storage) as kept:
        kept.protect([A])
        python_gc.collect()
        assert not storage.is_abandoned("pins/0123456789ab/0000.json", older_than_seconds=0)


def test_a_condemned_blob_is_waited_for_until_its_mark_is_gone() -> None:
    """Whoever condemned it before our pin stood may take it away; afterwards it can be looked for."""
    storage = MemoryStorage()
    held = lease(storage)
    path = condemn(storage, A)
    clock, notes = Waiting(lambda: storage.delete(path)), Notes()
    with pins(storage, clock, notes) as kept:
        kept.protect([B])
        assert clock.slept == 0
        kept.protect([A])
        assert clock.slept > 0
    assert any("waiting for a garbage collection" in line for line in notes.notes)
    held.close()


@pytest.mark.parametrize("how", ["writer gone", "released"])
def test_a_condemned_blob_is_waited_for_until_the_lease_is_over(how: str) -> None:
    """A sweeper that died leaves its marks, which then mean nothing."""
    storage = MemoryStorage()
    held = lease(storage)
    condemn(storage, A)
    then = held.close if how == "writer gone" else lambda: storage.create(release_path(1), b"{}")
    clock = Waiting(then)
    with pins(storage, clock) as kept:
        kept.protect([A])
    assert clock.slept > 0
    held.close()


@pytest.mark.parametrize("left", ["no lease", "dead lease", "foreign"])
def test_marks_of_the_dead_and_foreign_objects_are_not_waited_for(left: str) -> None:
    """Only a live sweeper takes anything away."""
    storage = MemoryStorage()
    if left == "dead lease":
        lease(storage).close()
    if left == "foreign":
        storage.create("gc/condemned/notes.txt", b"not ours")
    else:
        condemn(storage, A)
    clock = Waiting(lambda: None)
    with pins(storage, clock) as kept:
        kept.protect([A])
    assert clock.slept == 0


def test_waiting_has_an_end() -> None:
    """A sweeper that hangs makes a try fail, to be tried again; it does not hang as well."""
    storage = MemoryStorage()
    held = lease(storage)
    path = condemn(storage, A)
    clock = Waiting(lambda: None)
    with pins(storage, clock) as kept, pytest.raises(TransientError, match=f"{path}.*remove that file"):
        kept.protect([A])
    assert LONGEST_WAIT_SECONDS < clock.slept < LONGEST_WAIT_SECONDS + 60
    assert not [each for each in paths(storage) if each.startswith("pins/")]
    held.close()


def test_old_pins_are_refused_long_before_they_could_be_taken_for_dead() -> None:
    """A process that was suspended must not record what may be gone."""
    clock = FixedClock()
    with pins(MemoryStorage(), clock) as kept:
        kept.require_fresh()
        kept.protect([A])
        clock.advance(timedelta(seconds=FRESH_SECONDS - 1))
        kept.require_fresh()
        clock.advance(timedelta(seconds=2))
        with pytest.raises(TransientError, match=r"12\.0 hours.*Try again"):
            kept.require_fresh()
    assert FRESH_SECONDS <= ABANDONED_AFTER_SECONDS / 2


@pytest.mark.parametrize("stands_still", ["monotonic", "now"])
def test_either_clock_tells_that_pins_are_old(stands_still: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slept has its monotonic clock stand still; one whose time was set back the other."""
    clock = FixedClock()
    frozen = getattr(clock, stands_still)()
    with pins(MemoryStorage(), clock) as kept:
        kept.protect([A])
        clock.advance(timedelta(seconds=FRESH_SECONDS + 1))
        monkeypatch.setattr(clock, stands_still, lambda: frozen)
        with pytest.raises(TransientError, match="Try again"):
            kept.require_fresh()


def test_pins_that_somebody_removed_are_noticed() -> None:
    """Without pins nothing was kept."""
    storage = MemoryStorage()
    with pins(storage) as kept:
        kept.protect([A])
        storage.delete("pins/0123456789ab/0000.json")
        with pytest.raises(TransientError, match="is gone"):
            kept.require_fresh()


def work(storage: Storage, notes: Notes) -> None:
    """All that a try does with its pins."""
    with pins(storage, notes=notes) as kept:
        kept.protect([A])
        kept.protect([B])
        kept.require_fresh()


def steps() -> int:
    """How many calls that takes."""
    plan = Plan()
    work(FaultyStorage(MemoryStorage(), plan), Notes())
    return len(plan.calls)


@pytest.mark.parametrize("fault", list(Fault))
def test_whatever_fails_leaves_pins_of_a_dead_writer_at_most(fault: Fault) -> None:
    """Nothing that a later collection would have to respect for ever, and no error is hidden."""
    for at in range(1, steps() + 1):
        storage, notes = MemoryStorage(), Notes()
        plan = Plan(at, fault)
        try:
            work(FaultyStorage(storage, plan), notes)
        except (DockerBackupError, Death):
            pass
        else:
            assert plan.calls[at - 1].startswith("delete")
            assert any("stay for garbage collection" in line for line in notes.notes)
        python_gc.collect()
        for info in storage.list(""):
            assert isinstance(info, ObjectInfo)
            assert storage.is_abandoned(info.path, older_than_seconds=ABANDONED_AFTER_SECONDS)
