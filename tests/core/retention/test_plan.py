# SPDX-License-Identifier: Apache-2.0
"""Plans of rotation: what stays, what goes, by which rule, and what is never removed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_dockerbackup.core.catalog import Trust
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.retention.plan import Candidate, Plan, plan_rotation
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
APP = Source(host="ship-1", kind=SourceKind.IMAGE, name="lab/app:1")
OTHER = Source(host="ship-2", kind=SourceKind.IMAGE, name="lab/app:1")


def backup(*ago: float, trust: Trust = "verified", source: Source = APP, **fields: Any) -> Candidate:
    """Return a backup with a point for each number of days ago; without any its record is unreadable."""
    name = f"{source.host}-{'-'.join(f'{each:g}' for each in ago) or 'unreadable'}"
    points = tuple(NOW - timedelta(days=each) for each in ago)
    return Candidate(backup_id=name, source=source, points=points, trust=trust, size_bytes=1, **fields)


def plan(*candidates: Candidate, **policy: Any) -> Plan:
    """Return the plan of a policy, by default keep_last=1."""
    return plan_rotation(candidates, RetentionPolicy.of(policy or {"keep_last": 1}), now=NOW)


def decisions(found: Plan) -> dict[str, tuple[str, ...]]:
    """Return the reasons by backup, those of removed ones marked."""
    return {each.candidate.backup_id: each.reasons if each.keep else ("-", *each.reasons) for each in found.decisions}


def test_each_backup_is_kept_or_removed_with_the_rule_that_decided() -> None:
    """By source, newest first."""
    found = plan(backup(3), backup(1), backup(2), backup(9, source=OTHER), keep_last=2)
    assert decisions(found) == {
        "ship-1-1": ("keep_last", "newest verified"),
        "ship-1-2": ("keep_last",),
        "ship-1-3": ("-", "no rule keeps it"),
        "ship-2-9": ("keep_last", "newest verified"),
    }
    assert [each.backup_id for each in found.removed] == ["ship-1-3"]
    assert len(found.kept) == 3


def test_a_backup_stays_while_any_of_its_points_does() -> None:
    """A confirmation is the state of that day: the image did not change since the capture."""
    found = plan(backup(1), backup(40, 2, 3), backup(50), keep_daily=3)
    assert decisions(found)["ship-1-40-2-3"] == ("keep_daily",)
    assert decisions(found)["ship-1-50"][0] == "-"


@pytest.mark.parametrize("bad", [{"trust": "failed"}, {"whole": False}], ids=str)
def test_damaged_backups_never_take_a_place_and_go_when_something_newer_is_verified(bad: dict[str, Any]) -> None:
    """They would push out the good ones."""
    found = plan(backup(2, **bad), backup(1), backup(3), keep_last=2)
    assert found.removed == (backup(2, **bad),)


@pytest.mark.parametrize("bad", [{"trust": "failed"}, {"whole": False}], ids=str)
def test_a_damaged_backup_stays_while_nothing_newer_is_verified(bad: dict[str, Any]) -> None:
    """It may be all there is of those days, and somebody may want to look at it."""
    found = plan(backup(1, **bad), backup(2), backup(3))
    assert decisions(found) == {
        "ship-1-1": ("damaged, but nothing newer is verified",),
        "ship-1-2": ("keep_last", "newest verified"),
        "ship-1-3": ("-", "no rule keeps it"),
    }


def test_the_newest_verified_backup_stays_whatever_newer_ones_there_are() -> None:
    """Unproven ones may turn out bad."""
    found = plan(backup(1, trust="none"), backup(2, trust="checked"), backup(30), backup(31), keep_last=2)
    assert decisions(found)["ship-1-30"] == ("newest verified",)
    assert decisions(found)["ship-1-31"][0] == "-"


def test_as_many_verified_ones_stay_as_the_policy_says() -> None:
    """``min_verified`` counts from the newest."""
    found = plan(*(backup(number) for number in range(1, 7)), keep_last=1, min_verified=4)
    assert [each.backup_id for each in found.removed] == ["ship-1-5", "ship-1-6"]


def test_where_only_verified_ones_count_newer_ones_wait_for_their_verification() -> None:
    """And older ones that were never verified go."""
    found = plan(
        backup(1, trust="none"),
        backup(2, trust="checked"),
        backup(3),
        backup(4, trust="checked"),
        backup(5),
        keep_last=2,
        require_verified=True,
    )
    assert decisions(found) == {
        "ship-1-1": ("not verified yet",),
        "ship-1-2": ("not verified yet",),
        "ship-1-3": ("keep_last", "newest verified"),
        "ship-1-4": ("-", "no rule keeps it"),
        "ship-1-5": ("keep_last",),
    }


def test_without_any_verified_one_nothing_is_removed_where_only_these_count() -> None:
    """A repository whose verification never ran keeps everything."""
    found = plan(backup(1, trust="none"), backup(2, trust="none"), keep_last=1, require_verified=True)
    assert found.removed == ()


def test_what_is_held_stays() -> None:
    """With the reason of the hold."""
    assert decisions(plan(backup(1), backup(2, hold="held: court case 7")))["ship-1-2"] == ("held: court case 7",)


def test_nothing_younger_than_the_minimum_age_goes() -> None:
    """Whatever the rules say."""
    found = plan(backup(1), backup(2), backup(3), keep_last=1, min_age="60h")
    assert decisions(found)["ship-1-2"] == ("min_age=60h",)
    assert [each.backup_id for each in found.removed] == ["ship-1-3"]


def test_what_claims_to_be_of_the_future_stays() -> None:
    """A wrong clock is no reason to delete, neither it nor those whose places it would take."""
    found = plan(backup(-1), backup(-2), backup(3), backup(4), keep_last=1)
    assert decisions(found) == {
        "ship-1--2": ("in the future: a clock was wrong",),
        "ship-1--1": ("in the future: a clock was wrong",),
        "ship-1-3": ("keep_last", "newest verified"),
        "ship-1-4": ("-", "no rule keeps it"),
    }


def test_an_unreadable_record_blocks_its_source_and_no_other() -> None:
    """Unknown means keep; the reason names it and what to do."""
    found = plan(backup(), backup(1), backup(2), backup(1, source=OTHER), backup(2, source=OTHER))
    reasons = decisions(found)
    for name in ("ship-1-unreadable", "ship-1-1", "ship-1-2"):
        assert reasons[name] == ("blocked: the record of ship-1-unreadable is unreadable; repair or quarantine it",)
    assert [each.backup_id for each in found.removed] == ["ship-2-2"]


def test_an_empty_policy_is_refused_even_when_made_by_hand() -> None:
    """Not only the one that a dict gives."""
    with pytest.raises(ConfigurationError, match="would keep nothing"):
        plan_rotation([backup(1)], RetentionPolicy(), now=NOW)


def test_a_plan_that_removes_too_large_a_share_is_refused() -> None:
    """A mistyped policy does not empty the repository."""
    found = plan(*(backup(number) for number in range(1, 11)), keep_last=5)
    found.require_share(0.5)
    with pytest.raises(ConflictError, match=r"removes 5 of 10 backups, more than max_removed_share=0.49 .*dry run"):
        found.require_share(0.49)


def test_a_plan_of_nothing_removes_nothing() -> None:
    """An empty repository is no error."""
    found = plan()
    found.require_share(0)
    assert found.decisions == ()


CANDIDATES = st.lists(
    st.builds(
        lambda number, points, trust, whole, hold, source: Candidate(
            backup_id=f"id-{number}",
            source=source,
            points=tuple(NOW - timedelta(hours=each) for each in points),
            trust=trust,
            whole=whole,
            hold=hold,
        ),
        st.integers(0, 10**9),
        st.lists(st.integers(-100, 20_000), max_size=4),
        st.sampled_from(["failed", "verified", "checked", "none"]),
        st.booleans(),
        st.sampled_from(["", "", "", "legal"]),
        st.sampled_from([APP, OTHER]),
    ),
    max_size=14,
    unique_by=lambda each: each.backup_id,
)
POLICIES = st.fixed_dictionaries(
    {"keep_last": st.integers(1, 4)},
    optional={
        "keep_daily": st.integers(0, 4),
        "keep_monthly": st.integers(0, 4),
        "keep_within": st.sampled_from(["1d", "1m"]),
        "min_verified": st.integers(1, 3),
        "min_age": st.sampled_from(["2d", "9h"]),
        "require_verified": st.booleans(),
    },
)


@given(CANDIDATES, POLICIES)
def test_no_plan_breaks_what_is_promised(candidates: list[Candidate], values: dict[str, Any]) -> None:
    """Every backup has one decision and a reason for it; held, blocked and the newest verified ones stay."""
    policy = RetentionPolicy.of(values)
    try:
        found = plan_rotation(candidates, policy, now=NOW)
    except ConflictError:
        # Only a source that has nothing good at all can be left without a backup, and then nothing is removed.
        assert any(not any(each.counts for each in candidates if each.source == source) for source in (APP, OTHER))
        return
    assert sorted(each.candidate.backup_id for each in found.decisions) == sorted(c.backup_id for c in candidates)
    assert all(each.reasons for each in found.decisions)
    for source in (APP, OTHER):
        own = [each for each in candidates if each.source == source]
        gone = [each for each in found.removed if each.source == source]
        if any(not each.points for each in own):
            assert gone == []
            continue
        verified = sorted(
            (each for each in own if each.whole and each.trust == "verified" and each.newest_point <= NOW),
            key=lambda each: (each.newest_point, each.backup_id),
            reverse=True,
        )
        assert not set(verified[: policy.min_verified]) & set(gone)
        assert not any(each.hold for each in gone)
        assert own == [] or len(gone) < len(own)
        if policy.min_age is not None:
            assert all(each.newest_point < NOW - timedelta(hours=9) for each in gone)


@given(CANDIDATES, POLICIES)
def test_a_plan_carried_out_leaves_nothing_more_to_remove(candidates: list[Candidate], values: dict[str, Any]) -> None:
    """Applied twice at the same moment it is the same as once: an interrupted rotation is simply run again."""
    policy = RetentionPolicy.of(values)
    try:
        kept = plan_rotation(candidates, policy, now=NOW).kept
    except ConflictError:
        return
    assert plan_rotation(kept, policy, now=NOW).removed == ()
