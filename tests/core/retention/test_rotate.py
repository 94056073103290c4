# SPDX-License-Identifier: Apache-2.0
"""Rotation removes what the policy says and nothing else, whatever dies, fails or happens at the same time."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import pytest

from airflow_provider_dockerbackup.core.audit.checkpoint import CheckpointRequest, make_checkpoint
from airflow_provider_dockerbackup.core.audit.event import AuditEvent
from airflow_provider_dockerbackup.core.audit.proof import prove
from airflow_provider_dockerbackup.core.audit.reading import stored_events
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.hold import HoldRequest, ReleaseRequest, hold_backup, release_backup
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.quarantine import lift_quarantine, quarantine
from airflow_provider_dockerbackup.core.retention.forget import ForgetRequest, forget
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateOutcome, RotateRequest, rotate
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.memory import FixedClock, MemoryStorage
from tests.core.faults import Death, Fault, FaultyStorage, Plan
from tests.core.world import (
    BEGIN,
    CONTAINER,
    IMAGE,
    TickingClock,
    World,
    assert_all_whole,
    bury,
    contents,
    paths,
    spoil,
)

KEEP_TWO = RetentionPolicy.of({"keep_last": 2})
ACTOR = {"dag_id": "rotation"}


def a_world() -> World:
    """A world whose storage and workers have the same clock."""
    clock = TickingClock()
    return World(storage=MemoryStorage(clock=clock), clock=clock)


def filled(*, days: int = 4, verified: bool = True) -> tuple[World, list[Backup]]:
    """Return a world with a backup of the image for each of some days, oldest first."""
    world = a_world()
    backups = []
    for day in range(days):
        backup = world.backup(day).backup
        if verified:
            world.verify(backup)
        world.clock.advance(timedelta(days=1))
        backups.append(backup)
    return world, backups


def rotated(
    world: World, policy: RetentionPolicy = KEEP_TWO, *, storage: Storage | None = None, dry_run: bool = False
) -> RotateOutcome:
    """Rotate, all of it if the policy says so."""
    request = RotateRequest(policy=policy, max_removed_share=1, dry_run=dry_run, actor=ACTOR)
    return rotate(world.on(storage or world.storage), request, progress=world.progress)


def ids(world: World) -> set[str]:
    """Return what the catalog holds."""
    return {each.backup_id for each in world.repository.catalog.backups()}


def events(world: World, type_: str) -> list[AuditEvent]:
    """Return the events of a type, in the order of their time."""
    found = [each.event for each in stored_events(world.storage, keys={}) if each.event and each.event.type == type_]
    return sorted(found, key=lambda each: each.time)


def test_what_no_rule_keeps_goes_and_a_tombstone_stays() -> None:
    """Bytes are gone, record and documents stay; plan, intent and outcome are events that name the rule."""
    world, backups = filled()
    outcome = rotated(world)
    assert set(outcome.removed) == {backups[0].backup_id, backups[1].backup_id}
    assert ids(world) == {backups[2].backup_id, backups[3].backup_id}
    left = paths(world.storage, prefix=backups[0].path.rstrip("/"))
    assert backups[0].path + "backup.json" in left
    assert not any(".tar" in path for path in left)
    assert outcome.freed_bytes == sum(each.whole().archive_file.stored_size_bytes for each in backups[:2])
    told = events(world, "backup.deleted")
    assert [each.outcome for each in told] == ["intent", "success"] * 2
    assert told[-1].object["rules"] == ["no rule keeps it"]
    planned = events(world, "rotate.planned")[0]
    assert planned.object["policy"] == {"keep_last": 2}
    assert len(planned.object["decisions"][str(IMAGE)]) == 4
    assert rotated(world).removed == ()
    with pytest.raises(NotFoundError, match="was deleted"):
        world.repository.catalog.find(backups[0].backup_id)
    assert_all_whole(world.repository)


def test_a_dry_run_shows_the_same_plan_and_writes_nothing() -> None:
    """Not even an event."""
    world, _ = filled()
    before = contents(world.storage, "")
    planned = rotated(world, dry_run=True).plan
    assert contents(world.storage, "") == before
    assert rotated(world).plan.removed == planned.removed


@pytest.mark.parametrize("fault", list(Fault))
def test_whatever_call_fails_or_kills_the_next_run_finishes(fault: Fault) -> None:
    """At every call to the storage: nothing that stays is touched, and a second run gets to the same end."""
    world, _ = filled()
    plan = Plan()
    rotated(world, storage=FaultyStorage(world.storage, plan))
    expected = ids(world)
    calls = len(plan.calls)
    assert calls > 20
    for at in range(1, calls + 1):
        world, backups = filled()
        kept = {each.backup_id for each in backups[2:]}
        with suppress(Death, DockerBackupError):
            rotated(world, storage=FaultyStorage(world.storage, Plan(at, fault)))
        bury()
        assert kept <= ids(world)
        assert_all_whole(world.repository)
        rotated(world)
        assert len(ids(world)) == len(expected), (at, plan.calls[at - 1])
        assert not world.repository.catalog.unfinished_deletions()
        assert_all_whole(world.repository)


def test_without_the_intent_in_the_trail_nothing_is_removed() -> None:
    """Deletions fail closed."""
    world, backups = filled()
    for at in range(1, 200):
        plan = Plan(at, Fault.REFUSED)
        with suppress(DockerBackupError):
            rotated(world, storage=FaultyStorage(world.storage, plan))
            break
        if plan.calls[at - 1].startswith("create audit/"):
            assert len(ids(world)) == len(backups) or events(world, "backup.deleted")
            if not events(world, "backup.deleted"):
                assert ids(world) == {each.backup_id for each in backups}


def test_a_clock_that_is_off_removes_nothing() -> None:
    """More than five minutes between this machine and the storage, either way."""
    for skew in (timedelta(minutes=6), timedelta(hours=-1)):
        clock = FixedClock(BEGIN + timedelta(days=10) + skew)
        world, backups = filled()
        slow = MemoryStorage(clock=FixedClock(BEGIN + timedelta(days=10)))
        for path, data in contents(world.storage, "").items():
            slow.create(path, data)
        off = World(storage=slow)
        off.clock = clock  # type: ignore[assignment]
        with pytest.raises(ConflictError, match="clock"):
            rotated(off)
        assert ids(off) == {each.backup_id for each in backups}
        assert events(off, "rotate.failed")


def test_too_large_a_share_and_a_mistyped_pattern_are_refused() -> None:
    """Before anything is written."""
    world, _ = filled()
    before = contents(world.storage, "")
    request = RotateRequest(policy=RetentionPolicy.of({"keep_last": 1}), max_removed_share=0.5)
    with pytest.raises(ConflictError, match="max_removed_share"):
        rotate(world.repository, request, progress=world.progress)
    with pytest.raises(NotFoundError, match="matches"):
        rotate(world.repository, RotateRequest(policy=KEEP_TWO, names=("lab/ap",)), progress=world.progress)
    with pytest.raises(ConfigurationError, match="max_removed_share"):
        rotate(world.repository, RotateRequest(policy=KEEP_TWO, max_removed_share=0), progress=world.progress)
    assert contents(world.storage, "") == before


def test_an_unreadable_record_blocks_its_source_and_quarantine_unblocks_it() -> None:
    """Other sources are rotated; nothing of the damaged backup is ever deleted."""
    world, backups = filled()
    for day in range(4):
        world.verify(world.backup(day, CONTAINER).backup)
        world.clock.advance(timedelta(hours=1))
    spoil(world.storage, backups[1].path + "backup.json", data=b"{")
    outcome = rotated(world)
    assert outcome.plan.blocked == (IMAGE,)
    assert len(outcome.removed) == 2
    assert {each.backup_id for each in world.repository.catalog.backups(source=IMAGE)} == {
        each.backup_id for each in backups
    }
    with pytest.raises(ConflictError, match="readable and whole"):
        quarantine(world.repository, backups[0].backup_id, reason="x", actor=ACTOR, progress=world.progress)
    quarantine(world.repository, backups[1].backup_id, reason="disk", actor=ACTOR, progress=world.progress)
    kept = contents(world.storage, backups[1].path)
    assert rotated(world).removed == (backups[0].backup_id,)
    assert contents(world.storage, backups[1].path) == kept
    lift_quarantine(world.repository, backups[1].backup_id, reason="x", actor=ACTOR, progress=world.progress)
    assert backups[1].backup_id in ids(world)


def test_a_held_backup_stays_until_its_hold_ends_or_is_released() -> None:
    """A legal hold needs the flag; a released one no longer keeps."""
    world, backups = filled(days=5)
    until = world.clock.now() + timedelta(days=3)
    hold_backup(world.repository, backups[0], HoldRequest(reason="audit", until=until), progress=world.progress)
    hold_backup(world.repository, backups[1], HoldRequest(reason="claim", legal=True), progress=world.progress)
    assert rotated(world).removed == (backups[2].backup_id,)
    assert str(world.again(backups[1]).held(world.clock.now())[0]) == "under legal hold: claim"
    with pytest.raises(ConflictError, match="legal"):
        release_backup(world.repository, world.again(backups[1]), ReleaseRequest(reason="x"), progress=world.progress)
    world.clock.advance(timedelta(days=4))
    release = ReleaseRequest(reason="settled", release_legal=True)
    release_backup(world.repository, world.again(backups[1]), release, progress=world.progress)
    assert set(rotated(world).removed) == {backups[0].backup_id, backups[1].backup_id}
    assert [each.outcome for each in events(world, "hold.released")] == ["intent", "success"]


class Meanwhile:
    """A storage in which something happens right before a document is written.

    :param inner: the real one.
    """

    def __init__(self, inner: Storage, action: object) -> None:
        self._inner = inner
        self._action = action

    def __getattr__(self, name: str) -> object:
        """Give the real one's methods."""
        return getattr(self._inner, name)

    def writer(self, path: str) -> object:
        """Begin an object; before a deletion's document the other one acts."""
        action, self._action = self._action, None
        if action is not None and "deleted-" in path:
            action()  # type: ignore[operator]
        return self._inner.writer(path)


