# SPDX-License-Identifier: Apache-2.0
"""Commit a container while it is paused: to a temporary tag first, so that the final one never names a torn image."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.change import Change
from airflow_provider_dockerbackup.core.consistency import check_pause_limit
from airflow_provider_dockerbackup.core.model import PausedCommit, SourceKind
from airflow_provider_dockerbackup.core.ports import Clock, DockerHost, Progress
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands, Quiesced, quiesced, require_running
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.temporary import remove_temporary, temporary_tag
from airflow_provider_dockerbackup.exceptions import DockerBackupError, NotFoundError, TransientError

# After this long a temporary tag counts as left behind, whoever made it.
_DEADLINE_SECONDS = 6 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """What to commit.

    :param container: name of the container.
    :param reference: ``name:tag`` of the new image.
    :param changes: Dockerfile instructions.
    :param pause_limit_seconds: a container that we paused runs again after this long whatever happens; a commit that
        takes longer fails.
    :param pause: pause the container while it is committed, if it runs.
    :param commands: run in the container before and after the commit.
    """

    container: str
    reference: str
    message: str = ""
    author: str = ""
    changes: tuple[str, ...] = ()
    pause: bool = True
    pause_limit_seconds: int = 300
    commands: QuiesceCommands = field(default_factory=QuiesceCommands)


def commit(
    request: CommitRequest, *, host: DockerHost, clock: Clock, progress: Progress, trail: Trail | None = None
) -> PausedCommit:
    """Commit a container as the request says, and tell the audit trail, if there is one.

    The errors are those of :func:`commit_paused`; a trail that cannot be written is told to the reader.
    """
    how = commit_paused if request.pause else _commit_running
    if trail is None:
        return how(request, host=host, clock=clock, progress=progress)
    source = Source(host=host.name, kind=SourceKind.CONTAINER, name=request.container)
    about = {"image": request.reference, "message": request.message, "author": request.author, "pause": request.pause}
    change = Change(trail, source=source, host=host, progress=progress, about=about)
    change.tell("commit.started", "intent")
    with change.or_failed("commit.failed"):
        made = how(request, host=host, clock=clock, progress=progress)
    change.tell("commit.done", "success", image_id=made.image_id, pause_seconds=made.pause_seconds)
    return made


def _commit_running(request: CommitRequest, *, host: DockerHost, clock: Clock, progress: Progress) -> PausedCommit:
    """Commit without a pause."""
    with _quiesced(request, host=host, clock=clock, progress=progress):
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
    request: CommitRequest, *, host: DockerHost, clock: Clock, progress: Progress
) -> AbstractContextManager[Quiesced | None]:
    if not request.commands:
        return nullcontext()
    status = host.inspect_container(request.container).status
    return quiesced(
        request.commands, host=host, container=request.container, status=status, clock=clock, progress=progress
    )


def commit_paused(request: CommitRequest, *, host: DockerHost, clock: Clock, progress: Progress) -> PausedCommit:
    """Commit a container, paused meanwhile when it runs; the tag moves only once the image is known to be whole.

    Also removes what killed commits of the same container to the same reference left on the host.

    :raises ConfigurationError: when the limit is below 1.
    :raises NotFoundError: when there is no such container.
    :raises ConflictError: when there are commands and the container does not run; nothing was touched.
    :raises TransientError: when the container was unpaused before the commit ended, or is restarting; the tag is as
        it was.
    """
    check_pause_limit(request.pause_limit_seconds)
    container, commands = host.inspect_container(request.container), request.commands
    require_running(commands, host=host, container=request.container, status=container.status)
    work = hashlib.sha256(f"commit\0{request.container}\0{request.reference}".encode()).hexdigest()[:16]
    remove_temporary(host, work=work, progress=progress)
    with _temporary_tag(host, work=work, progress=progress) as temporary:
        with quiesced(
            commands,
            host=host,
            container=request.container,
            status=container.status,
            clock=clock,
            progress=progress,
        ):
            made = host.commit_paused(
                container.id,
                reference=temporary,
                message=request.message,
                author=request.author,
                changes=request.changes,
                limit_seconds=request.pause_limit_seconds,
            )
        try:
            host.tag_image(made.image_id, reference=request.reference)
        except NotFoundError as err:
            raise TransientError(
                f"the image just committed on {host.name} was removed, perhaps by another commit of "
                f"{request.container} to {request.reference}; try again ({err})"
            ) from err
    return made


@contextmanager
def _temporary_tag(host: DockerHost, *, work: str, progress: Progress) -> Iterator[str]:
    """Give a tag that the next run finds by its work or its age, and remove it at the end."""
    expires = int(host.now().timestamp()) + _DEADLINE_SECONDS
    tag = temporary_tag(work, secrets.token_hex(6), expires=expires)
    try:
        yield tag
    finally:
        try:
            host.remove_image(tag)
        except DockerBackupError as err:
            progress.note(f"{tag} stays on {host.name} for the next run to remove: {err}")
