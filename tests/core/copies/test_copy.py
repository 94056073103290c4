# SPDX-License-Identifier: Apache-2.0
"""What a copy brings, what it leaves, what it refuses, and what it says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.oci_layout import stored_manifest
from airflow_provider_dockerbackup.core.audit.checkpoint import CheckpointRequest, make_checkpoint
from airflow_provider_dockerbackup.core.audit.proof import prove
from airflow_provider_dockerbackup.core.audit.reading import stored_events
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.copies.copy import CopyRequest, copy, target_on
from airflow_provider_dockerbackup.core.copies.selection import Selection
from airflow_provider_dockerbackup.core.document import compact_time, sha256_of
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient
from airflow_provider_dockerbackup.core.gc.collect import GcRequest, collect_garbage
from airflow_provider_dockerbackup.core.hold import HoldRequest, ReleaseRequest, hold_backup, release_backup
from airflow_provider_dockerbackup.core.layers.documents import map_path
from airflow_provider_dockerbackup.core.places import RECORD_FILE, blob_path
from airflow_provider_dockerbackup.core.ports import ObjectWriter, StagedWriter, Storage
from airflow_provider_dockerbackup.core.quarantine import quarantine
from airflow_provider_dockerbackup.core.reading import archive_stream
from airflow_provider_dockerbackup.core.record import Blob
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.restore import RestoreRequest
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateRequest, rotate
from airflow_provider_dockerbackup.core.save import SaveRequest, save_image
from airflow_provider_dockerbackup.core.since import Deletion
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost, MemoryStorage, MemoryTestDaemon
from tests.core.bringing import ACTOR
from tests.core.copies.making import Copies
from tests.core.encryption.keys import age_pair
from tests.core.faults import FaultyStorage, Plan
from tests.core.world import (
    CONTAINER,
    FILESYSTEM,
    IMAGE,
    World,
    app_archive,
    assert_all_whole,
    assert_nothing_left,
    contents,
    docker_host,
    paths,
    spoil,
)

LAYOUTS = pytest.mark.parametrize("layout", ["archive", "layers"])
FORMS = pytest.mark.parametrize(
    ("layout", "into"),
    [("archive", "archive"), ("layers", "layers"), ("archive", "layers"), ("layers", "archive")],
)


@FORMS
def test_every_backup_is_the_same_backup_at_the_second_site(layout: str, into: str) -> None:
    """Images and containers, with their points and holds; the source does not change by a byte."""
    made = Copies(layout, into=into).fill()
    before = made.everything()
    assert made.states() == ["copied"] * 3
    made.assert_same()
    assert made.everything() == before
    assert paths(made.target, prefix="pins") == set()
    assert made.world.progress.open == 0
    origin = made.world.repository.document.repository_id
    for old, new in made.pairs():
        assert new.whole().attempt != old.whole().attempt
        assert new.whole().notes[-1].startswith(f"copied from layout {layout} of repository {origin} at ")


@FORMS
def test_copies_are_loaded_run_and_restored_like_any_backup(layout: str, into: str) -> None:
    """They start as not verified, become verified by a verification there, and the first site may be gone by then."""
    made = Copies(layout, into=into).fill()
    made.run()
    for backup in made.repository.catalog.backups():
        made.world.verify(backup, "load", repository=made.repository, daemon=MemoryTestDaemon())
    assert {each.trust for each in made.repository.catalog.backups()} == {"verified"}
    host = MemoryDockerHost("other")
    request = RestoreRequest(tags=("back:1",))
    newest = made.repository.catalog.newest(IMAGE)
    assert newest is not None
    made.world.restore(newest, request, host=host, repository=made.repository)
    assert host.inspect_image("back:1").diff_ids == newest.whole().diff_ids
    exported = made.repository.catalog.newest(CONTAINER)
    assert exported is not None
    with archive_stream(made.repository, exported) as tar:
        assert b"".join(tar) == FILESYSTEM


@pytest.mark.parametrize("compression", [None, *Compression])
def test_archives_go_byte_for_byte_as_they_are_stored(compression: Compression | None) -> None:
    """However they are compressed; the target's own compression is for its own backups."""
    made = Copies()
    made.world.backup(1, compression=compression)
    made.world.backup(2, CONTAINER, compression=compression)
    made.run()
    for old, new in made.pairs():
        one, other = old.whole().archive_file, new.whole().archive_file
        assert one.model_copy(update={"name": ""}) == other.model_copy(update={"name": ""})
        source = made.world.storage.read(old.path + one.name)
        assert made.target.read(new.path + other.name) == source


