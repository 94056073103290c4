# SPDX-License-Identifier: Apache-2.0
"""Stop a container, so that a backup can be taken of it that nothing changes any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from airflow_provider_dockerbackup.core.change import Change
from airflow_provider_dockerbackup.core.model import ContainerInspect, SourceKind
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.reference import container_name
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
)

_RUNNING = frozenset({"running", "restarting"})
_STOP_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequest:
    """What to stop.

    :param name: name or full ID of the container.
    :param timeout_seconds: after this long it is ended by force; None is its own stop timeout, else 10.
    :param dry_run: check everything and say what would be done, but do not touch the host.
    :param actor: who does it: DAG run or user, and software versions.
    """

    name: str
    timeout_seconds: int | None = None
    dry_run: bool = False
    actor: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOutcome:
    """A container that does not run, or would not.

    :param status: ``stopped``, or ``already`` when it did not run.
    :param exit_code: of its main process; 137 when it was ended by force. None in a dry run that would stop it.
    :param finished_at: when it ended, as the host says; empty in a dry run that would stop it.
    :param audit_head: digest of the newest audit event of this try; None in a dry run.
    """

    source: Source
    status: Literal["stopped", "already"]
    container_id: str
    exit_code: int | None
    finished_at: str
    audit_head: str | None


def stop_source(request: StopRequest, *, host: DockerHost, repository: Repository, progress: Progress) -> StopOutcome:
    """Return the container once it does not run.

    :raises ConfigurationError: when the name or the timeout is wrong.
    :raises NotFoundError: when the host has no such container.
    :raises ConflictError: when it is paused, or would be gone once stopped; or when somebody started it at once.
    :raises TransientError: when the audit trail could not be written, then it runs on; or the link failed.
    """
    name = container_name(request.name)
    if request.timeout_seconds is not None and request.timeout_seconds < 0:
        raise ConfigurationError(f"timeout_seconds: expected at least 0, got {request.timeout_seconds}")
    found = _found(name, host)
    running = found.status in _RUNNING
    if running:
        _refuse(request, found, host)
    source = Source(host=host.name, kind=SourceKind.CONTAINER, name=name)
    trail = repository.trail(request.actor)
    change = Change(trail, source=source, host=host, progress=progress)
    if request.dry_run:
        return _outcome(source, None if running else found, found.id, stopped=running, change=change)
    if not running:
        change.tell("stop.done", "success", id=found.id, status="already", finished_at=found.finished_at)
        return _outcome(source, found, found.id, stopped=False, change=change)
    change.intends("stop.started", id=found.id)
    with change.or_failed("stop.failed", id=found.id):
        now = _stop(request, found, host)
    change.tell("stop.done", "success", id=found.id, status="stopped", finished_at=now.finished_at)
    return _outcome(source, now, found.id, stopped=True, change=change)


def _found(name: str, host: DockerHost) -> ContainerInspect:
    found = host.inspect_container(name)
    if name not in {found.name, found.id}:  # the name is the beginning of another container's ID
        raise NotFoundError(f"no container {name} on {host.name}; write its whole name or ID")
    if found.status == "paused":
        raise ConflictError(f"container {found.name} on {host.name} is paused; unpause it first")
    return found


def _refuse(request: StopRequest, found: ContainerInspect, host: DockerHost) -> None:
    if (found.document.get("HostConfig") or {}).get("AutoRemove"):
        raise ConflictError(
            f"container {found.name} on {host.name} was started with --rm: stopped it would be gone, with its "
            "anonymous volumes; export it while it runs"
        )
    if _timeout(request, found) < 0:
        raise ConfigurationError(
            f"container {found.name} on {host.name} was made to be waited for without end (--stop-timeout=-1); give "
            "timeout_seconds (--timeout): after so long it is ended by force"
        )


def _stop(request: StopRequest, found: ContainerInspect, host: DockerHost) -> ContainerInspect:
    host.stop_container(found.id, timeout_seconds=_timeout(request, found))
    now = host.inspect_container(found.id)
    if now.status in _RUNNING:
        raise ConflictError(
            f"container {found.name} on {host.name} was stopped, and is {now.status} again: something on the host "
            "started it; end that first"
        )
    return now


def _timeout(request: StopRequest, found: ContainerInspect) -> int:
    if request.timeout_seconds is not None:
        return request.timeout_seconds
    own = found.config.get("StopTimeout")
    return _STOP_SECONDS if own is None else int(own)


def _outcome(
    source: Source, found: ContainerInspect | None, container_id: str, *, stopped: bool, change: Change
) -> StopOutcome:
    state = (found.document.get("State") or {}) if found is not None else {}
    return StopOutcome(
        source=source,
        status="stopped" if stopped else "already",
        container_id=container_id,
        exit_code=int(state.get("ExitCode") or 0) if found is not None else None,
        finished_at=found.finished_at if found is not None else "",
        audit_head=change.head,
    )
