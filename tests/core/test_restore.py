# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.model import ImageInspect, LoadedImage
from airflow_provider_dockerbackup.core.names import WorkingName
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.restore import RestoreRequest
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.core.faults import Death, Fault, FaultyStorage, Plan
from tests.core.faulty_docker import FaultyHost
from tests.core.world import (
    CONTAINER,
    FILESYSTEM,
    HOST,
    IMAGE,
    Notes,
    World,
    app_archive,
    contents,
    paths,
    spoil,
)

SOURCES = pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["image", "container"])
FAULTS = pytest.mark.parametrize("fault", list(Fault))
PIECE_BYTES = 700
TAG = "lab/restored:1"


class _Receiving(FaultyHost):
    """A host that notes what a load was given, and whether it was given the end."""

    received = b""
    ended = False

    def _noted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.received += chunk
            yield chunk
        self.ended = True

    def load_image(self, chunks: Iterable[bytes]) -> LoadedImage:
        return super().load_image(self._noted(chunks))

    def import_filesystem(self, chunks: Iterable[bytes], *, reference: str, changes: Sequence[str] = ()) -> str:
        return super().import_filesystem(self._noted(chunks), reference=reference, changes=changes)


def _target() -> MemoryDockerHost:
    """Return a host where another image has the name that is wanted."""
    host = MemoryDockerHost("ship-2")
    host.add_archive(app_archive("other", tag=TAG))
    host.add_archive(app_archive("unrelated", tag="lab/unrelated:1"))
    return host


def _tags(host: MemoryDockerHost) -> dict[str, str]:
    return {each.reference: each.id for each in host.list_images()}


def _archive(backup: Backup) -> str:
    return backup.path + backup.whole().archive_file.name


@pytest.mark.parametrize("compression", list(Compression))
def test_an_image_comes_back_as_it_was(compression: Compression) -> None:
    """The same ID, layers and configuration, under the names that were asked for and no others."""
    world, target = World(), MemoryDockerHost("ship-2")
    backup = world.backup(1, compression=compression).backup
    done = world.restore(backup, RestoreRequest(tags=(TAG, "lab/second:1")), host=target)
    source = world.host.inspect_image(IMAGE.name)
    assert done.identical
    assert done.image_id == source.id
    assert _tags(target) == {TAG: source.id, "lab/second:1": source.id}
    assert target.inspect_image(TAG).config == source.config


@pytest.mark.parametrize(
    ("request_", "tags"),
    [
        (RestoreRequest(), None),
        (RestoreRequest(recorded_tags=True), {IMAGE.name}),
        (RestoreRequest(tags=(TAG,), recorded_tags=True), {TAG, IMAGE.name}),
        (RestoreRequest(tags=("lab/bare",)), {"lab/bare:latest"}),
    ],
    ids=["none", "recorded", "both", "bare"],
)
def test_a_restored_image_has_the_names_that_were_asked_for(request_: RestoreRequest, tags: set[str] | None) -> None:
    """Recorded tags come back only when asked; without any name it is found by its backup id."""
    world, target = World(), MemoryDockerHost("ship-2")
    backup = world.backup(1).backup
    done = world.restore(backup, request_, host=target)
    assert set(_tags(target)) == (tags or {f"dockerbackup-restored:{backup.backup_id}"}) == set(done.tags)


def test_a_container_comes_back_as_an_image_with_its_configuration() -> None:
    """The filesystem is the only layer, to the byte, and the container's configuration is put back."""
    world, target = World(), MemoryDockerHost("ship-2")
    backup = world.backup(1, CONTAINER).backup
    done = world.restore(backup, RestoreRequest(tags=(TAG,)), host=target)
    image = target.inspect_image(TAG)
    filesystem = backup.whole().filesystem
    assert done.identical
    assert filesystem is not None
    assert image.diff_ids == (filesystem.diff_id,)
    assert image.config["Env"] == world.host.inspect_container("web").config["Env"]
    target.add_container("again", image=TAG, filesystem=FILESYSTEM, status="exited")
    assert b"".join(target.export_container("again")) == FILESYSTEM


