# SPDX-License-Identifier: Apache-2.0
"""Collecting garbage: what goes, what stays, what is refused, and what the audit trail says."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_dockerbackup.core.audit.reading import stored_events
from airflow_provider_dockerbackup.core.gc.documents import PinDocument, lease_path, pin_path
from airflow_provider_dockerbackup.core.gc.lease import Lease
from airflow_provider_dockerbackup.core.gc.pins import Pins
from airflow_provider_dockerbackup.core.layers.documents import LayerMap, map_path
from airflow_provider_dockerbackup.core.places import RECORD_FILE, blob_path
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import Hold
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    IntegrityError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.memory import FixedClock, MemoryStorage
from tests.core.faults import FaultyStorage, Plan
from tests.core.gc.making import Layered, diff_id_for, digest_for, settled
from tests.core.world import BEGIN, Notes

DAY = timedelta(days=1)


@pytest.fixture
def world() -> tuple[Layered, FixedClock]:
    """Two backups that share a layer, the first of them deleted two days ago, and a blob of a try that died."""
    made, clock = Layered.in_memory()
    first = made.backup("base", "old top")
    made.backup("base", "new top")
    made.blob("left by a dead try")
    made.delete(first)
    clock.advance(2 * DAY)
    return made, clock


def events(made: Layered) -> list[tuple[str, str]]:
    """Types and outcomes of the events, in order."""
    found = [each.event for each in stored_events(made.storage, keys={}) if each.event is not None]
    return [(each.type, each.outcome) for each in sorted(found, key=lambda each: (each.time, each.outcome != "intent"))]


def test_blobs_that_no_backup_needs_go_to_the_trash(world: tuple[Layered, FixedClock]) -> None:
    """With their maps, hints and the files of their backup; what another backup shares stays, and the tombstone."""
    made, _ = world
    outcome = made.collect()
    gone = ("old top", "manifest 1", "config 1", "left by a dead try")
    assert not any(made.has(name) for name in gone)
    assert made.has("base", "new top", "manifest 2", "config 2")
    trash = f"trash/{outcome.gc}"
    in_trash = [f"{trash}/{blob_path(digest_for(name))}" for name in gone]
    assert set(in_trash) < set(made.paths("trash"))
    assert f"{trash}/{map_path(diff_id_for('old top'))}" in made.paths("trash")
    assert f"{trash}/closed.json" in made.paths("trash")
    assert len(made.paths("layers/engines")) == len(made.paths("layers/sha256")) == 2
    first = next(path for path in made.paths("backups") if "0001/" in path).rpartition("/")[0]
    tombstone, deletion = made.paths(first)
    assert tombstone == f"{first}/{RECORD_FILE}"
    assert deletion.startswith(f"{first}/deleted-")
    assert (outcome.done.trashed, outcome.done.maps, outcome.done.hints, outcome.done.files) == (4, 1, 1, 1)
    assert outcome.done.trashed_bytes == sum(map(len, gone)) == outcome.plan.garbage_bytes
    assert made.paths("gc/condemned") == made.paths("pins") == []
    made.require_whole()


def test_second_collection_finds_nothing(world: tuple[Layered, FixedClock]) -> None:
    """What is done is done, and a collection with nothing to do leaves a lease and two events."""
    made, _ = world
    made.collect()
    before = settled(made.paths())
    outcome = made.collect()
    assert (outcome.plan.garbage, outcome.done.trashed, outcome.done.maps) == ({}, 0, 0)
    assert settled(made.paths()) == before
    assert len(made.paths("gc/lease")) == 2


def test_trash_is_purged_after_its_time(world: tuple[Layered, FixedClock]) -> None:
    """A week later the bytes are gone for ever, not earlier."""
    made, clock = world
    made.collect()
    clock.advance(7 * DAY - timedelta(minutes=1))
    assert made.collect().done.purged == 0
    clock.advance(timedelta(minutes=2))
    outcome = made.collect()
    assert outcome.done.purged == 6
    assert outcome.done.purged_bytes == outcome.plan.expired_bytes > 0
    assert made.paths("trash") == []
    made.require_whole()


def test_trash_of_a_collection_that_died_begins_to_age_with_the_next(world: tuple[Layered, FixedClock]) -> None:
    """Nobody knows when it died."""
    made, clock = world
    made.storage.create(f"trash/dead/{blob_path(digest_for('x'))}", b"x")
    clock.advance(100 * DAY)
    assert made.collect().done.purged == 0
    assert "trash/dead/closed.json" in made.paths("trash")
    clock.advance(8 * DAY)
    made.collect()
    assert not [path for path in made.paths("trash") if path.startswith("trash/dead/")]


def test_dry_run_writes_nothing(world: tuple[Layered, FixedClock]) -> None:
    """It finds the same and touches nothing."""
    made, _ = world
    before = made.paths()
    planned = made.collect(dry_run=True)
    assert made.paths() == before
    assert planned.done.trashed == 0
    assert planned.audit_head is None
    done = made.collect()
    assert done.plan == planned.plan
    assert done.done.trashed == len(planned.plan.garbage) == 4


def test_young_blobs_stay(world: tuple[Layered, FixedClock]) -> None:
    """A margin of a day lies over the protocol; it can be made shorter."""
    made, clock = world
    made.blob("young")
    clock.advance(timedelta(hours=23))
    made.collect()
    assert made.has("young")
    clock.advance(timedelta(hours=1, seconds=1))
    made.collect()
    assert not made.has("young")
    made.blob("fresh")
    clock.advance(timedelta(seconds=1))
    made.collect(grace_hours=0)
    assert not made.has("fresh")


def test_backup_that_was_deleted_a_short_time_ago_counts(world: tuple[Layered, FixedClock]) -> None:
    """Within the grace a removal can be undone without the trash."""
    made, clock = world
    path = made.backup("late")
    clock.advance(2 * DAY)
    made.delete(path)
    clock.advance(timedelta(hours=23))
    made.collect()
    assert made.has("late", "manifest 3")
    clock.advance(timedelta(hours=1, seconds=1))
    made.collect()
    assert not made.has("late")


def test_removal_at_work_counts_however_old(world: tuple[Layered, FixedClock]) -> None:
    """As long as its document's writer lives it can still be taken back."""
    made, clock = world
    path = made.backup("slow")
    writer = made.storage.writer(f"{path}deleted-20260301T060000.000000Z.json")
    writer.write(b"{}")
    writer.commit()
    clock.advance(3 * DAY)
    made.collect()
    assert made.has("slow")
    writer.close()


