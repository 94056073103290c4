# SPDX-License-Identifier: Apache-2.0
"""Commit a container of a Docker host to an image there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.commit import CommitRequest, commit
from airflow_provider_dockerbackup.core.consistency import check_pause_limit
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands
from airflow_provider_dockerbackup.core.reference import ImageReference, container_name
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.operators import past_runs
from airflow_provider_dockerbackup.operators.base import DockerHostOperator, actor_of
from airflow_provider_dockerbackup.operators.rendered import flag
from airflow_provider_dockerbackup.transport.clock import SystemClock

if TYPE_CHECKING:
    from airflow.sdk import Context


class CommitSummary(TypedDict):
    """What a commit made; ``pause_seconds`` is None when the container was not paused for it.

    ``audit_head`` is None without a repository.
    """

    host: str
    container: str
    image: str
    image_id: str
    pause_seconds: float | None
    audit_head: str | None


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
    :param repository: URL of a repository whose audit trail is told; None tells none. (templated)
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :param allow_past_runs: commit also in a run for a past date, such as a backfill, which is skipped otherwise.
        (templated)
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
        "repository",
        "repository_conn_id",
        "allow_past_runs",
        "dockerbackup_conn_id",
    )

    metric = "commit"

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
        repository: str | None = None,
        repository_conn_id: str | None = None,
        allow_past_runs: bool | str = False,
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
        self.repository = repository
        self.repository_conn_id = repository_conn_id
        self.allow_past_runs = allow_past_runs

    def work(self, context: Context) -> CommitSummary:
        """Commit the container."""
        name = container_name(self.container)
        reference = ImageReference.parse(self.image)
        if not reference.tag or reference.digest:
            raise ConfigurationError(f"image: expected NAME:TAG for the new image, got {self.image!r}")
        if isinstance(self.changes, str):
            raise ConfigurationError(f"changes: expected a list of Dockerfile instructions, got {self.changes!r}")
        check_pause_limit(self.pause_limit_seconds)
        past = past_runs.refused(context, allow=flag("allow_past_runs", self.allow_past_runs))
        if past is not None:
            past_runs.skip(past)
        request = CommitRequest(
            container=name,
            reference=str(reference),
            message=self.message,
            author=self.author,
            changes=tuple(self.changes),
            pause=self.pause,
            pause_limit_seconds=self.pause_limit_seconds,
            commands=QuiesceCommands.of(
                self.pre_command, self.post_command, timeout_seconds=self.command_timeout_seconds
            ),
        )
        with self.hook.docker_host() as host:
            trail = self._trail(context)
            made = commit(request, host=host, clock=SystemClock(), progress=self.progress, trail=trail)
            seconds = made.pause_seconds
            paused = "not paused" if seconds is None else f"paused for {seconds} s"
            self.log.info(
                "container %s on %s: %s, committed as %s, %s", name, host.name, paused, reference, made.image_id
            )
            return CommitSummary(
                host=host.name,
                container=name,
                image=str(reference),
                image_id=made.image_id,
                pause_seconds=seconds,
                audit_head=trail.head if trail is not None else None,
            )

    def _trail(self, context: Context) -> Trail | None:
        if self.repository is None:
            return None
        from airflow_provider_dockerbackup.hooks.storage import repository_of

        return repository_of(self.repository, conn_id=self.repository_conn_id).trail(actor_of(context))
