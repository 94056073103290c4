# SPDX-License-Identifier: Apache-2.0
"""Commit a container of a Docker host to an image there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypedDict

from airflow_provider_dockerbackup.core.ports import DockerHost
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands, Quiesced, quiesced
from airflow_provider_dockerbackup.core.reference import ImageReference, container_name
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.operators.base import DockerHostOperator
from airflow_provider_dockerbackup.transport.clock import SystemClock

if TYPE_CHECKING:
    from airflow.sdk import Context


class CommitSummary(TypedDict):
    """What a commit made."""

    host: str
    container: str
    image: str
    image_id: str


class DockerCommitOperator(DockerHostOperator):
    """Run ``docker commit`` on a Docker host and return the reference of the new image, ready for a save.

    :param container: name of the container. (templated)
    :param image: reference ``name:tag`` of the new image. (templated)
    :param message: commit message. (templated)
    :param author: author such as ``Jane <jane@example.com>``. (templated)
    :param changes: Dockerfile instructions to apply, such as ``CMD ["run"]``. (templated)
    :param pause: pause the container while it is committed.
    :param pre_command: command run in the container before the commit, as a list of words, without a shell: a flush of
        a database, say. When it fails, nothing is committed. (templated)
    :param post_command: command run in the container after the commit, also when something failed. (templated)
    :param command_timeout_seconds: how long each of the two may take.
    :param dockerbackup_conn_id: connection of type ``dockerbackup`` or ``ssh`` that reaches the host. (templated)
    :return: a :class:`CommitSummary`.
    """

    template_fields: Sequence[str] = (
        "container",
        "image",
        "message",
        "author",
        "changes",
        "pre_command",
        "post_command",
        "dockerbackup_conn_id",
    )

    def __init__(
        self,
        *,
        container: str,
        image: str,
        message: str = "",
        author: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        pre_command: Sequence[str] | None = None,
        post_command: Sequence[str] | None = None,
        command_timeout_seconds: float = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.container = container
        self.image = image
        self.message = message
        self.author = author
        self.changes = changes
        self.pause = pause
        self.pre_command = pre_command
        self.post_command = post_command
        self.command_timeout_seconds = command_timeout_seconds

    def work(self, context: Context) -> CommitSummary:
        """Commit the container."""
        name = container_name(self.container)
        reference = ImageReference.parse(self.image)
        if not reference.tag or reference.digest:
            raise ConfigurationError(f"image: expected NAME:TAG for the new image, got {self.image!r}")
        if isinstance(self.changes, str):
            raise ConfigurationError(f"changes: expected a list of Dockerfile instructions, got {self.changes!r}")
        commands = QuiesceCommands.of(self.pre_command, self.post_command, timeout_seconds=self.command_timeout_seconds)
        with self.hook.docker_host() as host:
            with self._quiesced(host, name, commands):
                image_id = host.commit_container(
                    name,
                    reference=str(reference),
                    message=self.message,
                    author=self.author,
                    changes=tuple(self.changes),
                    pause=self.pause,
                )
            self.log.info("container %s on %s: committed as %s, %s", name, host.name, reference, image_id)
            return CommitSummary(host=host.name, container=name, image=str(reference), image_id=image_id)

    def _quiesced(
        self, host: DockerHost, container: str, commands: QuiesceCommands
    ) -> AbstractContextManager[Quiesced | None]:
        if not commands:
            return nullcontext()
        return quiesced(
            commands,
            host=host,
            container=container,
            status=host.inspect_container(container).status,
            clock=SystemClock(),
            progress=self.progress,
        )
