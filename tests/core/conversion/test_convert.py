# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.audit.checkpoint import CheckpointRequest, make_checkpoint
from airflow_provider_dockerbackup.core.audit.proof import prove
from airflow_provider_dockerbackup.core.audit.reading import stored_events
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.convert import ConvertRequest, convert, require_apart
from airflow_provider_dockerbackup.core.document import compact_time, sha256_of
from airflow_provider_dockerbackup.core.fidelity import MANIFEST_DIGEST_LOST
from airflow_provider_dockerbackup.core.hold import HoldRequest, ReleaseRequest, hold_backup, release_backup
from airflow_provider_dockerbackup.core.model import ObjectInfo
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.quarantine import quarantine
from airflow_provider_dockerbackup.core.reading import archive_stream, container_bytes
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.restore import RestoreRequest
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateRequest, rotate
from airflow_provider_dockerbackup.core.since import Verification
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost, MemoryStorage, MemoryTestDaemon
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.archive.making import IMAGES, golden
from tests.core.bringing import ACTOR
from tests.core.conversion.making import Conversion
from tests.core.faults import FaultyStorage, Plan
from tests.core.world import FILESYSTEM, IMAGE, World, app_archive, assert_all_whole, contents, paths, spoil

LAYOUTS = pytest.mark.parametrize("layout", ["archive", "layers"])


def _filled(layout: str) -> Conversion:
    made = Conversion(layout=layout)
    made.fill()
    return made


@LAYOUTS
def test_every_backup_is_the_same_backup_in_the_other_layout(layout: str) -> None:
    """Images and containers, with their points and holds; the source does not change by a byte."""
    made = _filled(layout)
    before = made.everything()
    outcome = made.run()
    assert [each.state for each in outcome.results] == ["converted"] * 3
    made.assert_same()
    assert made.everything() == before
    assert paths(made.target, prefix="pins") == set()
    assert made.world.progress.open == 0
    for old, new in made.pairs():
        assert new.whole().attempt != old.whole().attempt
        assert (
            new.whole()
            .notes[-1]
            .startswith(
                f"converted from layout {layout} of repository {made.world.repository.document.repository_id} at "
            )
        )
        assert (new.whole().archive is None) == (layout == "archive")


@LAYOUTS
def test_a_second_run_writes_nothing_but_its_events(layout: str) -> None:
    """What is there, whole and proven, is left as it is."""
    made = _filled(layout)
    made.run()
    before = contents(made.target, "backups") | contents(made.target, "blobs")
    assert [each.state for each in made.run().results] == ["already"] * 3
    assert contents(made.target, "backups") | contents(made.target, "blobs") == before


@LAYOUTS
def test_a_dry_run_says_what_would_be_done_and_writes_nothing(layout: str) -> None:
    """Also where there is no target yet."""
    made = _filled(layout)
    request = ConvertRequest(layout={"archive": "layers", "layers": "archive"}[layout], dry_run=True)
    planned = convert(request, source=made.world.repository, target=None, progress=made.world.progress)
    assert [each.state for each in planned.planned] == ["convert"] * 3
    assert (planned.results, planned.audit_head) == ((), None)
    assert paths(made.target, prefix="") == set()
    made.run()
    before = contents(made.target, "")
    again = made.run(dry_run=True)
    assert [each.state for each in again.planned] == ["already"] * 3
    assert contents(made.target, "") == before


def test_there_and_back_gives_the_same_image_and_the_same_files() -> None:
    """Configuration, layers and history of an image; every byte of an export and of its configuration."""
    there = _filled("archive")
    there.run()
    back = there.back()
    back.run(compression=Compression.ZSTD)
    back.assert_same()
    for old, new in zip(there.world.repository.catalog.backups(), back.repository.catalog.backups(), strict=True):
        one, other = old.whole(), new.whole()
        assert other.archive_file.compression is Compression.ZSTD
        assert len(other.notes) == 2
        if one.image is not None and other.image is not None:
            assert (one.image.config_digest, one.diff_ids) == (other.image.config_digest, other.diff_ids)
            assert one.image.history == other.image.history
            assert MANIFEST_DIGEST_LOST in other.fidelity.items
        else:
            with archive_stream(back.repository, new) as tar:
                assert b"".join(tar) == FILESYSTEM
            assert container_bytes(there.world.repository, old) == container_bytes(back.repository, new)


