# SPDX-License-Identifier: Apache-2.0
"""A source's own retention policy: kept by its records, honoured by rotation, never below what the DAG demands."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.retention.plan import Candidate, plan_rotation
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy, check_own_policy
from airflow_provider_dockerbackup.core.retention.rotate import RotateRequest, rotate
from airflow_provider_dockerbackup.core.save import SaveRequest, save_image
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from tests.core.world import IMAGE, TickingClock, World

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
SHOP = Source(host="ship-1", kind=SourceKind.CONTAINER, name="shop")
WIKI = Source(host="ship-1", kind=SourceKind.CONTAINER, name="wiki")


def backups(source: Source, *told: str | None) -> list[Candidate]:
    """Return verified backups of a source, one a day, newest first, with what each knows of its own policy."""
    return [
        Candidate(
            backup_id=f"{source.name}-{day}",
            source=source,
            points=(at := NOW - timedelta(days=day + 1),),
            trust="verified",
            told=None if text is None else (at, text),
        )
        for day, text in enumerate(told)
    ]


def kept(candidates: list[Candidate], *, own_policies: bool = True, **policy: Any) -> list[str]:
    """Return what stays by a policy."""
    plan = plan_rotation(candidates, RetentionPolicy.of(policy or {"keep_last": 2}), now=NOW, own_policies=own_policies)
    return [each.backup_id for each in plan.kept]


def test_the_newest_backup_that_knows_of_a_policy_decides_for_its_source_alone() -> None:
    """One made by hand, without a look at labels, changes nothing; an older policy counts no more."""
    shop = backups(SHOP, None, "keep_last=3", "keep_last=1", "", None)
    assert kept(shop + backups(WIKI, None, None, None)) == ["shop-0", "shop-1", "shop-2", "wiki-0", "wiki-1"]
    assert kept(shop, own_policies=False) == ["shop-0", "shop-1"]


def test_a_label_that_was_taken_away_counts_no_more() -> None:
    """Then the policy for all does again."""
    assert kept(backups(SHOP, "", "keep_last=3", None)) == ["shop-0", "shop-1"]


def test_a_source_may_keep_less_but_not_less_than_is_demanded_of_all() -> None:
    """Whoever may start containers cannot clear away the backups of the last weeks."""
    shop = backups(SHOP, *["keep_last=1"] * 5)
    assert kept(shop) == ["shop-0"]
    assert kept(shop, keep_last=2, min_age="3d") == ["shop-0", "shop-1"]
    assert kept(shop, keep_last=2, min_verified=3) == ["shop-0", "shop-1", "shop-2"]
    assert kept(backups(SHOP, *["keep_last=1,min_age=4d"] * 5), keep_last=2, min_age="1d") == [
        "shop-0",
        "shop-1",
        "shop-2",
    ]


def test_only_verified_backups_count_when_that_is_demanded_of_all() -> None:
    """A policy of its own does not lift it."""
    policy = RetentionPolicy.parse("keep_last=1", what="x").over(RetentionPolicy(keep_last=9, require_verified=True))
    assert policy == RetentionPolicy(keep_last=1, require_verified=True)


def test_an_unreadable_policy_keeps_everything_of_its_source_and_says_so() -> None:
    """A newer release may have written it."""
    plan = plan_rotation(
        backups(SHOP, "keep_fortnightly=3", "") + backups(WIKI, None, None, None), RetentionPolicy(keep_last=1), now=NOW
    )
    assert [each.backup_id for each in plan.kept] == ["shop-0", "shop-1", "wiki-0"]
    assert plan.blocked == (SHOP,)
    assert "unknown keep_fortnightly" in plan.decisions[0].reasons[0]


def test_a_policy_of_the_future_that_says_something_else_keeps_everything() -> None:
    """A clock was wrong; the label that came after it would else count for nothing until that moment comes."""
    late = Candidate(
        backup_id="late", source=SHOP, points=(at := NOW + timedelta(days=900),), trust="none", told=(at, "keep_last=1")
    )
    shop = [late, *backups(SHOP, "keep_last=2", "keep_last=1", None, None)]
    plan = plan_rotation(shop, RetentionPolicy(keep_last=1), now=NOW)
    assert plan.removed == ()
    assert plan.blocked == (SHOP,)
    assert "late says at 2028-09-16 12:00 UTC, in the future" in plan.decisions[0].reasons[0]
    assert kept(shop, own_policies=False) == ["late", "shop-0", "shop-1"]
    assert kept([late, *backups(SHOP, "keep_last=1", None)]) == ["late", "shop-0"]
    assert kept([late, *backups(SHOP, None, None)]) == ["late", "shop-0"]


def copied(candidates: list[Candidate]) -> list[Candidate]:
    """Return backups as they are at a second site."""
    return [replace(each, copied=True) for each in candidates]


def test_a_policy_that_came_with_copies_only_keeps_more() -> None:
    """Whoever writes in the first site has the second one keep no less; a label that asks for more gets it."""
    for text in ("keep_last=1", ""):
        assert kept(copied(backups(SHOP, *[text] * 5)), keep_last=3) == ["shop-0", "shop-1", "shop-2"]
    plan = plan_rotation(copied(backups(SHOP, *["keep_last=4"] * 5)), RetentionPolicy(keep_last=2), now=NOW)
    assert [each.reasons for each in plan.decisions] == [
        ("keep_last", "newest verified"),
        ("keep_last",),
        ("copied policy: keep_last",),
        ("copied policy: keep_last",),
        ("no rule keeps it",),
    ]
    assert plan.policies == {SHOP: "keep_last=4"}
    assert kept(copied(backups(SHOP, *["keep_last=4"] * 5)), own_policies=False) == ["shop-0", "shop-1"]


def test_where_copies_and_backups_of_that_place_are_mixed_the_place_has_its_own_policy() -> None:
    """A copy that is newer may keep more than that; one that is older tells what is over."""
    five = backups(SHOP, "keep_last=1", "keep_last=3", *[None] * 3)
    assert kept([*copied(five[:1]), *five[1:]]) == ["shop-0", "shop-1", "shop-2"]
    four = backups(SHOP, "keep_last=4", "keep_last=3", *[None] * 3)
    assert kept([*copied(four[:1]), *four[1:]]) == ["shop-0", "shop-1", "shop-2", "shop-3"]
    assert kept([*five[:1], *copied(five[1:])]) == ["shop-0"]


def test_a_copied_policy_that_is_unreadable_keeps_everything() -> None:
    """As everywhere."""
    plan = plan_rotation(copied(backups(SHOP, "keep_fortnightly=3", None, None)), RetentionPolicy(keep_last=1), now=NOW)
    assert (plan.removed, plan.blocked) == ((), (SHOP,))


@pytest.mark.parametrize(
    "policy",
    [
        {"keep_last": 3},
        {"keep_daily": 7, "keep_within": "2d", "require_verified": True, "timezone": "Europe/Berlin"},
        {"keep_yearly": -1, "min_age": "1y6m", "min_verified": 2},
    ],
)
def test_a_policy_is_read_as_it_is_written(policy: dict[str, Any]) -> None:
    """In every form that a dict has."""
    written = str(RetentionPolicy.of(policy))
    assert RetentionPolicy.parse(written, what="label") == RetentionPolicy.of(policy)
    assert RetentionPolicy.parse(written.replace(",", " , "), what="label") == RetentionPolicy.of(policy)


def test_a_policy_that_is_none_is_refused_before_anything_is_captured() -> None:
    """None and empty are no policy."""
    check_own_policy(None)
    check_own_policy("")
    world = World()
    with pytest.raises(ConfigurationError, match=r"^retention: "):
        save_image(
            SaveRequest(key=world.key(1), retention="keep=1"),
            host=world.host,
            repository=world.repository,
            progress=world.progress,
        )
    assert world.repository.catalog.backups() == []


def save(world: World, run: int, *, retention: str | None, force: bool = False) -> None:
    """Save the image in one run of a DAG that looked at labels."""
    request = SaveRequest(key=world.key(run), retention=retention, force=force)
    save_image(request, host=world.host, repository=world.repository, progress=world.progress)


def test_records_and_confirmations_keep_the_policy_when_the_container_is_gone() -> None:
    """An unchanged image makes no new record; the label may have changed all the same."""
    clock = TickingClock()
    world = World(storage=MemoryStorage(clock=clock), clock=clock)
    for run in range(4):
        save(world, run, retention="keep_last=3", force=True)
        world.verify(world.repository.catalog.backups()[0])
        world.clock.advance(timedelta(days=1))
    save(world, 4, retention="keep_last=2")
    save(world, 5, retention=None)
    newest = world.repository.catalog.backups(source=IMAGE)[0]
    assert [each.retention for each in newest.confirmations] == ["keep_last=2", None]
    assert newest.told is not None
    assert newest.told[1] == "keep_last=2"
    request = RotateRequest(policy=RetentionPolicy(keep_last=9), max_removed_share=1)
    outcome = rotate(world.repository, request, progress=world.progress)
    # Both of its places are taken by the newest backup, of which the confirmation is a point.
    assert len(outcome.removed) == 3
    assert outcome.plan.policies == {IMAGE: "keep_last=2"}
