# SPDX-License-Identifier: Apache-2.0
"""Rotation, holds and the trail on the storages that are supported: a local disk, and a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.audit.checkpoint import CheckpointRequest, make_checkpoint
from airflow_provider_dockerbackup.core.audit.proof import prove
from airflow_provider_dockerbackup.core.audit.reading import stored_events
from airflow_provider_dockerbackup.core.hold import HoldRequest, hold_backup
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateOutcome, RotateRequest, rotate
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.faults import Death, FaultyStorage, Plan
from tests.core.world import World, assert_all_whole, bury
from tests.lab.s3 import LabS3

POLICY = RetentionPolicy.of({"keep_last": 1})


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty storage."""
    if request.param == "local":
        return LocalStorage(tmp_path / "repository")
    s3: LabS3 = request.getfixturevalue("atomic_s3")
    url = f"s3://{s3.bucket}/{tmp_path.name}"
    return storage_from_url(url, key="test", secret="test", endpoint_url=s3.endpoint_url)


@pytest.fixture
def world(storage: Storage) -> World:
    """Four verified backups, and workers whose clock is the storage's."""
    world = World(storage=storage)
    world.clock = SystemClock()  # type: ignore[assignment]
    for run in range(4):
        world.verify(world.backup(run).backup)
    return world


def rotated(world: World, storage: Storage | None = None) -> RotateOutcome:
    """Rotate."""
    request = RotateRequest(policy=POLICY, max_removed_share=1)
    return rotate(world.on(storage or world.storage), request, progress=world.progress)


def test_a_rotation_leaves_what_is_kept_and_held_and_a_trail_that_proves_it(world: World) -> None:
    """By the storage's own clock and listings."""
    newest, held, *others = world.repository.catalog.backups()
    hold_backup(world.repository, held, HoldRequest(reason="claim"), progress=world.progress)
    assert set(rotated(world).removed) == {each.backup_id for each in others}
    assert {each.backup_id for each in assert_all_whole(world.repository)} == {newest.backup_id, held.backup_id}
    made = make_checkpoint(world.repository, CheckpointRequest(), progress=world.progress)
    assert (made.made, made.left_out) == (True, ())
    proof = prove(stored_events(world.storage, keys={}), keys_given=False)
    assert (proof.intact, proof.heads) == (True, (made.audit_head,))


def test_a_rotation_that_died_before_the_bytes_leaves_a_whole_catalog(world: World) -> None:
    """The backup is out of the catalog; where locks tell, the next run finishes at once, elsewhere it waits a day."""
    dying = Plan()

    class DiesAtTheFirstDelete(FaultyStorage):
        """The process is gone when it would delete the first bytes."""

        def delete(self, path: str) -> None:
            """Die."""
            dying.dead = True
            raise Death

    with pytest.raises(Death):
        rotated(world, DiesAtTheFirstDelete(world.storage, dying))
    bury()
    assert len(assert_all_whole(world.repository)) == 3
    (left,) = world.repository.catalog.unfinished_deletions()
    outcome = rotated(world)
    assert len(assert_all_whole(world.repository)) == 1
    finished = left.backup_id in outcome.removed
    assert finished == isinstance(world.storage, LocalStorage)
    assert bool(world.repository.catalog.unfinished_deletions()) != finished
