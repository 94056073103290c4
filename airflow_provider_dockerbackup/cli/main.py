# SPDX-License-Identifier: Apache-2.0
"""The command ``dockerbackup`` and its verbs."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import add_completion_class

from airflow_provider_dockerbackup import __version__
from airflow_provider_dockerbackup.cli.completion import LineComplete
from airflow_provider_dockerbackup.cli.exit_codes import ExitCode, exit_code_of
from airflow_provider_dockerbackup.cli.output import plain
from airflow_provider_dockerbackup.cli.quick_start import quick_imports
from airflow_provider_dockerbackup.exceptions import DockerBackupError

# A verb's module is imported when it is used: SSH and Docker libraries take longer to import than a listing to make.
_VERBS = {
    "init": "init:init",
    "sources": "sources:sources",
    "list": "list:list_backups",
    "show": "show:show",
    "history": "history:history",
    "tree": "tree:tree",
    "files": "files:files",
    "cat": "cat:cat",
    "restore": "restore:restore",
    "restore-container": "restore_container:restore_container_verb",
    "probe": "probe:probe_storage",
    "save": "backup:save",
    "export": "backup:export",
    "commit": "commit:commit",
    "verify": "verify:verify",
    "rollback": "rollback:rollback",
    "stop": "stop:stop",
    "remove": "remove:remove",
    "rotate": "rotate:rotate_verb",
    "hold": "hold:hold",
    "release": "hold:release",
    "forget": "forget:forget_verb",
    "gc": "gc:gc_verb",
    "undelete": "undelete:undelete_verb",
    "convert": "convert:convert_verb",
    "copy": "copy:copy_verb",
    "quarantine": "quarantine:quarantine_verb",
    "check": "check:check",
    "freshness": "freshness:freshness_verb",
    "audit": "audit:audit",
    "forced-command": "forced_command:forced_command",
    "completion": "completion:completion",
}


class _Verbs(click.Group):
    """A group whose verbs are imported one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the verbs."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        """Return a verb; None when there is none of that name."""
        if cmd_name not in _VERBS:
            return None
        module, _, name = _VERBS[cmd_name].partition(":")
        with quick_imports():
            command = getattr(importlib.import_module(f"airflow_provider_dockerbackup.cli.{module}"), name)
        return command if isinstance(command, click.Command) else None


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 not found, 4 try again (link, daemon or storage "
    "failed), 5 bytes are bad, 6 something else holds the name, 130 interrupted.",
)
@click.version_option(__version__, prog_name="dockerbackup")
def cli() -> None:
    """Make, prove, keep and restore backups of Docker images and containers. Needs no Airflow.

    The repository is given by --repository or DOCKERBACKUP_REPOSITORY, a Docker host as for ssh.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console script; errors of this package become one message and a documented exit code.

    :param arguments: instead of the process's own.
    """
    if sys.stdout is None:
        sys.exit("dockerbackup: standard output is closed; send it to /dev/null if it is not wanted")
    add_completion_class(LineComplete)
    try:
        cli.main(args=arguments, prog_name="dockerbackup", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort:
        click.echo("dockerbackup: interrupted", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except click.ClickException as err:
        err.show()
        sys.exit(ExitCode.USAGE if isinstance(err, click.UsageError) else ExitCode.FAILED)
    except DockerBackupError as err:
        click.echo(plain(f"dockerbackup: {err}"), err=True)
        sys.exit(exit_code_of(err))
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
    except OSError as err:
        click.echo(plain(f"dockerbackup: the output cannot be written: {err.strerror or err}"), err=True)
        sys.exit(ExitCode.FAILED)


if __name__ == "__main__":
    main()
