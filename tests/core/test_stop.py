# SPDX-License-Identifier: Apache-2.0
"""A container is stopped only when its intent is on record, and never one that would be gone by it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_dockerbackup.core.ports import DockerHost, Storage
from airflow_provider_dockerbackup.core.stop import StopOutcome, StopRequest, stop_source
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.core.faults import FaultyStorage, Plan
from tests.core.faulty_docker import FaultyHost
from tests.core.test_remove import events
from tests.core.world import CONTAINER, World


@pytest.fixture
def world() -> World:
    """A repository, and a host with a running container."""
    return World()


def stop(
    world: World, *, host: DockerHost | None = None, storage: Storage | None = None, **request: Any
) -> StopOutcome:
    """Stop the container."""
    return stop_source(
        StopRequest(**{"name": "web", **request}),
        host=host or world.host,
        repository=world.on(storage or world.storage),
        progress=world.progress,
    )


def test_a_stopped_container_is_exported_as_such(world: World) -> None:
    """Stop, then export: the record says stopped, and holds the host's own times."""
    done = stop(world)
    found = world.host.inspect_container("web")
    assert (done.status, found.status, done.finished_at) == ("stopped", "exited", found.finished_at)
    assert events(world.storage, "stop") == [("stop.started", "intent"), ("stop.done", "success")]
    record = world.backup(1, CONTAINER).backup.whole()
    assert (record.capture, record.consistency) == ("stopped", "stopped")
    assert record.container is not None
    assert (record.container.started_at, record.container.finished_at) == (found.started_at, found.finished_at)


def test_a_second_stop_finds_it_done(world: World) -> None:
    """And says so in the trail, for the first may have died before it could."""
    stop(world)
    assert stop(world).status == "already"
    assert events(world.storage, "stop")[-1] == ("stop.done", "success")


def test_a_dry_run_touches_nothing(world: World) -> None:
    """Neither the container nor the trail."""
    assert stop(world, dry_run=True).status == "stopped"
    assert world.host.inspect_container("web").status == "running"
    assert events(world.storage, "stop") == []


def test_it_runs_on_when_the_intent_cannot_be_written(world: World) -> None:
    """A stop fails closed."""
    plan = Plan()
    stop(world, storage=FaultyStorage(world.storage, plan), dry_run=True)
    with pytest.raises(TransientError, match=r"is not touched, for the audit trail .*stop\.started"):
        stop(world, storage=FaultyStorage(world.storage, Plan(len(plan.calls) + 1)))
    assert world.host.inspect_container("web").status == "running"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("AutoRemove", True, "was started with --rm: stopped it would be gone"), ("Status", "paused", "is paused")],
)
def test_one_that_cannot_be_stopped_safely_is_refused(world: World, key: str, value: Any, says: str) -> None:
    """Before anything is touched."""
    document = world.host.container("web").document
    document["State" if key == "Status" else "HostConfig"][key] = value
    with pytest.raises(ConflictError, match=says):
        stop(world)
    assert events(world.storage, "stop") == []


def test_one_that_is_started_at_once_by_something_else_is_told(world: World) -> None:
    """A supervisor on the host works against us."""

    class Supervised(FaultyHost):
        """Starts the container whenever it is stopped."""

        def stop_container(self, name: str, *, timeout_seconds: int) -> None:
            world.host.stop_container(name, timeout_seconds=timeout_seconds)
            world.host.start_container(name)

    with pytest.raises(ConflictError, match="is running again: something on the host started it"):
        stop(world, host=Supervised(world.host))
    assert events(world.storage, "stop")[-1] == ("stop.failed", "failure")


@pytest.mark.parametrize(("given", "own", "expected"), [(None, None, 10), (None, 45, 45), (3, 45, 3), (3, -1, 3)])
def test_the_timeout_is_the_given_one_or_the_containers_own(
    world: World, given: int | None, own: int | None, expected: int
) -> None:
    """Else Docker's."""
    world.host.container("web").document["Config"]["StopTimeout"] = own
    seen = []

    class Watched(FaultyHost):
        """Remembers the timeout."""

        def stop_container(self, name: str, *, timeout_seconds: int) -> None:
            seen.append(timeout_seconds)
            super().stop_container(name, timeout_seconds=timeout_seconds)

    stop(world, host=Watched(world.host), timeout_seconds=given)
    assert seen == [expected]


def test_one_that_wants_to_be_waited_for_without_end_is_not_ended_by_force_unasked(world: World) -> None:
    """``--stop-timeout=-1`` is for databases that must not be killed; a task cannot wait so long."""
    world.host.container("web").document["Config"]["StopTimeout"] = -1
    for dry_run in (True, False):
        with pytest.raises(ConfigurationError, match=r"--stop-timeout=-1\); give timeout_seconds"):
            stop(world, dry_run=dry_run)
    assert world.host.inspect_container("web").status == "running"
    assert events(world.storage, "stop") == []


def test_bad_input_is_refused(world: World) -> None:
    """With the kind that says what to do."""
    with pytest.raises(ConfigurationError, match="timeout_seconds: expected at least 0, got -1"):
        stop(world, timeout_seconds=-1)
    with pytest.raises(ConfigurationError, match="is not one Docker accepts"):
        stop(world, name="a b")
    with pytest.raises(NotFoundError):
        stop(world, name="typo")
    assert isinstance(world.host, MemoryDockerHost)
    assert world.host.inspect_container("web").status == "running"
