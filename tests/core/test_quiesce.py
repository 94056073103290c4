# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_dockerbackup.core.export import ExportRequest, export_container
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands
from airflow_provider_dockerbackup.core.record import BackupRecord
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError, TransientError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.core.world import CONTAINER, FILESYSTEM, IMAGE, World, app_archive

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
    """Nothing is captured without them, for somebody counts on them."""
    world = _world(status)
    with pytest.raises(ConflictError, match=f"is {status}"):
        _export(world)
    assert world.repository.catalog.backups() == []


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
