# SPDX-License-Identifier: Apache-2.0
"""A check of a repository says whether hosts still have what lies on them, and when nobody can say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from airflow_provider_dockerbackup.core.check import check_repository
from airflow_provider_dockerbackup.core.onhost.ports import HostArchives, HostFilesFactory
from airflow_provider_dockerbackup.core.quarantine import quarantine
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateRequest, rotate
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.memory import MemoryHostArchives
from tests.core.onhost.hosts import HostWorld, a_world
from tests.core.world import HOST, IMAGE

OTHER = Source(host="host-2", kind=IMAGE.kind, name=IMAGE.name)


@pytest.fixture
def world() -> HostWorld:
    """A world with two backups on its host."""
    made = a_world()
    made.save(1)
    made.save(2)
    return made


def found(world: HostWorld, *hosts: str, reach: Mapping[str, HostArchives] | None = None) -> list[tuple[str, str]]:
    """Return what a check that asks some hosts finds."""
    repository = world.repository
    if reach is not None:
        repository.host_files = reaching(reach)
    return [(each.problem, each.detail) for each in check_repository(repository, hosts=hosts)]


def reaching(known: Mapping[str, HostArchives]) -> HostFilesFactory:
    """Return what reaches several hosts."""

    @contextmanager
    def reach(host: str) -> Iterator[HostArchives]:
        if host not in known:
            raise ConfigurationError(f"no way to {host}")
        yield known[host]

    return reach


def test_all_is_well_when_the_host_has_every_file_and_it_is_asked_once(world: HostWorld) -> None:
    """However many archives it keeps, and none of them is read."""
    calls: list[str] = []
    world.archives.before = calls.append
    assert found(world, HOST) == []
    assert calls == ["sizes"]


def test_a_host_that_nobody_named_is_not_asked_and_that_is_said_once(world: HostWorld) -> None:
    """With how much of it is unknown."""
    world.archives.before = pytest.fail
    assert found(world) == [("unasked", "2 archives lie on it; it was not asked")]
    assert [each.path for each in check_repository(world.repository)] == [HOST]


def test_a_file_that_is_gone_and_one_of_another_size_are_damage(world: HostWorld) -> None:
    """Each is told with its place; the newest backup of the source may be among them."""
    gone, short = sorted(world.archives.files)
    del world.archives.files[gone]
    size = len(world.archives.files[short])
    world.archives.files[short] = world.archives.files[short][:-1]
    assert found(world, HOST) == [
        ("incomplete", f"{HOST}:{gone} is not there"),
        ("incomplete", f"{HOST}:{short} has {size - 1} bytes, the record says {size}"),
    ]


def test_what_the_host_may_not_look_at_is_unknown_and_no_damage(world: HostWorld) -> None:
    """A folder that the SSH user cannot read says nothing of what is in it."""
    path, _ = sorted(world.archives.files)
    world.archives.problems[path] = "stat: cannot statx: Permission denied"
    assert found(world, HOST) == [("unknown", f"{HOST}:{path}: stat: cannot statx: Permission denied")]


@pytest.mark.parametrize("how", ["away", "not known"])
def test_one_host_of_two_that_does_not_answer_hides_nothing_of_the_other(world: HostWorld, how: str) -> None:
    """It is told once, with why."""
    other = MemoryHostArchives(world.host, clock=world.clock)
    world.save(3, archives=other, source=OTHER)
    gone = min(world.archives.files)
    del world.archives.files[gone]
    other.unreachable = True
    known: dict[str, HostArchives] = {HOST: world.archives}
    if how == "away":
        known[OTHER.host] = other
    (unknown, damage) = found(world, HOST, OTHER.host, reach=known)
    assert damage == ("incomplete", f"{HOST}:{gone} is not there")
    assert unknown[0] == "unknown"
    assert unknown[1].startswith("1 archives lie on it: ")


def test_a_backup_that_is_put_aside_while_its_host_is_asked_is_not_missed(world: HostWorld) -> None:
    """It was put aside, and is nobody's concern any more."""
    path = min(world.archives.files)
    (backup,) = [each for each in world.repository.catalog.backups() if each.whole().path_on_host == path]

    def remove(what: str) -> None:
        world.archives.before = lambda _: None
        del world.archives.files[path]
        world.verify(backup, "digests")
        quarantine(world.repository, backup.backup_id, reason="it is gone", actor={}, progress=world.progress)

    world.archives.before = remove
    assert [problem for problem, _ in found(world, HOST)] == ["quarantined"]


def test_a_backup_that_is_rotated_away_while_its_host_is_asked_is_not_missed(world: HostWorld) -> None:
    """Its archive is gone by intent, and nothing is odd."""
    for backup in world.repository.catalog.backups():
        world.verify(backup, "digests")
    request = RotateRequest(policy=RetentionPolicy(keep_last=1), max_removed_share=1)

    def remove(what: str) -> None:
        world.archives.before = lambda _: None
        assert len(rotate(world.repository, request, progress=world.progress).removed) == 1

    world.archives.before = remove
    assert found(world, HOST) == []
    assert len(world.archives.files) == 1
