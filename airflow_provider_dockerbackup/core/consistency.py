# SPDX-License-Identifier: Apache-2.0
"""How a container's filesystem is read so that its files agree: from a snapshot, paused, stopped, or as it comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from airflow_provider_dockerbackup.core.document import Part
from airflow_provider_dockerbackup.core.model import Consistency, ContainerInspect
from airflow_provider_dockerbackup.core.ports import Clock, DockerHost, PausedStream, Progress, RemoteStream
from airflow_provider_dockerbackup.core.quiesce import Quiesced
from airflow_provider_dockerbackup.core.record import Consistent, ContainerCapture
from airflow_provider_dockerbackup.core.temporary import (
    TEMPORARY_MESSAGE,
    container_of,
    discard,
    temporary_tag,
    unless_taken_away,
)
from airflow_provider_dockerbackup.exceptions import ConfigurationError, TransientError

_RUNNING = {"running", "restarting"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a capture of a container is to be.

    :param consistency: for a running container: ``snapshot`` by commit, ``pause`` for the whole stream, or ``none``.
    :param pause_limit_seconds: a container that we paused runs again after this long whatever happens.
    :param deadline_seconds: after this long temporary images and containers of this try count as left behind.
    :param work: first 16 hex of the idempotency key.
    """

    consistency: Consistency
    pause_limit_seconds: int
    deadline_seconds: int
    work: str


class Taken(Part):
    """How one export was taken, for its record.

    :param capture: how.
    :param commit_seconds: how long the temporary commit took, as the worker saw it.
    :param pause_seconds: how long the container was paused by us, as its host measured; None when it was not.
    :param pre_command_seconds: how long the command took that brought the application to rest; None for none.
    :param problems: what went wrong that the backup survives.
    """

    capture: ContainerCapture
    commit_seconds: float | None = None
    pause_seconds: float | None = None
    pre_command_seconds: float | None = None
    problems: tuple[str, ...] = ()

    @property
    def consistency(self) -> Consistent:
        """How far the files agree with each other."""
        return self.capture if self.pre_command_seconds is None else "quiesced"


@dataclass(slots=True, kw_only=True)
class Capturing:
    """One export that can begin: of what, and how it is taken.

    :param subject: the container to export, by ID; by name a temporary one.
    :param temporary: the image that the temporary container is of; both go when the export is done.
    :param pauses: whether the container is paused for the whole export.
    :param paused: the stream for which it is; knows at its end for how long.
    """

    subject: str
    capture: ContainerCapture
    temporary: str | None = None
    pauses: bool = False
    paused: PausedStream | None = None
    commit_seconds: float | None = None
    pause_seconds: float | None = None

    def taken(self, rest: Quiesced) -> Taken:
        """Return how it was taken.

        :param rest: what brought the application to rest.
        """
        return Taken(
            capture=self.capture,
            commit_seconds=self.commit_seconds,
            pause_seconds=self.pause_seconds,
            pre_command_seconds=rest.before_seconds,
            problems=tuple(rest.problems),
        )


def check_consistency(consistency: str, *, pause_limit_seconds: int) -> None:
    """Refuse what :class:`Asked` does not take.

    :raises ConfigurationError: when the consistency is unknown or the limit is below 1.
    """
    if consistency not in get_args(Consistency):
        raise ConfigurationError(
            f"consistency: expected one of {', '.join(get_args(Consistency))}, got {consistency!r}"
        )
    check_pause_limit(pause_limit_seconds)


def check_pause_limit(pause_limit_seconds: int) -> None:
    """Refuse a limit that no pause could keep.

    :raises ConfigurationError: when it is below 1.
    """
    if pause_limit_seconds < 1:
        raise ConfigurationError(f"pause_limit_seconds: expected at least 1, got {pause_limit_seconds}")


def begin_capture(
    asked: Asked,
    host: DockerHost,
    container: ContainerInspect,
    *,
    attempt: str,
    clock: Clock,
    progress: Progress,
    rest: Quiesced,
) -> Capturing:
    """Return what is to be exported, by what the container does now and what was asked; a snapshot is taken now."""
    if container.status == "paused":
        return Capturing(subject=container.id, capture="paused")
    if container.status not in _RUNNING:
        return Capturing(subject=container.id, capture="stopped")
    if asked.consistency == "none":
        return Capturing(subject=container.id, capture="crash")
    if asked.consistency == "pause":
        return Capturing(subject=container.id, capture="paused", pauses=True)
    return _snapshot(asked, host, container, attempt=attempt, clock=clock, progress=progress, rest=rest)