def test_an_archive_that_nobody_scanned_is_scanned_on_its_way() -> None:
    """Its record names no layers; that of the copy does, and what it holds is compared with what was announced."""
    made = Copies()
    backup = made.world.backup(1).backup
    record = backup.whole()
    assert record.image is not None
    unread = record.model_copy(update={"image": record.image.model_copy(update={"layers": ()})})
    spoil(made.world.storage, backup.path + RECORD_FILE, data=unread.to_bytes())
    assert made.states() == ["copied"]
    (copied,) = assert_all_whole(made.repository)
    assert copied.whole().image == record.image
    other = record.image.model_copy(update={"layers": (), "config_digest": "sha256:" + "0" * 64})
    made = made.anew()
    wrong = unread.model_copy(update={"image": other})
    spoil(made.world.storage, backup.path + RECORD_FILE, data=wrong.to_bytes())
    assert made.states() == ["failed"]
    assert paths(made.target) == set()


def test_of_layers_only_those_that_are_missing_travel_and_as_they_are_stored() -> None:
    """The next version costs its own layer, a configuration and a manifest; layers have the same blobs in both."""
    made = Copies("layers")
    made.world.backup(1)
    made.run()
    first = set(paths(made.target, prefix="blobs"))
    made.world.host.add_archive(app_archive("two"))
    made.world.backup(2)
    reading = Plan()
    outcome = made.run(source=FaultyStorage(made.world.storage, reading))
    assert [each.state for each in outcome.results] == ["copied", "already"]
    new = set(paths(made.target, prefix="blobs")) - first
    assert len(new) == 3
    assert sum(call.startswith("chunks") for call in reading.calls) == 1
    assert contents(made.target, "blobs") == contents(made.world.storage, "blobs")
    assert outcome.results[0].new_bytes == sum(len(made.target.read(path)) for path in new)
    assert outcome.planned[0].source_bytes == outcome.results[0].new_bytes


def test_a_layer_that_the_target_holds_in_another_blob_does_not_travel() -> None:
    """A second site that makes backups of its own, compressed at another level, shares layers with the first."""
    made = Copies("layers")
    source = made.world.backup(1).backup.whole().blobs
    own = Repository.open_or_create(made.target, clock=made.clock, layout="layers")
    key = made.world.key(2, IMAGE.model_copy(update={"host": "ship-2"}))
    request = SaveRequest(key=key, tuning=Tuning(level=1))
    held = save_image(request, host=docker_host("ship-2"), repository=own, progress=made.world.progress)
    assert made.states() == ["copied"]
    copied = next(each for each in made.repository.catalog.backups() if each.source == IMAGE).whole().blobs
    there = held.backup.whole().blobs
    assert source is not None
    assert copied is not None
    assert there is not None
    assert copied.layers == there.layers
    assert copied.layers != source.layers
    assert copied.new_bytes == 0
    assert_all_whole(made.repository)


@FORMS
def test_a_second_run_reads_no_bytes_and_writes_nothing_but_its_events(layout: str, into: str) -> None:
    """What is there is left as it is, and is not read again."""
    made = Copies(layout, into=into).fill()
    made.run()
    before, reading, writing = contents(made.target, ""), Plan(), Plan()
    outcome = made.run(source=FaultyStorage(made.world.storage, reading), target=FaultyStorage(made.target, writing))
    assert [each.state for each in outcome.results] == ["already"] * 3
    assert not [call for call in reading.calls + writing.calls if call.startswith("chunks")]
    after = contents(made.target, "")
    assert all(path.startswith("audit/") for path in after.keys() - before.keys())
    assert before.items() <= after.items()


