# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.attempt import reap
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import canonical_json
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.places import source_from_path, source_path
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import Verification
from airflow_provider_dockerbackup.exceptions import ConflictError, IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.core.world import BEGIN, CONTAINER, HOST, IMAGE, World, app_archive, contents, paths, spoil

FOREIGN = (
    "README",
    "backups/README",
    "backups/ship-1/notes.txt",
    "backups/ship-1/image-lab%2Fapp%3A1/notes.txt",
    "backups/ship-1/image-lab%2Fapp%3A1/old/backup.json",
    "backups/ship-1/image-lab%2Fapp%3A1/20260101T000000Z/backup.json",
    "backups/ship-1/image-lab%2Fapp%3A1/20260101T000000Z-0123456789abcdeg/backup.json",
    "backups/ship-1/image-lab%2Fapp%3A1/20260101T000000Z-0123456789abcdef/sub/image-0123456789ab.tar",
    "backups/ship-1/image-lab%2fapp%3A1/20260101T000000Z-0123456789abcdef/image-0123456789ab.tar",
    "backups/ship-1/volume-data/20260101T000000Z-0123456789abcdef/backup.json",
    "backups/ship-1/image-/20260101T000000Z-0123456789abcdef/backup.json",
    "backups/ship-1/image-%FF/20260101T000000Z-0123456789abcdef/backup.json",
    "backups/%2e%2e/image-a/20260101T000000Z-0123456789abcdef/backup.json",
    "elsewhere/ship-1/image-lab%2Fapp%3A1/20260101T000000Z-0123456789abcdef/backup.json",
)


def _three(world: World) -> list[Backup]:
    made = []
    for run in (1, 2, 3):
        made.append(world.backup(run).backup)
        world.clock.advance(timedelta(hours=1))
    return made


def _rewrite(world: World, backup: Backup, **fields: Any) -> None:
    record = json.loads(world.storage.read(f"{backup.path}backup.json"))
    spoil(world.storage, f"{backup.path}backup.json", data=canonical_json({**record, **fields}))


def _ids(world: World, **wanted: Any) -> list[str]:
    return [each.backup_id for each in world.repository.catalog.backups(**wanted)]


def test_backups_are_listed_newest_capture_first() -> None:
    """The first one is the one that a restore would take."""
    world = World()
    made = _three(world)
    assert _ids(world) == [each.backup_id for each in reversed(made)]
    newest = world.repository.catalog.newest(IMAGE)
    assert newest is not None
    assert newest.backup_id == made[-1].backup_id


def test_the_order_is_that_of_capture_and_not_of_names_or_of_time_zones() -> None:
    """A run for an earlier date that was done late is the newest; times with an offset are compared as moments."""
    world = World()
    first, second, third = _three(world)
    _rewrite(world, first, captured_at="2026-03-02T01:00:00+09:00")  # 16:00 UTC on the day before
    _rewrite(world, second, captured_at="2026-03-01T15:00:00Z")
    _rewrite(world, third, captured_at="2026-03-01T15:30:00.5Z")
    assert _ids(world) == [first.backup_id, third.backup_id, second.backup_id]


def test_backups_are_listed_by_host_and_by_source() -> None:
    """A host or source whose name begins like another's does not show the other's backups."""
    world = World()
    image, container = world.backup(1).backup, world.backup(1, CONTAINER).backup
    world.host.add_archive(app_archive("one", tag="lab/app:10"))
    longer = world.backup(1, Source(host=HOST, kind=SourceKind.IMAGE, name="lab/app:10")).backup
    other_host = MemoryDockerHost("ship-10")
    other_host.add_archive(app_archive("one"))
    other = world.backup(1, Source(host="ship-10", kind=SourceKind.IMAGE, name=IMAGE.name), host=other_host).backup
    assert _ids(world, source=IMAGE) == [image.backup_id]
    assert _ids(world, source=CONTAINER) == [container.backup_id]
    assert set(_ids(world, host=HOST)) == {image.backup_id, container.backup_id, longer.backup_id}
    assert _ids(world, host="ship-10") == [other.backup_id]
    assert _ids(world, host="ship") == []


def test_a_deleted_backup_is_hidden_and_its_tombstone_stays() -> None:
    """A ``deleted`` document takes a backup out of the list; ``at`` still shows it, as deleted."""
    world = World()
    first, second, _ = _three(world)
    world.storage.create(f"{second.path}deleted-20260401T000000Z.json", b"{}")
    assert second.backup_id not in _ids(world)
    assert first.backup_id in _ids(world)
    standing = world.repository.catalog.at(second.path)
    assert standing is not None
    assert standing.deleted


@pytest.mark.parametrize("path", FOREIGN)
def test_what_is_not_ours_is_neither_listed_nor_touched(path: str) -> None:
    """A foreign object below the repository is no backup, and no run ever removes it."""
    world = World()
    world.storage.create(path, b"mine")
    made = world.backup(1).backup
    reap(world.repository, IMAGE)
    assert _ids(world) == [made.backup_id]
    assert world.storage.read(path) == b"mine"


