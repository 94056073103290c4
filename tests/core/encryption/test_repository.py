# SPDX-License-Identifier: Apache-2.0
"""Repositories whose backups are encrypted: what is written, who reads it, and what is refused."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import Attempt
from airflow_provider_dockerbackup.core.audit.reading import stored_events
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.check import check_repository
from airflow_provider_dockerbackup.core.encryption.identity import Identities
from airflow_provider_dockerbackup.core.layers.backup import layer_store
from airflow_provider_dockerbackup.core.look.files import list_files
from airflow_provider_dockerbackup.core.look.history import image_history
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.ports import DockerHost, TestDaemon
from airflow_provider_dockerbackup.core.reading import archive_stream, container_document
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.recreate import RecreateRequest, restore_container
from airflow_provider_dockerbackup.core.report.controls import evaluate
from airflow_provider_dockerbackup.core.report.model import ReportRequest
from airflow_provider_dockerbackup.core.repository import REPOSITORY_FILE, Repository
from airflow_provider_dockerbackup.core.restore import RestoreRequest
from airflow_provider_dockerbackup.core.rollback import RollbackRequest, roll_back
from airflow_provider_dockerbackup.core.since import Level
from airflow_provider_dockerbackup.core.verify import VerifyRequest, verify_backup
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost, MemoryStorage, MemoryTestDaemon
from tests.core.faults import Death, Fault, FaultyStorage, Plan
from tests.core.faulty_docker import FaultyHost, lost_after
from tests.core.world import (
    CONTAINER,
    FILESYSTEM,
    IMAGE,
    TickingClock,
    World,
    app_archive,
    assert_all_whole,
    assert_nothing_left,
    bury,
    contents,
    docker_host,
    paths,
    spoil,
)

from .keys import age_pair, ssh_ed25519_pair

ANN, BEN, EVE = age_pair(), ssh_ed25519_pair(), age_pair()
BOTH = (ANN.recipient, BEN.recipient)
LAYOUTS = pytest.mark.parametrize("layout", ["archive", "layers"])
SOURCES = pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["image", "container"])


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever happened to a backup, its thread has ended."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def encrypted_world(identities: Identities | None = ANN.identities, *, layout: str = "archive") -> World:
    """Return a world whose repository is encrypted to two recipients."""
    return World(recipients=BOTH, identities=identities, layout=layout)


def without_key(world: World, identities: Identities | None = None) -> World:
    """Return the same world as somebody sees it who has another key, or none."""
    return World(
        storage=world.storage,
        host=world.host,
        clock=world.clock,
        recipients=BOTH,
        identities=identities,
        layout=world.layout,
    )


@SOURCES
@pytest.mark.parametrize("compression", list(Compression))
def test_what_is_stored_is_encrypted_and_reads_back(source: Source, compression: Compression) -> None:
    """Nothing of the archive or of the container's configuration stands in the storage in plain."""
    world = encrypted_world()
    host = docker_host()
    host.add_archive(app_archive("one", config={"Env": ["TOKEN=plainly-visible"]}))
    backup = world.backup(1, source, compression=compression, host=host).backup
    record = backup.whole()
    assert (record.encryption, record.recipients) == ("age", tuple(each.fingerprint for each in BOTH))
    assert record.archive_file.name.endswith(f".tar{compression.suffix}.age")
    assert record.archive_file.stored_sha256 is not None
    for path, data in contents(world.storage, "").items():
        assert not any(word in data for word in (b"plainly-visible", b"port = 80", b"ustar")), path
        if path.endswith(".age"):
            assert data.startswith(b"age-encryption.org/v1\n")
    assert len(assert_all_whole(world.repository)) == 1
    assert_nothing_left(world.repository)


@SOURCES
@LAYOUTS
@pytest.mark.parametrize("level", ["digests", "load", "run"])
def test_each_recipient_verifies_at_every_level(source: Source, layout: str, level: Level) -> None:
    """One private key is enough, whichever it is."""
    world = encrypted_world(layout=layout)
    world.backup(1, source)
    for pair in (ANN, BEN):
        theirs = without_key(world, pair.identities)
        verification = theirs.verify(theirs.repository.catalog.backups()[0], level)
        assert (verification.verification, verification.problem) == ("passed", "")
        assert verification.bytes_read >= len(FILESYSTEM) // 2


