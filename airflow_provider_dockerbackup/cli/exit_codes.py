# SPDX-License-Identifier: Apache-2.0
"""Exit codes of the console script, by what failed."""

from __future__ import annotations

from enum import IntEnum

from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    NotFoundError,
    StaleError,
    TransientError,
)


class ExitCode(IntEnum):
    """What the console script says to the shell; treat a code that is not listed as failure."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    TRANSIENT = 4
    INTEGRITY = 5
    CONFLICT = 6
    STALE = 7
    INTERRUPTED = 130


def exit_code_of(error: DockerBackupError) -> ExitCode:
    """Return the exit code for an error of this package."""
    for kind, code in (
        (ConfigurationError, ExitCode.USAGE),
        (NotFoundError, ExitCode.NOT_FOUND),
        (TransientError, ExitCode.TRANSIENT),
        (IntegrityError, ExitCode.INTEGRITY),
        (ConflictError, ExitCode.CONFLICT),
        (StaleError, ExitCode.STALE),
    ):
        if isinstance(error, kind):
            return code
    return ExitCode.FAILED