@pytest.mark.parametrize("name", IMAGES)
def test_what_every_engine_wrote_goes_there_and_back(name: str) -> None:
    """Also with compressed layers: the image stays, and its layers lie in the new archive as the record says."""
    there = Conversion(layout="archive")
    there.world.host = MemoryDockerHost("ship-1")
    source = IMAGE.model_copy(update={"name": there.world.host.add_archive(golden(name)).names[0]})
    there.world.backup(1, source)
    there.run()
    there.assert_same()
    back = there.back()
    back.run()
    back.assert_same()
    (old,), (new,) = there.world.repository.catalog.backups(), back.repository.catalog.backups()
    one, other = old.whole().image, new.whole().image
    assert one is not None
    assert other is not None
    assert (one.config_digest, one.diff_ids, one.history) == (other.config_digest, other.diff_ids, other.history)
    assert {each.compression for each in other.layers} <= {Compression.NONE}
    with archive_stream(back.repository, new) as tar:
        data = b"".join(tar)
    for layer in other.layers:
        assert layer.member.encode() in data


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_converted_into_layers_is_what_a_save_into_layers_stores(name: str) -> None:
    """The same blobs under the same names, and a record that says the same of them and of what is lost."""
    made = Conversion(layout="archive")
    made.world.host = MemoryDockerHost("ship-1")
    source = IMAGE.model_copy(update={"name": made.world.host.add_archive(golden(name)).names[0]})
    made.world.backup(1, source)
    made.run()
    converted = made.repository.catalog.backups()[0].whole()
    native = World(host=made.world.host, layout="layers").backup(1, source, capture="save").backup.whole()
    assert converted.blobs is not None
    assert native.blobs is not None
    own = {"documents", "received_bytes"}
    assert converted.blobs.model_dump(exclude=own) == native.blobs.model_dump(exclude=own)
    assert converted.image == native.image
    assert converted.fidelity == native.fidelity
    assert converted.notes[:-1] == native.notes


@LAYOUTS
def test_what_was_converted_verifies_and_restores(layout: str) -> None:
    """In an empty test daemon, and on another host."""
    made = _filled(layout)
    made.run()
    for backup in made.repository.catalog.backups():
        verification = made.world.verify(backup, repository=made.repository, daemon=MemoryTestDaemon())
        assert verification.proves_restore
        request = RestoreRequest(tags=("back:1",))
        outcome = made.world.restore(backup, request, host=MemoryDockerHost("target"), repository=made.repository)
        assert outcome.identical


@LAYOUTS
def test_a_backup_starts_checked_whatever_it_was(layout: str) -> None:
    """What proved the old bytes proves nothing of the new ones: they were read back, no more."""
    made = _filled(layout)
    for backup in made.world.repository.catalog.backups():
        assert made.world.verify(backup).proves_restore
    made.run()
    for old, new in made.pairs():
        assert (old.trust, new.trust) == ("verified", "checked")
        assert [(each.level, each.actor) for each in new.verifications] == [("digests", ACTOR)]
        assert new.verifications[0].bytes_read > 0


@LAYOUTS
def test_a_backup_whose_verification_failed_counts_for_as_little_afterwards(layout: str) -> None:
    """Its bytes are as recorded, and yet it did not run: that may be the image's fault."""
    made = _filled(layout)
    backup = made.world.repository.catalog.backups()[0]
    _fail(made, backup.path)
    made.run()
    new = made.repository.catalog.find(backup.backup_id)
    assert new.trust == "failed"
    assert [each.problem for each in new.verifications] == ["it does not start"]
    assert {each.state for each in made.run().results} == {"already"}
    assert made.world.verify(new, repository=made.repository).proves_restore