@FORMS
def test_a_dry_run_says_what_would_be_copied_and_writes_nothing(layout: str, into: str) -> None:
    """Also where there is no target yet."""
    made = Copies(layout, into=into).fill()
    request = CopyRequest(layout=into, dry_run=True)
    planned = made.run(request)
    assert [each.state for each in planned.planned] == ["copy"] * 3
    assert all(each.source_bytes > 0 for each in planned.planned)
    assert (planned.results, planned.audit_head) == ((), None)
    assert paths(made.target, prefix="") == set()
    made.run()
    before = contents(made.target, "")
    assert [each.state for each in made.run(request).planned] == ["already"] * 3
    assert contents(made.target, "") == before


@LAYOUTS
def test_the_reader_is_told_of_every_byte_that_was_foretold(layout: str) -> None:
    """What travels is read in both repositories; small documents beside an archive are not counted."""
    made = Copies(layout).fill()
    told: list[int] = []
    made.world.progress.advance = told.append  # type: ignore[method-assign, assignment]
    outcome = made.run()
    foretold = sum(each.bytes_to_read for each in outcome.planned)
    small = 0
    if layout == "layers":
        blobs = [each.whole().blobs for each in made.repository.catalog.backups()]
        small = sum(each.manifest.size_bytes + each.config.size_bytes for each in blobs if each is not None)
    assert sum(told) == foretold - small


def test_a_limit_on_the_line_is_kept() -> None:
    """It is on what is read from the source."""
    made = Copies()
    made.world.backup(1)
    stored = made.world.repository.catalog.backups()[0].whole().stored_size_bytes
    began = made.clock.monotonic()
    limit = 64 * 1024
    made.run(CopyRequest(tuning=Tuning(bandwidth_limit=limit)))
    assert made.clock.monotonic() - began >= stored / limit - 0.25


def test_documents_that_came_since_are_brought_by_the_next_run() -> None:
    """A confirmation is a point there as well, a hold holds there, and its release releases."""
    made = Copies().fill()
    made.run()
    held = next(each for each in made.world.repository.catalog.backups() if each.holds)
    release_backup(
        made.world.repository, held, ReleaseRequest(reason="over", release_legal=True), progress=made.world.progress
    )
    assert made.world.backup(5, force=False).status == "unchanged"
    exported = made.world.repository.catalog.newest(CONTAINER)
    assert exported is not None
    hold_backup(made.world.repository, exported, HoldRequest(reason="audit"), progress=made.world.progress)
    assert made.states() == ["finished"] * 3
    made.assert_same()
    assert made.states() == ["already"] * 3
    assert not made.repository.catalog.find(held.backup_id).holds


def test_what_comes_to_a_backup_while_it_is_copied_comes_along() -> None:
    """A hold that is set in the source in that very moment is there when the copy is."""
    made = Copies()
    backup = made.world.backup(1).backup

    class Holding(FaultyStorage):
        def create(self, path: str, data: bytes) -> None:
            super().create(path, data)
            if path.endswith(RECORD_FILE):
                hold_backup(made.world.repository, backup, HoldRequest(reason="now"), progress=made.world.progress)

    made.run(target=Holding(made.target, Plan()))
    assert [each.reason for each in made.repository.catalog.backups()[0].holds.values()] == ["now"]


