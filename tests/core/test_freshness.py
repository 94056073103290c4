# SPDX-License-Identifier: Apache-2.0
"""How fresh sources are, told from records alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_dockerbackup.core.freshness import Rpo, SourceFreshness, Trust, freshness, freshness_of
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.retention.duration import Duration
from tests.core.world import IMAGE, World


def looked(world: World, *, hours: float, trust: Trust = "any", **options: object) -> dict[str, SourceFreshness]:
    """Return the freshness of each source some hours from now, in their order."""
    rpo = options.pop("rpo", Rpo(limit=Duration(hours=24)))
    found = freshness(
        world.repository.catalog.each(),
        now=world.clock.now() + timedelta(hours=hours),
        trust=trust,
        rpo=rpo,  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    )
    return {str(each.source): each for each in found}


def test_a_source_is_stale_when_its_newest_point_is_older_than_its_limit() -> None:
    """To the second; a confirmation of an unchanged image is a point as well."""
    world = World()
    world.backup(1)
    first = looked(world, hours=23)[str(IMAGE)]
    newest = world.repository.catalog.newest(IMAGE)
    assert newest is not None
    assert (first.state, first.newest) == ("ok", newest.newest_point)
    for seconds, state in ((0, "ok"), (1, "stale")):
        at = newest.newest_point + timedelta(hours=24, seconds=seconds)
        found = freshness_of(IMAGE, [newest], rpo=Rpo(limit=Duration(hours=24)), now=at, trust="any")
        assert (found.state, found.age_seconds) == (state, 86_400 + seconds)
    world.clock.advance(timedelta(hours=20))
    assert world.backup(2, force=False).status == "unchanged"
    again = looked(world, hours=23)[str(IMAGE)]
    assert again.state == "ok"
    assert again.newest is not None
    assert first.newest is not None
    assert again.newest - first.newest >= timedelta(hours=20)


def test_a_backup_of_the_future_makes_nothing_fresh() -> None:
    """A clock was wrong: the source would be fresh for years, and nobody would miss its backups."""
    world = World()
    right = world.backup(1).backup.newest_point
    world.clock.advance(timedelta(days=900))
    world.backup(2)
    world.backup(3, force=False)
    world.clock.advance(timedelta(days=-900))
    found = looked(world, hours=30)[str(IMAGE)]
    assert (found.state, found.newest) == ("stale", right)
    assert looked(world, hours=900 * 24 - 0.05)[str(IMAGE)].state == "ok"


def test_a_clock_that_is_a_minute_ahead_makes_a_backup_fresh_and_not_younger_than_nothing() -> None:
    """Clocks of hosts and workers differ; an age below zero would be none."""
    world = World()
    world.backup(1)
    found = looked(world, hours=-1 / 60)[str(IMAGE)]
    assert (found.state, found.age_seconds) == ("ok", 0.0)


def test_a_backup_that_was_never_restored_counts_only_when_asked() -> None:
    """What is not verified may not be one."""
    world = World()
    world.backup(1)
    assert looked(world, hours=1, trust="verified")[str(IMAGE)].state == "missing"
    assert looked(world, hours=1, trust="any")[str(IMAGE)].state == "ok"


def test_a_source_that_must_have_a_backup_and_has_none_is_missing_and_comes_first() -> None:
    """No schedule has ever made one, so no record tells of it."""
    world = World()
    world.backup(1)
    never = Source(host="web-9", kind=SourceKind.CONTAINER, name="shop")
    found = looked(world, hours=1, required=[never, IMAGE])
    assert list(found) == [str(never), str(IMAGE)]
    assert (found[str(never)].state, found[str(never)].age_seconds) == ("missing", None)


def test_an_unreadable_record_is_no_backup() -> None:
    """Unknown means stale here."""
    world = World()
    backup = world.backup(1).backup
    world.storage.delete(backup.path + "backup.json")
    world.storage.create(backup.path + "backup.json", b"{")
    assert looked(world, hours=1)[str(IMAGE)].state == "missing"


def test_a_backup_whose_archive_is_gone_or_cut_is_no_backup() -> None:
    """Its record alone restores nothing."""
    for data in (None, b"cut"):
        world = World()
        backup = world.backup(1).backup
        archive = backup.path + backup.whole().archive_file.name
        world.storage.delete(archive)
        if data is not None:
            world.storage.create(archive, data)
        assert looked(world, hours=1)[str(IMAGE)].state == "missing"


@pytest.mark.parametrize(
    ("pattern", "state"), [(f"{IMAGE.host}*", "ok"), (str(IMAGE), "ok"), (IMAGE.name, "ok"), ("other", "stale")]
)
def test_limits_may_differ_by_source(pattern: str, state: str) -> None:
    """By its whole name, or the name alone; the first pattern that matches counts."""
    world = World()
    world.backup(1)
    rpo = Rpo(limit=Duration(hours=24), by_source={pattern: Duration(days=8), "*": Duration(hours=1)})
    assert looked(world, hours=30, rpo=rpo)[str(IMAGE)].state == state
