# SPDX-License-Identifier: Apache-2.0
"""Whoever edits the trail is found, and what was edited is named: each kind of tampering, at every event."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from airflow_provider_dockerbackup.core.audit.checkpoint import (
    CheckpointOutcome,
    CheckpointRequest,
    make_checkpoint,
)
from airflow_provider_dockerbackup.core.audit.event import AuditEvent
from airflow_provider_dockerbackup.core.audit.proof import Finding, parse_anchors, prove
from airflow_provider_dockerbackup.core.audit.reading import StoredEvent, stored_events
from airflow_provider_dockerbackup.core.audit.signature import SigningKey, keyring
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.memory import FixedClock
from tests.core.audit.making import ACTOR, Told, flips, signed, without_signature
from tests.core.world import Notes

EVENTS = 1000
Trail = dict[str, StoredEvent]
Tamper = Callable[[Told, Trail, str], tuple[Trail, str]]


@pytest.fixture(scope="module")
def told() -> Told:
    """A signed trail of a thousand events with checkpoints, all of its heads anchored."""
    told = Told().write(events=EVENTS)
    assert len(told.order) >= EVENTS
    return told


@pytest.fixture(scope="module")
def trail(told: Told) -> Trail:
    """The same, examined."""
    return told.examined()


def event_of(told: Told, path: str) -> AuditEvent:
    """Return an event."""
    return AuditEvent.from_bytes(told.storage.read(path), where=path)


def edited(told: Told, trail: Trail, path: str) -> tuple[Trail, str]:
    """Other content under the same name."""
    event = event_of(told, path)
    changed = event.model_copy(update={"object": {**event.object, "backup_id": "another"}})
    return {**trail, path: told.put(path, changed.to_bytes())}, trail[path].digest


def deleted(told: Told, trail: Trail, path: str) -> tuple[Trail, str]:
    """It is gone."""
    return {each: stored for each, stored in trail.items() if each != path}, trail[path].digest


def inserted(told: Told, trail: Trail, path: str) -> tuple[Trail, str]:
    """One more after it, well formed, which nobody signed."""
    event = event_of(told, path)
    changed = event.model_copy(update={"type": "verify.passed", "parents": (trail[path].digest,)})
    place, data = signed(changed, None)
    return {**trail, place: told.put(place, data)}, sha256_of(data)


def renamed(told: Told, trail: Trail, path: str) -> tuple[Trail, str]:
    """It stands under another name."""
    other = f"audit/2026-01-01/{'0' * 64}.json"
    if "checkpoints" in path:
        other = f"audit/checkpoints/{900_000:08d}.json"
    moved = {each: stored for each, stored in trail.items() if each != path}
    return {**moved, other: told.put(other, told.storage.read(path))}, trail[path].digest


def cut(told: Told, trail: Trail, path: str) -> tuple[Trail, str]:
    """It and all that came after it are gone."""
    gone = set(told.order[told.order.index(path) :])
    return {each: stored for each, stored in trail.items() if each not in gone}, told.anchors[-1].digest


def replaced(told: Told, trail: Trail, path: str) -> tuple[Trail, str]:
    """From it on everything was written anew with another key, as whole and consistent as the first."""
    other = SigningKey.generate()
    gone = told.order[told.order.index(path) :]
    fresh = {each: stored for each, stored in trail.items() if each not in set(gone)}
    digests: dict[str, str] = {}
    first = ""
    for each in gone:
        event = event_of(told, each)
        parents = tuple(digests.get(parent, parent) for parent in event.parents)
        place, data = signed(event.model_copy(update={"parents": parents, "actor": {"user": "mallory"}}), other)
        digests[trail[each].digest] = sha256_of(data)
        first = first or sha256_of(data)
        fresh[place] = told.put(place, data)
    return fresh, first


def forked(told: Told, trail: Trail, path: str) -> tuple[Trail, str]:
    """An old copy was put back, and the real workers, with the real key, wrote on there."""
    fresh, _ = cut(told, trail, path)
    place, data = signed(event_of(told, path).model_copy(update={"actor": {"user": "after"}, "type": "x"}), told.key)
    return {**fresh, place: told.put(place, data)}, told.anchors[-1].digest


def signed_again(told: Told, trail: Trail, path: str) -> tuple[Trail, str]:
    """The event as it was, signed with another key, in its place."""
    place, data = signed(event_of(told, path), SigningKey.generate())
    rest = {each: stored for each, stored in trail.items() if each != path}
    return {**rest, place: told.put(place, data)}, sha256_of(data)


def backdated(told: Told, trail: Trail, path: str) -> tuple[Trail, str]:
    """Signed with the real key, written now, but it says that it is as old as this event."""
    event = event_of(told, path)
    changed = event.model_copy(update={"type": "verify.passed", "object": {"backup_id": "late"}})
    place, data = signed(changed, told.key)
    return {**trail, place: told.put(place, data)}, sha256_of(data)


TAMPERINGS: list[Tamper] = [
    edited,
    deleted,
    inserted,
    renamed,
    cut,
    replaced,
    forked,
    signed_again,
    backdated,
]


def names(finding: Finding, what: str) -> bool:
    """Tell whether a finding names an event."""
    return what in finding.event or what in finding.detail


def test_an_untouched_trail_is_intact(told: Told, trail: Trail) -> None:
    """Nothing is found, all events are there, and only the last checkpoint is named by nobody."""
    proof = told.prove(trail)
    assert proof.intact, proof.findings[:3]
    assert proof.events == len(told.order)
    assert len(proof.heads) == 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda each: each.__name__)
def test_each_kind_of_tampering_is_found_and_named_at_every_event(told: Told, trail: Trail, tamper: Tamper) -> None:
    """Nine kinds of tampering, each at every event of the trail; those that rewrite the rest at every twentieth."""
    step = 20 if tamper is replaced else 1
    for path in told.order[::step]:
        if "checkpoints" in path and tamper in {backdated, inserted, forked}:
            continue  # they would be other checkpoints: see the tests of chains
        found, named = tamper(told, trail, path)
        proof = told.prove(found)
        assert not proof.intact, path
        assert any(names(each, named) for each in proof.findings), (path, named, proof.findings[:3])


def test_every_bit_of_an_event_and_of_a_checkpoint_counts(told: Told, trail: Trail) -> None:
    """A bit of each byte is changed, and each time the trail is no longer intact."""
    for path in (told.order[0], next(each for each in told.order if "checkpoints" in each)):
        for data in flips(told.storage.read(path)):
            assert not told.prove({**trail, path: told.put(path, data)}).intact


def test_without_anchors_a_cut_tail_is_not_seen_and_with_them_it_is(told: Told, trail: Trail) -> None:
    """What the graph cannot know, the anchors do: so the documentation says."""
    found, _ = cut(told, trail, told.order[-1])
    assert told.prove(found, anchored=False).intact
    assert [each.kind for each in told.prove(found).findings] == ["anchor-missing"]


def test_a_removed_checkpoint_and_a_second_line_of_checkpoints_are_named(told: Told, trail: Trail) -> None:
    """Each checkpoint names the one before it."""
    chain = [each for each in told.order if "checkpoints" in each]
    gone = told.prove({path: each for path, each in trail.items() if path != chain[3]}, anchored=False)
    assert any(each.kind == "checkpoint-missing" and each.event == "checkpoint 4" for each in gone.findings)
    event = event_of(told, chain[5])
    place, data = signed(event.model_copy(update={"parents": event.parents[1:]}), told.key)
    assert any(each.kind == "fork" for each in told.prove({**trail, place: told.put(place, data)}).findings)


def test_an_event_of_another_repository_with_the_same_key_is_foreign(told: Told, trail: Trail) -> None:
    """One key may sign for many repositories, and an event counts in its own only."""
    place, data = signed(event_of(told, told.order[0]).model_copy(update={"repository_id": "other"}), told.key)
    proof = told.prove({**trail, place: told.put(place, data)})
    assert any(each.kind == "foreign" and names(each, sha256_of(data)) for each in proof.findings)


def test_a_signature_cannot_be_taken_off_and_stays_off(told: Told, trail: Trail) -> None:
    """An event without the signature it had has another name, and nobody vouches for it."""
    path = told.order[0]
    data = without_signature(told.storage.read(path))
    event = AuditEvent.from_bytes(data, where="event")
    place = event.path(sha256_of(data))
    proof = told.prove({**trail, place: told.put(place, data)})
    assert {each.kind for each in proof.findings} == {"unsigned", "backdated"}


def test_an_object_that_is_no_event_is_named(told: Told, trail: Trail) -> None:
    """Foreign objects in the trail's folder do not pass silently."""
    told.storage.create("audit/notes.txt", b"hello")
    try:
        found = {each.path: each for each in stored_events(told.storage, keys=told.keys)}
    finally:
        told.storage.delete("audit/notes.txt")
    assert [each.event for each in told.prove(found).findings] == ["audit/notes.txt"]