def test_a_torn_document_in_the_source_does_not_come_along() -> None:
    """It makes the backup unreadable there; the copy, which is whole, must not become so."""
    made = Copies()
    backup = made.world.backup(1).backup

    class Tearing(FaultyStorage):
        def create(self, path: str, data: bytes) -> None:
            super().create(path, data)
            if path.endswith(RECORD_FILE):
                made.world.storage.create(f"{backup.path}hold-20260401T000000.000000Z.json", b'{"schema_ver')

    assert [each.state for each in made.run(target=Tearing(made.target, Plan())).results] == ["copied"]
    assert_all_whole(made.repository)
    assert made.states() == ["failed"]
    assert_all_whole(made.repository)


def test_passed_verifications_stay_behind_and_failed_ones_come_along() -> None:
    """The copy is to be verified itself; what failed for what is in the image takes no place in retention there."""
    made = Copies().fill()
    good, bad, _ = made.world.repository.catalog.backups()
    made.world.verify(good)
    failed = made.world.verify(bad)
    path = f"{bad.path}verification-{compact_time(made.clock.now(), fraction=True)}.json"
    made.world.storage.create(
        path, failed.model_copy(update={"verification": "failed", "verified_at": made.clock.now()}).to_bytes()
    )
    made.run()
    assert made.repository.catalog.find(good.backup_id).trust == "none"
    assert made.repository.catalog.find(bad.backup_id).trust == "failed"


@LAYOUTS
@pytest.mark.parametrize("what", ["bytes", "configuration", "record", "missing"])
def test_a_damaged_backup_is_named_and_the_others_are_copied(layout: str, what: str) -> None:
    """One bit of what it needs; nothing of it is seen in the target, and nothing is left there but layers."""
    made = Copies(layout).fill()
    image, container = made.world.repository.catalog.newest(IMAGE), made.world.repository.catalog.newest(CONTAINER)
    assert image is not None
    assert container is not None
    damaged = container if what == "configuration" else image
    _damage(made, damaged, what)
    outcome = made.run()
    assert [each.decision.path for each in outcome.failed] == [damaged.path]
    assert {each.state for each in outcome.results} == {"copied", "failed"}
    there = assert_all_whole(made.repository)
    assert {each.path for each in there} == {
        each.path for each in made.world.repository.catalog.backups() if each.path != damaged.path
    }
    assert_nothing_left(made.repository)
    (told,) = made.events("copy.failed")
    assert list(told.object["failed"]) == [damaged.backup_id]
    assert not made.events("copy.done")


def _damage(made: Copies, backup: Backup, what: str) -> None:
    record = backup.whole()
    if what == "configuration":
        assert record.container is not None
        spoil(made.world.storage, backup.path + record.container.configuration_file.name)
    elif what == "record":
        spoil(made.world.storage, backup.path + RECORD_FILE, data=b"{")
    else:
        blobs = record.blobs
        path = blob_path(blobs.layers[1].digest) if blobs is not None else backup.path + record.archive_file.name
        if what == "missing":
            made.world.storage.delete(path)
        else:
            spoil(made.world.storage, path)


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.ZSTD])
def test_a_byte_that_changes_on_its_way_is_noticed_before_the_record(compression: Compression) -> None:
    """What the target stored is read back; the next run brings the backup."""
    made = Copies()
    made.world.backup(1, compression=compression)
    outcome = made.run(target=Flipping(made.target, "image-"))
    assert [each.state for each in outcome.results] == ["failed"]
    assert paths(made.target) == set()
    assert made.states() == ["copied"]
    made.assert_same()


@pytest.mark.parametrize("part", ["staged", "container-", "index.json"])
def test_a_byte_of_layers_that_changes_on_its_way_is_noticed_before_the_record(part: str) -> None:
    """A bad blob is put aside at once, so that nobody else counts on it."""
    made = Copies("layers").fill()
    outcome = made.run(target=Flipping(made.target, part))
    assert "failed" in {each.state for each in outcome.results}
    assert_all_whole(made.repository)
    assert (part != "staged") == (paths(made.target, prefix="quarantine") == set())
    assert made.run().failed == ()
    made.assert_same()


