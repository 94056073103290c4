# SPDX-License-Identifier: Apache-2.0
"""Nothing is removed from a host unless a verified backup holds exactly it, and still does right before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.audit.event import AuditEvent
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.ports import DockerHost, Storage
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.remove import RemoveOutcome, RemoveRequest, remove_source
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.memory import MemoryStorage, MemoryTestDaemon
from tests.core.faults import Death, Fault, FaultyStorage, Plan
from tests.core.faulty_docker import FaultyHost
from tests.core.world import CONTAINER, FILESYSTEM, IMAGE, World, app_archive, spoil


def remove(
    world: World, source: Source, *, host: DockerHost | None = None, storage: Storage | None = None, **request: Any
) -> RemoveOutcome:
    """Remove a source from its host."""
    asked = RemoveRequest(**{"kind": source.kind, "name": source.name, **request})
    return remove_source(
        asked, host=host or world.host, repository=world.on(storage or world.storage), progress=world.progress
    )


def verified(world: World, source: Source, run: int = 1) -> Backup:
    """Back a source up, stopped if it is a container, and verify the backup."""
    if source.kind is SourceKind.CONTAINER:
        world.host.stop_container(source.name, timeout_seconds=1)
    backup = world.backup(run, source).backup
    assert world.verify(backup).proves_restore
    return backup


def free_image(world: World) -> None:
    """Remove the container that uses the image."""
    world.host.stop_container("web", timeout_seconds=1)
    world.host.remove_container("web")


def is_there(world: World, source: Source) -> bool:
    """Tell whether the host still has it."""
    try:
        if source.kind is SourceKind.CONTAINER:
            world.host.inspect_container(source.name)
        else:
            world.host.inspect_image(source.name)
    except NotFoundError:
        return False
    return True


def events(storage: Storage, kind: str = "remove") -> list[tuple[str, str]]:
    """Return type and outcome of the events about removals, in order."""
    found = [AuditEvent.from_bytes(storage.read(info.path), where=info.path) for info in storage.list("audit")]
    mine = sorted((each for each in found if each.type.startswith(kind)), key=lambda each: each.time)
    return [(each.type, each.outcome) for each in mine]


@pytest.fixture
def world() -> World:
    """A repository, and a host with an image and a container."""
    return World()


def test_a_container_goes_when_a_verified_backup_was_taken_after_it_stopped(world: World) -> None:
    """The outcome names the backup and the volumes that stay; the trail holds intent and outcome."""
    backup = verified(world, CONTAINER)
    mounts = [
        {"Type": "volume", "Name": "data", "Destination": "/data"},
        {"Type": "volume", "Name": "5e" * 32, "Destination": "/cache"},
        {"Type": "bind", "Source": "/srv", "Destination": "/srv"},
    ]
    world.host.container("web").document["Mounts"] = mounts
    done = remove(world, CONTAINER)
    assert (done.status, done.backup.backup_id) == ("removed", backup.backup_id)
    assert done.volumes_left == ("data", "5e" * 32)
    assert not is_there(world, CONTAINER)
    assert events(world.storage) == [("remove.started", "intent"), ("remove.done", "success")]


def test_an_image_goes_when_a_verified_backup_holds_it(world: World) -> None:
    """Its only tag and its layers are gone."""
    backup = verified(world, IMAGE)
    free_image(world)
    done = remove(world, IMAGE)
    assert (done.status, done.backup.backup_id) == ("removed", backup.backup_id)
    assert not is_there(world, IMAGE)


def test_a_dry_run_checks_and_touches_neither_host_nor_repository(world: World) -> None:
    """It refuses what would be refused, and else says what would be done."""
    with pytest.raises(ConflictError, match="is running"):
        remove(world, CONTAINER, dry_run=True)
    verified(world, CONTAINER)
    before = {info.path for info in world.storage.list("")}
    assert remove(world, CONTAINER, dry_run=True).status == "removed"
    assert is_there(world, CONTAINER)
    assert {info.path for info in world.storage.list("")} == before


def running(world: World) -> None:
    """The container was backed up stopped and runs again."""
    verified(world, CONTAINER)
    world.host.start_container("web")


def paused(world: World) -> None:
    """The container is paused."""
    verified(world, CONTAINER)
    world.host.container("web").document["State"]["Status"] = "paused"


def no_backup(world: World) -> None:
    """Stopped, never backed up."""
    world.host.stop_container("web", timeout_seconds=1)


def snapshot(world: World) -> None:
    """A verified snapshot of the running container, which then stopped."""
    assert world.verify(world.backup(1, CONTAINER).backup).proves_restore
    world.host.stop_container("web", timeout_seconds=1)


def restarted(world: World) -> None:
    """Started and stopped again since the backup."""
    verified(world, CONTAINER)
    world.host.start_container("web")
    world.host.stop_container("web", timeout_seconds=1)


def ended_again(world: World) -> None:
    """Its end is another than the recorded one, its start is the same."""
    verified(world, CONTAINER)
    world.host.container("web").document["State"]["FinishedAt"] = "2026-03-01T06:00:00Z"


def untold_times(world: World) -> None:
    """The engine says neither then nor now when the container was started."""
    world.host.stop_container("web", timeout_seconds=1)
    world.host.container("web").document["State"]["StartedAt"] = ""
    verified(world, CONTAINER)


def another_of_that_name(world: World) -> None:
    """The backup is of a container that is gone; another has its name."""
    verified(world, CONTAINER)
    world.host.remove_container("web")
    world.host.add_container("web", image=IMAGE.name, filesystem=FILESYSTEM, status="exited")


def unverified(world: World) -> None:
    """Backed up only."""
    world.host.stop_container("web", timeout_seconds=1)
    world.backup(1, CONTAINER)


def digests_only(world: World) -> None:
    """Read again, never restored."""
    world.host.stop_container("web", timeout_seconds=1)
    world.verify(world.backup(1, CONTAINER).backup, "digests")


def failed_since(world: World) -> None:
    """Verified, then found damaged."""
    backup = verified(world, CONTAINER)
    spoil(world.storage, backup.path + backup.whole().archive_file.name)
    assert world.verify(backup, "digests").verification == "failed"


def incomplete(world: World) -> None:
    """Verified, then its archive went."""
    backup = verified(world, CONTAINER)
    world.storage.delete(backup.path + backup.whole().archive_file.name)


def unreadable(world: World) -> None:
    """Verified, then its record was spoilt."""
    backup = verified(world, CONTAINER)
    spoil(world.storage, backup.path + "backup.json", data=b"{}")


def deleted(world: World) -> None:
    """Verified, then deleted."""
    backup = verified(world, CONTAINER)
    world.storage.create(backup.path + "deleted-20260301T060000Z.json", b"{}")


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (running, "is running and is not removed; stop it, export it, verify"),
        (paused, "is paused and is not removed"),
        (no_backup, "there is no backup of it; export it now that it is stopped"),
        (snapshot, r"was taken before it stopped \(capture snapshot\)"),
        (restarted, "was taken before the container was last started"),
        (ended_again, "was taken before the container last stopped"),
        (untold_times, "was taken before the container was last started"),
        (another_of_that_name, "there is no backup of it"),
        (unverified, "is not verified, and level load is demanded"),
        (digests_only, "is only checked, and level load is demanded"),
        (failed_since, "is failed, and level load is demanded"),
        (incomplete, "lacks files"),
        (unreadable, "there is no backup of it"),
        (deleted, "there is no backup of it"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_a_container_stays_without_a_backup_that_would_do(
    world: World, prepare: Callable[[World], None], says: str
) -> None:
    """The refusal says what the nearest backup lacks; host and trail are not touched."""
    prepare(world)
    with pytest.raises(ConflictError, match=says):
        remove(world, CONTAINER)
    assert is_there(world, CONTAINER)
    assert events(world.storage) == []


def test_an_image_stays_when_only_another_version_of_it_is_backed_up(world: World) -> None:
    """A tag that moved since the backup stands for an image that nobody has saved."""
    verified(world, IMAGE)
    world.host.add_archive(app_archive("two"))
    with pytest.raises(ConflictError, match="there is no backup of it; save it"):
        remove(world, IMAGE)
    assert is_there(world, IMAGE)


def test_a_file_put_into_a_stopped_container_is_noticed_when_files_are_compared(world: World) -> None:
    """It changes neither ID nor times; what did not change is removed."""
    verified(world, CONTAINER)
    assert remove(world, CONTAINER, compare_files=True, dry_run=True).status == "removed"
    world.host.container("web").filesystem = FILESYSTEM + bytes(10240)
    for dry_run in (True, False):
        with pytest.raises(ConflictError, match="its files are not those of backup"):
            remove(world, CONTAINER, compare_files=True, dry_run=dry_run)
    assert is_there(world, CONTAINER)
    assert events(world.storage) == []
    assert world.progress.open == 0
    world.host.container("web").filesystem = FILESYSTEM
    assert remove(world, CONTAINER, compare_files=True).status == "removed"


def test_an_image_that_a_container_uses_stays(world: World) -> None:
    """Also when the container is stopped; it is named."""
    verified(world, IMAGE)
    world.host.stop_container("web", timeout_seconds=1)
    for name in (IMAGE.name, world.host.inspect_image(IMAGE.name).id):
        with pytest.raises(ConflictError, match="is used by container web; remove what uses it first"):
            remove(world, IMAGE, name=name)
    assert is_there(world, IMAGE)
    assert events(world.storage) == []


def test_of_an_image_with_several_tags_only_the_tag_goes(world: World) -> None:
    """By ID it is refused; by tag the image stays under the others, with the container that uses it."""
    verified(world, IMAGE)
    image = world.host.inspect_image(IMAGE.name)
    world.host.tag_image(image.id, reference="lab/app:stable")
    with pytest.raises(ConflictError, match="several tags: lab/app:1, lab/app:stable; remove them one by one"):
        remove(world, IMAGE, name=image.id)
    assert remove(world, IMAGE, dry_run=True).status == "untagged"
    assert remove(world, IMAGE).status == "untagged"
    assert world.host.inspect_image(image.id).repo_tags == ("lab/app:stable",)


@pytest.mark.parametrize(
    ("source", "request_", "says"),
    [
        (IMAGE, {"name": "docker.io/lab/app@sha256:" + "0" * 64}, "expected NAME:TAG or an ID"),
        (IMAGE, {"name": "Not A Tag"}, "is not one Docker accepts"),
        (CONTAINER, {"name": "a b"}, "is not one Docker accepts"),
        (CONTAINER, {"required_level": "deep"}, "required_level: expected one of digests, load, run, got 'deep'"),
    ],
)
def test_bad_input_is_refused(world: World, source: Source, request_: dict[str, Any], says: str) -> None:
    """Before the host is asked."""
    with pytest.raises(ConfigurationError, match=says):
        remove(world, source, host=FaultyHost(world.host, Plan(1)), **request_)


def test_the_demanded_level_decides(world: World) -> None:
    """A level is reached by itself or a higher one; a failure since takes it away."""
    world.host.stop_container("web", timeout_seconds=1)
    backup = world.backup(1, CONTAINER).backup
    world.verify(backup, "digests")
    assert remove(world, CONTAINER, required_level="digests", dry_run=True).status == "removed"
    world.verify(backup, "load")
    assert remove(world, CONTAINER, required_level="digests", dry_run=True).status == "removed"
    assert remove(world, CONTAINER, required_level="load", dry_run=True).status == "removed"
    with pytest.raises(ConflictError, match="is verified, and level run is demanded"):
        remove(world, CONTAINER, required_level="run", dry_run=True)
    assert world.verify(backup, "run").proves_restore
    assert remove(world, CONTAINER, required_level="run", dry_run=True).status == "removed"
    archive = backup.path + backup.whole().archive_file.name
    data = world.storage.read(archive)
    spoil(world.storage, archive)
    assert world.verify(backup, "digests").verification == "failed"
    spoil(world.storage, archive, data=data)
    assert world.verify(backup, "load").proves_restore
    with pytest.raises(ConflictError, match="level run is demanded"):
        remove(world, CONTAINER, required_level="run", dry_run=True)


def test_a_load_into_a_daemon_that_knew_a_layer_does_not_count(world: World) -> None:
    """It proves nothing about that layer."""
    backup = world.backup(1, IMAGE).backup
    daemon = MemoryTestDaemon(disposable=False)
    daemon.load(world.host.save_image(world.host.inspect_image(IMAGE.name).id))
    assert world.verify(backup, daemon=daemon).verification == "passed"
    free_image(world)
    with pytest.raises(ConflictError, match="is only checked"):
        remove(world, IMAGE)


def test_a_backup_of_the_same_image_from_another_host_counts(world: World) -> None:
    """Its digests say that it is the very same."""
    other = World(storage=world.storage)
    source = replace_host(IMAGE, "ship-9")
    backup = other.backup(1, source).backup
    world.verify(backup)
    free_image(world)
    assert remove(world, IMAGE).backup.source == source


def replace_host(source: Source, host: str) -> Source:
    """Return the same source on another host."""
    return Source(host=host, kind=source.kind, name=source.name)


def meddling(world: World, call: str, number: int, change: Callable[[], None]) -> FaultyHost:
    """Return the host, on which something changes before the ``number``-th call of that name."""
    seen = []

    def meanwhile(name: str) -> None:
        if name == call:
            seen.append(name)
            if len(seen) == number:
                change()

    return FaultyHost(world.host, meanwhile=meanwhile)


def test_a_container_that_was_restarted_between_check_and_removal_stays(world: World) -> None:
    """It is looked at once more after the intent, and compared."""
    verified(world, CONTAINER)

    def restart() -> None:
        world.host.start_container("web")
        world.host.stop_container("web", timeout_seconds=1)

    with pytest.raises(ConflictError, match="it changed while its backup was looked for"):
        remove(world, CONTAINER, host=meddling(world, "inspect_container", 2, restart))
    assert is_there(world, CONTAINER)
    assert events(world.storage) == [("remove.started", "intent"), ("remove.failed", "failure")]


@pytest.mark.parametrize("call", [("inspect_container", 2), ("remove_container_keeping_volumes", 1)])
def test_a_container_that_runs_again_is_never_killed(world: World, call: tuple[str, int]) -> None:
    """Started before the second look it is seen; started after it, Docker itself refuses without force."""
    verified(world, CONTAINER)
    with pytest.raises(ConflictError):
        remove(world, CONTAINER, host=meddling(world, *call, lambda: world.host.start_container("web")))
    assert world.host.inspect_container("web").status == "running"


@pytest.mark.parametrize("call", [("inspect_container", 2), ("remove_container_keeping_volumes", 1)])
def test_two_at_once_remove_it_once_and_both_say_so(world: World, call: tuple[str, int]) -> None:
    """Whoever comes second finds it gone, before its own removal or by it."""
    backup = verified(world, CONTAINER)
    first: list[RemoveOutcome] = []
    done = remove(world, CONTAINER, host=meddling(world, *call, lambda: first.append(remove(world, CONTAINER))))
    assert first[0].status == "removed"
    assert done.status == ("already" if call[0] == "inspect_container" else "removed")
    assert done.backup.backup_id == backup.backup_id


def test_a_container_that_took_the_name_meanwhile_stays(world: World) -> None:
    """Removed is by ID, so another one of that name is not touched."""
    verified(world, CONTAINER)

    def take() -> None:
        world.host.remove_container("web")
        world.host.add_container("web", image=IMAGE.name, filesystem=FILESYSTEM, status="exited")

    remove(world, CONTAINER, host=meddling(world, "remove_container_keeping_volumes", 1, take))
    assert is_there(world, CONTAINER)


@pytest.mark.parametrize(("call", "refused"), [(("inspect_image", 2), True), (("remove_image", 1), False)])
def test_a_tag_that_moves_meanwhile_costs_nobody_an_image(world: World, call: tuple[str, int], refused: bool) -> None:
    """Seen, it is refused; not seen, what was checked goes by its ID, and what the tag means now stays."""
    verified(world, IMAGE)
    free_image(world)
    old = world.host.inspect_image(IMAGE.name).id

    def move() -> None:
        world.host.add_archive(app_archive("two"))

    host = meddling(world, *call, move)
    if refused:
        with pytest.raises(ConflictError, match="it changed while"):
            remove(world, IMAGE, host=host)
    else:
        assert remove(world, IMAGE, host=host).status == "removed"
    assert world.host.inspect_image(IMAGE.name).id != old
    if refused:
        assert world.host.inspect_image(old).id == old


def test_a_second_tag_that_comes_meanwhile_keeps_the_image(world: World) -> None:
    """The engine does not remove by ID what has two names."""
    verified(world, IMAGE)
    free_image(world)
    image_id = world.host.inspect_image(IMAGE.name).id
    host = meddling(world, "remove_image", 1, lambda: world.host.tag_image(image_id, reference="lab/app:kept"))
    with pytest.raises(ConflictError):
        remove(world, IMAGE, host=host)
    assert world.host.inspect_image(image_id).repo_tags == (IMAGE.name, "lab/app:kept")


@pytest.mark.parametrize("loss", [deleted, incomplete, failed_since], ids=lambda loss: loss.__name__)
def test_a_backup_that_goes_between_check_and_removal_saves_the_container(
    world: World, loss: Callable[[World], None]
) -> None:
    """Rotation, or somebody, may be at work: the backup is looked at again too."""
    backup = verified(world, CONTAINER)
    lost: list[str] = []

    class Losing(MemoryStorage):
        """Loses the backup when the intent is written."""

        def __getattribute__(self, name: str) -> Any:
            if name != "create" or lost:
                return getattr(world.storage, name)
            lost.append(name)
            if loss is deleted:
                world.storage.create(backup.path + "deleted-20260301T060000Z.json", b"{}")
            else:
                archive = backup.path + backup.whole().archive_file.name
                if loss is incomplete:
                    world.storage.delete(archive)
                else:
                    spoil(world.storage, archive)
                    world.verify(backup, "digests")
            return world.storage.create

    with pytest.raises(ConflictError, match=f"backup {backup.backup_id} .* since it was looked at"):
        remove(world, CONTAINER, storage=Losing())
    assert is_there(world, CONTAINER)


def test_nothing_is_removed_when_the_intent_cannot_be_written(world: World) -> None:
    """Deletion fails closed."""
    verified(world, CONTAINER)
    plan = Plan()
    remove(world, CONTAINER, storage=FaultyStorage(world.storage, plan), dry_run=True)
    writing = [name for name in plan.calls if name.startswith("create")]
    assert writing == []
    host = FaultyHost(world.host, Plan())
    with pytest.raises(TransientError, match=r"is not touched, for the audit trail does not take .*remove\.started"):
        remove(world, CONTAINER, host=host, storage=FaultyStorage(world.storage, Plan(len(plan.calls) + 1)))
    assert is_there(world, CONTAINER)


def steps(world: World, source: Source) -> int:
    """Return how many calls to host and storage a removal makes."""
    plan = Plan()
    remove(world, source, host=FaultyHost(world.host, plan), storage=FaultyStorage(world.storage, plan))
    return len(plan.calls)


def prepared(source: Source) -> World:
    """Return a world in which a source can be removed."""
    world = World()
    verified(world, source)
    if source.kind is SourceKind.IMAGE:
        free_image(world)
    return world


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("source", [CONTAINER, IMAGE], ids=str)
def test_a_removal_that_is_cut_anywhere_is_put_right_by_the_next_run(source: Source, fault: Fault) -> None:
    """Whatever call fails or is the last: gone only after an intent, and the next run ends with an outcome."""
    for at in range(1, steps(prepared(source), source) + 1):
        world = prepared(source)
        plan = Plan(at, fault)
        told = ""
        try:
            done = remove(world, source, host=FaultyHost(world.host, plan), storage=FaultyStorage(world.storage, plan))
            told = done.status
        except (TransientError, Death):
            pass
        if not is_there(world, source):
            assert ("remove.started", "intent") in events(world.storage), plan.calls
        assert not told or not is_there(world, source)
        again = remove(world, source) if not told else None
        assert again is None or again.status in {"removed", "already"}
        assert not is_there(world, source)
        if again is not None:
            assert events(world.storage)[-1] == ("remove.done", "success")


def test_what_is_not_there_is_already_removed_only_if_a_backup_of_it_would_do(world: World) -> None:
    """A mistyped name is told as such."""
    ids = {CONTAINER: world.host.inspect_container("web").id, IMAGE: world.host.inspect_image(IMAGE.name).id}
    for source in (CONTAINER, IMAGE):
        verified(world, source)
        remove(world, source)
        for name in (source.name, ids[source]):
            assert remove(world, source, name=name).status == "already"
            assert remove(world, source, name=name, dry_run=True).audit_head is None
        with pytest.raises(NotFoundError):
            remove(world, source, name="typo")
        with pytest.raises(NotFoundError):
            remove(world, source, required_level="run")


def test_a_snapshot_does_not_make_a_missing_container_already_removed(world: World) -> None:
    """What it wrote after the snapshot was never backed up."""
    snapshot(world)
    world.host.remove_container("web")
    with pytest.raises(NotFoundError):
        remove(world, CONTAINER)


def test_a_name_that_begins_another_containers_id_is_not_taken_for_it(world: World) -> None:
    """Docker would take it."""
    verified(world, CONTAINER)

    class Abbreviating(FaultyHost):
        """Finds containers by the beginning of their ID, as Docker does."""

        def inspect_container(self, name: str) -> Any:
            found = world.host.inspect_container("web")
            return found if found.id.startswith(name) else super().inspect_container(name)

    host = Abbreviating(world.host)
    short = world.host.inspect_container("web").id[:12]
    with pytest.raises(NotFoundError, match="whole name or ID"):
        remove(world, CONTAINER, host=host, name=short)
    assert is_there(world, CONTAINER)
