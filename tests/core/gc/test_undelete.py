# SPDX-License-Identifier: Apache-2.0
"""Deleted backups come back whole, or not at all."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_dockerbackup.core.audit.reading import stored_events
from airflow_provider_dockerbackup.core.gc.documents import lease_path
from airflow_provider_dockerbackup.core.gc.undelete import undelete
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.exceptions import ConflictError, NotFoundError, TransientError
from airflow_provider_dockerbackup.transport.memory import FixedClock
from tests.core.faults import FaultyStorage, Plan
from tests.core.gc.making import Layered, digest_for
from tests.core.world import Notes


@pytest.fixture
def world() -> tuple[Layered, FixedClock, str]:
    """A deleted backup whose bytes are in the trash, and its id."""
    made, clock = Layered.in_memory()
    path = made.backup("base", "top")
    made.delete(path)
    clock.advance(timedelta(days=2))
    made.collect()
    return made, clock, path.split("/")[3]


def bring_back(made: Layered, backup_id: str, storage: Storage | None = None) -> None:
    """Undelete through a storage."""
    repository = made.repository if storage is None else made.on(storage)
    undelete(repository, backup_id, actor={"user": "tester"}, progress=Notes())


def is_deleted(made: Layered) -> bool:
    """Tell whether it is still out of the catalog."""
    return [name for name, _ in made.repository.catalog.deleted_names()] != []


def test_bytes_come_back_from_the_trash_before_the_backup_does(world: tuple[Layered, FixedClock, str]) -> None:
    """Blobs, files and maps; the trail tells it, and the next collection leaves it alone."""
    made, clock, backup_id = world
    assert not made.has("base")
    bring_back(made, backup_id)
    made.require_whole()
    assert not is_deleted(made)
    assert made.has("base", "top", "manifest 1", "config 1")
    assert len(made.paths("layers/sha256")) == 2
    assert made.paths("pins") == []
    told = [each.event for each in stored_events(made.storage, keys={}) if each.event is not None]
    outcomes = sorted(each.outcome for each in told if each.type == "backup.undeleted")
    assert outcomes == ["intent", "success"]
    clock.advance(timedelta(days=30))
    assert made.collect().done.trashed == 0


def test_backup_that_is_not_deleted_is_named(world: tuple[Layered, FixedClock, str]) -> None:
    """So is one that is not there, and one that is not unique."""
    made, _, backup_id = world
    other = made.backup("base")
    with pytest.raises(ConflictError, match="is not deleted"):
        bring_back(made, other.split("/")[3])
    with pytest.raises(NotFoundError, match="no backup 'nothing'"):
        bring_back(made, "nothing")
    made.delete(other)
    with pytest.raises(ConflictError, match="not unique"):
        bring_back(made, backup_id[:10])


def test_backup_that_somebody_is_deleting_is_left_to_him(world: tuple[Layered, FixedClock, str]) -> None:
    """The trail would tell it in the wrong order."""
    made, _, _ = world
    path = made.backup("other")
    writer = made.storage.writer(f"{path}deleted-20260301T060000.000000Z.json")
    writer.write(b"{}")
    writer.commit()
    with pytest.raises(ConflictError, match="somebody is deleting"):
        bring_back(made, path.split("/")[3])
    writer.close()
    bring_back(made, path.split("/")[3])


def test_collection_at_work_is_not_disturbed(world: tuple[Layered, FixedClock, str]) -> None:
    """Both move blobs; they take turns."""
    made, clock, backup_id = world
    clock.advance(timedelta(days=9))
    refused: list[bool] = []

    class Meanwhile(FaultyStorage):
        def delete(self, path: str) -> None:
            if path.startswith("trash/") and not refused:
                with pytest.raises(ConflictError, match="another garbage collection is at work"):
                    bring_back(made, backup_id)
                refused.append(True)
            super().delete(path)

    made.collect(Meanwhile(made.storage, Plan()))
    assert refused
    with pytest.raises(NotFoundError, match="gone for ever"):
        bring_back(made, backup_id)
    assert is_deleted(made)


def test_damaged_blob_in_the_place_of_a_good_one_keeps_the_backup_deleted(
    world: tuple[Layered, FixedClock, str],
) -> None:
    """Nothing that is not whole comes into the catalog."""
    made, _, backup_id = world
    made.storage.create(blob_path(digest_for("top")), b"x" * 100)
    with pytest.raises(NotFoundError, match="was not brought back"):
        bring_back(made, backup_id)
    assert is_deleted(made)


def test_lease_that_is_lost_on_the_way_keeps_the_backup_deleted(world: tuple[Layered, FixedClock, str]) -> None:
    """A collection may have begun that knows nothing of it."""
    made, _, backup_id = world

    class Losing(FaultyStorage):
        def create(self, path: str, data: bytes) -> None:
            super().create(path, data)
            if path.startswith("audit/"):
                self.delete(lease_path(2))

    with pytest.raises(TransientError, match="another garbage collection took over"):
        bring_back(made, backup_id, Losing(made.storage, Plan()))
    assert is_deleted(made)
    bring_back(made, backup_id)
    made.require_whole()


def test_what_comes_back_is_pinned_meanwhile(world: tuple[Layered, FixedClock, str]) -> None:
    """A collection that took the lease over by mistake would still see that it is needed."""
    made, _, backup_id = world
    pinned: list[int] = []

    class Watching(FaultyStorage):
        def delete(self, path: str) -> None:
            if "/deleted-" in path:
                pinned.append(len(made.paths("pins")))
            super().delete(path)

    bring_back(made, backup_id, Watching(made.storage, Plan()))
    assert pinned == [1]