def _fail(made: Conversion, path: str) -> None:
    now = made.clock.now()
    failed = Verification(
        backup_id=path.split("/")[3],
        level="run",
        verified_at=now,
        verification="failed",
        problem="it does not start",
        bytes_read=0,
        actor={},
    )
    name = f"verification-{compact_time(now, fraction=True)}.json"
    made.world.storage.create(path + name, failed.to_bytes())


def test_what_happens_in_the_source_since_is_brought_by_the_next_run() -> None:
    """A new backup, a confirmation, a release and a hold; what goes there does not go here."""
    made = _filled("archive")
    made.run()
    world = made.world
    newest, _, oldest = world.repository.catalog.backups()
    release_backup(
        world.repository, oldest, ReleaseRequest(reason="settled", release_legal=True), progress=world.progress
    )
    hold_backup(world.repository, newest, HoldRequest(reason="claim 18"), progress=world.progress)
    world.backup(5, force=False)
    world.host.add_archive(app_archive("three"))
    world.backup(6)
    outcome = made.run()
    assert sorted(each.state for each in outcome.results) == ["converted", "finished", "finished", "finished"]
    made.assert_same()
    policy = RetentionPolicy.of({"keep_last": 1})
    rotate(world.repository, RotateRequest(policy=policy, max_removed_share=1), progress=world.progress)
    assert len(world.repository.catalog.backups()) < 4
    assert made.run().failed == ()
    assert len(made.repository.catalog.backups()) == 4


def test_a_hold_that_is_set_while_its_backup_is_converted_comes_along() -> None:
    """The documents are listed once more when the record stands."""
    made = _filled("archive")
    newest = made.world.repository.catalog.backups()[0]

    class Holding(FaultyStorage):
        def create(self, path: str, data: bytes) -> None:
            super().create(path, data)
            if path == f"{newest.path}backup.json":
                request = HoldRequest(reason="claim 19")
                hold_backup(made.world.repository, newest, request, progress=made.world.progress)

    made.run(target=Holding(made.target, Plan()))
    assert [each.reason for each in made.repository.catalog.find(newest.backup_id).held(made.clock.now())] == [
        "claim 19"
    ]
    made.assert_same()


def test_a_backup_that_is_removed_from_the_source_on_the_way_is_skipped() -> None:
    """A rotation of the source may run meanwhile; that is no failure."""
    made = _filled("archive")
    going = made.world.repository.catalog.backups()[1]

    class Rotating(FaultyStorage):
        def stat(self, path: str) -> ObjectInfo:
            if path == going.path + going.whole().archive_file.name:
                made.world.storage.create(f"{going.path}deleted-20260401T000000.000000Z.json", b"{}")
                made.world.storage.delete(path)
            return super().stat(path)

    outcome = made.run(source=Rotating(made.world.storage, Plan()))
    assert [each.state for each in outcome.results] == ["converted", "skipped", "converted"]
    assert outcome.results[1].reason == "it was deleted from the source"
    assert len(assert_all_whole(made.repository)) == 2


