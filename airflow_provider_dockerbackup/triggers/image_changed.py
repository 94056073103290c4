# SPDX-License-Identifier: Apache-2.0
"""Wait, in the triggerer, until an image on a Docker host is another one than its newest backup holds."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, TypedDict

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_dockerbackup.core.identity import ImageIdentity
from airflow_provider_dockerbackup.exceptions import DockerBackupError, NotFoundError, TransientError
from airflow_provider_dockerbackup.transport import commands, docker_output
from airflow_provider_dockerbackup.transport.async_ssh import AsyncSshConnection
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.docker_errors import docker_error

_LONGEST_BACKOFF_SECONDS = 60.0
_MOST_FAILURES = 8


class ImageChangedEvent(TypedDict):
    """Why the trigger fired.

    ``status`` is ``look`` when a worker should look, ``timeout`` when nothing changed in time, ``unreachable`` when the
    host was not reached for long or at the end of the time, ``refused`` when it cannot be: then ``problem`` says why.
    ``deadline`` is the trigger's own.
    """

    status: Literal["look", "timeout", "unreachable", "refused"]
    problem: str
    deadline: float


class ImageChangedTrigger(BaseTrigger):
    """Fires once: when the image is another one, or cannot be waited for any more.

    It keeps nothing and changes nothing, so it may be started again anywhere, and run twice at once. It asks the host
    alone; the repository is the worker's.

    :param conn_id: connection of type ``dockerbackup`` or ``ssh`` that reaches the host.
    :param image: reference of the image.
    :param ids: IDs under which the engine may show the image that is backed up.
    :param diff_ids: of that image's layers, lowest first.
    :param deadline: until when, in seconds since the epoch.
    :param poll_seconds: how often it looks.
    :param wait_for_missing: whether an image that is not there is waited for.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        image: str,
        ids: Sequence[str],
        diff_ids: Sequence[str],
        deadline: float,
        poll_seconds: float,
        wait_for_missing: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conn_id = conn_id
        self.image = image
        self.ids = list(ids)
        self.diff_ids = list(diff_ids)
        self.deadline = deadline
        self.poll_seconds = poll_seconds
        self.wait_for_missing = wait_for_missing
        self._answered = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and what makes another one like this."""
        names = ("conn_id", "image", "ids", "diff_ids", "deadline", "poll_seconds", "wait_for_missing")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one :class:`ImageChangedEvent`."""
        yield TriggerEvent(dict(await self._outcome()))  # type: ignore[no-untyped-call]

    async def _outcome(self) -> ImageChangedEvent:
        failures = 0
        while True:
            try:
                return self._event("look" if await self._changes() else "timeout")
            except TransientError as err:
                failures = 1 if self._answered else failures + 1
                # What the image is by now is not known, so that nobody may say that it did not change in time.
                if failures > _MOST_FAILURES or time.time() >= self.deadline:
                    return self._event("unreachable", str(err))
                self.log.warning("looking at image %s failed, trying again: %s", self.image, err)
            except DockerBackupError as err:
                return self._event("refused", str(err))
            # Many triggers lose the same host at once; they must not all come back in the same moment.
            await asyncio.sleep(min(2.0**failures, _LONGEST_BACKOFF_SECONDS) * random.uniform(0.5, 1.0))  # noqa: S311

    async def _changes(self) -> bool:
        """Return True once a worker should look, False when the deadline passed; one connection serves all looks."""
        from airflow_provider_dockerbackup.hooks.async_ssh import connected, docker_command_of

        self._answered = False
        docker = await docker_command_of(self.conn_id)
        async with connected(self.conn_id) as ssh:
            while True:
                # The worker looked just before. The last look is at the deadline, or after it when the host was away:
                # what nobody saw did not stay what it was.
                await asyncio.sleep(max(0.0, min(self.poll_seconds, self.deadline - time.time())))
                if await self._is_another(ssh, docker):
                    return True
                self._answered = True
                if time.time() >= self.deadline:
                    return False

    async def _is_another(self, ssh: AsyncSshConnection, docker: DockerCommand) -> bool:
        what = f"docker image inspect {self.image}"
        result = await ssh.run(commands.inspect_images(docker, [self.image]), what=what)
        if result.exit_status != 0:
            error = docker_error(result, what=what, host=ssh.where)
            if isinstance(error, NotFoundError):
                return not self.wait_for_missing
            raise error
        held = ImageIdentity(ids=frozenset(self.ids), diff_ids=tuple(self.diff_ids))
        found = docker_output.json_array(result.stdout)
        return len(found) != 1 or not held.is_of(docker_output.image(found[0]))

    def _event(
        self, status: Literal["look", "timeout", "unreachable", "refused"], problem: str = ""
    ) -> ImageChangedEvent:
        return ImageChangedEvent(status=status, problem=problem, deadline=self.deadline)