def test_unsigned_events_of_before_the_key_are_taken_over_once() -> None:
    """The first signed checkpoint vouches for what was there; what comes unsigned later counts for nothing."""
    told = Told(key=None)
    told.work(1)
    key = SigningKey.generate()
    told.key = told.repository.signer = key
    told.clock.advance(timedelta(minutes=10))
    told.checkpoint()
    told.work(2)
    told.checkpoint()
    assert told.prove().intact
    told.repository.signer = None
    told.work(3)
    told.anchors.pop()
    told.repository.signer = key
    found = told.prove().findings
    assert {each.kind for each in found} == {"unsigned"}
    assert len(found) == 2


def told_before_the_key(*, checkpointed: bool) -> Told:
    """A trail whose first events nobody signed, and which has a key since."""
    told = Told(key=None)
    told.work(1)
    if checkpointed:
        told.checkpoint()
    told.key = told.repository.signer = SigningKey.generate()
    told.clock.advance(timedelta(minutes=10))
    return told


def test_a_new_key_signs_the_checkpoint_that_stands_although_nothing_came_after_it() -> None:
    """Once, and that proves all of it; a second time there is nothing to sign."""
    told = told_before_the_key(checkpointed=True)
    assert told.prove().state == "not signed"
    made = make_checkpoint(told.repository, CheckpointRequest(), progress=Notes())
    assert (made.made, made.sequence, made.events, made.left_out) == (True, 2, 0, ())
    assert told.prove().intact
    again = make_checkpoint(told.repository, CheckpointRequest(), progress=Notes())
    assert (again.made, again.audit_head) == (False, made.audit_head)


