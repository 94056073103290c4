# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup commit``: a container to an image on its host."""

from __future__ import annotations

import click

from airflow_provider_dockerbackup.cli.options import (
    HostOptions,
    actor,
    host_options,
    json_option,
    open_or_create_repository,
    quiesce_commands,
    quiesce_options,
)
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json
from airflow_provider_dockerbackup.core.commit import CommitRequest
from airflow_provider_dockerbackup.core.commit import commit as commit_container
from airflow_provider_dockerbackup.core.consistency import check_pause_limit
from airflow_provider_dockerbackup.core.reference import ImageReference, container_name
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.clock import SystemClock


@click.command("commit")
@click.argument("container")
@click.argument("image", metavar="NAME:TAG")
@click.option(
    "--repository",
    "-r",
    envvar="DOCKERBACKUP_REPOSITORY",
    metavar="URL",
    help="A repository whose audit trail is told.  [default: none]",
)
@host_options
@click.option("--message", "-m", default="", help="Commit message.")
@click.option("--author", "-a", default="", help="Author, such as 'Jane <jane@example.com>'.")
@click.option("--change", "-c", "changes", multiple=True, help="Dockerfile instruction to apply; may be repeated.")
@click.option("--pause/--no-pause", default=True, show_default=True, help="Pause the container meanwhile, if it runs.")
@click.option(
    "--pause-limit", type=int, default=300, show_default=True, metavar="SECONDS", help="It runs again after this long."
)
@quiesce_options
@json_option
def commit(
    *,
    container: str,
    image: str,
    repository: str | None,
    host: HostOptions,
    message: str,
    author: str,
    changes: tuple[str, ...],
    pause: bool,
    pause_limit: int,
    pre_command: str | None,
    post_command: str | None,
    command_timeout: float,
    as_json: bool,
) -> None:
    """Commit a container to the image NAME:TAG on its host, ready to be saved.

    \b
    Example:
      dockerbackup commit app app:2026-11-23 --host web1 -m "before the upgrade" -a "Jane <jane@example.com>"
    """
    reference = ImageReference.parse(image)
    if not reference.tag or reference.digest:
        raise ConfigurationError(f"NAME:TAG: expected the name of the new image, got {image!r}")
    check_pause_limit(pause_limit)
    request = CommitRequest(
        container=container_name(container),
        reference=str(reference),
        message=message,
        author=author,
        changes=changes,
        pause=pause,
        pause_limit_seconds=pause_limit,
        commands=quiesce_commands(pre_command, post_command, timeout_seconds=command_timeout),
    )
    with host.connected() as docker:
        docker.inspect_container(request.container)
        trail = open_or_create_repository(repository, compression=None).trail(actor()) if repository else None
        made = commit_container(request, host=docker, clock=SystemClock(), progress=BarProgress(), trail=trail)
        name = docker.name
    if as_json:
        print_json(
            {
                "host": name,
                "container": request.container,
                "image": request.reference,
                "image_id": made.image_id,
                "pause_seconds": made.pause_seconds,
                "audit_head": trail.head if trail is not None else None,
            }
        )
        return
    paused = "not paused" if made.pause_seconds is None else f"paused for {made.pause_seconds} s"
    click.echo(plain(f"container {request.container} on {name}: {paused}, committed as {reference}, {made.image_id}"))