def test_a_hold_that_comes_between_plan_and_document_keeps_the_backup() -> None:
    """The remover lists once more after its document, finds the hold, and takes the document back."""
    world, backups = filled(days=3)

    def hold() -> None:
        hold_backup(world.repository, world.again(backups[0]), HoldRequest(reason="now"), progress=world.progress)

    outcome = rotated(world, storage=Meanwhile(world.storage, hold))  # type: ignore[arg-type]
    assert outcome.removed == ()
    assert outcome.kept_after_all == (backups[0].backup_id,)
    assert backups[0].backup_id in ids(world)
    assert_all_whole(world.repository)
    assert events(world, "backup.kept")


def test_a_remover_at_work_is_left_alone_and_a_dead_one_is_finished() -> None:
    """The document of a removal is held open until the end."""
    world, backups = filled(days=3)
    seen: list[int] = []

    @dataclass
    class Looking:
        inner: Storage

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

        def delete(self, path: str) -> None:
            if ".tar" in path:
                seen.append(len(rotated(world).removed))
            self.inner.delete(path)

    assert rotated(world, storage=Looking(world.storage)).removed == (backups[0].backup_id,)  # type: ignore[arg-type]
    assert seen == [0]


def test_a_forgotten_source_is_gone_and_its_held_backup_prevents_it() -> None:
    """All of its backups, with the reason in the trail; a source that is not there is not found."""
    world, backups = filled(days=2)
    hold_backup(world.repository, backups[0], HoldRequest(reason="claim"), progress=world.progress)
    request = ForgetRequest(source=IMAGE, reason="replaced", actor=ACTOR)
    with pytest.raises(ConflictError, match="held"):
        forget(world.repository, request, progress=world.progress)
    assert len(ids(world)) == 2
    release_backup(world.repository, world.again(backups[0]), ReleaseRequest(reason="over"), progress=world.progress)
    assert len(forget(world.repository, request, progress=world.progress)) == 2
    assert ids(world) == set()
    assert events(world, "source.forgotten")[-1].object["reason"] == "replaced"
    with pytest.raises(NotFoundError):
        forget(world.repository, request, progress=world.progress)
    with pytest.raises(ConfigurationError, match="reason"):
        forget(world.repository, ForgetRequest(source=IMAGE, reason=" "), progress=world.progress)


