# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup forced-command``: the script that lets an SSH key do backups on a Docker host and nothing else."""

from __future__ import annotations

import click

from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.forced_command import Action, script


@click.command("forced-command")
@click.option(
    "--allow",
    "actions",
    type=click.Choice([action.value for action in Action]),
    multiple=True,
    required=True,
    help="What the key may do; repeat it. export includes list.",
)
@click.option("--docker-command", default="docker", show_default=True, help="How docker is called on the host.")
@click.option("--docker-socket", metavar="unix:///PATH", help="The daemon's socket.  [default: the host's own]")
def forced_command(*, actions: tuple[str, ...], docker_command: str, docker_socket: str | None) -> None:
    """Print the script that sshd of a Docker host runs for a key that may only back up.

    \b
    Example:
      dockerbackup forced-command --allow save --allow list > dockerbackup-ssh
    """
    docker = DockerCommand.parse(docker_command, socket=docker_socket)
    click.echo(script({Action(action) for action in actions}, docker=docker), nl=False)
