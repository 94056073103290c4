# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from airflow_provider_dockerbackup.core.commit import CommitRequest, commit_paused
from airflow_provider_dockerbackup.core.export import ExportRequest, export_container
from airflow_provider_dockerbackup.core.model import PausedCommit
from airflow_provider_dockerbackup.core.ports import DockerHost
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands
from airflow_provider_dockerbackup.core.record import BackupRecord
from airflow_provider_dockerbackup.core.temporary import TEMPORARY
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError, TransientError
from airflow_provider_dockerbackup.transport.memory import FixedClock, MemoryDockerHost
from tests.core.faults import Plan
from tests.core.faulty_docker import FaultyHost
from tests.core.world import BEGIN, CONTAINER, FILESYSTEM, IMAGE, World, app_archive, paths

T = TypeVar("T")
BOTH = QuiesceCommands(before=("flush",), after=("go-on",))


def _world(status: str = "running") -> World:
    world = World(host=MemoryDockerHost(CONTAINER.host))
    world.host.add_archive(app_archive("one"))
    world.host.add_container("web", image=IMAGE.name, filesystem=FILESYSTEM, status=status)
    return world


def _export(world: World, commands: QuiesceCommands = BOTH, consistency: Any = "snapshot") -> BackupRecord:
    request = ExportRequest(key=world.key(1, CONTAINER), commands=commands, consistency=consistency)
    done = export_container(request, host=world.host, repository=world.repository, progress=world.progress)
    return done.backup.whole()


def _ran(world: World) -> list[str]:
    return [what for what, _, _ in world.host.executed]


@pytest.mark.parametrize("consistency", ["snapshot", "pause", "none"])
def test_both_commands_run_once_around_the_capture(consistency: str) -> None:
    """The record says quiesced, how long the first took, and no word of either command."""
    world = _world()
    record = _export(world, consistency=consistency)
    assert _ran(world) == ["pre_command", "post_command"]
    assert record.consistency == "quiesced"
    assert record.container is not None
    assert record.container.pre_command_seconds is not None
    assert b"flush" not in record.to_bytes()


def test_a_snapshot_needs_rest_for_its_commit_only() -> None:
    """When the second command runs, the temporary image is there and its export still to come."""
    world = _world()
    _export(world)
    (_, _, tags_before), (_, _, tags_after) = world.host.executed
    assert tags_after == tags_before + 1


@pytest.mark.parametrize(
    ("status", "consistency", "said"),
    [
        ("running", "snapshot", "snapshot"),
        ("running", "pause", "paused"),
        ("running", "none", "crash"),
        ("exited", "snapshot", "stopped"),
    ],
)
def test_without_a_command_before_the_record_says_how_it_was_taken(status: str, consistency: str, said: str) -> None:
    """A command after the capture alone brings nothing to rest."""
    world = _world(status)
    commands = QuiesceCommands(after=("go-on",)) if status == "running" else QuiesceCommands()
    assert _export(world, commands, consistency).consistency == said


def test_nothing_is_captured_when_the_first_command_fails() -> None:
    """What it may have locked is released by the second."""
    world = _world()
    world.host.exec_failures = {"flush"}
    with pytest.raises(TransientError, match="pre_command in container web"):
        _export(world)
    assert _ran(world) == ["pre_command", "post_command"]
    assert world.repository.catalog.backups() == []


def test_what_a_failing_command_prints_is_told_and_kept_nowhere() -> None:
    """It may be a secret: neither the events of the failed try nor the record of a later one hold a word of it."""
    world = _world()
    for failing in ("flush", "go-on"):
        world.host.exec_failures = {failing}
        if failing == "flush":
            with pytest.raises(TransientError):
                _export(world)
        else:
            _export(world)
        assert any(f"printed on standard error: {failing}: failed" in note for note in world.progress.notes)
    kept = b"".join(world.storage.read(path) for path in paths(world.storage, prefix="") if path.endswith(".json"))
    assert b"pre_command in container web ended with exit status 1" in kept
    assert b"post_command in container web ended with exit status 1" in kept
    assert b": failed" not in kept