@LAYOUTS
def test_what_is_no_backup_is_skipped_and_named_and_what_is_damaged_fails_alone(layout: str) -> None:
    """Deleted and in quarantine: skipped. Unreadable, incomplete, bad bytes: failed, and the others are converted."""
    made = _filled(layout)
    world = made.world
    for run in range(10, 15):
        world.host.add_archive(app_archive(f"v{run}"))
        world.backup(run)
    good = {each.backup_id for each in world.repository.catalog.backups()}
    deleted, aside, unreadable, incomplete, bad = (world.key(run).path for run in range(10, 15))
    world.storage.create(f"{deleted}deleted-20260401T000000.000000Z.json", b"{}")
    spoil(world.storage, f"{aside}backup.json", data=b"{")
    quarantine(world.repository, aside.split("/")[3], reason="lost", actor={}, progress=world.progress)
    spoil(world.storage, f"{unreadable}backup.json", data=b"{")
    world.storage.delete(_bytes_of(made, incomplete))
    spoil(world.storage, _bytes_of(made, bad))
    outcome = made.run()
    states = {each.decision.path: each for each in outcome.results}
    assert (states[deleted].state, states[deleted].reason) == ("skipped", "it was deleted from the source")
    assert (states[aside].state, states[aside].reason) == ("skipped", "it is in quarantine in the source")
    assert (states[unreadable].state, "is unreadable" in states[unreadable].reason) == ("failed", True)
    assert (states[incomplete].state, "are missing" in states[incomplete].reason) == ("failed", True)
    assert states[bad].state == "failed"
    assert {each.decision.path for each in outcome.failed} == {unreadable, incomplete, bad}
    gone = {path.split("/")[3] for path in (deleted, aside, unreadable, incomplete, bad)}
    assert {each.backup_id for each in assert_all_whole(made.repository)} == good - gone
    (told,) = [each for each in made.events("convert.") if each.outcome != "intent"]
    assert (told.type, set(told.object["failed"])) == (
        "convert.failed",
        {each.split("/")[3] for each in (unreadable, incomplete, bad)},
    )


def _bytes_of(made: Conversion, path: str) -> str:
    """Return the path of an object that only this backup needs."""
    backup = made.world.repository.catalog.at(path)
    assert backup is not None
    record = backup.whole()
    return blob_path(record.blobs.layers[1].digest) if record.blobs is not None else path + record.archive_file.name


def test_a_bad_blob_of_the_target_is_put_aside_and_stored_anew_by_the_next_run() -> None:
    """It was held, and is found bad when it is read back: nothing is committed on it."""
    made = _filled("archive")
    made.run()
    image = next(new for _, new in made.pairs() if new.whole().image is not None)
    layer = image.whole().blobs.layers[0]  # type: ignore[union-attr]
    spoil(made.target, blob_path(layer.digest))
    made.world.host.add_archive(app_archive("three"))
    made.world.backup(7)
    (failed,) = made.run().failed
    assert (failed.decision.path, layer.digest[7:] in failed.reason) == (made.world.key(7).path, True)
    assert made.repository.catalog.at(made.world.key(7).path) is None
    assert [path for path in paths(made.target, prefix="quarantine") if layer.digest[7:] in path]
    assert made.run().failed == ()
    made.assert_same()


def test_a_backup_that_was_removed_from_the_target_is_not_brought_back() -> None:
    """A rotation of the target decided; the next run says so."""
    made = _filled("archive")
    made.run()
    gone = made.repository.catalog.backups()[1]
    made.target.create(f"{gone.path}deleted-20260401T000000.000000Z.json", b"{}")
    (skipped,) = [each for each in made.run().results if each.state == "skipped"]
    assert (skipped.decision.path, skipped.reason) == (gone.path, "it was deleted from the target")


@LAYOUTS
def test_another_backup_under_the_same_id_is_left_alone(layout: str) -> None:
    """Both repositories were used for the same work: neither is taken for the other."""
    made = _filled(layout)
    Repository.open_or_create(made.target, clock=made.clock, layout={"archive": "layers", "layers": "archive"}[layout])
    made.world.backup(1, repository=made.repository)
    before = contents(made.target, made.world.key(1).path)
    (failed,) = made.run().failed
    assert (failed.decision.path, failed.reason) == (
        made.world.key(1).path,
        "the target has another backup under its id",
    )
    assert contents(made.target, made.world.key(1).path) == before


