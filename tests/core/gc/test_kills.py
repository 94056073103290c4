# SPDX-License-Identifier: Apache-2.0
"""A collection that fails or dies at any call to the storage: nothing needed is lost, the next one puts it right."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from airflow_provider_dockerbackup.core.gc.undelete import undelete
from airflow_provider_dockerbackup.exceptions import DockerBackupError
from airflow_provider_dockerbackup.transport.memory import FixedClock
from tests.core.faults import Death, Fault, FaultyStorage, Plan
from tests.core.gc.making import Layered, settled
from tests.core.world import Notes

DAY = timedelta(days=1)


def prepared() -> tuple[Layered, FixedClock]:
    """Everything that a collection finds: garbage, a full trash, dead pins, a needed blob in the trash."""
    made, clock = Layered.in_memory()
    first = made.backup("base", "old")
    made.backup("base", "new")
    made.storage.create("trash/g0/closed.json", b"{}")
    made.storage.create(f"trash/g0/blobs/sha256/{'f' * 64}", b"purged")
    path = next(each for each in made.paths("blobs/sha256") if made.storage.read(each) == b"new")
    made.storage.move(path, to=f"trash/g1/{path}")
    made.storage.create("pins/fedcba987654/0000.json", b"{}")
    made.storage.create("gc/condemned/g1/0000.json", b"{}")
    made.delete(first)
    clock.advance(8 * DAY)
    return made, clock


def left(made: Layered) -> list[str]:
    """What is there after a collection, but for what bears a collection's random name."""
    return [path for path in settled(made.paths()) if not path.startswith("trash/")]


def steps() -> int:
    """How many calls a collection makes."""
    plan = Plan()
    made, _ = prepared()
    made.collect(FaultyStorage(made.storage, plan))
    return len(plan.calls)


@pytest.mark.parametrize("fault", list(Fault))
def test_collection_that_ends_anywhere_is_put_right_by_the_next(fault: Fault) -> None:
    """At every call: backups stay whole meanwhile, and in the end it is as if nothing had happened."""
    expected, _ = prepared()
    expected.collect()
    wanted = left(expected)
    count = steps()
    assert count > 50
    for at in range(1, count + 1):
        made, clock = prepared()
        plan = Plan(at, fault)
        with suppress(DockerBackupError, Death):
            made.collect(FaultyStorage(made.storage, plan))
        for backup in made.repository.catalog.each():
            lost = [each for each in backup.whole().blob_sizes if each not in made.blobs()]
            assert len(lost) <= 1, plan.calls[-1]  # the one that the trash held from the beginning
        clock.advance(timedelta(minutes=20))
        made.collect()
        made.require_whole()
        assert left(made) == wanted, plan.calls[at - 1]
        for _ in range(2):  # what a death left in an open trash ages from the next collection on
            clock.advance(8 * DAY)
            made.collect()
        assert made.paths("trash") == []
        assert len(made.paths("gc")) == 2


@pytest.mark.parametrize("fault", list(Fault))
def test_undelete_that_ends_anywhere_leaves_a_backup_deleted_or_whole(fault: Fault) -> None:
    """At every call; and it can be tried again."""

    def trashed() -> tuple[Layered, FixedClock, str]:
        made, clock = Layered.in_memory()
        path = made.backup("base", "old")
        made.delete(path)
        clock.advance(2 * DAY)
        made.collect()
        clock.advance(timedelta(minutes=20))
        return made, clock, path.split("/")[3]

    plan = Plan()
    made, _, backup_id = trashed()
    undelete(made.on(FaultyStorage(made.storage, plan)), backup_id, actor={}, progress=Notes())
    for at in range(1, len(plan.calls) + 1):
        made, clock, backup_id = trashed()
        faulty = FaultyStorage(made.storage, Plan(at, fault))
        with suppress(DockerBackupError, Death):
            undelete(made.on(faulty), backup_id, actor={}, progress=Notes())
        made.require_whole()
        clock.advance(timedelta(minutes=20))
        if not list(made.repository.catalog.each()):
            undelete(made.repository, backup_id, actor={}, progress=Notes())
        made.require_whole()
        clock.advance(2 * DAY)
        made.collect()
        made.require_whole()
        assert made.has("base", "old", "manifest 1", "config 1")
