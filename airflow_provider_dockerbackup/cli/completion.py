# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup completion``: the script that makes a shell complete verbs, options and backup ids."""

from __future__ import annotations

import os
from contextlib import suppress

import click
from click.shell_completion import CompletionItem, get_completion_class

from airflow_provider_dockerbackup.exceptions import DockerBackupError

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Example:
      dockerbackup completion bash > /etc/bash_completion.d/dockerbackup
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(ctx.find_root().command, {}, "dockerbackup", "_DOCKERBACKUP_COMPLETE").source())


def backup_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Return the ids in the repository of the command line, or of the environment; names only, nothing is read."""
    from airflow_provider_dockerbackup.core.catalog import Catalog
    from airflow_provider_dockerbackup.transport.storage import storage_from_url

    url = ctx.params.get("repository") or os.environ.get("DOCKERBACKUP_REPOSITORY")
    found: list[CompletionItem] = []
    if url:
        with suppress(DockerBackupError, OSError):  # a prompt is no place for messages
            named = Catalog(storage_from_url(url)).names()
            found = [CompletionItem(each, help=str(source)) for each, source in named if each.startswith(incomplete)]
    return found