@LAYOUTS
def test_an_image_and_a_container_come_back(layout: str) -> None:
    """Restored, made anew, its history and its files read."""
    world = encrypted_world(BEN.identities, layout=layout)
    image, container = (world.backup(1, source).backup for source in (IMAGE, CONTAINER))
    target = docker_host("target")
    restored = world.restore(image, RestoreRequest(tags=("app:back",)), host=target)
    assert (restored.identical, restored.tags) == (True, ("app:back",))
    assert world.restore(container, RestoreRequest(), host=target).identical
    made = restore_container(
        container,
        RecreateRequest(name="again"),
        host=target,
        repository=world.repository,
        progress=world.progress,
    )
    assert made.status == "created"
    assert image_history(world.repository, image, progress=world.progress)
    files = list_files(world.repository, container, patterns=["/etc/app.conf"], progress=world.progress)
    assert [each.path for each in files] == ["etc/app.conf"]


@LAYOUTS
@pytest.mark.parametrize("step", [None, 1])
def test_a_tag_goes_back_to_an_encrypted_backup(layout: str, step: int | None) -> None:
    """Proven in a test daemon first, whole or as it was after an earlier step."""
    world = encrypted_world(layout=layout)
    backup = world.backup(1).backup
    before = world.host.inspect_image(IMAGE.name).id
    world.host.add_archive(app_archive("two"))
    outcome = roll_back(
        backup,
        RollbackRequest(tag=IMAGE.name, step=step, prove="load"),
        host=world.host,
        repository=world.repository,
        test_daemon=lambda: nullcontext(MemoryTestDaemon()),
        progress=world.progress,
    )
    assert "test daemon" in outcome.proven
    assert (world.host.inspect_image(IMAGE.name).id == before) is (step is None)


@LAYOUTS
@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.DEATH])
@pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["image", "container"])
def test_a_call_to_the_storage_may_fail(source: Source, layout: str, fault: Fault) -> None:
    """As for plain backups, for which each call is tried: what is seen is whole, and the next try heals all."""

    def broken(world: World, plan: Plan) -> None:
        with suppress(TransientError, Death):
            world.backup(2, source, repository=world.on(FaultyStorage(world.storage, plan)), capture="save")

    counting = Plan()
    broken(encrypted_world(layout=layout), counting)
    for at in range(1, len(counting.calls) + 1, 4):
        world = encrypted_world(layout=layout)
        world.backup(1, source, capture="save")
        broken(world, Plan(at, fault))
        bury()
        assert_all_whole(world.repository)
        assert world.backup(2, source, capture="save").status in {"committed", "already"}
        world.backup(3, source, capture="save")
        assert len(assert_all_whole(world.repository)) == 3
        assert_nothing_left(world.repository)


def refusals(world: World, image: Backup, container: Backup, host: DockerHost) -> Iterator[str]:
    """Try everything that reads an archive, and yield what each of them says."""

    def never() -> AbstractContextManager[TestDaemon]:
        pytest.fail("a test daemon was asked for")

    opened, progress = world.repository, world.progress
    for backup in (image, container):
        for level in ("digests", "load", "run"):
            with pytest.raises(ConfigurationError) as caught:
                verify_backup(
                    backup,
                    VerifyRequest(level=level),
                    repository=opened,
                    test_daemon=never,
                    progress=progress,
                )
            yield str(caught.value)
        for request in (RestoreRequest(), RestoreRequest(dry_run=True)):
            with pytest.raises(ConfigurationError) as caught:
                world.restore(backup, request, host=host)
            yield str(caught.value)
        with pytest.raises(ConfigurationError) as caught, archive_stream(opened, backup):
            pytest.fail("the archive was opened")
        yield str(caught.value)
    for prove in ("none", "run"):
        rollback = RollbackRequest(tag=IMAGE.name, prove=prove)
        with pytest.raises(ConfigurationError) as caught:
            roll_back(image, rollback, host=host, repository=opened, test_daemon=never, progress=progress)
        yield str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        restore_container(container, RecreateRequest(), host=host, repository=opened, progress=progress)
    yield str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        image_history(opened, image, progress=progress)
    yield str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        list_files(opened, container, progress=progress)
    yield str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        container_document(opened, container)
    yield str(caught.value)


@LAYOUTS
@pytest.mark.parametrize("identities", [None, EVE.identities], ids=["missing", "wrong"])
def test_a_missing_or_wrong_key_is_refused_before_anything_is_touched(
    identities: Identities | None, layout: str
) -> None:
    """No test daemon, no call to the target, no document; the message says who can decrypt."""
    world = encrypted_world(layout=layout)
    image, container = (world.backup(1, source).backup for source in (IMAGE, CONTAINER))
    before = contents(world.storage, "")
    theirs = without_key(world, identities)
    messages = list(refusals(theirs, image, container, FaultyHost(docker_host("target"), Plan(at=1))))
    assert len(messages) == 18
    for message in messages:
        assert all(each.fingerprint[:23] in message for each in BOTH)
        assert ("no identity is given" if identities is None else EVE.recipient.fingerprint[:23]) in message
    assert contents(world.storage, "") == before


