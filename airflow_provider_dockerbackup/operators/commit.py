# SPDX-License-Identifier: Apache-2.0
"""Commit a container of a Docker host to an image there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypedDict

from airflow_provider_dockerbackup.core.commit import CommitRequest, commit_paused
from airflow_provider_dockerbackup.core.export import check_pause_limit
from airflow_provider_dockerbackup.core.model import PausedCommit
from airflow_provider_dockerbackup.core.ports import DockerHost
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands, Quiesced, quiesced
from airflow_provider_dockerbackup.core.reference import ImageReference, container_name
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.operators.base import DockerHostOperator
from airflow_provider_dockerbackup.transport.clock import SystemClock

if TYPE_CHECKING:
    from airflow.sdk import Context


class CommitSummary(TypedDict):
    """What a commit made; ``pause_seconds`` is None when the container was not paused for it."""

    host: str
    container: str
    image: str
    image_id: str
    pause_seconds: float | None


class DockerCommitOperator(DockerHostOperator):
    """Run ``docker commit`` on a Docker host and return the reference of the new image, ready for a save.

    :param container: name of the container. (templated)
    :param image: reference ``name:tag`` of the new image. (templated)
    :param message: commit message. (templated)
    :param author: author such as ``Jane <jane@example.com>``. (templated)
    :param changes: Dockerfile instructions to apply, such as ``CMD ["run"]``. (templated)
    :param pause: pause the container while it is committed, if it runs.
    :param pause_limit_seconds: a container that was paused runs again after this long whatever happens; a commit that
        takes longer fails, and the image's tag stays what it was.
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
        pause_limit_seconds: int = 300,
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
        self.pause_limit_seconds = pause_limit_seconds
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
        check_pause_limit(self.pause_limit_seconds)
        request = CommitRequest(
            container=name,
            reference=str(reference),
            message=self.message,
            author=self.author,
            changes=tuple(self.changes),
            pause_limit_seconds=self.pause_limit_seconds,
            commands=QuiesceCommands.of(
                self.pre_command, self.post_command, timeout_seconds=self.command_timeout_seconds
            ),
        )
        with self.hook.docker_host() as host:
            if self.pause:
                made = commit_paused(request, host=host, clock=SystemClock(), progress=self.progress)
            else:
                made = self._commit_running(request, host)
            seconds = made.pause_seconds
            paused = "not paused" if seconds is None else f"paused for {seconds} s"
            self.log.info(
                "container %s on %s: %s, committed as %s, %s", name, host.name, paused, reference, made.image_id
            )
            return CommitSummary(
                host=host.name, container=name, image=str(reference), image_id=made.image_id, pause_seconds=seconds
            )

    def _commit_running(self, request: CommitRequest, host: DockerHost) -> PausedCommit:
        """Commit without a pause."""
        with self._quiesced(host, request.container, request.commands):
            image_id = host.commit_container(
                request.container,
                reference=request.reference,
                message=request.message,
                author=request.author,
                changes=request.changes,
                pause=False,
            )
        return PausedCommit(image_id=image_id, pause_seconds=None)

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