def test_the_second_command_runs_when_the_capture_fails() -> None:
    """Here the container is gone after the first command."""
    world = _world()
    world.host.commit_paused = _raise  # type: ignore[method-assign,assignment]
    with pytest.raises(TransientError, match="no commit today"):
        _export(world)
    assert _ran(world) == ["pre_command", "post_command"]


def _raise(*_: Any, **__: Any) -> str:
    raise TransientError("no commit today")


def test_a_backup_stands_when_the_second_command_fails() -> None:
    """The reader is told, and the record notes it."""
    world = _world()
    world.host.exec_failures = {"go-on"}
    record = _export(world)
    assert record.consistency == "quiesced"
    assert any("post_command" in note for note in record.notes)
    assert any("post_command" in note for note in world.progress.notes)


@pytest.mark.parametrize("status", ["exited", "paused", "created"])
def test_commands_need_a_container_that_runs(status: str) -> None:
    """Nothing is captured without them, for somebody counts on them; neither host nor repository is touched."""
    world = _world(status)
    work = world.key(1, CONTAINER).idempotency_key[:16]
    left = f"{TEMPORARY}:{work}-0123456789ab-9999999999"
    world.host.add_archive(app_archive("two", tag=left))
    before = paths(world.storage, prefix="")
    with pytest.raises(ConflictError, match=f"is {status}"):
        _export(world)
    assert paths(world.storage, prefix="") == before
    assert left in {each.reference for each in world.host.list_images()}


@pytest.mark.parametrize("status", ["exited", "paused", "created"])
def test_a_commit_with_commands_needs_a_container_that_runs(status: str) -> None:
    """Refused before anything is looked for or made on the host."""
    world = _world(status)
    plan = Plan()
    request = CommitRequest(container="web", reference="made:1", commands=BOTH)
    with pytest.raises(ConflictError, match=f"is {status}"):
        _commit(world, request, FaultyHost(world.host, plan=plan))
    assert plan.calls == ["inspect_container"]


def test_a_commit_runs_both_commands_and_leaves_one_tag() -> None:
    """The second one before the tag is moved."""
    world = _world()
    made = _commit(world, CommitRequest(container="web", reference="made:1", commands=BOTH), world.host)
    assert made.pause_seconds is not None
    assert _ran(world) == ["pre_command", "post_command"]
    assert {each.reference: each.id for each in world.host.list_images()}["made:1"] == made.image_id
    assert not [each for each in world.host.list_images() if each.reference.startswith(TEMPORARY)]


@pytest.mark.parametrize("failing", ["commit_paused", "tag_image", "remove_image"])
@pytest.mark.parametrize("done", [False, True])
def test_a_commit_that_fails_leaves_the_tag_where_it_was_and_the_next_run_cleans_up(failing: str, done: bool) -> None:
    """Whether the call that failed had done its work or not."""
    world = _world()
    world.host.add_archive(app_archive("earlier", tag="made:1"))
    earlier = world.host.inspect_image("made:1").id
    request = CommitRequest(container="web", reference="made:1")
    plan = _Fails(failing, done=done)
    if failing == "remove_image":
        _commit(world, request, FaultyHost(world.host, plan=plan))
    else:
        with pytest.raises(TransientError, match="no link"):
            _commit(world, request, FaultyHost(world.host, plan=plan))
        moved = failing == "tag_image" and done
        assert (world.host.inspect_image("made:1").id == earlier) != moved
    assert plan.struck
    _commit(world, request, world.host)
    assert not [each for each in world.host.list_images() if each.reference.startswith(TEMPORARY)]