@LAYOUTS
def test_whoever_has_no_key_saves_confirms_lists_and_checks(layout: str) -> None:
    """Workers that make backups hold public keys only."""
    world = encrypted_world(None, layout=layout)
    first = world.backup(1, IMAGE).backup
    assert world.backup(2, IMAGE, force=False).status == "unchanged"
    world.backup(3, CONTAINER)
    assert len(world.repository.catalog.backups()) == 2
    assert world.repository.catalog.find(first.backup_id).complete
    assert check_repository(world.repository) == ()


@SOURCES
@LAYOUTS
def test_one_changed_byte_anywhere_fails_verification_and_restore(source: Source, layout: str) -> None:
    """In archive or blobs and in the container's configuration, from the first byte to the last."""
    world = encrypted_world(layout=layout)
    backup = world.backup(1, source, compression=Compression.ZSTD).backup
    record = backup.whole()
    files = {backup.path + name: size_bytes for name, size_bytes in record.files.items()}
    files |= {blob_path(digest): size_bytes for digest, size_bytes in record.blob_sizes.items()}
    for path, size_bytes in files.items():
        sound = world.storage.read(path)
        for position in [*range(0, size_bytes, 1 + size_bytes // 40), size_bytes - 1]:
            spoil(world.storage, path, position=position)
            assert world.verify(backup, "digests").verification == "failed"
            spoil(world.storage, path, data=sound)
        for data in (sound[:-1], sound[: size_bytes // 2], b"", sound + b"x"):
            spoil(world.storage, path, data=data)
            if layout == "archive" or "/container-" not in path:  # in layers an image's configuration is a blob
                with pytest.raises(IntegrityError):
                    world.restore(backup, RestoreRequest(), host=MemoryDockerHost("empty"))
            assert world.verify(backup, "load").verification == "failed"
            spoil(world.storage, path, data=sound)
    assert world.verify(backup, "load").verification == "passed"


@SOURCES
@LAYOUTS
@pytest.mark.parametrize("error", [TransientError("the link was lost"), KeyboardInterrupt()], ids=["lost", "ended"])
def test_a_backup_that_is_interrupted_leaves_nothing(source: Source, layout: str, error: BaseException) -> None:
    """Neither a file nor a thread, wherever the stream broke."""
    world = encrypted_world(layout=layout)
    world.backup(1, source)
    before = paths(world.storage)
    size_bytes = len(FILESYSTEM if source is CONTAINER else app_archive("one"))
    for position in range(0, size_bytes, size_bytes // 9):
        host = FaultyHost(world.host, cutter=lost_after(position, error))
        with pytest.raises(type(error)):
            world.backup(2, source, host=host, consistency="none", capture="save")
        assert paths(world.storage) == before
    assert_nothing_left(world.repository)


def test_layers_are_stored_encrypted_and_once() -> None:
    """The second image brings its new layer alone, found without a private key; OCI documents are not written."""
    world = encrypted_world(layout="layers")
    first = world.backup(1).backup.whole()
    world.host.add_archive(app_archive("two"))
    second = without_key(world).backup(2).backup.whole()
    assert first.blobs is not None
    assert second.blobs is not None
    assert second.blobs.layers[0] == first.blobs.layers[0]
    assert second.blobs.layers[1] != first.blobs.layers[1]
    assert second.blobs.documents == ()
    assert not any("/oci-" in path for path in paths(world.storage))
    assert len(paths(world.storage, prefix="layers/sha256")) == 3
    for path, data in contents(world.storage, "blobs").items():
        assert data.startswith(b"age-encryption.org/v1\n")
        assert path.endswith(hashlib.sha256(data).hexdigest())
    assert len(assert_all_whole(world.repository)) == 2


def test_no_diff_id_stands_below_layers_nor_in_what_records_say_of_blobs() -> None:
    """What stands there instead differs from repository to repository."""
    names = []
    for _ in range(2):
        world = encrypted_world(layout="layers")
        record = world.backup(1, capture="push").backup.whole()
        below = contents(world.storage, "layers")
        assert len(below) == 4
        assert record.blobs is not None
        for diff_id in record.diff_ids:
            for path, data in below.items():
                assert diff_id[7:] not in path + data.decode()
            assert diff_id not in record.blobs.model_dump_json()
        names.append({path for path in below if path.startswith("layers/sha256/")})
    assert names[0].isdisjoint(names[1])


def test_two_writers_of_a_new_layer_leave_one_map_and_both_backups_whole() -> None:
    """Each encrypts the layer to other bytes; the blob of the one who comes second is garbage."""
    world = encrypted_world(layout="layers")
    digest = f"sha256:{hashlib.sha256(b'layer').hexdigest()}"
    with (
        Attempt(world.repository, world.key(1), progress=world.progress) as attempt,
        layer_store(attempt, tuning=Tuning(), progress=world.progress) as store,
        store.layer() as first,
        store.layer() as second,
    ):
        for writer in (first, second):
            writer.write(b"layer")
        second.commit(second.digest)  # as if both had looked before either wrote
        winner = first.publish(diff_id=digest)
        assert first.digest != second.digest
        assert second.publish(diff_id=digest) == winner
        assert store.new_bytes == winner.stored_size_bytes
    assert len(paths(world.storage, prefix="layers/sha256")) == 1


def test_events_name_the_recipients() -> None:
    """So that the trail tells to whom each backup was encrypted when it was made."""
    world = encrypted_world()
    world.backup(1)
    events = [each.event for each in stored_events(world.storage, keys={})]
    committed = next(each for each in events if each is not None and each.type == "backup.committed")
    assert committed.object["encryption"] == "age"
    assert committed.object["recipients"] == [each.fingerprint for each in BOTH]


def test_the_audit_report_passes_for_encrypted_backups_only() -> None:
    """And names the recipients, or the backups that are plain."""
    for world, status in ((encrypted_world(), "pass"), (World(), "fail")):
        backup = world.backup(1).backup
        controls = evaluate(
            ReportRequest(),
            coverage=(),
            live_hosts=(),
            sources=(),
            backups=[backup],
            drills=(),
            deletions=(),
            policies=(),
            now=world.clock.now(),
            since=world.clock.now(),
        )
        control = next(each for each in controls if each.name == "BACKUP_RECOVERY_POINT_ENCRYPTED")
        assert control.status == status
        expected = sorted(each.fingerprint for each in BOTH) if status == "pass" else [backup.backup_id]
        assert list(control.evidence) == expected


def test_recipients_are_fixed_when_a_repository_is_made() -> None:
    """Others are refused, the same in another order are not, and none takes what is there."""
    storage, clock = MemoryStorage(), TickingClock()
    made = Repository.open_or_create(storage, clock=clock, recipients=BOTH)
    for wanted in (BOTH, BOTH[::-1], ()):
        opened = Repository.open_or_create(storage, clock=clock, recipients=wanted)
        assert opened.document == made.document
    with pytest.raises(ConfigurationError, match=r"recipients are fixed"):
        Repository.open_or_create(storage, clock=clock, recipients=(ANN.recipient, EVE.recipient))
    with pytest.raises(ConflictError, match=r"already; it was not changed"):
        Repository.create(storage, clock=clock, recipients=(EVE.recipient,))
    plain = MemoryStorage()
    Repository.open_or_create(plain, clock=clock)
    with pytest.raises(ConfigurationError, match=r"it is not encrypted"):
        Repository.open_or_create(plain, clock=clock, recipients=BOTH)


def test_a_repository_is_not_made_anew_where_backups_are() -> None:
    """Its repository.json was lost; another one would have other recipients."""
    world = encrypted_world()
    world.backup(1)
    world.storage.delete(REPOSITORY_FILE)
    for make in (Repository.create, Repository.open_or_create):
        with pytest.raises(NotFoundError):
            make(world.storage, clock=world.clock)


def test_an_edited_recipient_is_refused() -> None:
    """Nothing is written to somebody whose key does not have the recorded fingerprint."""
    world = encrypted_world()
    text = world.storage.read(REPOSITORY_FILE)
    spoil(world.storage, REPOSITORY_FILE, data=text.replace(ANN.public.encode(), EVE.public.encode()))
    with pytest.raises(IntegrityError, match=r"it was edited"):
        world.repository.catalog.backups()


def test_private_keys_are_asked_for_only_by_an_encrypted_repository() -> None:
    """A key file that cannot be read is no obstacle where none is needed."""

    def unreadable() -> Identities:
        raise ConfigurationError("age identity /x: cannot be read")

    plain, locked = World(), encrypted_world()
    assert Repository.open(plain.storage, clock=plain.clock, identities=unreadable).identities is None
    with pytest.raises(ConfigurationError, match=r"cannot be read"):
        Repository.open(locked.storage, clock=locked.clock, identities=unreadable)
