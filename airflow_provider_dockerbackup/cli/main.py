# SPDX-License-Identifier: Apache-2.0
"""The command ``dockerbackup`` and its verbs."""

from __future__ import annotations

import os
import sys

import click

from airflow_provider_dockerbackup import __version__
from airflow_provider_dockerbackup.cli.audit import audit
from airflow_provider_dockerbackup.cli.backup import export, save
from airflow_provider_dockerbackup.cli.cat import cat
from airflow_provider_dockerbackup.cli.check import check
from airflow_provider_dockerbackup.cli.commit import commit
from airflow_provider_dockerbackup.cli.exit_codes import ExitCode, exit_code_of
from airflow_provider_dockerbackup.cli.files import files
from airflow_provider_dockerbackup.cli.forget import forget_verb
from airflow_provider_dockerbackup.cli.history import history
from airflow_provider_dockerbackup.cli.hold import hold, release
from airflow_provider_dockerbackup.cli.list import list_backups
from airflow_provider_dockerbackup.cli.output import plain
from airflow_provider_dockerbackup.cli.probe import probe_storage
from airflow_provider_dockerbackup.cli.quarantine import quarantine_verb
from airflow_provider_dockerbackup.cli.remove import remove
from airflow_provider_dockerbackup.cli.restore import restore
from airflow_provider_dockerbackup.cli.restore_container import restore_container_verb
from airflow_provider_dockerbackup.cli.rollback import rollback
from airflow_provider_dockerbackup.cli.rotate import rotate_verb
from airflow_provider_dockerbackup.cli.show import show
from airflow_provider_dockerbackup.cli.sources import sources
from airflow_provider_dockerbackup.cli.stop import stop
from airflow_provider_dockerbackup.cli.tree import tree
from airflow_provider_dockerbackup.cli.verify import verify
from airflow_provider_dockerbackup.exceptions import DockerBackupError


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 not found, 4 try again (link, daemon or storage "
    "failed), 5 bytes are bad, 6 something else holds the name, 130 interrupted.",
)
@click.version_option(__version__, prog_name="dockerbackup")
def cli() -> None:
    """Make, prove, keep and restore backups of Docker images and containers. Needs no Airflow.

    The repository is given by --repository or DOCKERBACKUP_REPOSITORY, a Docker host as for ssh.
    """


for verb in (sources, list_backups, show, history, tree, files, cat, restore, restore_container_verb, probe_storage):
    cli.add_command(verb)
for verb in (save, export, commit, verify):
    cli.add_command(verb)
for verb in (rollback, stop, remove, rotate_verb, hold, release, forget_verb, quarantine_verb, check, audit):
    cli.add_command(verb)


def main() -> None:
    """Run the console script; errors of this package become one message and a documented exit code."""
    if sys.stdout is None:
        sys.exit("dockerbackup: standard output is closed; send it to /dev/null if it is not wanted")
    try:
        cli.main(standalone_mode=False)
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
