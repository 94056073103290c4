# SPDX-License-Identifier: Apache-2.0
"""A container is made anew in steps, any of which may be the last of its process."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.fleet import Selection, wanted
from airflow_provider_dockerbackup.core.recreate import RecreateOutcome, RecreateRequest, restore_container
from airflow_provider_dockerbackup.core.recreate_steps import Position, Standing, Step, next_step, next_step_back
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.core.world import CONTAINER, IMAGE, World

CHANGES = ("create_from_options", "start_container", "stop_container", "rename_container", "remove_container")


class Killed(BaseException):
    """The process is gone."""


class Ship(MemoryDockerHost):
    """A host that counts changes of containers and can end the process, or fail, before or after one of them."""

    def __init__(self, *, crashes: bool = False) -> None:
        super().__init__("ship-2")
        self.crashes = crashes
        self.error: BaseException | None = None
        self.at = -1
        self.after = True
        self.calls: list[str] = []
        self.meanwhile: Any = None

    def __getattribute__(self, name: str) -> Any:
        """Put the plan around each change."""
        found = super().__getattribute__(name)
        if name not in CHANGES:
            return found

        def changed(*args: Any, **kwargs: Any) -> Any:
            number = len(self.calls)
            self.calls.append(name)
            if number == self.at and self.meanwhile is not None:
                self.meanwhile()
            if number == self.at and self.error is not None and not self.after:
                raise self.error
            answer = found(*args, **kwargs)
            if name == "start_container" and self.crashes and self._ours(args[0]):
                super(Ship, self).stop_container(args[0], timeout_seconds=1)
            if number == self.at and self.error is not None and self.after:
                raise self.error
            return answer

        return changed

    def _ours(self, name: str) -> bool:
        return "dockerbackup.restored" in (self.inspect_container(name).config.get("Labels") or {})


def ship(world: World, *, old: str | None = "running", crashes: bool = False) -> Ship:
    """Return a target, with a container of the name unless ``old`` is None."""
    host = Ship(crashes=crashes)
    if old is not None:
        host.add_archive(b"".join(world.host.save_image(world.host.inspect_image(IMAGE.name).id)))
        host.add_container("web", image=IMAGE.name, filesystem=None, status=old)
    return host


def restore(world: World, backup: Backup, host: Ship, **request: Any) -> RecreateOutcome:
    """Restore the container."""
    asked = RecreateRequest(**{"replace": True, "running_seconds": 1, **request})
    return restore_container(backup, asked, host=host, repository=world.repository, progress=world.progress)


def standing(host: MemoryDockerHost) -> dict[str, tuple[bool, str]]:
    """Return for each container whether it is ours, and its state."""
    return {each.name: ("dockerbackup.restored" in each.labels, each.state) for each in host.list_containers()}


def replaced(backup: Backup) -> dict[str, tuple[bool, str]]:
    """Return what stands after a replacement."""
    return {"web": (True, "running"), f"web-before-{backup.backup_id}": (False, "exited")}


@pytest.fixture
def world() -> World:
    """A world."""
    return World()


@pytest.fixture
def backup(world: World) -> Backup:
    """A container's backup."""
    return world.backup(1, CONTAINER).backup


def test_a_container_is_made_where_none_was(world: World, backup: Backup) -> None:
    """It runs under its name, carries the backup's id, and a second run finds it done."""
    host = ship(world, old=None)
    made = restore(world, backup, host, replace=False)
    assert (made.status, made.kept, made.name) == ("created", "", "web")
    assert standing(host) == {"web": (True, "running")}
    assert restore(world, backup, host, replace=False).status == "already"


def test_a_replaced_container_is_kept_stopped(world: World, backup: Backup) -> None:
    """The new one has the name, the old one its second name."""
    host = ship(world)
    made = restore(world, backup, host)
    assert (made.status, made.kept) == ("replaced", f"web-before-{backup.backup_id}")
    assert standing(host) == replaced(backup)
    assert asked_for(host, world) == ["web"]
    host.stop_container("web", timeout_seconds=1)
    host.remove_container("web")
    assert asked_for(host, world) == [made.kept]


def asked_for(host: Ship, world: World) -> list[str]:
    """Return which containers a fleet backs up."""
    return [each.source.name for each in wanted(host, Selection(select="all"), progress=world.progress)]


@pytest.mark.parametrize("old", ["running", "exited"])
def test_an_old_container_comes_back_as_it_was_when_the_new_one_ends(world: World, backup: Backup, old: str) -> None:
    """It has its name and runs if it ran; nothing of the new one stays."""
    host = ship(world, old=old, crashes=True)
    with pytest.raises(DockerBackupError, match=r"is exited .*put back"):
        restore(world, backup, host)
    assert standing(host) == {"web": (False, old)}


def test_a_taken_name_is_refused_and_nothing_touched(world: World, backup: Backup) -> None:
    """Without replace, also in a dry run; a dry run of a replacement changes nothing."""
    host = ship(world)
    for dry_run in (False, True):
        with pytest.raises(ConflictError, match="--replace"):
            restore(world, backup, host, replace=False, dry_run=dry_run)
    planned = restore(world, backup, host, dry_run=True)
    assert (planned.status, planned.kept) == ("replaced", f"web-before-{backup.backup_id}")
    assert planned.options == ("--network",)
    assert host.calls == []
    assert standing(host) == {"web": (False, "running")}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "-x"}, "container name"),
        ({"running_seconds": 0}, "running_seconds: expected at least 1"),
        ({"healthy_within_seconds": 0}, "healthy_within_seconds: expected at least 1"),
        ({"network": "nowhere"}, "network nowhere is not on ship-2"),
        ({"network": "container:vpn"}, "network container:vpn is not on ship-2"),
    ],
)
def test_a_wrong_request_is_refused(world: World, backup: Backup, fields: dict[str, Any], message: str) -> None:
    """Before anything is touched."""
    host = ship(world)
    with pytest.raises(ConfigurationError, match=message):
        restore(world, backup, host, **fields)
    assert host.calls == []