def _snapshot(
    asked: Asked,
    host: DockerHost,
    container: ContainerInspect,
    *,
    attempt: str,
    clock: Clock,
    progress: Progress,
    rest: Quiesced,
) -> Capturing:
    expires = int(host.now().timestamp()) + asked.deadline_seconds
    image = temporary_tag(asked.work, attempt, expires=expires)
    temporary = container_of(image)
    began = clock.monotonic()
    try:
        paused = _commit(asked, host, container, image=image)
        seconds = round(clock.monotonic() - began, 3)
        rest.end()
        with unless_taken_away(host, image):
            host.create_container(image, name=temporary)
    except BaseException:
        rest.end()
        discard(host, image, progress)
        raise
    return Capturing(
        subject=temporary, capture="snapshot", commit_seconds=seconds, pause_seconds=paused, temporary=image
    )


def stream_of(capturing: Capturing, asked: Asked, host: DockerHost) -> RemoteStream:
    """Return the stream to read; the host begins it when it is iterated."""
    if capturing.temporary is not None:
        return host.export_temporary(capturing.subject, image=capturing.temporary)
    if capturing.pauses:
        capturing.paused = host.export_paused(capturing.subject, limit_seconds=asked.pause_limit_seconds)
        return capturing.paused
    return host.export_container(capturing.subject)


def _commit(asked: Asked, host: DockerHost, container: ContainerInspect, *, image: str) -> float | None:
    """Commit to a temporary image and return how long the container was paused for it; None when it was not."""
    if container.status == "restarting":  # cannot be paused, and may never do anything else
        host.commit_container(container.id, reference=image, message=TEMPORARY_MESSAGE, pause=False)
        return None
    limit = asked.pause_limit_seconds
    return host.commit_paused(
        container.id, reference=image, message=TEMPORARY_MESSAGE, limit_seconds=limit
    ).pause_seconds


def tell_pause(capturing: Capturing, container: ContainerInspect, progress: Progress) -> None:
    """Tell how long the container was paused; what should have been taken of a paused one and was not is a crash."""
    if capturing.pause_seconds is not None:
        progress.note(f"container {container.name} was paused for {capturing.pause_seconds} s")
    elif container.status in _RUNNING and capturing.capture in {"snapshot", "paused"}:
        capturing.capture = "crash"
        progress.note(
            f"WARNING: container {container.name} could not be paused: it was restarting, had just stopped, or "
            "somebody else paused it; the backup says crash"
        )


def require_still(capturing: Capturing, container: ContainerInspect, host: DockerHost) -> None:
    """Refuse what was exported of a container that rested, when somebody ended that meanwhile."""
    if container.status == "paused" or capturing.capture == "stopped":
        require_same_rest(container, host.inspect_container(container.id), host=host.name)


def require_same_rest(container: ContainerInspect, now: ContainerInspect, *, host: str) -> None:
    """Refuse what was exported of a container that was paused by somebody else, or stopped, and is no more.

    :param container: as it was before.
    :param now: as it was afterwards.
    :raises TransientError: says what happened.
    """
    if container.status == "paused":
        _require_still_paused(container, now, host=host)
    else:
        _require_still_stopped(container, now, host=host)


def _require_still_paused(container: ContainerInspect, now: ContainerInspect, *, host: str) -> None:
    if now.status != "paused" or now.started_at != container.started_at:
        raise TransientError(
            f"container {container.name} on {host} was paused by somebody else and woken while it was exported, "
            "so what came is not of one moment; nothing was published, try again"
        )


def _require_still_stopped(container: ContainerInspect, now: ContainerInspect, *, host: str) -> None:
    if now.status in _RUNNING or now.started_at != container.started_at:
        raise TransientError(
            f"container {container.name} on {host} was started while it was exported, so what came is not of one "
            "moment; nothing was published, try again"
        )
