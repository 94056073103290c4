# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.drill import DrillPlan
from airflow_provider_dockerbackup.core.model import RunningContainer
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.exceptions import ConfigurationError, TransientError
from airflow_provider_dockerbackup.transport.memory import MemoryTestDaemon
from tests.core.faults import Death, Fault, Plan
from tests.core.faulty_docker import FaultyDaemon
from tests.core.world import CONTAINER, IMAGE, World

UP = RunningContainer(running=True, exit_status=0)
STARTING = RunningContainer(running=True, exit_status=0, health="starting")
HEALTHY = RunningContainer(running=True, exit_status=0, health="healthy")
UNHEALTHY = RunningContainer(running=True, exit_status=0, health="unhealthy")
ENDED = RunningContainer(running=False, exit_status=3)
KILLED = RunningContainer(running=False, exit_status=137, out_of_memory=True)


def drilled(daemon: MemoryTestDaemon, source: Source = IMAGE, **plan: Any) -> tuple[Any, World]:
    """Verify a new backup at level ``run``."""
    world = World()
    backup = world.backup(1, source).backup
    return world.verify(backup, "run", daemon=daemon, drill=DrillPlan.of(plan)), world


@pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["image", "container"])
@pytest.mark.parametrize(
    ("life", "plan", "passed_by"),
    [
        ([STARTING, STARTING, HEALTHY], {}, "healthcheck"),
        ([UP], {}, "uptime"),
        ([UP], {"probe": ["/bin/true"]}, "probe"),
        ([UNHEALTHY], {"probe": ["/bin/true"]}, "probe"),
    ],
)
def test_an_image_that_works_passes(source: Source, life: list[RunningContainer], plan: Any, passed_by: str) -> None:
    """It says by what, was read-only from the start, makes the backup verified, and nothing is left in the daemon."""
    daemon = MemoryTestDaemon(lives=[life])
    done, world = drilled(daemon, source, **plan)
    assert (done.verification, done.problem, done.cleanup) == ("passed", "", "passed")
    assert (done.drill.passed_by, done.drill.read_only) == (passed_by, True)
    assert done.restore_seconds >= done.drill.seconds
    assert world.repository.catalog.find(done.backup_id).trust == "verified"
    assert daemon.image_ids() == frozenset()
    assert [each.read_only for each in daemon.started] == [True]


@pytest.mark.parametrize("bad", [ENDED, UNHEALTHY])
def test_an_image_that_has_to_write_gets_a_second_start(bad: RunningContainer) -> None:
    """The report says that its filesystem was not read-only."""
    daemon = MemoryTestDaemon(lives=[[UP, bad], [UP, HEALTHY]])
    done, world = drilled(daemon)
    assert (done.verification, done.drill.read_only) == ("passed", False)
    assert [each.read_only for each in daemon.started] == [True, False]
    assert any("read-only" in note for note in world.progress.notes)


@pytest.mark.parametrize(
    ("life", "plan", "problem"),
    [
        ([UP, ENDED], {}, "exit status 3"),
        ([UP, KILLED], {}, "more memory"),
        ([STARTING, UNHEALTHY], {}, "unhealthy"),
        ([STARTING], {}, "HEALTHCHECK says starting"),
        ([UP], {"probe": ["/bin/false"]}, "the probe did not exit with 0"),
    ],
)
def test_an_image_that_does_not_work_fails(life: list[RunningContainer], plan: Any, problem: str) -> None:
    """The verification failed, says why, and the backup is not trusted; nothing is left in the daemon."""
    daemon = MemoryTestDaemon(lives=[life], exec_statuses=[1])
    done, world = drilled(daemon, deadline_seconds=30, **plan)
    assert done.verification == "failed"
    assert problem in done.problem
    assert done.drill is None
    assert done.restore_seconds is None
    assert world.repository.catalog.find(done.backup_id).trust == "failed"
    assert daemon.image_ids() == frozenset()


def test_a_probe_is_asked_until_it_passes() -> None:
    """Services need a while; a probe that does not end in time counts as one that failed."""
    done, _ = drilled(MemoryTestDaemon(exec_statuses=[1, None, 7, 0]), probe=["pg_isready"])
    assert done.drill.passed_by == "probe"


def test_the_limits_reach_the_daemon() -> None:
    """What the plan says, in Docker's units."""
    daemon = MemoryTestDaemon()
    drilled(daemon, memory_bytes=64 << 20, pids=7, cpus=0.5)
    (confinement,) = daemon.started
    assert (confinement.memory_bytes, confinement.pids, confinement.nano_cpus) == (64 << 20, 7, 500_000_000)


@pytest.mark.parametrize("fault", list(Fault))
def test_a_daemon_that_fails_anywhere_says_nothing_about_the_backup(fault: Fault) -> None:
    """Whichever call it is, there is no verification then, unless all that failed was the cleaning up."""
    counting = Plan()
    world = World()
    world.verify(world.backup(1).backup, "run", daemon=FaultyDaemon(MemoryTestDaemon(), counting))
    assert {"start_container", "running_container", "remove_container"} <= set(counting.calls)
    for at in range(1, len(counting.calls) + 1):
        world, plan = World(), Plan(at, fault)
        backup = world.backup(1).backup
        with suppress(TransientError, Death):
            done = world.verify(backup, "run", daemon=FaultyDaemon(MemoryTestDaemon(), plan))
            assert (done.verification, done.cleanup) == ("passed", "failed"), plan.calls[-1]
        trust = world.repository.catalog.find(backup.backup_id).trust
        assert trust in {"none", "verified"}, plan.calls[-1]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"prob": ["x"]}, "prob"),
        ({"probe": "pg_isready"}, "list of words"),
        ({"command": ["ok", 7]}, "command"),
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"stay_up_seconds": 200}, "stay_up_seconds"),
        ({"cpus": -1}, "cpus"),
        ({"memory_bytes": 1024}, "6 MiB"),
        ({"pids": 0}, "pids"),
        ({"pids": "many"}, "pids"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(values: Any, names: str) -> None:
    """The message names the field."""
    with pytest.raises(ConfigurationError, match=names):
        DrillPlan.of(values)


def test_a_plan_may_come_from_a_template() -> None:
    """Rendered numbers are text."""
    assert DrillPlan.of({"deadline_seconds": "30", "pids": "9"}) == DrillPlan(deadline_seconds=30, pids=9)
