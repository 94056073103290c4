# SPDX-License-Identifier: Apache-2.0
"""Commands in a real container around a real capture."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.operators.commit import DockerCommitOperator
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.lab.lab import LabHost
from tests.operators.context import context

pytestmark = pytest.mark.usefixtures("connections")
SH = ["/bin/busybox", "sh", "-c"]


def export(repository: str, **options: Any) -> dict[str, Any]:
    """Export the lab's container."""
    operator = DockerExportOperator(
        task_id="export", dockerbackup_conn_id="docker_host_1", container="lab-app", repository=repository, **options
    )
    summary: dict[str, Any] = operator.execute(context(task_id="export"))
    return summary


def in_container(host: LabHost, script: str) -> bytes:
    """Run a script in the lab's container."""
    done: bytes = host.daemon.docker("exec", "lab-app", *SH, script).stdout
    return done


@pytest.mark.parametrize("consistency", ["snapshot", "pause", "none"])
def test_the_capture_holds_what_the_first_command_wrote(
    host: LabHost, repository_url: str, tmp_path: Any, consistency: str
) -> None:
    """And the container has what the second one did; odd characters reach the program as they are."""
    text = 'it\'s $HOME; `id` "quoted"'
    summary = export(
        repository_url,
        consistency=consistency,
        pre_command=[*SH, 'printf %s "$0" > /tmp/flushed', text],
        post_command=[*SH, "rm /tmp/flushed; echo yes > /tmp/released"],
    )
    repository = Repository.open(storage_from_url(repository_url), clock=SystemClock())
    backup = repository.catalog.find(summary["backup_id"])
    assert backup.whole().consistency == "quiesced"
    assert backup.whole().notes == ()
    archive = (tmp_path / "repository" / backup.path / backup.whole().archive_file.name).read_bytes()
    assert text.encode() in archive
    assert in_container(host, "ls /tmp/flushed /tmp/released 2>/dev/null || true") == b"/tmp/released\n"
    in_container(host, "rm /tmp/released")


def test_a_failing_first_command_stops_the_backup_and_shows_no_word_of_it(
    host: LabHost, repository_url: str, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second command runs all the same; what it printed is in the log alone, without words of the command."""
    with pytest.raises(TransientError, match="exit status 9") as caught:
        export(
            repository_url,
            pre_command=[
                *SH,
                "echo password=hunter2 of $(echo c2VjcmV0 | /bin/busybox base64 -d) >&2; exit 9",
                "hunter2",
            ],
            post_command=[*SH, "touch /tmp/released"],
        )
    assert "the log has the end" in str(caught.value)
    logged = [line for line in capsys.readouterr().out.splitlines() if "printed on standard error" in line]
    assert len(logged) == 1
    assert "secret" in logged[0]
    kept = b"".join(each.read_bytes() for each in (tmp_path / "repository").rglob("*.json"))
    assert b"pre_command in container lab-app on " in kept
    assert b"ended with exit status 9" in kept
    for secret in ("hunter2", "secret", "password"):
        assert secret not in str(caught.value)
        assert secret.encode() not in kept
    assert "hunter2" not in logged[0]
    assert in_container(host, "rm /tmp/released && echo was there") == b"was there\n"
    assert Repository.open(storage_from_url(repository_url), clock=SystemClock()).catalog.backups() == []


def test_a_command_that_takes_too_long_stops_the_backup(repository_url: str) -> None:
    """What it is doing may take forever."""
    with pytest.raises(TransientError, match="pre_command in container lab-app"):
        export(repository_url, pre_command=[*SH, "sleep 5"], command_timeout_seconds=1)


def test_a_program_that_is_not_there_is_named_as_such(repository_url: str) -> None:
    """Trying again would not help."""
    with pytest.raises(AirflowFailException, match="has no such program"):
        export(repository_url, pre_command=["/not/there"])


def test_a_commit_takes_the_same_commands(host: LabHost) -> None:
    """The image holds what the first one wrote."""
    operator = DockerCommitOperator(
        task_id="commit",
        dockerbackup_conn_id="docker_host_1",
        container="lab-app",
        image="lab/quiesced:1",
        pre_command=[*SH, "echo at rest > /tmp/flushed"],
        post_command=[*SH, "rm /tmp/flushed"],
    )
    summary = operator.execute(context(task_id="commit"))
    assert 0 < summary["pause_seconds"] < 60
    assert b"dockerbackup-temporary" not in host.daemon.docker("images").stdout
    shown = host.daemon.docker(
        "run", "--rm", "--network", "none", "--entrypoint", "/bin/busybox", "lab/quiesced:1", "cat", "/tmp/flushed"
    )
    assert shown.stdout == b"at rest\n"
    host.daemon.docker("rmi", "lab/quiesced:1")