def test_an_images_backup_is_no_containers(world: World) -> None:
    """An image has nothing to make a container from."""
    with pytest.raises(ConfigurationError, match="not one of a container"):
        restore(world, world.backup(1).backup, ship(world))


@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("at", range(5))
def test_a_run_killed_at_any_step_is_finished_by_the_next(world: World, backup: Backup, at: int, after: bool) -> None:
    """Create, stop, rename, rename, start: whichever was the last, the next run ends with the new one running."""
    host = ship(world)
    host.at, host.after, host.error = at, after, Killed()
    with pytest.raises(Killed):
        restore(world, backup, host)
    assert restore(world, backup, host).status in {"replaced", "already"}
    assert standing(host) == replaced(backup)
    assert len(host.calls) <= 6


@pytest.mark.parametrize("at", range(5, 9))
def test_a_run_killed_while_putting_back_is_finished_by_the_next(world: World, backup: Backup, at: int) -> None:
    """Set aside, rename, start, remove: the old one runs after the next try, whose new one fails as well."""
    host = ship(world, crashes=True)
    host.at, host.error = at, Killed()
    with pytest.raises(Killed):
        restore(world, backup, host)
    assert len(host.calls) == at + 1
    with pytest.raises(DockerBackupError, match="put back"):
        restore(world, backup, host)
    assert standing(host) == {"web": (False, "running")}


def test_a_run_killed_while_putting_back_starts_the_old_one_before_anything_else(world: World, backup: Backup) -> None:
    """The old one does not wait for another new one to be made."""
    host = ship(world, crashes=True)
    host.at, host.error = 6, Killed()  # the old one has its name again and is stopped
    with pytest.raises(Killed):
        restore(world, backup, host)
    assert standing(host)["web"] == (False, "exited")
    host.crashes = False
    restore(world, backup, host)
    assert host.calls[7:10] == ["start_container", "remove_container", "create_from_options"]
    assert standing(host) == replaced(backup)


@pytest.mark.parametrize("at", range(5))
def test_a_failing_step_puts_the_old_container_back(world: World, backup: Backup, at: int) -> None:
    """A step that the engine refuses leaves the old one running under its name."""
    host = ship(world)
    host.at, host.after, host.error = at, False, TransientError("link lost")
    with pytest.raises(TransientError):
        restore(world, backup, host)
    assert standing(host) == {"web": (False, "running")}


@pytest.mark.parametrize("at", range(5))
def test_two_runs_at_once_end_with_the_new_container(world: World, backup: Backup, at: int) -> None:
    """A second run that does all of it before the first one's next step is found, and nothing is done over."""
    host = ship(world)
    host.at = at
    host.meanwhile = lambda: restore(world, backup, host)
    restore(world, backup, host)
    assert standing(host) == replaced(backup)


def test_a_second_replacement_needs_the_name_of_the_first_kept_one(world: World, backup: Backup) -> None:
    """What an earlier restore kept is never overwritten."""
    host = ship(world)
    restore(world, backup, host)
    host.rename_container("web", to="elsewhere")
    host.add_container("web", image=IMAGE.name, filesystem=None)
    before = standing(host)
    with pytest.raises(ConflictError, match="kept from an earlier restore"):
        restore(world, backup, host)
    assert standing(host) == before


def test_an_old_container_that_removes_itself_is_refused(world: World, backup: Backup) -> None:
    """Stopped, a container of ``--rm`` would be gone."""
    host = ship(world)
    host.inspect_container("web").document["HostConfig"]["AutoRemove"] = True
    with pytest.raises(ConflictError, match="--rm"):
        restore(world, backup, host)
    assert host.calls == []


@pytest.mark.parametrize("going", [next_step, next_step_back])
def test_no_position_offers_a_step_whose_container_is_missing(going: Any) -> None:
    """Of all positions: old and new containers are told apart, and only those of ours are removed."""
    ours = [
        Standing(id="o", ours=True, running=run, replaces_running=was) for run in (False, True) for was in (False, True)
    ]
    theirs = [Standing(id="t", ours=False, running=run) for run in (False, True)]
    for current, new, before, failed in itertools.product(
        [None, *ours, *theirs], [None, *ours], [None, *theirs], [None, *ours]
    ):
        at = Position(current=current, new=new, before=before, failed=failed)
        step = going(at)
        if step in {Step.STOP_OLD, Step.KEEP_OLD, Step.START_OLD}:
            assert current is not None
            assert not current.ours
        elif step in {Step.STOP_NEW, Step.SET_ASIDE, Step.START_NEW, Step.AWAIT}:
            assert current is not None
            assert current.ours
        elif step is Step.NAME_NEW:
            assert (current, new is None) == (None, False)
        elif step is Step.NAME_OLD:
            assert (current, before is None) == (None, False)
        elif step is Step.REMOVE_NEW:
            assert new or failed
        if step is Step.KEEP_OLD:
            assert new is not None