def test_a_foreign_file_in_the_folder_of_a_backup_is_left_alone() -> None:
    """Only files named as an attempt names them can be leftovers."""
    world = World()
    folder = world.backup(1).backup.path
    for name in ("notes.txt", "image-old.tar", "image-0123456789ab.tar.bak", "IMAGE-0123456789ab.tar", "hold-1.json"):
        world.storage.create(folder + name, b"mine")
    before = paths(world.storage)
    assert reap(world.repository, IMAGE) == ()
    assert paths(world.storage) == before


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("backup.json", b"{", "backup.json is not a readable BackupRecord"),
        ("backup.json", b'{"schema_version":"9.0"}', "newer release"),
        ("confirmed-20260301T000000Z-0123456789abcdef.json", b"{", "is not a readable Confirmation"),
        ("verification-20260301T000000.000000Z.json", b"[]", "is not a readable Verification"),
    ],
)
def test_an_unreadable_record_is_shown_with_its_problem(name: str, data: bytes, problem: str) -> None:
    """A backup that cannot be understood stays in the list and says why; it is not used for anything."""
    world = World()
    first, second, third = _three(world)
    spoil(world.storage, third.path + name, data=data)
    shown = next(each for each in world.repository.catalog.backups() if each.backup_id == third.backup_id)
    assert shown.record is None
    assert problem in shown.problem
    assert third.path in shown.problem
    assert shown.source == IMAGE
    with pytest.raises(IntegrityError, match=f"record of backup {third.backup_id} of {HOST} image lab/app:1 is unread"):
        shown.whole()
    newest = world.repository.catalog.newest(IMAGE)
    assert newest is not None
    assert newest.backup_id == second.backup_id
    assert first.backup_id in _ids(world)


def test_a_record_that_was_moved_is_detected() -> None:
    """A record in the folder of another source or backup does not pass for one of that source."""
    world = World()
    made = world.backup(1).backup
    moved = made.path.replace("lab%2Fapp", "lab%2Fother")
    copied = made.path.replace("20260302T", "20260305T")
    for folder in (moved, copied):
        for path, data in contents(world.storage, made.path).items():
            world.storage.create(path.replace(made.path, folder), data)
        found = world.repository.catalog.at(folder)
        assert found is not None
        assert found.record is None
        assert "moved or copied by hand" in found.problem


def test_a_backup_is_found_by_its_id_or_the_beginning_of_it() -> None:
    """As much of the id as makes it unique is enough."""
    world = World()
    first, second, _ = _three(world)
    assert world.repository.catalog.find(second.backup_id).backup_id == second.backup_id
    assert world.repository.catalog.find(first.backup_id[:8]).backup_id == first.backup_id


@pytest.mark.parametrize("wanted", ["", "2025", "20260302T060000Z-ffffffffffffffff0", "*", "..", "backup.json"])
def test_a_backup_that_is_not_there_is_not_found(wanted: str) -> None:
    """The message names the repository and how to see what is there."""
    world = World()
    _three(world)
    with pytest.raises(NotFoundError, match=r"no backup .* in memory://repository; 'dockerbackup list'"):
        world.repository.catalog.find(wanted)


def test_a_prefix_of_several_backups_is_a_conflict_that_names_them() -> None:
    """Nothing is chosen for the reader."""
    world = World()
    made = _three(world)
    with pytest.raises(ConflictError, match="not unique") as raised:
        world.repository.catalog.find("202603")
    assert all(each.backup_id in str(raised.value) for each in made)


def test_a_deleted_backup_is_found_to_be_deleted() -> None:
    """Whoever asks for it learns that it was there."""
    world = World()
    made = world.backup(1).backup
    world.storage.create(f"{made.path}deleted-20260401T000000Z.json", b"{}")
    with pytest.raises(NotFoundError, match=rf"backup {made.backup_id} of {HOST} image lab/app:1 was deleted"):
        world.repository.catalog.find(made.backup_id)


def test_a_folder_without_a_record_is_no_backup() -> None:
    """Bytes that were never committed are not shown."""
    world = World()
    made = world.backup(1).backup
    world.storage.delete(f"{made.path}backup.json")
    assert _ids(world) == []
    assert world.repository.catalog.at(made.path) is None


def test_the_newest_point_is_the_last_confirmation() -> None:
    """A backup that was found unchanged counts for the later moment."""
    world = World()
    made = world.backup(1).backup
    captured = made.newest_point
    world.clock.advance(timedelta(days=1))
    confirmed = world.backup(2, force=False).backup
    assert confirmed.backup_id == made.backup_id
    assert captured < BEGIN + timedelta(days=1) < confirmed.newest_point


def test_verifications_are_in_order_of_their_time_and_not_of_their_names() -> None:
    """Trust follows what was verified last, whatever the documents are called."""
    world = World()
    made = world.backup(1).backup
    for name, minutes, outcome in (("a", 2, "failed"), ("b", 1, "passed")):
        document = Verification.model_validate(
            {
                "backup_id": made.backup_id,
                "level": "digests",
                "verified_at": BEGIN + timedelta(minutes=minutes),
                "verification": outcome,
                "bytes_read": 0,
                "actor": {},
            }
        )
        world.storage.create(f"{made.path}verification-{name}.json", document.to_bytes())
    assert world.again(made).trust == "failed"


def test_a_tree_that_lost_its_repository_document_is_not_made_a_new_repository() -> None:
    """Backups without ``repository.json`` are a sign of a wrong URL or a loss, and a human should look."""
    world = World()
    world.backup(1)
    world.storage.delete("repository.json")
    with pytest.raises(NotFoundError, match=r"no repository at memory://repository \(no repository.json\)"):
        Repository.open_or_create(world.storage, clock=world.clock)
    assert "repository.json" not in paths(world.storage, prefix="")


def test_a_folder_that_is_none_of_a_source_has_no_source() -> None:
    """A path that says nothing is not guessed at."""
    with pytest.raises(IntegrityError, match="not a folder of backups"):
        source_from_path("backups/ship-1/volume-data/x/")
    assert source_from_path(source_path(CONTAINER)) == CONTAINER
