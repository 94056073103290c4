# SPDX-License-Identifier: Apache-2.0
"""Tags rolled back on a Docker host in memory: to earlier backups, to earlier steps, and with faults at every call."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext, suppress
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.drill import DrillPlan
from airflow_provider_dockerbackup.core.model import LoadedImage, RunningContainer, SourceKind
from airflow_provider_dockerbackup.core.ports import DockerHost, TestDaemon
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.rollback import (
    ROLLBACK,
    RollbackOutcome,
    RollbackRequest,
    find_backup,
    roll_back,
)
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    IntegrityError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost, MemoryTestDaemon
from tests.core.archive.making import golden, scan
from tests.core.faults import Death, Fault, FaultyStorage, Plan
from tests.core.faulty_docker import FaultyDaemon, FaultyHost
from tests.core.world import CONTAINER, HOST, IMAGE, World, app_archive, contents, spoil

TAG = IMAGE.name
CLASSIC = "engine-20.10-graphdriver.tar"
LOAD = RollbackRequest(tag=TAG, prove="load")
ENDED = RunningContainer(running=False, exit_status=3)


def tags(host: MemoryDockerHost) -> dict[str, str]:
    """Return what each tag of a host stands for."""
    return {each.reference: each.id for each in host.list_images()}


def two_versions() -> tuple[World, Backup, Backup]:
    """Return a world whose image was saved, changed under the same tag, and saved again."""
    world = World()
    first = world.backup(1).backup
    world.host.add_archive(app_archive("two"))
    return world, first, world.backup(2).backup


def three_versions() -> World:
    """Return a world whose image was saved in three versions, the newest of them under the tag."""
    world, _, _ = two_versions()
    world.host.add_archive(app_archive("three"))
    world.backup(3)
    return world


def back(
    world: World,
    backup: Backup,
    request: RollbackRequest = LOAD,
    *,
    host: DockerHost | None = None,
    daemon: TestDaemon | None = None,
    repository: Repository | None = None,
) -> RollbackOutcome:
    """Roll back on the world's host unless another one is given."""
    return roll_back(
        backup,
        request,
        host=host or world.host,
        repository=repository or world.repository,
        test_daemon=lambda: nullcontext(daemon or MemoryTestDaemon()),
        progress=world.progress,
    )


def test_a_tag_goes_back_to_the_backup_before_and_forth_again() -> None:
    """The tag stands for the old image, the new one has a second name, and the rollback can be rolled back."""
    world, first, second = two_versions()
    new = world.host.inspect_image(TAG).id
    found = find_backup(world.repository, "previous", tag=TAG, host=world.host)
    assert found.backup_id == first.backup_id
    done = back(world, found)
    old = done.image_id
    assert old in first.whole().image.known_ids  # type: ignore[union-attr]
    assert tags(world.host) == {TAG: old, f"lab/app:before-{first.backup_id}": new}
    assert (done.previous_id, done.kept) == (new, f"lab/app:before-{first.backup_id}")
    assert done.proven == ("test daemon", "target")
    again = back(world, second)
    assert again.image_id == new
    assert tags(world.host)[TAG] == new
    assert tags(world.host)[again.kept] == old


@pytest.mark.parametrize("step", [None, 1])
@pytest.mark.parametrize("fault", list(Fault))
def test_a_repeated_rollback_to_the_previous_backup_never_rolls_forth(step: int | None, fault: Fault) -> None:
    """A retried task, wherever its first try ended: the bad image does not come back, and no further one is taken."""
    request = RollbackRequest(tag=TAG, step=step, prove="none")

    def previous(world: World, host: DockerHost) -> RollbackOutcome:
        found = find_backup(world.repository, "previous", tag=TAG, host=host, step=step)
        return back(world, found, request, host=host)

    counting = Plan()
    world = three_versions()
    wanted = previous(world, FaultyHost(world.host, counting)).image_id
    for at in range(1, len(counting.calls) + 1):
        world = three_versions()
        bad = tags(world.host)[TAG]
        with suppress(TransientError, Death):
            previous(world, FaultyHost(world.host, Plan(at, fault)))
        for _ in range(2):
            done = previous(world, world.host)
            assert tags(world.host)[TAG] == done.image_id == wanted, counting.calls[at - 1]
        assert any(image == bad and name.startswith("lab/app:before-") for name, image in tags(world.host).items())