@pytest.mark.parametrize("known", [True, False])
def test_removal_that_the_next_rotation_takes_back_counts(world: tuple[Layered, FixedClock], known: bool) -> None:
    """A hold that came before the deletion and that it did not know of brings the backup back."""
    made, clock = world
    path = made.backup("held")
    hold = Hold(backup_id=path.split("/")[3], held_at=clock.now(), reason="audit", actor={})
    made.storage.create(f"{path}hold-1.json", hold.to_bytes())
    clock.advance(timedelta(seconds=1))
    made.delete(path, seen=("hold-1.json",) if known else ())
    clock.advance(3 * DAY)
    made.collect()
    assert made.has("held") is not known


def test_quarantined_backups_count(world: tuple[Layered, FixedClock]) -> None:
    """What was put aside keeps every byte; if its record cannot be read it blocks nobody."""
    made, clock = world
    aside, broken = made.backup("aside"), made.backup("broken")
    made.quarantine(aside)
    made.storage.delete(broken + RECORD_FILE)
    made.storage.create(broken + RECORD_FILE, b"{}")
    made.quarantine(broken)
    clock.advance(3 * DAY)
    made.collect()
    assert made.has("aside")
    assert not made.has("broken")
    assert any("in quarantine and cannot be read" in note for note in made.notes.notes)


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"schema_version": "2.0"}'])
def test_unreadable_record_stops_everything(world: tuple[Layered, FixedClock], content: bytes) -> None:
    """Nobody can say what it needs."""
    made, _ = world
    path, _ = made.record(["base"])
    made.storage.create(path + RECORD_FILE, content)
    before = settled(made.paths())
    with pytest.raises(IntegrityError, match="dockerbackup quarantine"):
        made.collect()
    with pytest.raises(IntegrityError, match="dockerbackup quarantine"):
        made.collect(dry_run=True)
    assert settled(made.paths()) == before
    assert events(made) == []


def test_record_in_a_folder_of_an_unknown_kind_stops_everything(world: tuple[Layered, FixedClock]) -> None:
    """A newer release may keep backups of other things, whose blobs are needed as well."""
    made, _ = world
    made.storage.create(f"backups/ship-1/volume-data/20260301T060000Z-{1:016x}/{RECORD_FILE}", b"{}")
    before = settled(made.paths())
    with pytest.raises(IntegrityError, match="release that wrote it"):
        made.collect()
    assert settled(made.paths()) == before


