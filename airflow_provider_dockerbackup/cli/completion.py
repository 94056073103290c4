# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup completion``: the script that makes a shell complete verbs, options and backup ids."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Final

import click
from click.shell_completion import BashComplete, CompletionItem, get_completion_class, split_arg_string

_SHELLS = ("bash", "zsh", "fish")
# Whoever pressed the key waits: a storage that has not answered by then gives no ids.
_PATIENCE_SECONDS: Final = 5.0


class LineComplete(BashComplete):
    """Completion for bash from the line as it was typed: bash's own words are cut at ``:`` and ``=``, as in URLs."""

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' kind value
    COMPREPLY=()
    while IFS=',' read -r kind value; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(env COMP_WORDS="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor without the command's own, and the one that the cursor is in."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        return (words, "") if not words or line[-1].isspace() else (words[:-1], words[-1])


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
    click.echo(kind(ctx.find_root().command, {}, "dockerbackup", "_DOCKERBACKUP_COMPLETE").source(), nl=False)


def backup_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids in the repository that the line names before them, or of the environment, that begin so.

    Names only, nothing is read. None when there is no repository, or when it does not answer in time.
    """
    return _ids(ctx, param, incomplete, deleted=False)


def deleted_backup_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of deleted backups, as :func:`backup_ids`."""
    return _ids(ctx, param, incomplete, deleted=True)


def _ids(ctx: click.Context, param: click.Parameter, incomplete: str, *, deleted: bool) -> list[CompletionItem]:
    url = ctx.params.get("repository") or os.environ.get("DOCKERBACKUP_REPOSITORY")
    given = set(ctx.params.get(param.name or "") or ()) if param.nargs == -1 else set()
    found: list[CompletionItem] = []
    if url:
        # A daemon: the process ends without it.
        worker = threading.Thread(target=lambda: found.extend(_named(str(url), deleted=deleted)), daemon=True)
        worker.start()
        worker.join(_PATIENCE_SECONDS)
        if worker.is_alive():
            return []
    return [each for each in found if each.value.startswith(incomplete) and each.value not in given]


def _named(url: str, *, deleted: bool) -> Iterator[CompletionItem]:
    from airflow_provider_dockerbackup.core.catalog import Catalog
    from airflow_provider_dockerbackup.transport.storage import storage_from_url

    try:
        catalog = Catalog(storage_from_url(url))
        for name, source in catalog.deleted_names() if deleted else catalog.names():
            yield CompletionItem(name, help=str(source))
    except Exception:  # noqa: BLE001 - whatever it is, nothing may be written into the line that somebody types
        return