def test_previous_to_a_tag_that_stands_for_nothing_asks_for_an_id() -> None:
    """The newest backup may be the very image that was removed for being bad."""
    world, _, _ = two_versions()
    with pytest.raises(NotFoundError, match=r"lab/app:1 stands for nothing on ship-2, .* give the id of the backup"):
        find_backup(world.repository, "previous", tag=TAG, host=MemoryDockerHost("ship-2"))


def test_a_second_name_that_is_itself_rolled_back_keeps_what_it_stood_for() -> None:
    """The image would have lost its only name to the one that shall keep it."""
    world, first, _ = two_versions()
    kept = back(world, first).kept
    bad = tags(world.host)[kept]
    done = back(world, first, RollbackRequest(tag=kept, prove="load"))
    assert tags(world.host)[kept] == done.image_id
    assert tags(world.host)[done.kept] == bad


def test_previous_is_of_this_very_tag_and_host() -> None:
    """Backups of other tags and other hosts do not count; the message says where to look."""
    world = World()
    world.backup(1)
    world.host.add_archive(app_archive("two", tag="lab/app:2"))
    world.backup(1, Source(host=HOST, kind=SourceKind.IMAGE, name="lab/app:2"))
    with pytest.raises(
        NotFoundError, match=r"no backup of ship-1 image lab/app:1 in .* another image.*dockerbackup list"
    ):
        find_backup(world.repository, "previous", tag=TAG, host=world.host)
    elsewhere = MemoryDockerHost("ship-9")
    elsewhere.add_archive(app_archive("nine"))
    with pytest.raises(NotFoundError, match="no backup of ship-9"):
        find_backup(world.repository, "previous", tag=TAG, host=elsewhere)


def test_a_tag_that_stands_for_it_already_is_left_alone() -> None:
    """Nothing is loaded, and the outcome says so."""
    world, _, second = two_versions()
    before, plan = tags(world.host), Plan()
    done = back(world, second, host=FaultyHost(world.host, plan))
    assert "stands for this image already" in done.notes[0]
    assert tags(world.host) == before
    assert "load_image" not in plan.calls


def test_a_tag_that_stands_for_nothing_is_made() -> None:
    """On a fresh host there is nothing to keep."""
    world, first, _ = two_versions()
    target = MemoryDockerHost("ship-2")
    done = back(world, first, host=target)
    assert (done.previous_id, done.kept) == ("", "")
    assert tags(target) == {TAG: done.image_id}


def test_a_containers_backup_gives_the_tag_its_filesystem() -> None:
    """An export is an image of one layer; it has no history to go back in."""
    world = World()
    backup = world.backup(1, CONTAINER).backup
    done = back(world, backup)
    assert done.image_id == tags(world.host)[TAG]
    assert done.notes == (f"backup {backup.backup_id} is one of ship-1 container web, not of image {TAG}",)
    with pytest.raises(ConfigurationError, match="one of a container, whose history is not in it"):
        back(world, backup, RollbackRequest(tag=TAG, step=1, prove="load"))


def classic_world() -> tuple[World, Backup, Any]:
    """Return a world with a saved image of a real engine, and what the scanner says of it."""
    world, data = World(), golden(CLASSIC)
    image = scan(data).image
    world.host.add_archive(data)
    source = Source(host=HOST, kind=SourceKind.IMAGE, name=image.repo_tags[0])
    return world, world.backup(1, source).backup, image


def test_every_step_of_a_real_image_can_be_gone_back_to() -> None:
    """Layers and history end there; all steps together are the image itself."""
    world, backup, image = classic_world()
    steps = len(image.history)
    for step in range(1, steps + 1):
        target = MemoryDockerHost("ship-2")
        done = back(world, backup, RollbackRequest(tag="lab/back:1", step=step, prove="load"), host=target)
        held = target.inspect_image("lab/back:1")
        assert held.diff_ids == image.diff_ids[: sum(not each.empty_layer for each in image.history[:step])]
        assert (held.id == image.config_digest) == (step == steps)
        assert not set(done.exact) & set(done.guessed)
        assert set(tags(target)) == {"lab/back:1"}
        assert step < steps or done.guessed == ()