@pytest.mark.parametrize("days", [0, 5])
def test_what_the_first_signed_checkpoint_took_over_is_never_left_out_again(days: int) -> None:
    """Neither events nor checkpoints of before the key, and no later checkpoint warns of them."""
    told = told_before_the_key(checkpointed=True)
    for number in range(2, 5):
        told.clock.advance(timedelta(days=days))
        notes = Notes()
        made = make_checkpoint(told.repository, CheckpointRequest(), progress=notes)
        assert (made.made, made.events, made.left_out, notes.notes) == (True, 0 if number == 2 else 2, (), [])
        told.work(number)
    assert told.prove().intact


def test_an_unsigned_checkpoint_that_comes_after_the_key_is_left_out() -> None:
    """Taken over is only what stood when the key began."""
    told = told_before_the_key(checkpointed=True)
    told.checkpoint()
    told.repository.signer = None
    told.work(2)
    told.checkpoint()
    told.repository.signer = told.key
    made = make_checkpoint(told.repository, CheckpointRequest(), progress=Notes())
    assert len(made.left_out) == 3
    assert "audit/checkpoints/00000003.json" in made.left_out


def test_a_key_that_follows_another_signs_what_that_one_left_only_when_it_is_trusted() -> None:
    """The former key's checkpoint is no trusted one without its public half."""
    told = Told()
    told.work(1)
    told.checkpoint()
    former = told.key
    told.key = told.repository.signer = SigningKey.generate()
    assert former is not None
    alone = make_checkpoint(told.repository, CheckpointRequest(), progress=Notes())
    assert (alone.made, len(alone.left_out)) == (False, 3)
    request = CheckpointRequest(keys=[former.public_key])
    assert make_checkpoint(told.repository, request, progress=Notes()).made
    assert not make_checkpoint(told.repository, request, progress=Notes()).made
    keys = keyring([former.public_key, told.key.public_key])
    assert prove(stored_events(told.storage, keys=keys), keys_given=True, anchors=told.anchors).intact


