# SPDX-License-Identifier: Apache-2.0
"""Run a loaded image in a test daemon, confined, until it proves that it works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from airflow_provider_dockerbackup.core.model import Confinement, RunningContainer
from airflow_provider_dockerbackup.core.ports import Clock, Progress, TestDaemon
from airflow_provider_dockerbackup.core.since import Drill
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError

_LOOK_SECONDS = 0.2
_LOOK_AGAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillPlan:
    """How an image is run, and what it must show.

    It passes when ``probe`` exits with 0; without a probe, when its HEALTHCHECK turns healthy; without that, when it
    still runs after ``stay_up_seconds``. A container that ends before that fails, whatever its exit status.

    :param command: run instead of the image's own command, as one word a string; its ENTRYPOINT stays.
    :param probe: command run in the container, without a shell, again and again until it exits with 0.
    :param stay_up_seconds: how long it must run when there is neither probe nor HEALTHCHECK.
    :param deadline_seconds: how long it may take to pass.
    :param memory_bytes: limit of its memory, swap included.
    :param pids: limit of its processes and threads.
    :param cpus: limit of its processor time, in processors.
    """

    command: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()
    stay_up_seconds: float = 5.0
    deadline_seconds: float = 120.0
    memory_bytes: int = 512 * 1024 * 1024
    pids: int = 256
    cpus: float = 1.0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> DrillPlan:
        """Return the plan with these fields, as a DAG's author writes them; numbers may be text.

        :raises ConfigurationError: names the field that is unknown or wrong.
        """
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigurationError(f"drill: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        try:
            plan = TypeAdapter(cls).validate_python(dict(values))
        except ValidationError as err:
            first = err.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            advice = "; write a list of words" if first["loc"][0] in {"command", "probe"} else ""
            raise ConfigurationError(f"drill.{where}: {first['msg']}{advice}") from err
        plan.check()
        return plan

    def check(self) -> None:
        """Refuse what cannot be meant.

        :raises ConfigurationError: names the value.
        """
        for name in ("stay_up_seconds", "deadline_seconds", "cpus"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name}: expected a number above 0, got {getattr(self, name)!r}")
        if self.stay_up_seconds > self.deadline_seconds:
            raise ConfigurationError(
                f"stay_up_seconds: {self.stay_up_seconds:g} s do not fit into deadline_seconds, "
                f"{self.deadline_seconds:g} s"
            )
        if self.memory_bytes < 6 * 1024 * 1024:
            raise ConfigurationError(f"memory_bytes: Docker takes no less than 6 MiB, got {self.memory_bytes}")
        if self.pids < 1:
            raise ConfigurationError(f"pids: expected at least 1, got {self.pids}")


def run_drill(daemon: TestDaemon, image: str, *, name: str, plan: DrillPlan, clock: Clock, progress: Progress) -> Drill:
    """Return how the image passed, first with a read-only filesystem and, if it does not then, with a writable one.

    The container has no network, no capabilities, gains no privileges, and is removed in any case.

    :param name: of the container.
    :raises IntegrityError: when it did not pass.
    """
    try:
        return _attempt(daemon, image, name=name, plan=plan, clock=clock, read_only=True)
    except IntegrityError as err:
        progress.note(f"with a read-only filesystem: {err}; trying with a writable one")
    return _attempt(daemon, image, name=name, plan=plan, clock=clock, read_only=False)


def _attempt(daemon: TestDaemon, image: str, *, name: str, plan: DrillPlan, clock: Clock, read_only: bool) -> Drill:
    confinement = Confinement(
        read_only=read_only, memory_bytes=plan.memory_bytes, pids=plan.pids, nano_cpus=round(plan.cpus * 1e9)
    )
    began = clock.monotonic()
    try:
        container = daemon.start_container(image, name=name, command=plan.command, confinement=confinement)
        while True:
            passed_by = _passed_by(daemon, container, plan, seconds=clock.monotonic() - began)
            seconds = clock.monotonic() - began
            if passed_by is not None:
                return Drill(passed_by=passed_by, read_only=read_only, seconds=round(seconds, 3))
            if seconds > plan.deadline_seconds:
                waited_for = _waited_for(daemon, container, plan)
                raise IntegrityError(f"the container did not pass within {plan.deadline_seconds:g} s: {waited_for}")
            clock.sleep(_LOOK_AGAIN_SECONDS if seconds > 10 * _LOOK_AGAIN_SECONDS else _LOOK_SECONDS)
    finally:
        daemon.remove_container(name)


def _passed_by(daemon: TestDaemon, container: str, plan: DrillPlan, *, seconds: float) -> str | None:
    """Return what the container passed by, or None when it has to be asked again.

    :raises IntegrityError: when it will not pass any more.
    """
    state = daemon.running_container(container)
    if not state.running:
        raise IntegrityError(
            f"the container ended with exit status {state.exit_status} after {seconds:.1f} s, before it passed"
            + (" (it needed more memory than it may use)" if state.out_of_memory else "")
        )
    if plan.probe:
        left = max(1.0, plan.deadline_seconds - seconds)
        return "probe" if daemon.run_in_container(container, plan.probe, timeout_seconds=left) == 0 else None
    if state.health == "unhealthy":
        raise IntegrityError(f"the container's HEALTHCHECK turned unhealthy after {seconds:.1f} s")
    if state.health is not None:
        return "healthcheck" if state.health == "healthy" else None
    return "uptime" if seconds >= plan.stay_up_seconds else None


def _waited_for(daemon: TestDaemon, container: str, plan: DrillPlan) -> str:
    if plan.probe:
        return "the probe did not exit with 0"
    state: RunningContainer = daemon.running_container(container)
    return f"its HEALTHCHECK says {state.health}" if state.health else "it does not stay up"