def test_record_that_becomes_unreadable_meanwhile_stops_the_rest(world: tuple[Layered, FixedClock]) -> None:
    """What comes while blobs are condemned is looked at in the same way; nothing was moved yet."""
    made, _ = world
    path, _ = made.record(["base"])

    class Coming(FaultyStorage):
        def create(self, where: str, data: bytes) -> None:
            super().create(where, data)
            if where.startswith("gc/condemned"):
                super().create(path + RECORD_FILE, b"{}")

    before = made.blobs()
    with pytest.raises(IntegrityError, match="dockerbackup quarantine"):
        made.collect(Coming(made.storage, Plan()))
    assert made.blobs() == before
    assert made.paths("gc/condemned") == []
    assert events(made) == [("gc.planned", "intent"), ("gc.failed", "failure")]


def test_unreadable_pins_stop_everything(world: tuple[Layered, FixedClock]) -> None:
    """A live writer whose needs cannot be told."""
    made, _ = world
    writer = made.storage.writer(pin_path("fedcba987654", 0))
    writer.write(b"{}")
    writer.commit()
    with pytest.raises(IntegrityError, match="PinDocument"):
        made.collect()
    assert made.has("old top")
    writer.close()


def test_pinned_blobs_stay_as_long_as_their_writer_lives(world: tuple[Layered, FixedClock]) -> None:
    """Whatever their age, and whether there is a record or not."""
    made, clock = world
    with Pins(made.repository, attempt="fedcba987654", clock=clock, progress=Notes()) as pins:
        pins.protect([digest_for("old top"), digest_for("left by a dead try")])
        made.collect()
        assert made.has("old top", "left by a dead try")
        assert not made.has("manifest 1")
    made.collect()
    assert not made.has("old top")


def test_pins_of_the_dead_go_and_keep_nothing(world: tuple[Layered, FixedClock]) -> None:
    """A try that was killed leaves its pins; nobody waits for it."""
    made, clock = world
    document = PinDocument(attempt="fedcba987654", pinned_at=clock.now(), digests=(digest_for("old top"),))
    made.storage.create(pin_path("fedcba987654", 0), document.to_bytes())
    made.storage.create("pins/notes.txt", b"foreign")
    outcome = made.collect()
    assert not made.has("old top")
    assert outcome.done.pins == 1
    assert made.paths("pins") == ["pins/notes.txt"]


def test_foreign_objects_are_never_touched(world: tuple[Layered, FixedClock]) -> None:
    """Only what this package writes can be its garbage."""
    made, clock = world
    foreign = [
        "blobs/README",
        "blobs/sha256/notes.txt",
        f"blobs/sha256/{'A' * 64}",
        f"blobs/sha512/{'a' * 64}",
        "layers/notes",
        "layers/sha256/x.json",
        "layers/engines/other/file",
        "gc/notes",
        "gc/condemned/notes",
        "gc/lease/notes",
        "trash/notes",
        "trash/mine/notes",
        "pins/a/b/c",
        f"quarantine/{'a' * 64}",
        "staging/notes",
        "other/file",
    ]
    for path in foreign:
        made.storage.create(path, b"foreign")
    clock.advance(100 * DAY)
    made.collect()
    clock.advance(100 * DAY)
    made.collect()
    assert set(foreign) <= set(made.paths())


def test_needed_blob_in_the_trash_comes_back(world: tuple[Layered, FixedClock]) -> None:
    """A sweeper that was stopped at the worst moment is put right by the next one, also after the trash has aged."""
    made, clock = world
    path = blob_path(digest_for("new top"))
    made.storage.move(path, to=f"trash/g0/{path}")
    made.storage.create("trash/g0/closed.json", b"{}")
    clock.advance(30 * DAY)
    outcome = made.collect()
    assert outcome.done.returned == 1
    assert made.has("new top")
    made.require_whole()


def test_missing_blob_is_told_and_stops_nothing(world: tuple[Layered, FixedClock]) -> None:
    """It is known what its backup needs."""
    made, _ = world
    made.storage.delete(blob_path(digest_for("new top")))
    outcome = made.collect()
    assert outcome.plan.missing == (digest_for("new top"),)
    assert any(digest_for("new top") in note for note in made.notes.notes)
    assert not made.has("old top")
    assert map_path(diff_id_for("new top")) not in made.paths()