@pytest.mark.parametrize("step", [0, -1, 99])
def test_a_step_that_is_not_there_is_refused_with_those_there_are(step: int) -> None:
    """Before the host is asked for anything."""
    world, backup, image = classic_world()
    plan = Plan()
    with pytest.raises(ConfigurationError, match=rf"step: expected 1 to {len(image.history)}") as caught:
        back(world, backup, RollbackRequest(tag=TAG, step=step), host=FaultyHost(world.host, plan))
    assert str(caught.value).count("\n") == len(image.history)
    assert plan.calls == []


@pytest.mark.parametrize(
    "fields",
    [
        {"tag": ""},
        {"tag": "-v"},
        {"tag": "app:1;id"},
        {"tag": "sha256:" + "0" * 64},
        {"tag": "app@sha256:" + "0" * 64},
        {"prove": "maybe"},
        {"drill": DrillPlan(pids=0)},
    ],
    ids=str,
)
def test_wrong_requests_are_refused_before_the_host_is_touched(fields: dict[str, Any]) -> None:
    """Nothing that is no ``NAME:TAG`` gets near the host."""
    world, first, _ = two_versions()
    plan = Plan()
    with pytest.raises(ConfigurationError):
        back(world, first, RollbackRequest(**{"tag": TAG, **fields}), host=FaultyHost(world.host, plan))
    assert plan.calls == []


@pytest.mark.parametrize("step", [None, 1])
def test_a_dry_run_says_what_would_be_done_and_touches_nothing(step: int | None) -> None:
    """Neither host nor repository nor test daemon is used for more than looking."""
    world, first, _ = two_versions()
    before, stored, plan = tags(world.host), contents(world.storage, ""), Plan()
    done = back(
        world,
        first,
        RollbackRequest(tag=TAG, step=step, dry_run=True),
        host=FaultyHost(world.host, plan),
        daemon=FaultyDaemon(MemoryTestDaemon(), Plan(1)),
    )
    assert (done.image_id, done.kept) == ("", f"lab/app:before-{first.backup_id}")
    assert (tags(world.host), contents(world.storage, "")) == (before, stored)
    assert {"load_image", "tag_image", "create_container"}.isdisjoint(plan.calls)


def test_an_image_that_does_not_run_in_the_test_daemon_moves_no_tag() -> None:
    """The host is not even sent the bytes; the message says how to go on."""
    world, first, _ = two_versions()
    before, plan = tags(world.host), Plan()
    daemon = MemoryTestDaemon(lives=[[ENDED]])
    with pytest.raises(IntegrityError, match=r"does not run in the test daemon, so no tag was moved.*prove: load"):
        back(world, first, RollbackRequest(tag=TAG), host=FaultyHost(world.host, plan), daemon=daemon)
    assert tags(world.host) == before
    assert "load_image" not in plan.calls
    assert daemon.image_ids() == frozenset()
    assert back(world, first, daemon=daemon).drill is None  # only loaded there


def test_how_it_ran_is_in_the_outcome_and_in_the_trail() -> None:
    """Who reads it later sees what was proven."""
    world, first, _ = two_versions()
    done = back(world, first, RollbackRequest(tag=TAG, drill=DrillPlan(probe=("/check",))))
    assert done.drill is not None
    assert done.drill.passed_by == "probe"
    told = b"".join(contents(world.storage, "audit").values())
    assert b'"rollback.started"' in told
    assert b'"rollback.done"' in told
    assert b'"passed_by":"probe"' in told.replace(b'": "', b'":"')


@pytest.mark.parametrize("whose", ["source", "target"])
def test_the_test_daemon_must_be_another_one(whose: str) -> None:
    """A daemon that has the layers already proves nothing."""
    world, first, _ = two_versions()
    target = MemoryDockerHost("ship-2")
    engine = (world.host if whose == "source" else target).engine()
    with pytest.raises(ConfigurationError, match="test daemon is that of the source or of the target"):
        back(world, first, host=target, daemon=MemoryTestDaemon(engine=engine))
    assert tags(target) == {}


def test_without_a_proof_no_test_daemon_is_asked() -> None:
    """The container on the host is created all the same."""
    world, first, _ = two_versions()
    plan = Plan()
    daemon = FaultyDaemon(MemoryTestDaemon(), Plan(1))
    request = RollbackRequest(tag=TAG, prove="none")
    done = back(world, first, request, host=FaultyHost(world.host, plan), daemon=daemon)
    assert done.proven == ("target",)
    assert plan.calls.index("create_container") < plan.calls.index("tag_image")