def test_a_container_comes_back_bare_when_imported() -> None:
    """``import`` brings the filesystem alone, and says what is missing."""
    world, target = World(), MemoryDockerHost("ship-2")
    backup = world.backup(1, CONTAINER).backup
    done = world.restore(backup, RestoreRequest(tags=(TAG,), method="import"), host=target)
    assert not done.identical
    assert "configuration and history are not restored" in done.notes[0]
    assert set(_tags(target)) == {TAG}


def test_a_restore_onto_the_source_itself_changes_nothing_else() -> None:
    """The image is there already, under its name: that is no conflict, and it stays."""
    world = World()
    backup = world.backup(1).backup
    before = _tags(world.host)
    done = world.restore(backup, RestoreRequest(recorded_tags=True), host=world.host)
    assert done.kept == {}
    assert _tags(world.host) == before


def test_a_restore_does_not_list_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that killed tries left are on the loaded image itself; a host may have thousands of others."""
    world, target = World(), _target()

    def never(*_: object, **__: object) -> tuple[()]:
        raise AssertionError("the target was listed")

    for listing in ("list_images", "list_containers"):
        monkeypatch.setattr(target, listing, never)
    assert world.restore(world.backup(1).backup, RestoreRequest(), host=target).identical


def test_a_tag_of_another_image_is_not_taken_over_unasked() -> None:
    """The conflict names tag and host and what to do, before anything is loaded."""
    world, target = World(), _target()
    backup = world.backup(1).backup
    before = _tags(target)
    host = _Receiving(target)
    with pytest.raises(ConflictError, match=rf"{TAG} on ship-2 stands for another image; .*replace_tags"):
        world.restore(backup, RestoreRequest(tags=("lab/free:1", TAG)), host=host)
    assert _tags(target) == before
    assert host.received == b""


def test_a_tag_that_is_taken_over_keeps_its_old_image_under_another_name() -> None:
    """With ``replace_tags`` the image that the tag stood for stays reachable."""
    world, target = World(), _target()
    backup = world.backup(1).backup
    old = target.inspect_image(TAG).id
    done = world.restore(backup, RestoreRequest(tags=(TAG,), replace_tags=True), host=target)
    kept = f"lab/restored:before-{backup.backup_id}"
    assert done.kept == {TAG: kept}
    assert _tags(target)[kept] == old
    assert _tags(target)[TAG] == done.image_id != old
    assert set(_tags(target)) == {TAG, kept, "lab/unrelated:1"}


def test_two_tags_of_one_repository_that_are_taken_over_keep_both_old_images() -> None:
    """The names under which old images are kept do not collide."""
    world, target = World(), _target()
    backup = world.backup(1).backup
    target.add_archive(app_archive("third", tag="lab/restored:2"))
    before = _tags(target)
    done = world.restore(backup, RestoreRequest(tags=(TAG, "lab/restored:2"), replace_tags=True), host=target)
    assert {tag: _tags(target)[kept] for tag, kept in done.kept.items()} == {
        tag: before[tag] for tag in (TAG, "lab/restored:2")
    }


def test_a_second_restore_keeps_what_the_first_one_kept() -> None:
    """A tag that was moved on and is taken over again: neither of the two old images loses its name."""
    world, target = World(), _target()
    backup = world.backup(1).backup
    request = RestoreRequest(tags=(TAG,), replace_tags=True)
    first = _tags(target)[TAG]
    world.restore(backup, request, host=target)
    target.add_archive(app_archive("newer", tag=TAG))
    second = _tags(target)[TAG]
    done = world.restore(backup, request, host=target)
    assert done.kept == {TAG: f"lab/restored:before-{backup.backup_id}-2"}
    assert {first, second, done.image_id} <= set(_tags(target).values())


def test_a_tag_that_is_taken_over_itself_keeps_nothing() -> None:
    """The names under which old images are kept are looked for among those that stay."""
    world, target = World(), _target()
    backup = world.backup(1).backup
    old = _tags(target)[TAG]
    before = f"lab/restored:before-{backup.backup_id}"
    target.add_archive(app_archive("kept", tag=before))
    kept = _tags(target)[before]
    world.restore(backup, RestoreRequest(tags=(TAG, before), replace_tags=True), host=target)
    assert {old, kept} <= set(_tags(target).values())


def test_the_name_of_the_old_image_is_right_when_the_registry_has_a_port() -> None:
    """Only the tag is replaced, not the port."""
    world, target = World(), MemoryDockerHost("ship-2")
    backup = world.backup(1).backup
    target.add_archive(app_archive("other", tag="registry:5000/lab/app:1"))
    done = world.restore(backup, RestoreRequest(tags=("registry:5000/lab/app:1",), replace_tags=True), host=target)
    assert list(done.kept.values()) == [f"registry:5000/lab/app:before-{backup.backup_id}"]


def test_an_image_with_the_same_layers_and_another_configuration_counts_as_another() -> None:
    """Layers alone are not the identity of what a tag stands for."""
    world, target = World(), MemoryDockerHost("ship-2")
    backup = world.backup(1).backup
    target.add_archive(app_archive("one", tag=TAG, config={"User": "other"}))
    with pytest.raises(ConflictError, match="stands for another image"):
        world.restore(backup, RestoreRequest(tags=(TAG,)), host=target)


@SOURCES
@pytest.mark.parametrize("taken", [False, True])
def test_a_dry_run_says_what_would_be_done_and_touches_nothing(source: Source, taken: bool) -> None:
    """Neither target nor repository changes, and no byte of the archive is sent."""
    world, target = World(), _target()
    backup = world.backup(1, source).backup
    before, stored = _tags(target), contents(world.storage, "")
    host = _Receiving(target)
    wanted = TAG if taken else "lab/free:1"
    done = world.restore(backup, RestoreRequest(tags=(wanted,), replace_tags=taken, dry_run=True), host=host)
    assert done.tags == (wanted,)
    assert set(done.kept) == ({TAG} if taken else set())
    assert (_tags(target), contents(world.storage, "")) == (before, stored)
    assert host.received == b""


def test_a_dry_run_refuses_what_the_real_one_would_refuse() -> None:
    """A conflict and a missing archive are found without the last step."""
    world = World()
    backup = world.backup(1).backup
    with pytest.raises(ConflictError):
        world.restore(backup, RestoreRequest(tags=(TAG,), dry_run=True), host=_target())
    world.storage.delete(_archive(backup))
    with pytest.raises(NotFoundError, match=r"image-.*\.tar is not there"):
        world.restore(backup, RestoreRequest(dry_run=True), host=_target())


@pytest.mark.parametrize(
    "fields",
    [
        {"tags": ("",)},
        {"tags": ("-v",)},
        {"tags": ("Upper:1",)},
        {"tags": ("good:1", "bad tag:1")},
        {"tags": ("app:1;id",)},
        {"tags": ("sha256:" + "0" * 64,)},
        {"tags": ("app@sha256:" + "0" * 64,)},
        {"tags": ("app:1@sha256:" + "0" * 64,)},
        {"method": "unpack"},
        {"method": "import"},
    ],
    ids=str,
)
def test_wrong_names_and_methods_are_refused_before_the_host_is_touched(fields: dict[str, Any]) -> None:
    """Nothing that is no ``NAME:TAG`` gets near the target; an image cannot be imported."""
    world, plan = World(), Plan()
    backup = world.backup(1).backup
    with pytest.raises(ConfigurationError):
        world.restore(backup, RestoreRequest(**fields), host=FaultyHost(_target(), plan))
    assert plan.calls == []


@SOURCES
@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("harm", ["flipped", "late", "cut"])
def test_a_damaged_archive_never_completes_a_load_and_moves_no_tag(
    source: Source, compression: Compression, harm: str
) -> None:
    """The last piece does not come, the target's tags are as they were, and the trail says failed."""
    world, target = World(), _target()
    backup = world.backup(1, source, compression=compression).backup
    whole = _Receiving(_target())
    request = RestoreRequest(tags=(TAG,), replace_tags=True)
    world.restore(backup, request, host=whole)
    path = _archive(backup)
    good = world.storage.read(path)
    if harm == "cut":
        spoil(world.storage, path, data=good[:-1])
    else:
        spoil(world.storage, path, position=len(good) // 2 if harm == "flipped" else len(good) - 12)
    before, host = _tags(target), _Receiving(target)
    faulty = FaultyStorage(world.storage, Plan(), piece_bytes=PIECE_BYTES)
    with pytest.raises(IntegrityError, match=r"record says|corrupt|ends early|tar|block|byte"):
        world.restore(backup, request, host=host, repository=world.on(faulty))
    assert whole.ended
    assert not host.ended
    assert len(host.received) < len(whole.received)
    assert _tags(target) == before
    events = [world.storage.read(each) for each in paths(world.storage, prefix="audit")]
    assert sum(b"restore.failed" in event for event in events) == 1


@SOURCES
def test_no_flipped_bit_anywhere_completes_a_load(source: Source) -> None:
    """For bits all over the archive: the load is never given its end."""
    world = World()
    backup = world.backup(1, source).backup
    repository = world.on(FaultyStorage(world.storage, Plan(), piece_bytes=PIECE_BYTES))
    for position in range(0, backup.whole().archive_file.stored_size_bytes, 331):
        spoil(world.storage, _archive(backup), position=position)
        target = _target()
        host, before = _Receiving(target), _tags(target)
        with pytest.raises(IntegrityError):
            world.restore(backup, RestoreRequest(), host=host, repository=repository)
        assert not host.ended, position
        assert _tags(target) == before
        spoil(world.storage, _archive(backup), position=position)


class _Substituting(FaultyHost):
    """A host that loads something else under the name."""

    config: dict[str, str] | None = None

    def load_image(self, chunks: Iterable[bytes]) -> LoadedImage:
        loaded = super().load_image(chunks)
        version = "one" if self.config else "two"
        return super().load_image([app_archive(version, tag=loaded.names[0], config=self.config)])


@pytest.mark.parametrize(
    ("config", "message"), [(None, "ship-2 loaded diff_ids"), ({"User": "x"}, "ship-2 loaded configuration sha256:")]
)
def test_a_target_that_holds_something_else_gets_no_tag(config: dict[str, str] | None, message: str) -> None:
    """What was loaded is compared before any name is moved; the message names the target and the backup."""
    world, target = World(), _target()
    backup = world.backup(1).backup
    before = _tags(target)
    host = _Substituting(target)
    host.config = config
    with pytest.raises(IntegrityError, match=rf"{message}.* from backup {backup.backup_id}"):
        world.restore(backup, RestoreRequest(tags=(TAG,), replace_tags=True), host=host)
    assert _tags(target) == before


@FAULTS
@pytest.mark.parametrize(
    ("source", "method"),
    [(IMAGE, "load"), (CONTAINER, "load"), (CONTAINER, "import")],
    ids=["image", "container", "import"],
)
def test_a_fault_loses_no_image_of_the_target_and_the_next_restore_heals(
    source: Source, method: Any, fault: Fault
) -> None:
    """Each call to storage and target fails once: each old image keeps a name, the backup stays, the next one works."""
    request = RestoreRequest(tags=(TAG, "lab/second:1"), replace_tags=True, method=method)
    counting, world = Plan(), World()
    backup = world.backup(1, source).backup
    world.restore(
        backup,
        request,
        host=FaultyHost(_target(), counting),
        repository=world.on(FaultyStorage(world.storage, counting)),
    )
    for at in range(1, len(counting.calls) + 1):
        world, target, plan = World(), _target(), Plan(at, fault)
        backup = world.backup(1, source).backup
        good, before = contents(world.storage, backup.path), _tags(target)
        try:
            repository = world.on(FaultyStorage(world.storage, plan))
            world.restore(backup, request, host=FaultyHost(target, plan), repository=repository)
            assert world.progress.notes  # only a lost event or the clean-up of our own name let it go on
        except (TransientError, Death):
            pass
        assert contents(world.storage, backup.path) == good
        assert set(before.values()) <= set(_tags(target).values())
        assert target.inspect_image("lab/unrelated:1").id == before["lab/unrelated:1"]
        done = world.restore(backup, request, host=target)
        assert _tags(target)[TAG] == _tags(target)["lab/second:1"] == done.image_id
        # Each import makes an image of its own, which nobody can tell from one that is wanted.
        assert method == "import" or not any(name.startswith("dockerbackup-restored:") for name in _tags(target))
        assert set(before.values()) <= set(_tags(target).values())


class _Refusing(FaultyHost):
    """A host that refuses to load, if it is told so, and to remove."""

    loads = False

    def load_image(self, chunks: Iterable[bytes]) -> LoadedImage:
        if not self.loads:
            raise ConfigurationError("docker load: refused")
        return super().load_image(chunks)

    def remove_image(self, reference: str) -> None:
        raise ConfigurationError(f"docker rmi {reference}: refused")


class _Silent(_Refusing):
    """One that does not let us look at images either."""

    def inspect_image(self, reference: str) -> ImageInspect:
        raise ConfigurationError(f"docker image inspect {reference}: refused")


def test_of_a_name_that_nobody_may_look_at_it_is_not_said_that_it_stays() -> None:
    """It may."""
    progress = Notes()
    own = WorkingName("dockerbackup-restored", "20260302T060000Z-0123456789abcdef")
    own.remove(_Silent(MemoryDockerHost("ship-2")), progress)
    assert progress.notes == [f"the name {own.tag} may stay on ship-2: docker rmi {own.tag}: refused"]


def test_a_name_that_cannot_be_removed_is_told_only_if_it_was_made() -> None:
    """Nobody looks for what was never there."""
    world, target = World(), MemoryDockerHost("ship-2")
    backup = world.backup(1).backup
    host = _Refusing(target)
    with pytest.raises(ConfigurationError, match="docker load: refused"):
        world.restore(backup, RestoreRequest(tags=(TAG,)), host=host)
    assert not [note for note in world.progress.notes if "stay" in note]
    host.loads = True
    world.restore(backup, RestoreRequest(tags=(TAG,)), host=host)
    (note,) = [note for note in world.progress.notes if "stay" in note]
    assert note.removeprefix("the name ").partition(" stays on ship-2: docker rmi ")[0] in _tags(target)


def test_a_link_that_is_lost_before_the_comparison_moves_no_tag() -> None:
    """Every call up to the first tag can fail: the target's names are as they were."""
    counting, world = Plan(), World()
    backup = world.backup(1).backup
    request = RestoreRequest(tags=(TAG,), replace_tags=True)
    world.restore(backup, request, host=FaultyHost(_target(), counting))
    for at in range(1, counting.calls.index("tag_image") + 2):
        target = _target()
        before = _tags(target)
        with pytest.raises(TransientError):
            world.restore(backup, request, host=FaultyHost(target, Plan(at)))
        assert _tags(target) == before


def test_a_backup_whose_record_is_unreadable_is_not_restored() -> None:
    """Nobody can say what its bytes should be, so the target is not asked for anything."""
    world, plan = World(), Plan()
    backup = world.backup(1).backup
    spoil(world.storage, f"{backup.path}backup.json", data=b"{")
    with pytest.raises(DockerBackupError, match=rf"record of backup .* of {HOST} image lab/app:1 is unreadable"):
        world.restore(world.again(backup), RestoreRequest(), host=FaultyHost(_target(), plan))
    assert plan.calls == []