def test_the_trail_tells_what_was_converted_from_what_and_needs_no_reconciling() -> None:
    """Each backup names the record that it was; copied documents are named too."""
    made = _filled("archive")
    made.run()
    events = made.events("")
    assert [each.type for each in events if each.type.startswith("convert.")] == ["convert.started", "convert.done"]
    converted = {each.object["backup_id"]: each for each in events if each.type == "backup.converted"}
    for old, new in made.pairs():
        about = converted[old.backup_id].object
        record = made.world.storage.read(f"{old.path}backup.json")
        assert about["from_record"] == sha256_of(record)
        assert about["from_repository"] == made.world.repository.document.repository_id
        assert (about["from_content_digest"], about["content_digest"]) == (
            old.whole().content_digest,
            new.whole().content_digest,
        )
    documents = {path for each in converted.values() for path in each.object["documents"]}
    assert documents == {
        path for path in paths(made.target) if path.rsplit("/", 1)[1].startswith(("confirmed-", "hold-"))
    }
    made.clock.advance(timedelta(days=2))
    assert make_checkpoint(made.repository, CheckpointRequest(), progress=made.world.progress).reconciled == 0
    assert prove(stored_events(made.target, keys={}), keys_given=False).intact


def test_records_say_what_is_lost_by_layers_and_hints_are_kept() -> None:
    """The manifest's digest; and by which digests the source engine calls its compressed layers."""
    made = Conversion()
    made.world.host = MemoryDockerHost("ship-1")
    name = next(each for each in IMAGES if "containerd" in each)
    source = IMAGE.model_copy(update={"name": made.world.host.add_archive(golden(name)).names[0]})
    made.world.backup(1, source)
    made.run()
    ((old, new),) = made.pairs()
    assert MANIFEST_DIGEST_LOST not in old.whole().fidelity.items
    assert new.whole().fidelity.items[-1] == MANIFEST_DIGEST_LOST
    assert paths(made.target, prefix="layers/engines")


def test_layers_that_backups_share_are_stored_once() -> None:
    """That is what one converts for."""
    made = _filled("archive")
    made.run()
    blobs = [new.whole().blobs for _, new in made.pairs()]
    layers = [layer for each in blobs if each is not None for layer in each.layers]
    assert len({each.digest for each in layers}) == len({each.diff_id for each in layers}) == 4
    assert len(layers) == 5


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ("file:///srv/a", "file:///srv/b", True),
        ("file:///srv/a", "file:///srv/ab", True),
        ("file:///srv/a", "file:///srv/a/", False),
        ("file:///srv/a", "file:///srv/a/new", False),
        ("file:///srv/a/old", "file:///srv/a", False),
        ("s3://b", "s3://b/x", False),
        ("s3://b/x", "s3://c/x", True),
    ],
)
def test_source_and_target_must_be_apart(one: str, other: str, apart: bool) -> None:
    """Neither the same place nor one in the other."""
    if apart:
        require_apart(one, other)
        return
    with pytest.raises(ConfigurationError, match="must be apart"):
        require_apart(one, other)


def test_what_does_not_fit_is_refused_before_anything_is_written() -> None:
    """The layout that the source has, a target of that layout, the source itself, a compression that there is not."""
    made = _filled("archive")
    archive = Repository.open_or_create(MemoryStorage(), clock=made.clock, layout="archive")
    itself = made.world.repository
    for request, target, said in (
        (ConvertRequest(layout="archive"), archive, "already: nothing to do"),
        (ConvertRequest(layout="layers"), archive, "give another place"),
        (ConvertRequest(layout="layers"), itself, "very repository"),
        (ConvertRequest(layout="layers", compression=Compression.GZIP), None, "stores zstd"),
        (ConvertRequest(layout="layers"), None, "expected a target"),
    ):
        before = made.everything() | contents(archive.storage, "")
        with pytest.raises(ConfigurationError, match=said):
            convert(request, source=itself, target=target, progress=made.world.progress)
        assert made.everything() | contents(archive.storage, "") == before


def test_progress_is_told_over_the_whole(tmp_path: Path) -> None:
    """Every byte is read twice, and both count."""
    made = Conversion(target=LocalStorage(tmp_path / "target"))
    made.fill()
    told: list[int] = []
    made.world.progress.advance = told.append  # type: ignore[method-assign, assignment]
    made.run()
    total = sum(old.whole().size_bytes + _read_back_bytes(new) for old, new in made.pairs())
    assert sum(told) == total


def _read_back_bytes(backup: Backup) -> int:
    return backup.verifications[0].bytes_read
