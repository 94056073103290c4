# SPDX-License-Identifier: Apache-2.0
"""Wait, in the triggerer, for a job that saves an image, or exports a container, on its Docker host."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.onhost.begun import Begun
from airflow_provider_dockerbackup.core.onhost.place import JobPlace
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, TransientError
from airflow_provider_dockerbackup.transport import host_jobs

_LONGEST_BACKOFF_SECONDS = 60.0
_MOST_FAILURES = 20
# Of the time that Airflow gives an on_kill, and how long that is; the rest is to tell what came of it.
_KILL_SHARE = 0.8
_AIRFLOWS_KILL_SECONDS = 30


class BegunWire(TypedDict):
    """A capture that has begun, as it passes through Airflow's database; no secret is in it.

    One that was deferred by a version before may lack the last two.
    """

    folder: str
    job: str
    subject: str
    temporary: str | None
    began_at: str
    compression: str
    audit_head: str | None
    asked: NotRequired[dict[str, Any]]
    retention: NotRequired[str | None]


class SaveOnHostEvent(TypedDict):
    """What became of the job.

    ``status`` is ``over`` when it does nothing any more, ``deadline`` when it was not over in time, ``unreachable``
    when the host was not reached for long, ``refused`` when it cannot be: then ``problem`` says why.
    """

    status: Literal["over", "deadline", "unreachable", "refused"]
    problem: str
    begun: BegunWire


def to_wire(begun: Begun) -> BegunWire:
    """Return a begun capture as it passes through Airflow's database."""
    return BegunWire(
        folder=begun.place.folder,
        job=begun.place.name,
        subject=begun.subject,
        temporary=begun.temporary,
        began_at=begun.began_at.isoformat(),
        compression=begun.compression.value,
        audit_head=begun.audit_head,
        asked=dict(begun.asked),
        retention=begun.retention,
    )


def from_wire(wire: BegunWire, *, retention: str | None = None) -> Begun:
    """Return what :func:`to_wire` made.

    :param retention: the source's own retention policy, for a capture that says nothing of it.
    :raises ConfigurationError: when it is no such thing.
    """
    try:
        return Begun(
            place=JobPlace(folder=wire["folder"], name=wire["job"]),
            subject=wire["subject"],
            temporary=wire["temporary"],
            began_at=datetime.fromisoformat(wire["began_at"]),
            compression=Compression(wire["compression"]),
            audit_head=wire["audit_head"],
            asked=dict(wire.get("asked", {})),
            retention=wire.get("retention", retention),
        )
    except (KeyError, TypeError, ValueError) as err:
        raise ConfigurationError(f"the trigger's event is none of ours: {err!r}; start the task again") from err


class SaveOnHostTrigger(BaseTrigger):
    """Fires once, when the job on the host is over, or cannot be waited for any more.

    All of its state is on the host, so it may be started again anywhere, and wait twice at once. When the task is
    marked or cleared, it ends the job of this try and no other (Airflow 3.3; before that, and while no triggerer has
    this trigger, the job ends itself at its deadline).

    Airflow 3.3.2 says the same, "user action", to the trigger of a triggerer that stood still until another one took
    its triggers over, and came back: that ends the job too, unless it is being committed, and the task, which the other
    one waits for, fails and is tried again. Nothing wrong is committed; the job's work is lost.

    :param conn_id: connection of type ``dockerbackup`` or ``ssh`` that reaches the host.
    :param begun: the capture that it waits for.
    :param deadline: until when, in seconds since the epoch.
    :param poll_seconds: how often it looks, the first time after that long: a busy scheduler of Airflow 3.3 can mark a
        task as failed whose trigger fires within seconds.
    """

    def __init__(self, *, conn_id: str, begun: BegunWire, deadline: float, poll_seconds: float = 15.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conn_id = conn_id
        self.begun = begun
        self.deadline = deadline
        self.poll_seconds = poll_seconds
        self._moved = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and what makes another one like this."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "conn_id": self.conn_id,
                "begun": dict(self.begun),
                "deadline": self.deadline,
                "poll_seconds": self.poll_seconds,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one :class:`SaveOnHostEvent`."""
        await asyncio.sleep(max(0.0, min(self.poll_seconds, self.deadline - time.time())))
        yield TriggerEvent(dict(await self._outcome()))  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """End the job and remove its folder, unless somebody is committing what it made.

        It is done, or the log says that the job goes on, before Airflow's limit.
        """
        place = from_wire(self.begun).place
        airflows = conf.getfloat("triggerer", "on_kill_timeout", fallback=_AIRFLOWS_KILL_SECONDS)
        seconds = _KILL_SHARE * airflows
        try:
            async with asyncio.timeout(seconds):
                await self._end_job(place)
        except TimeoutError:
            self.log.warning("the job %s may go on until its deadline: ending it took over %g s", place.name, seconds)
        except DockerBackupError as err:
            self.log.warning("the job %s goes on until its deadline: %s", place.name, err)

    async def _end_job(self, place: JobPlace) -> None:
        from airflow_provider_dockerbackup.hooks.async_ssh import connected

        async with connected(self.conn_id) as ssh:
            await ssh.run(host_jobs.clear_line(place, unclaimed=True), what="ending a job")

    async def _outcome(self) -> SaveOnHostEvent:
        failures = 0
        while True:
            try:
                if await self._is_over():
                    return self._event("over")
                return self._event("deadline")
            except TransientError as err:
                failures = 1 if self._moved else failures + 1
                if failures > _MOST_FAILURES:
                    return self._event("unreachable", str(err))
                self.log.warning("looking at the job on the host failed, trying again: %s", err)
            except DockerBackupError as err:
                return self._event("refused", str(err))
            if time.time() >= self.deadline:
                return self._event("deadline")
            # Many triggers lose the same host at once; they must not all come back in the same moment.
            await asyncio.sleep(min(2.0**failures, _LONGEST_BACKOFF_SECONDS) * random.uniform(0.5, 1.0))  # noqa: S311

    async def _is_over(self) -> bool:
        """Return once the job is over, or the deadline has passed, which is False; one connection serves all looks."""
        from airflow_provider_dockerbackup.hooks.async_ssh import connected

        line = host_jobs.state_line(from_wire(self.begun).place)
        self._moved = False
        async with connected(self.conn_id) as ssh:
            while True:
                result = await ssh.run(line, what="looking at a job")
                if result.exit_status != 0:
                    raise TransientError(f"looking at a job on {ssh.where} ended with exit status {result.exit_status}")
                self._moved = True
                if host_jobs.state_of(result.stdout).is_over:
                    return True
                left = self.deadline - time.time()
                if left <= 0:
                    return False
                await asyncio.sleep(min(self.poll_seconds, left))

    def _event(
        self, status: Literal["over", "deadline", "unreachable", "refused"], problem: str = ""
    ) -> SaveOnHostEvent:
        return SaveOnHostEvent(status=status, problem=problem, begun=self.begun)
