# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup stop``: a container of a Docker host."""

from __future__ import annotations

import click

from airflow_provider_dockerbackup.cli.options import (
    HostOptions,
    actor,
    host_options,
    json_option,
    open_repository,
    repository_option,
)
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json
from airflow_provider_dockerbackup.core.stop import StopRequest, stop_source


@click.command()
@click.argument("container")
@repository_option
@host_options
@click.option("--timeout", type=int, metavar="SECONDS", help="Then by force.  [default: the container's own, else 10]")
@click.option("--dry-run", is_flag=True, help="Say what would be done and touch nothing.")
@json_option
def stop(
    *, container: str, repository: str, host: HostOptions, timeout: int | None, dry_run: bool, as_json: bool
) -> None:
    """Stop a container, so that a backup can be taken of it that nothing changes any more.

    The repository's audit trail says so before it is done. A container that was started with --rm is refused.

    \b
    Example:
      dockerbackup stop app -r s3://backups/docker --host web1
    """
    opened = open_repository(repository)
    request = StopRequest(name=container, timeout_seconds=timeout, dry_run=dry_run, actor=actor())
    with host.connected() as docker:
        outcome = stop_source(request, host=docker, repository=opened, progress=BarProgress())
    if as_json:
        print_json(
            {
                "host": outcome.source.host,
                "container": outcome.source.name,
                "container_id": outcome.container_id,
                "status": outcome.status,
                "exit_code": outcome.exit_code,
                "finished_at": outcome.finished_at,
                "dry_run": dry_run,
                "audit_head": outcome.audit_head,
            }
        )
        return
    done = f"{'would be' if dry_run else 'is'} stopped" if outcome.status == "stopped" else "did not run"
    click.echo(plain(f"container {outcome.source.name} on {outcome.source.host} {done}"))
    if outcome.finished_at:
        click.echo(plain(f"it ended at {outcome.finished_at} with exit code {outcome.exit_code}"))