def test_a_key_without_its_predecessor_takes_over_nothing_that_both_would_vouch_for() -> None:
    """Only the first signed checkpoint takes over; so the proof says, and so do checkpoints."""
    told = Told()
    told.work(1)
    told.checkpoint()
    former = told.key
    assert former is not None
    told.repository.signer = None
    told.work(2)
    told.key = told.repository.signer = SigningKey.generate()
    told.clock.advance(timedelta(minutes=10))
    assert make_checkpoint(told.repository, CheckpointRequest(), progress=Notes()).made
    both = CheckpointRequest(keys=[former.public_key])
    made = make_checkpoint(told.repository, both, progress=Notes())
    assert set(made.left_out) == set(told.order[-2:])
    proof = prove(stored_events(told.storage, keys=keyring([former.public_key, told.key.public_key])), keys_given=True)
    assert [each.kind for each in proof.findings] == ["unsigned", "unsigned"]


def test_only_who_took_over_unsigned_events_vouches_for_them() -> None:
    """Whoever trusts the second key alone knows no checkpoint that took them over, and gets them from no later one."""
    told = told_before_the_key(checkpointed=False)
    unsigned = set(told.order)
    told.checkpoint()
    former = told.key
    assert former is not None
    told.key = told.repository.signer = SigningKey.generate()
    told.work(2)
    assert make_checkpoint(told.repository, CheckpointRequest(keys=[former.public_key]), progress=Notes()).made
    alone = make_checkpoint(told.repository, CheckpointRequest(), progress=Notes())
    assert unsigned <= set(alone.left_out)


def test_a_checkpoint_without_a_key_takes_over_nothing() -> None:
    """It does not say so: the first that is signed does."""
    told = told_before_the_key(checkpointed=True)
    told.checkpoint()
    said = [told.examined()[f"audit/checkpoints/0000000{number}.json"].event for number in (1, 2)]
    assert ["adopts_unsigned" in each.object for each in said if each] == [False, True]


def test_an_event_of_a_worker_whose_clock_is_a_day_and_more_slow_is_seen_by_the_next_checkpoint() -> None:
    """It stands under an earlier day than the latest checkpoint; days long before that are not read again."""
    told = Told()
    told.work(1)
    told.clock.advance(timedelta(days=10))
    told.checkpoint()
    slow = FixedClock(told.clock.now() - timedelta(hours=47))
    Repository.open(told.storage, clock=slow, signer=told.key).trail(ACTOR).record(
        "backup.started", outcome="intent", source="web1 image app:1"
    )
    made = make_checkpoint(told.repository, CheckpointRequest(), progress=Notes())
    assert (made.made, made.events, made.reconciled) == (True, 2, 1)  # it, and the outcome that it never had


def test_an_unsigned_event_under_a_name_that_is_not_its_own_is_not_taken_over() -> None:
    """Somebody copied or edited it; the key vouches for what stands in its place alone."""
    told = told_before_the_key(checkpointed=False)
    folder = told.order[0].rpartition("/")[0]
    misnamed = f"{folder}/{'0' * 64}.json"
    told.storage.create(misnamed, told.storage.read(told.order[0]))
    made = make_checkpoint(told.repository, CheckpointRequest(), progress=Notes())
    assert (made.made, made.events, made.left_out) == (True, 2, (misnamed,))