def test_a_change_whose_event_was_never_written_is_told_by_the_next_checkpoint() -> None:
    """A backup, a verification and a removal whose process died between change and event."""
    world, backups = filled(days=3)
    rotated(world)
    for each in list(stored_events(world.storage, keys={})):
        if each.event and each.event.outcome != "intent":
            world.storage.delete(each.path)
    world.clock.advance(timedelta(days=2))
    request = CheckpointRequest(actor=ACTOR)
    made = make_checkpoint(world.repository, request, progress=world.progress)
    told = {each.object.get("instead_of") or each.object.get("intent") for each in events(world, "reconciled")}
    assert {"backup.committed", "verify.passed", "backup.deleted", "backup.started", "rotate.planned"} <= told
    assert made.reconciled == len(events(world, "reconciled"))
    again = make_checkpoint(world.repository, request, progress=world.progress)
    assert (again.made, again.reconciled, again.audit_head) == (False, 0, made.audit_head)
    assert prove(stored_events(world.storage, keys={}), keys_given=False).intact
    assert backups[2].backup_id in ids(world)


def test_storage_that_fails_is_worth_a_retry() -> None:
    """The error's kind says what to do."""
    world, _ = filled()
    plan = Plan(3, Fault.REFUSED)
    with pytest.raises(TransientError):
        rotated(world, storage=FaultyStorage(world.storage, plan))
