# SPDX-License-Identifier: Apache-2.0
"""Which backups are copied."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_dockerbackup.core.copies.selection import Selection
from airflow_provider_dockerbackup.core.places import RECORD_FILE
from airflow_provider_dockerbackup.core.retention.duration import Duration
from airflow_provider_dockerbackup.exceptions import ConfigurationError, NotFoundError
from tests.core.onhost.hosts import a_world
from tests.core.world import BEGIN, CONTAINER, IMAGE, World, app_archive, docker_host, spoil


def _world() -> World:
    """Three backups of an image, two of a container, one of the same image on another host."""
    world = World()
    for run, version in enumerate(("one", "two", "three"), start=1):
        world.host.add_archive(app_archive(version))
        world.backup(run)
    for run in (4, 5):
        world.backup(run, CONTAINER)
    world.backup(6, IMAGE.model_copy(update={"host": "ship-2"}), host=docker_host("ship-2"))
    return world


def _chosen(world: World, **fields: Any) -> list[str]:
    """Return the runs of the chosen backups."""
    selection = Selection(**fields)
    selection.check()
    chosen = selection.chosen(world.repository.catalog, now=BEGIN)
    return sorted(f"{each.source.host} {_run(each.backup_id)}" for each in chosen)


def _run(backup_id: str) -> int:
    return int(backup_id[6:8]) - BEGIN.day


def test_all_are_chosen_unless_told_otherwise() -> None:
    """Of every source."""
    assert _chosen(_world()) == ["ship-1 1", "ship-1 2", "ship-1 3", "ship-1 4", "ship-1 5", "ship-2 6"]


def test_patterns_choose_hosts_and_sources() -> None:
    """As everywhere: shell patterns, and both must match."""
    world = _world()
    assert _chosen(world, hosts=["*-2"]) == ["ship-2 6"]
    assert _chosen(world, hosts=["ship-1"], names=["lab/*"]) == ["ship-1 1", "ship-1 2", "ship-1 3"]
    with pytest.raises(NotFoundError, match="no backup matches hosts"):
        _chosen(world, hosts=["nowhere"])


def test_the_newest_are_those_of_each_source() -> None:
    """One of each, or two."""
    world = _world()
    assert _chosen(world, newest=1) == ["ship-1 3", "ship-1 5", "ship-2 6"]
    assert _chosen(world, newest=2) == ["ship-1 2", "ship-1 3", "ship-1 4", "ship-1 5", "ship-2 6"]


def test_a_damaged_newest_backup_hides_no_good_one_and_is_seen() -> None:
    """It is chosen as well, so that the copy names it, and it does not count."""
    world = _world()
    newest = world.repository.catalog.backups(source=IMAGE)[0]
    spoil(world.storage, newest.path + RECORD_FILE, data=b"{")
    assert _chosen(world, names=["lab/*"], hosts=["ship-1"], newest=1) == ["ship-1 2", "ship-1 3"]


def test_a_backup_whose_bytes_are_gone_hides_no_good_one_and_is_seen() -> None:
    """Its record is as good as ever, and it cannot be restored."""
    world = _world()
    newest = world.repository.catalog.backups(source=IMAGE)[0]
    world.storage.delete(newest.path + newest.whole().archive_file.name)
    assert _chosen(world, names=["lab/*"], hosts=["ship-1"], newest=1) == ["ship-1 2", "ship-1 3"]


def test_of_an_empty_repository_nothing_is_chosen_whatever_the_patterns() -> None:
    """There is no backup yet that they could have missed."""
    world = World()
    assert _chosen(world, hosts=["web-*"]) == []


def test_an_archive_that_nobody_scanned_on_its_host_hides_no_good_one() -> None:
    """It is chosen, and scanned on its way, but whether it can be restored is not known before."""
    world = a_world()
    World(storage=world.storage, host=world.host, clock=world.clock).backup(1)
    unscanned = world.save(2).backup
    assert _chosen(world, newest=1) == ["ship-1 1", "ship-1 2"]
    world.verify(unscanned, "digests")
    assert _chosen(world, newest=1) == ["ship-1 2"]


def test_since_counts_by_the_newest_point() -> None:
    """A backup that was found unchanged yesterday is the state of yesterday, however old its capture is."""
    world = World()
    world.backup(1)
    world.clock.advance(BEGIN.replace(day=20) - BEGIN)
    world.backup(19, CONTAINER)
    now, since = world.clock.now(), Duration.parse("2d")
    chosen = list(Selection(since=since).chosen(world.repository.catalog, now=now))
    assert [each.source for each in chosen] == [CONTAINER]
    assert world.backup(20, force=False).status == "unchanged"
    chosen = list(Selection(since=since).chosen(world.repository.catalog, now=now))
    assert {each.source for each in chosen} == {CONTAINER, IMAGE}


def test_since_counts_an_unreadable_backup_by_its_id() -> None:
    """It is seen as long as it may be one of those that are asked for."""
    world = World()
    spoil(world.storage, world.backup(1).backup.path + RECORD_FILE, data=b"{")
    for days, seen in (("40d", 1), ("2d", 0)):
        selection = Selection(since=Duration.parse(days))
        assert len(list(selection.chosen(world.repository.catalog, now=BEGIN.replace(month=4)))) == seen


def test_since_is_no_error_where_a_folder_was_made_by_hand() -> None:
    """Its name is that of a backup and its time is none: it is named as damaged, and the others are copied."""
    world = World()
    backup = world.backup(1).backup
    odd = backup.path.replace(backup.backup_id.split("-")[0], "99999999T999999Z")
    world.storage.create(odd + RECORD_FILE, world.storage.read(backup.path + RECORD_FILE))
    chosen = Selection(since=Duration.parse("2d")).chosen(world.repository.catalog, now=world.clock.now())
    assert {each.path for each in chosen} == {backup.path, odd}


def test_ids_choose_alone_and_must_be_there() -> None:
    """By a beginning of each; one that is named twice is chosen once."""
    world = _world()
    first = world.repository.catalog.backups(source=IMAGE)[-1].backup_id
    assert _chosen(world, backup_ids=[first[:20], first]) == ["ship-1 1"]
    with pytest.raises(NotFoundError, match="no backup '2020'"):
        _chosen(world, backup_ids=["2020"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"backup_ids": "20260301"}, "backup_ids: expected a list of texts"),
        ({"hosts": ()}, "hosts: expected a list of patterns"),
        ({"names": [""]}, "names: expected a list of texts"),
        ({"newest": True}, "newest: expected a whole number from 1 on"),
        ({"newest": -1}, "newest: expected a whole number from 1 on"),
        ({"backup_ids": ["2026"], "newest": 1}, "either ids, or hosts"),
        ({"backup_ids": ["2026"], "names": ["web"]}, "either ids, or hosts"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], said: str) -> None:
    """With the name of the value."""
    with pytest.raises(ConfigurationError, match=said):
        Selection(**fields).check()
