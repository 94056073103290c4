# SPDX-License-Identifier: Apache-2.0
"""Real backups, rotated and collected: what stays restores, what went comes back, and the next save is not misled."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_dockerbackup.core.gc.collect import GcOutcome, GcRequest, collect_garbage
from airflow_provider_dockerbackup.core.gc.undelete import undelete
from airflow_provider_dockerbackup.core.restore import RestoreRequest
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateRequest, rotate
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost, MemoryStorage
from tests.core.encryption.keys import age_pair
from tests.core.world import CONTAINER, TickingClock, World, app_archive, assert_all_whole, paths

DAY = timedelta(days=1)
ANN, BEN = age_pair(), age_pair()


@pytest.fixture(params=["plain", "encrypted"])
def world(request: pytest.FixtureRequest) -> World:
    """Two versions of an image that share a layer, and a container, all of them saved."""
    clock = TickingClock()
    storage = MemoryStorage(clock=clock)
    if request.param == "plain":
        made = World(storage=storage, clock=clock, layout="layers")
    else:
        made = World(
            storage=storage,
            clock=clock,
            layout="layers",
            recipients=(ANN.recipient, BEN.recipient),
            identities=ANN.identities,
        )
    made.backup(1)
    clock.advance(DAY)
    made.host.add_archive(app_archive("two"))
    made.backup(2)
    made.backup(2, CONTAINER)
    for backup in made.repository.catalog.backups():
        made.verify(backup)
    return made


def rotated(world: World) -> str:
    """Keep the newest backup of each source, and return the id of the one that went."""
    request = RotateRequest(policy=RetentionPolicy(keep_last=1), max_removed_share=1)
    (gone,) = rotate(world.repository, request, progress=world.progress).removed
    return gone


def collected(world: World) -> GcOutcome:
    """Collect, in this thread."""
    return collect_garbage(world.repository, GcRequest(threads=1), progress=world.progress)


def test_rotated_backups_go_and_the_others_restore(world: World) -> None:
    """Only the layer, the manifest and the configuration of the version that went are garbage."""
    rotated(world)
    assert collected(world).done.trashed == 0
    world.clock.advance(2 * DAY)
    assert collected(world).done.trashed == 3
    for backup in assert_all_whole(world.repository):
        assert backup.complete
        assert world.verify(backup).proves_restore


def test_image_whose_layers_went_is_saved_and_restored_anew(world: World) -> None:
    """Its layer map went with its blob, so nobody takes it for held."""
    rotated(world)
    world.clock.advance(2 * DAY)
    collected(world)
    world.host.add_archive(app_archive("one"))
    backup = world.backup(5).backup
    assert backup.complete
    target = MemoryDockerHost("target")
    assert world.restore(backup, RestoreRequest(tags=("back:1",)), host=target).identical
    world.clock.advance(30 * DAY)
    assert collected(world).done.purged > 0
    assert_all_whole(world.repository)


def test_undeleted_backup_restores_and_its_layers_are_held_again(world: World) -> None:
    """The next save of that version stores no layer of it."""
    gone = rotated(world)
    world.clock.advance(2 * DAY)
    collected(world)
    backup = undelete(world.repository, gone, actor={}, progress=world.progress)
    assert world.verify(backup).proves_restore
    world.host.add_archive(app_archive("one"))
    first, again = backup.whole().blobs, world.backup(6).backup.whole().blobs
    assert first is not None
    assert again is not None
    assert again.layers == first.layers
    assert again.new_bytes <= again.manifest.size_bytes + again.config.size_bytes  # encrypted anew each time


def test_all_of_a_repository_goes_when_all_was_forgotten(world: World) -> None:
    """After the trash has had its time there are tombstones and the trail, and no byte of a layer."""
    for backup in world.repository.catalog.backups():
        world.storage.create(f"{backup.path}deleted-20260401T000000.000000Z.json", b"{}")
    world.clock.advance(2 * DAY)
    collected(world)
    world.clock.advance(8 * DAY)
    collected(world)
    left = {path for path in paths(world.storage, prefix="") if not path.startswith(("audit/", "gc/lease/"))}
    assert {path.partition("/")[0] for path in left} == {"backups", "repository.json"}
    assert {path.rpartition("/")[2].partition("-")[0] for path in left if path.startswith("backups/")} == {
        "backup.json",
        "deleted",
        "verification",
    }