@pytest.mark.parametrize(
    ("status", "consistency", "commands", "told"),
    [
        ("running", "snapshot", BOTH, ("snapshot", "quiesced", True)),
        ("running", "none", BOTH, ("crash", "quiesced", True)),
        ("running", "pause", QuiesceCommands(), ("paused", "paused", False)),
        ("exited", "snapshot", QuiesceCommands(), ("stopped", "stopped", False)),
    ],
)
def test_events_of_a_capture_say_how_it_was_asked_and_taken(
    status: str, consistency: Any, commands: QuiesceCommands, told: tuple[str, str, bool]
) -> None:
    """Whoever audits need not read the records."""
    world = _world(status)
    record = _export(world, commands, consistency)
    started, committed = (each["object"] for each in _events(world))
    assert (started["consistency_asked"], started["pre_command"]) == (consistency, bool(commands))
    assert (committed["capture"], committed["consistency"], committed["quiesced"]) == told
    assert record.container is not None
    assert committed["pause_seconds"] == record.container.pause_seconds


def test_the_event_of_a_failed_capture_says_how_it_was_asked() -> None:
    """And claims nothing."""
    world = _world()
    world.host.exec_failures = {"flush"}
    with pytest.raises(TransientError):
        _export(world, consistency="none")
    failed = _events(world)[-1]
    assert failed["type"] == "backup.failed"
    assert (failed["object"]["consistency_asked"], failed["object"]["pre_command"]) == ("none", True)
    assert "quiesced" not in failed["object"]


def test_a_container_that_its_owner_wakes_in_mid_export_is_refused() -> None:
    """Its pause is not ours, and what came is not of one moment."""
    world = _world("paused")

    def wake(call: str) -> None:
        if call == "export_container":
            world.host.container("web").document["State"]["Status"] = "running"

    with pytest.raises(TransientError, match="paused by somebody else and woken"):
        world.backup(1, CONTAINER, host=FaultyHost(world.host, meanwhile=wake))
    assert world.repository.catalog.backups() == []


def test_a_pause_that_did_not_come_about_is_not_claimed() -> None:
    """The container stopped between our look and the pause: the record says crash, and the reader is told."""
    for consistency, call in (("snapshot", "commit_paused"), ("pause", "export_paused")):
        world = _world()
        world.host.__dict__[call] = _stopping(world, getattr(world.host, call))
        record = _export(world, QuiesceCommands(), consistency)
        assert (record.capture, record.consistency) == ("crash", "crash")
        assert record.container is not None
        assert record.container.pause_seconds is None
        assert any("could not be paused" in note for note in world.progress.notes)


def _stopping(world: World, call: Any) -> Any:
    def stop_first(*args: Any, **options: Any) -> Any:
        world.host.container("web").document["State"]["Status"] = "exited"
        return call(*args, **options)

    return stop_first


def _commit(world: World, request: CommitRequest, host: DockerHost) -> PausedCommit:
    return commit_paused(request, host=host, clock=FixedClock(BEGIN), progress=world.progress)


def _events(world: World) -> list[dict[str, Any]]:
    found = [json.loads(world.storage.read(path)) for path in paths(world.storage, prefix="audit")]
    return sorted(found, key=lambda event: str(event["time"]))


class _Fails(Plan):
    """Fails the first call of a name, before or after it was done."""

    def __init__(self, name: str, *, done: bool) -> None:
        super().__init__()
        self._name = name
        self._done = done
        self.struck = False

    def call(self, name: str, action: Callable[[], T]) -> T:
        """Do it, or fail."""
        if name != self._name or self.struck:
            return action()
        self.struck = True
        if self._done:
            action()
        raise TransientError("no link")


@pytest.mark.parametrize("command", ["sync", ["sh", 1], [""]])
def test_a_command_is_a_list_of_words(command: Any) -> None:
    """Text would need a shell, which splits it where nobody expects."""
    with pytest.raises(ConfigurationError, match="pre_command"):
        QuiesceCommands.of(command, None, timeout_seconds=1)
    with pytest.raises(ConfigurationError, match="post_command"):
        QuiesceCommands.of(None, command, timeout_seconds=1)


def test_a_timeout_is_above_zero() -> None:
    """Nothing ends in no time."""
    with pytest.raises(ConfigurationError, match="command_timeout_seconds"):
        QuiesceCommands.of(None, None, timeout_seconds=0)
