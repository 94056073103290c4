# SPDX-License-Identifier: Apache-2.0
"""``airflow dockerbackup …``: the console script as one of Airflow's commands."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from airflow.cli.cli_config import ActionCommand, Arg, lazy_load_command


def get_commands() -> list[ActionCommand]:
    """Return the command; all words behind it are those of ``dockerbackup``."""
    words: Any = Arg  # Airflow's own has no types
    words = words(("words",), nargs=argparse.REMAINDER, metavar="VERB …", help="as for the command dockerbackup")
    return [
        ActionCommand(
            name="dockerbackup",
            help="Backups of Docker images and containers; 'airflow dockerbackup list --help'",
            func=lazy_load_command(f"{__name__}.run"),
            args=(words,),
        )
    ]


def run(arguments: Any) -> None:
    """Become the console script, with the words of Airflow's command line.

    In Airflow's process, log lines of libraries go to standard output, among JSON and archives.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-P", "-m", f"{__package__}.cli.main", *(arguments.words or ["--help"])]
    os.execv(sys.executable, command)  # noqa: S606 - no shell is meant
