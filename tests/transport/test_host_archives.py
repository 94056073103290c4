# SPDX-License-Identifier: Apache-2.0
"""What becomes of a host's messages about archives: what is gone is told from what nobody may touch."""

from __future__ import annotations

from typing import cast

import pytest

from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    DockerBackupError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.host_archives import SshHostArchives
from airflow_provider_dockerbackup.transport.ssh import CommandResult, SshSession

PATH = "/srv/backups/a.tar"
NO_HOME = b"Could not chdir to home directory /home/backup: No such file or directory\r\n"


class _Session:
    """Answers every line with one failure."""

    def __init__(self, stderr: bytes) -> None:
        self._stderr = stderr

    def run(self, line: str, **_: object) -> CommandResult:
        """Fail."""
        assert PATH in line
        return CommandResult(exit_status=1, stderr=self._stderr)


@pytest.mark.parametrize("before", [b"", NO_HOME, b"profile: /opt/tool: Not a directory\n" + NO_HOME])
@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"stat: cannot statx '/srv/backups/a.tar': No such file or directory\n", NotFoundError),
        (b"stat: cannot statx '/srv/backups/a.tar': Not a directory\n", NotFoundError),
        (b"stat: cannot statx '/srv/backups/a.tar': Permission denied\n", ConfigurationError),
        (b"rm: cannot remove '/srv/backups/a.tar': Operation not permitted\n", ConfigurationError),
        (b"stat: cannot statx '/srv/backups/a.tar': Input/output error\n", TransientError),
        (b"stat: cannot statx '/srv/backups/a.tar': Stale file handle", TransientError),
    ],
)
def test_only_what_the_command_itself_says_at_its_end_counts(
    before: bytes, said: bytes, error: type[DockerBackupError]
) -> None:
    """A home that is missing, of which sshd tells, does not make an archive look removed: it would stay there."""
    archives = SshHostArchives(cast("SshSession", _Session(before + said)), name="web1")
    for work in (lambda: archives.size(PATH), lambda: archives.delete(PATH)):
        with pytest.raises(DockerBackupError, match=r"a\.tar on web1: ") as raised:
            work()
        assert type(raised.value) is error