def test_of_two_who_sign_with_a_new_key_at_once_one_makes_the_checkpoint() -> None:
    """The other one looks again and finds it signed."""
    told = told_before_the_key(checkpointed=True)
    create = told.storage.create
    first: list[CheckpointOutcome] = []

    def overtaken(path: str, data: bytes) -> None:
        del told.storage.__dict__["create"]
        first.append(make_checkpoint(told.repository, CheckpointRequest(), progress=Notes()))
        create(path, data)

    told.storage.__dict__["create"] = overtaken
    second = make_checkpoint(told.repository, CheckpointRequest(actor={"user": "other"}), progress=Notes())
    assert [each.made for each in (*first, second)] == [True, False]
    assert second.audit_head == first[0].audit_head
    assert told.prove().intact


def test_a_damaged_checkpoint_is_not_signed_by_a_new_key() -> None:
    """There is nothing to vouch for."""
    told = told_before_the_key(checkpointed=True)
    told.storage.delete("audit/checkpoints/00000001.json")
    told.storage.create("audit/checkpoints/00000001.json", b"{}")
    made = make_checkpoint(told.repository, CheckpointRequest(), progress=Notes())
    assert "audit/checkpoints/00000001.json" in made.left_out
    assert told.prove().state == "changed"


def test_what_is_older_than_the_key_is_not_called_changed() -> None:
    """It says since when events are signed, and what to do; what comes unsigned after that is another matter."""
    told = told_before_the_key(checkpointed=False)
    since = told.clock.now()
    told.work(2)
    proof = told.prove()
    assert (proof.state, proof.signed_since) == ("not signed", since)
    assert {each.kind for each in proof.findings} == {"older-than-key"}
    assert f"not signed before {since:%Y-%m-%d %H:%M:%S} UTC: 2 events" in proof.problem
    assert "changed:" not in proof.problem
    assert "dockerbackup audit checkpoint" in proof.problem
    told.repository.signer = None
    told.work(3)
    changed = told.prove()
    assert (changed.state, [each.kind for each in changed.findings].count("unsigned")) == ("changed", 2)
    assert changed.problem.startswith("the audit trail was changed: unsigned: ")


def test_what_is_missing_among_events_older_than_the_key_is_still_a_change() -> None:
    """The first that is wrong is told, not the first that is old."""
    told = told_before_the_key(checkpointed=False)
    told.storage.delete(told.order[0])
    proof = told.prove()
    assert proof.state == "changed"
    assert proof.problem.startswith("the audit trail was changed: missing: ")


def test_with_a_signed_checkpoint_an_unsigned_event_that_says_it_is_older_is_a_change() -> None:
    """Else whoever writes there could put in what they like, with an early date."""
    told = told_before_the_key(checkpointed=True)
    told.checkpoint()
    place, data = signed(event_of(told, told.order[0]).model_copy(update={"type": "verify.passed"}), None)
    proof = told.prove({**told.examined(), place: told.put(place, data)})
    assert proof.state == "changed"
    assert "unsigned" in {each.kind for each in proof.findings}


def test_anchors_are_read_from_logs_and_from_exports() -> None:
    """A digest with anything behind it, or a JSON object; anything else is refused with its line."""
    digest = "sha256:" + "a" * 64
    text = f'# kept\n\n{digest} nightly run 7\n{{"audit_head": "{digest}", "dag_id": "nightly"}}\n'
    assert [each.what for each in parse_anchors(text, where="anchors")] == ["nightly run 7", "dag_id=nightly"]
    with pytest.raises(ConfigurationError, match="anchors:2"):
        parse_anchors(f"{digest}\nsha256:short\n", where="anchors")


def test_a_trail_is_proven_event_by_event_without_reading_it_twice(told: Told) -> None:
    """Proving does not grow faster than the trail: five times the events take at most about five times as long."""
    small = Told().write(events=200)
    times = []
    for each in (small, told):
        began = time.process_time()
        assert each.prove().intact
        times.append(time.process_time() - began)
    assert times[1] < 25 * max(times[0], 0.01)