def test_map_of_a_needed_layer_goes_with_the_blob_that_lost_a_race(world: tuple[Layered, FixedClock]) -> None:
    """Two writers stored one layer at once, the map names the blob that no backup names."""
    made, clock = world
    loser = made.blob("the same layer, compressed otherwise")
    path = map_path(diff_id_for("new top"))
    mapped = LayerMap.from_bytes(made.storage.read(path), where="map")
    made.storage.delete(path)
    made.storage.create(path, mapped.model_copy(update={"digest": loser}).to_bytes())
    clock.advance(2 * DAY)
    made.collect()
    assert path not in made.paths()
    assert loser not in made.blobs()
    made.require_whole()


def test_intent_that_cannot_be_written_stops_everything(world: tuple[Layered, FixedClock]) -> None:
    """Nothing goes that the audit trail does not know of."""
    made, _ = world
    before = settled(made.paths())

    class Silent(FaultyStorage):
        def create(self, path: str, data: bytes) -> None:
            if path.startswith("audit/"):
                raise TransientError("the trail is full")
            super().create(path, data)

    with pytest.raises(TransientError, match="trail is full"):
        made.collect(Silent(made.storage, Plan()))
    assert settled(made.paths()) == before
    assert len(made.paths("gc/lease")) == 2


def test_events_tell_intent_and_outcome(world: tuple[Layered, FixedClock]) -> None:
    """With numbers, and one digest for the list of what goes."""
    made, _ = world
    outcome = made.collect(actor={"user": "tester"})
    assert events(made) == [("gc.planned", "intent"), ("gc.done", "success")]
    planned, done = (
        each.event
        for each in sorted(
            stored_events(made.storage, keys={}), key=lambda each: each.event is None or each.event.outcome != "intent"
        )
    )
    assert planned is not None
    assert done is not None
    assert planned.object["garbage"] == 4
    assert planned.object["garbage_digest"].startswith("sha256:")
    assert planned.object["ended"] == [f"20260301T060001Z-{1:016x}"]
    assert done.object["trashed"] == 4
    assert done.object["gc"] == planned.object["gc"] == outcome.gc
    assert planned.actor == {"user": "tester"}


@pytest.mark.parametrize("hours", [-1.0, 1.0, 87600.0])
def test_clock_that_differs_from_the_storages_is_refused(hours: float) -> None:
    """Ages would be wrong; nothing is touched, whichever clock is right."""
    made, clock = Layered.in_memory()
    made.delete(made.backup("base"))
    clock.advance(3 * DAY)
    skewed = FixedClock(clock.now() + timedelta(hours=hours))
    repository = Repository.open(made.storage, clock=skewed)
    other = Layered(storage=made.storage, clock=skewed)
    before = settled(made.paths())
    with pytest.raises(ConflictError, match="Set the clock right"):
        other.collect()
    assert settled(made.paths()) == before
    assert repository.document.layout == "layers"


def test_layout_archive_is_refused() -> None:
    """There is nothing to collect."""
    clock = FixedClock(BEGIN)
    storage = MemoryStorage(clock=clock)
    Repository.open_or_create(storage, clock=clock)
    with pytest.raises(ConfigurationError, match="layout 'archive'"):
        Layered(storage=storage, clock=clock).collect()


class Careless(MemoryStorage):
    """Replaces what is there, and says that it does not."""

    def create(self, path: str, data: bytes) -> None:
        """Replace."""
        if path.startswith("gc/lease"):
            self.delete(path)
        super().create(path, data)


class Honest(MemoryStorage):
    """Says that it is for one writer at a time."""

    @property
    def atomic_create(self) -> bool:
        """It is not."""
        return False


@pytest.mark.parametrize(("kind", "told"), [(Careless, "If-None-Match"), (Honest, "which of two tasks came first")])
def test_storage_without_atomic_creation_is_refused(kind: type[MemoryStorage], told: str) -> None:
    """Whether it says so or is found out."""
    clock = FixedClock(BEGIN)
    made = Layered(storage=kind(clock=clock), clock=clock)
    made.delete(made.backup("base"))
    clock.advance(3 * DAY)
    before = settled(made.paths())
    with pytest.raises(ConfigurationError, match=told):
        made.collect()
    assert settled(made.paths()) == before