@pytest.mark.parametrize("step", [None, 1])
def test_a_damaged_archive_moves_no_tag(step: int | None) -> None:
    """For bits all over the archive, with and without a proof first."""
    world, first, _ = two_versions()
    path = first.path + first.whole().archive_file.name
    before = tags(world.host)
    for position in range(7, first.whole().archive_file.stored_size_bytes, 997):
        spoil(world.storage, path, position=position)
        for prove in ("load", "none"):
            with pytest.raises(IntegrityError):
                back(world, first, RollbackRequest(tag=TAG, step=step, prove=prove))
            assert tags(world.host) == before, position
        spoil(world.storage, path, position=position)


class _Substituting(FaultyHost):
    """A host that loads something else under the name."""

    def load_image(self, chunks: Iterable[bytes]) -> LoadedImage:
        loaded = super().load_image(chunks)
        return super().load_image([app_archive("other", tag=loaded.names[0])])


def test_a_host_that_holds_something_else_keeps_its_tag() -> None:
    """What was loaded is compared before any name is moved."""
    world, first, _ = two_versions()
    before = tags(world.host)
    with pytest.raises(IntegrityError, match=r"ship-1 loaded image .* expected configuration"):
        back(world, first, host=_Substituting(world.host, Plan()))
    assert tags(world.host) == before


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("step", [None, 1], ids=["whole", "step"])
def test_a_fault_loses_no_image_and_the_next_run_finishes(fault: Fault, step: int | None) -> None:
    """Each call to storage, host and test daemon fails once: every old image keeps a name, and again works."""
    request = RollbackRequest(tag=TAG, step=step, prove="load")
    counting = Plan()
    world, first, _ = two_versions()
    repository = world.on(FaultyStorage(world.storage, counting))
    host, daemon = FaultyHost(world.host, counting), FaultyDaemon(MemoryTestDaemon(), counting)
    back(world, first, request, host=host, daemon=daemon, repository=repository)
    for at in range(1, len(counting.calls) + 1):
        world, first, second = two_versions()
        old, plan = tags(world.host)[TAG], Plan(at, fault)
        good = contents(world.storage, first.path) | contents(world.storage, second.path)
        try:
            repository = world.on(FaultyStorage(world.storage, plan))
            host, daemon = FaultyHost(world.host, plan), FaultyDaemon(MemoryTestDaemon(), plan)
            back(world, first, request, host=host, daemon=daemon, repository=repository)
            assert world.progress.notes  # only a lost event or a clean-up let it go on
        except (TransientError, Death):
            pass
        assert contents(world.storage, first.path) | contents(world.storage, second.path) == good
        assert old in tags(world.host).values()
        done = back(world, first, request)
        assert tags(world.host)[TAG] == done.image_id != old
        assert tags(world.host)[f"lab/app:before-{first.backup_id}"] == old
        assert set(tags(world.host)) == {TAG, f"lab/app:before-{first.backup_id}"}
        assert {each.name for each in world.host.list_containers()} == {"web"}


def test_a_link_that_is_lost_before_the_comparison_moves_no_tag() -> None:
    """Every call up to the first tag can fail: the host's names are as they were."""
    counting = Plan()
    world, first, _ = two_versions()
    back(world, first, host=FaultyHost(world.host, counting))
    for at in range(1, counting.calls.index("tag_image") + 2):
        world, first, _ = two_versions()
        before = tags(world.host)
        try:
            back(world, first, host=FaultyHost(world.host, Plan(at)))
        except TransientError:
            assert {name: image for name, image in tags(world.host).items() if not name.startswith(ROLLBACK)} == before


def test_another_image_under_the_second_name_is_not_taken_over() -> None:
    """The next free name is used."""
    world, first, _ = two_versions()
    new = world.host.inspect_image(TAG).id
    world.host.add_archive(app_archive("squatter", tag=f"lab/app:before-{first.backup_id}"))
    squatter = world.host.inspect_image(f"lab/app:before-{first.backup_id}").id
    done = back(world, first)
    assert done.kept == f"lab/app:before-{first.backup_id}-2"
    assert {new, squatter, done.image_id} == set(tags(world.host).values())