class Flipping(FaultyStorage):
    """A storage that changes one bit of the first piece that it is given of a kind.

    :param part: of the path of an object; ``staged`` for blobs.
    """

    def __init__(self, inner: Storage, part: str) -> None:
        super().__init__(inner, Plan())
        self._part = part
        self._flipped = False

    def writer(self, path: str) -> ObjectWriter:
        """Begin an object."""
        writer = super().writer(path)
        if self._part in path:
            writer.write = self._flip(writer.write)  # type: ignore[method-assign, assignment]
        return writer

    def staged(self, folder: str) -> StagedWriter:
        """Begin a blob."""
        writer = super().staged(folder)
        if self._part == "staged":
            writer.write = self._flip(writer.write)  # type: ignore[method-assign, assignment]
        return writer

    def _flip(self, write: Callable[[bytes | memoryview], None]) -> Callable[[bytes | memoryview], None]:
        def flipped(data: bytes | memoryview) -> None:
            changed = bytearray(data)
            if changed and not self._flipped:
                self._flipped = True
                changed[len(changed) // 2] ^= 1
            write(bytes(changed))

        return flipped


@pytest.mark.parametrize("recipients", [(), (age_pair().recipient, age_pair().recipient)], ids=["plain", "encrypted"])
def test_a_blob_that_holds_another_layer_than_the_source_says_does_not_poison_the_target(
    recipients: tuple[Recipient, ...],
) -> None:
    """Its name is right, its content is not what record, manifest and map say: no map of the target may say so."""
    made = Copies("layers")
    made.world.backup(1)
    backup = made.world.repository.catalog.backups()[0]
    record = backup.whole()
    assert record.blobs is not None
    assert record.image is not None
    base, top = record.blobs.layers
    layers = (base, base.model_copy(update={"diff_id": top.diff_id}))
    config = made.world.storage.read(blob_path(record.blobs.config.digest))
    manifest = stored_manifest(config, [(each.digest, each.stored_size_bytes) for each in layers])
    made.world.storage.create(blob_path(sha256_of(manifest)), manifest)
    named = Blob(digest=sha256_of(manifest), size_bytes=len(manifest))
    wrong = record.blobs.model_copy(update={"layers": layers, "manifest": named})
    spoil(made.world.storage, backup.path + RECORD_FILE, data=record.model_copy(update={"blobs": wrong}).to_bytes())
    (failed,) = made.run(CopyRequest(recipients=recipients)).failed
    assert failed.reason.startswith(f"blob {base.digest} holds layer {base.diff_id}, the record says {top.diff_id}")
    assert len(paths(made.target, prefix="layers/sha256")) == 1


@pytest.mark.parametrize("change", [-1, 1])
def test_a_layer_of_another_size_than_the_source_says_does_not_poison_the_target(change: int) -> None:
    """Its blob holds it, its record says another size: every backup there that has the layer would not restore."""
    made = Copies("layers")
    backup = made.world.backup(1).backup
    record = backup.whole()
    assert record.blobs is not None
    base, top = record.blobs.layers
    layers = (base, top.model_copy(update={"size_bytes": top.size_bytes + change}))
    wrong = record.model_copy(update={"blobs": record.blobs.model_copy(update={"layers": layers})})
    spoil(made.world.storage, backup.path + RECORD_FILE, data=wrong.to_bytes())
    (failed,) = made.run().failed
    assert "the record says" in failed.reason
    assert map_path(top.diff_id) not in paths(made.target, prefix="layers")


@LAYOUTS
def test_a_policy_that_comes_along_only_keeps_more_at_the_second_site(layout: str) -> None:
    """It is in records and confirmations; each copy says of which repository it is, also when that is one of copies."""
    made = Copies(layout)
    for run in range(4):
        asked = SaveRequest(key=made.world.key(run), force=run < 3, retention="keep_last=1")
        save_image(asked, host=made.world.host, repository=made.world.repository, progress=made.world.progress)
        made.clock.advance(timedelta(days=1))
    made.run()
    request = RotateRequest(policy=RetentionPolicy(keep_last=3), max_removed_share=1, dry_run=True)
    removed = [
        [each.backup_id for each in rotate(site, request, progress=made.world.progress).plan.removed]
        for site in (made.world.repository, made.repository)
    ]
    ids = [each.backup_id for each in made.world.repository.catalog.backups()]
    assert removed == [ids[1:], ids[2:]]
    third = Copies(layout, source=made.target, clock=made.clock)
    third.run()
    for site, origin in ((made.repository, made.world.repository), (third.repository, made.repository)):
        assert {each.whole().copied_from for each in site.catalog.backups()} == {origin.document.repository_id}


def test_a_backup_that_was_made_at_a_site_is_confirmed_there_alone() -> None:
    """What comes back from the site that it was copied to is no proof of its own, and no policy of its own."""
    home = Copies()
    for run in range(3):
        home.world.backup(run)
    home.run()
    away = World(storage=home.target, clock=home.clock)
    asked = SaveRequest(key=away.key(4), retention="keep_last=1")
    assert save_image(asked, host=away.host, repository=away.repository, progress=away.progress).status == "unchanged"
    points = [each.points for each in home.world.repository.catalog.backups()]
    hold_backup(
        away.repository, away.repository.catalog.backups()[0], HoldRequest(reason="audit"), progress=away.progress
    )
    back = Copies(source=home.target, target=home.world.storage, clock=home.clock)
    assert back.states() == ["finished", "already", "already"]
    assert back.states() == ["already"] * 3
    newest, *_ = found = home.world.repository.catalog.backups()
    assert [each.points for each in found] == points
    assert [each.reason for each in newest.holds.values()] == ["audit"]
    request = RotateRequest(policy=RetentionPolicy(keep_last=3), max_removed_share=1, dry_run=True)
    assert rotate(home.world.repository, request, progress=home.world.progress).plan.removed == ()
    third = Copies(source=home.target, clock=home.clock)
    third.run()
    assert [len(each.points) for each in third.repository.catalog.backups()] == [2, 1, 1]


def test_what_was_deleted_from_the_target_is_not_brought_back() -> None:
    """A rotation there decided, right after the copy; the next run says so."""
    made = Copies().fill()
    made.run()
    policy = RetentionPolicy.of({"keep_last": 1})
    request = RotateRequest(policy=policy, max_removed_share=1.0)
    done = rotate(made.repository, request, progress=made.world.progress)
    assert len(done.removed) == 0  # the older image is held, by the hold that came along
    held = next(each for each in made.repository.catalog.backups() if each.holds)
    release_backup(
        made.repository, held, ReleaseRequest(reason="space", release_legal=True), progress=made.world.progress
    )
    assert rotate(made.repository, request, progress=made.world.progress).removed == (held.backup_id,)
    outcome = made.run()
    assert [(each.decision.path, each.reason) for each in outcome.results if each.state == "skipped"] == [
        (held.path, "it was deleted from the target")
    ]
    assert outcome.failed == ()
    assert held.path not in {each.path for each in made.repository.catalog.backups()}


def test_what_is_deleted_or_put_aside_in_the_source_is_no_backup_to_copy() -> None:
    """Nor is it named: a repository has more tombstones than backups after some years."""
    made = Copies().fill()
    gone, aside, _ = made.world.repository.catalog.backups()
    made.world.storage.create(f"{gone.path}deleted-20260401T000000.000000Z.json", b"{}")
    spoil(made.world.storage, aside.path + RECORD_FILE, data=b"{")
    quarantine(made.world.repository, aside.backup_id, reason="bad", actor=ACTOR, progress=made.world.progress)
    assert made.states() == ["copied"]


@LAYOUTS
def test_what_is_deleted_from_the_source_while_it_is_copied_is_skipped(layout: str) -> None:
    """Its bytes are gone in the middle; that is no damage."""
    made = Copies(layout).fill()
    victim = made.world.repository.catalog.backups()[0]

    class Losing(FaultyStorage):
        @contextmanager
        def chunks(self, path: str) -> Iterator[Iterator[bytes]]:
            if not victim_is_gone():
                made.world.storage.create(f"{victim.path}deleted-20260401T000000.000000Z.json", b"{}")
                for each in made.everything():
                    if each.startswith("blobs/") or (each.startswith(victim.path) and ".tar" in each):
                        lost[each] = made.world.storage.read(each)
                        made.world.storage.delete(each)
            with super().chunks(path) as pieces:
                yield pieces

    lost: dict[str, bytes] = {}

    def victim_is_gone() -> bool:
        return bool(lost)

    outcome = made.run(source=Losing(made.world.storage, Plan()))
    first = next(each for each in outcome.results if each.decision.path == victim.path)
    assert (first.state, first.reason) == ("skipped", "it was deleted from the source")
    assert victim.path not in {each.path for each in made.repository.catalog.backups()}


def test_what_is_put_aside_in_the_source_while_it_is_copied_is_skipped() -> None:
    """Its record was found torn, after the plan was made."""
    made = Copies()
    other, victim = made.world.backup(1).backup, made.world.backup(2).backup

    class PuttingAside(FaultyStorage):
        @contextmanager
        def chunks(self, path: str) -> Iterator[Iterator[bytes]]:
            if path.startswith(victim.path):
                spoil(made.world.storage, victim.path + RECORD_FILE, data=b"{")
                quarantine(
                    made.world.repository, victim.backup_id, reason="bad", actor=ACTOR, progress=made.world.progress
                )
                made.world.storage.delete(path)
            with super().chunks(path) as pieces:
                yield pieces

    results = made.run(source=PuttingAside(made.world.storage, Plan())).results
    assert [(each.state, each.reason) for each in results] == [
        ("skipped", "it is in quarantine in the source"),
        ("copied", ""),
    ]
    assert [each.path for each in assert_all_whole(made.repository)] == [other.path]


@LAYOUTS
def test_a_copy_whose_bytes_are_gone_from_the_target_is_named_and_not_said_to_be_there(layout: str) -> None:
    """The record alone restores nothing."""
    made = Copies(layout).fill()
    made.run()
    lost = made.repository.catalog.newest(CONTAINER)
    assert lost is not None
    blobs = lost.whole().blobs
    made.target.delete(blob_path(blobs.layers[0].digest) if blobs else lost.path + lost.whole().archive_file.name)
    (failed,) = made.run().failed
    assert failed.decision.path == lost.path
    assert failed.reason.startswith("files or blobs that its record in the target names are missing")


def test_another_backup_under_the_same_id_is_left_alone() -> None:
    """Both repositories were used for the same work: neither is taken for the other."""
    made = Copies()
    made.world.backup(1)
    own = Repository.open_or_create(made.target, clock=made.clock)
    made.world.host.add_archive(app_archive("two"))
    made.world.backup(1, repository=own)
    before = contents(made.target, "backups")
    (failed,) = made.run().failed
    assert failed.reason == "the target has another backup under its id"
    assert contents(made.target, "backups") == before


def test_a_collection_in_the_target_takes_nothing_that_a_copy_counts_on() -> None:
    """It runs whenever it likes: here right before each record, over blobs that nothing else needs any more."""
    made = Copies("layers").fill()
    made.run()
    for each in made.repository.catalog.backups():
        made.target.create(f"{each.path}deleted-20260301T000000.000000Z.json", _deletion(each))
    made.clock.advance(timedelta(days=3))
    again = Copies("layers", target=made.target, clock=made.clock)
    again.world.host = docker_host("ship-9")
    for run, source in ((1, IMAGE), (3, CONTAINER)):
        again.world.backup(run, source.model_copy(update={"host": "ship-9"}))
    before = paths(made.target, prefix="blobs")

    class Collecting(FaultyStorage):
        def create(self, path: str, data: bytes) -> None:
            if path.endswith(RECORD_FILE):
                collect_garbage(made.repository, GcRequest(actor=ACTOR), progress=made.world.progress)
            super().create(path, data)

    outcome = again.run(target=Collecting(made.target, Plan()))
    assert {each.state for each in outcome.results} == {"copied"}
    assert len(assert_all_whole(made.repository)) == 2
    assert before - paths(made.target, prefix="blobs")


def _deletion(backup: Backup) -> bytes:
    return Deletion(
        backup_id=backup.backup_id,
        deleted_at=backup.whole().captured_at,
        how="rotated",
        rules=("none",),
        intent="",
        seen=tuple(name for name in backup.sizes if name.startswith(("confirmed-", "hold-"))),
        actor=ACTOR,
    ).to_bytes()


@FORMS
def test_the_trail_of_the_target_tells_what_came_from_where_and_needs_no_reconciling(layout: str, into: str) -> None:
    """Each backup names the record that it was; documents that came along are named too. The source's says nothing."""
    made = Copies(layout, into=into).fill()
    made.run()
    assert [each.type for each in made.events("copy.")] == ["copy.started", "copy.done"]
    copied = {each.object["backup_id"]: each.object for each in made.events("backup.copied")}
    for old, new in made.pairs():
        about = copied[old.backup_id]
        assert about["from_record"] == sha256_of(made.world.storage.read(f"{old.path}backup.json"))
        assert about["from_repository"] == made.world.repository.document.repository_id
        assert (about["from_content_digest"], about["content_digest"]) == (
            old.whole().content_digest,
            new.whole().content_digest,
        )
        if layout == into:
            assert about["content_digest"] == about["from_content_digest"]
    made.clock.advance(timedelta(days=2))
    assert make_checkpoint(made.repository, CheckpointRequest(), progress=made.world.progress).reconciled == 0
    assert prove(stored_events(made.target, keys={}), keys_given=False).intact


def test_what_does_not_fit_is_refused_before_anything_is_written() -> None:
    """The source itself, another layout than the target's, an unknown one, a compression that there is not."""
    made = Copies().fill()
    standing = Repository.open_or_create(MemoryStorage(), clock=made.clock, layout="layers")
    source = made.world.repository
    for request, target, said in (
        (CopyRequest(), source, "very repository"),
        (CopyRequest(layout="archive"), standing, "is of layout 'layers', not 'archive'"),
        (CopyRequest(layout="tape"), None, "expected one of archive, layers, got 'tape'"),
        (CopyRequest(compression=Compression.GZIP), standing, "stores zstd"),
        (CopyRequest(selection=Selection(newest=0)), standing, "newest: expected"),
        (CopyRequest(tuning=Tuning(threads=0)), standing, "compression_threads: expected"),
        (CopyRequest(), None, "expected a target"),
    ):
        before = made.everything() | contents(standing.storage, "")
        with pytest.raises(ConfigurationError, match=said):
            copy(request, source=source, target=target, progress=made.world.progress)
        assert made.everything() | contents(standing.storage, "") == before


def test_a_new_target_is_made_as_the_source_is_unless_told_otherwise() -> None:
    """Layout and compression; a target that is there keeps its own."""
    source = Repository.open_or_create(MemoryStorage(), clock=Copies().clock, compression=Compression.GZIP)
    made = target_on(MemoryStorage(), CopyRequest(), source=source)
    assert made is not None
    assert (made.document.layout, made.document.compression) == ("archive", Compression.GZIP)
    other = target_on(MemoryStorage(), CopyRequest(layout="layers"), source=source)
    assert other is not None
    assert (other.document.layout, other.document.compression) == ("layers", Compression.ZSTD)
    assert target_on(MemoryStorage(), CopyRequest(dry_run=True), source=source) is None
    assert target_on(made.storage, CopyRequest(), source=source) is not None