def test_live_lease_of_another_is_respected(world: tuple[Layered, FixedClock]) -> None:
    """Two sweepers at once would each take the other's marks away."""
    made, clock = world
    with Lease(made.storage, gc="other", actor={}, clock=clock, progress=Notes()) as lease:
        assert lease.number == 1
        with pytest.raises(ConflictError, match=f"another garbage collection is at work.*{lease_path(1)}"):
            made.collect()
        assert made.has("old top")
    made.collect()
    assert not made.has("old top")


def test_numbers_of_leases_never_come_twice(world: tuple[Layered, FixedClock]) -> None:
    """Who was away for long cannot take his old lease for his again."""
    made, clock = world
    seen = []
    for _ in range(3):
        with Lease(made.storage, gc="g", actor={}, clock=clock, progress=Notes()) as lease:
            seen.append(lease.number)
    assert seen == [1, 2, 3]
    assert made.paths("gc/lease") == ["gc/lease/00000003-released.json", "gc/lease/00000003.json"]


def test_sweeper_whose_lease_is_near_its_end_takes_nothing_more(world: tuple[Layered, FixedClock]) -> None:
    """It was held up between two steps; what it took already and is needed comes back by itself."""
    made, clock = world

    class Hanging(FaultyStorage):
        def list(self, prefix: str):  # type: ignore[no-untyped-def]
            found = tuple(super().list(prefix))
            if prefix == "backups" and made.paths("gc/condemned"):
                clock.advance(timedelta(minutes=14))
            return iter(found)

    with pytest.raises(TransientError, match="collect again"):
        made.collect(Hanging(made.storage, Plan()))
    assert made.has("old top", "manifest 1")
    assert made.paths("gc/condemned") == []
    made.collect()
    assert not made.has("old top")


def test_step_that_hung_too_long_is_taken_back_when_the_blob_is_needed_by_now(
    world: tuple[Layered, FixedClock],
) -> None:
    """Stopped exactly between its last look and the move: writers took it for dead and count on the blob."""
    made, clock = world

    class Stopped(FaultyStorage):
        def move(self, path: str, *, to: str) -> None:
            if path == blob_path(digest_for("old top")):
                clock.advance(timedelta(hours=1))
                made.backup("old top")
            super().move(path, to=to)

    with pytest.raises(TransientError, match="collect again"):
        made.collect(Stopped(made.storage, Plan()))
    assert made.has("old top")
    made.collect()
    made.require_whole()


def test_sweeper_whose_lease_is_gone_takes_nothing_more(world: tuple[Layered, FixedClock]) -> None:
    """Another one took over, however that came about."""
    made, _ = world

    class Losing(FaultyStorage):
        def create(self, path: str, data: bytes) -> None:
            super().create(path, data)
            if path.startswith("gc/condemned"):
                self.delete(lease_path(1))

    with pytest.raises(TransientError, match="another garbage collection took over"):
        made.collect(Losing(made.storage, Plan()))
    assert made.has("old top")


def test_long_collection_renews_its_lease(world: tuple[Layered, FixedClock]) -> None:
    """However many blobs there are, each round has time enough."""
    made, clock = world
    for number in range(2500):
        made.blob(f"garbage {number}")
    clock.advance(2 * DAY)

    class Slow(FaultyStorage):
        def list(self, prefix: str):  # type: ignore[no-untyped-def]
            if prefix == "backups":
                clock.advance(timedelta(minutes=6))
            return super().list(prefix)

    outcome = made.collect(Slow(made.storage, Plan()))
    assert outcome.done.trashed == 2504
    assert made.paths("gc/lease")[-1] > lease_path(2)


@pytest.mark.parametrize(
    ("field", "value"), [("grace_hours", -1), ("grace_hours", float("nan")), ("trash_days", "x"), ("threads", 0)]
)
def test_request_that_cannot_be_meant_is_refused(world: tuple[Layered, FixedClock], field: str, value: object) -> None:
    """Names the field and the value."""
    made, _ = world
    with pytest.raises(ConfigurationError, match=field):
        made.collect(None, **{field: value})


@pytest.mark.parametrize("folder", ["blobs/sha256", "layers/sha256", "layers/engines", "pins", "gc/condemned"])
def test_what_dead_writers_left_unfinished_goes(world: tuple[Layered, FixedClock], folder: str) -> None:
    """Half-written blobs are nobody's, nor are documents."""
    made, _ = world
    made.storage.staged(folder).write(b"half")
    assert made.collect().done.reaped == 1
