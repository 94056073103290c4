# SPDX-License-Identifier: Apache-2.0
"""Sources of a fleet whose archives stay on their real hosts: labels count as they were when the job began."""

from __future__ import annotations

import json
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.exceptions import ConfigurationError, TransientError
from airflow_provider_dockerbackup.operators.capture import DockerCaptureOperator
from airflow_provider_dockerbackup.operators.list_due import DockerListDueOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from airflow_provider_dockerbackup.triggers.save_on_host import from_wire
from tests.lab.images import BASE, build_base
from tests.lab.lab import LabHost
from tests.operators.context import context
from tests.operators.test_export_on_host import left_in_docker
from tests.operators.test_on_host import HOSTS, deferred, fired, hidden, kill, only_backup, opened

pytestmark = pytest.mark.usefixtures("connections")
NAME = "shop"
Start = Callable[..., None]


@pytest.fixture
def start(host: LabHost) -> Iterator[Start]:
    """Start the container anew, with labels."""

    def begin(**labels: str) -> None:
        host.daemon.docker("rm", "--force", "--volumes", NAME, check=False)
        build_base(host.daemon)
        options = [f"--label=dockerbackup.{label}={text}" for label, text in {"enable": "true", **labels}.items()]
        command = ("/bin/busybox", "sleep", "600")
        host.daemon.docker("run", "--detach", "--network", "none", "--name", NAME, *options, BASE, *command)

    yield begin
    host.daemon.docker("rm", "--force", "--volumes", NAME, check=False)


def capturing(repository: str, folder: Path, **arguments: Any) -> DockerCaptureOperator:
    """Return the operator that keeps the container's archive on the host."""
    given: dict[str, Any] = {
        "kind": "container",
        "source": NAME,
        "repository": repository,
        "archive_location": f"host:{folder}",
        "dockerbackup_conn_id": "docker_host_1",
        **arguments,
    }
    return DockerCaptureOperator(task_id="back_up", **given)


def told(repository: str, type_: str) -> list[dict[str, Any]]:
    """Return what events of a type say of their subject."""
    storage = storage_from_url(repository)
    events = [json.loads(storage.read(info.path)) for info in storage.list("audit")]
    return [event["object"] for event in events if event["type"] == type_]


@pytest.mark.parametrize("kind", ["container", "image"])
@pytest.mark.parametrize("waiting", ["worker", "triggerer"])
def test_the_archive_stays_on_the_host_and_the_source_is_due_until_it_was_read(
    kind: str, waiting: str, start: Start, repository_url: str, folder: Path
) -> None:
    """A job is one capture, whether of an image or of a container; a verification makes it count."""
    start(retention="keep_last=3")
    (entry,) = listed = due(repository_url, kind)
    options = {"compression": "gzip", "deferrable": waiting == "triggerer", **entry}
    operator = capturing(repository_url, folder, **options)
    if waiting == "worker":
        summary = operator.execute(context())
    else:
        summary = capturing(repository_url, folder, **options).execute_complete(context(), fired(deferred(operator)))  # type: ignore[arg-type]
    record = only_backup(repository_url).whole()
    assert (summary["status"], summary["trust"], record.retention) == ("committed", "unscanned", "keep_last=3")
    assert [str(path) for path in folder.iterdir()] == [record.path_on_host]
    assert due(repository_url, kind) == listed
    DockerBackupVerifyOperator(
        task_id="verify",
        backup_id=summary["backup_id"],
        repository=repository_url,
        level="digests",
        archive_host_conn_ids=HOSTS,
    ).execute(context())
    assert due(repository_url, kind) == []


def due(repository: str, kind: str) -> Any:
    """Return what is due on the host."""
    operator = DockerListDueOperator(task_id="due", repository=repository, hosts=HOSTS, kinds=[kind])
    return operator.execute(context(task_id="due"))


@pytest.mark.parametrize("meanwhile", ["removed", "labelled otherwise", "switched off"])
def test_labels_count_as_they_were_when_the_capture_began(
    meanwhile: str, start: Start, repository_url: str, folder: Path, host: LabHost
) -> None:
    """What the job holds is that container, commands and all, also where it is gone when a worker comes back."""
    start(retention="keep_last=3", pre="/bin/busybox touch /flushed", post="/bin/busybox touch /again")
    event = fired(deferred(capturing(repository_url, folder, deferrable=True)))
    if meanwhile == "removed":
        host.daemon.docker("rm", "--force", "--volumes", NAME)
    elif meanwhile == "switched off":
        start(enable="false")
    else:
        start(retention="keep_last=1", pre="/bin/busybox false")
    summary = capturing(repository_url, folder).execute_complete(context(), event)  # type: ignore[arg-type]
    record = only_backup(repository_url).whole()
    assert summary["status"] == "committed"
    assert (record.retention, record.consistency) == ("keep_last=3", "quiesced")
    with tarfile.open(record.path_on_host or "") as tar:
        assert {"flushed", "again"} & set(tar.getnames()) == {"flushed"}
    assert left_in_docker(host) == []


def test_a_job_that_was_killed_fails_the_task_and_the_trail_says_what_was_asked_for(
    start: Start, repository_url: str, folder: Path, slow: Path
) -> None:
    """By whoever comes back, although the labels with the command are not read again."""
    start(pre="/bin/busybox true")
    trigger = deferred(capturing(repository_url, folder, deferrable=True))
    os.kill(int((folder / trigger.begun["job"] / "process").read_text().split()[0]), signal.SIGKILL)
    with pytest.raises(TransientError, match="processes were killed"):
        capturing(repository_url, folder).execute_complete(context(), fired(trigger))  # type: ignore[arg-type]
    (started,), (failed,) = told(repository_url, "backup.started"), told(repository_url, "backup.failed")
    asked = {"consistency_asked": "snapshot", "pre_command": True}
    assert {key: started[key] for key in asked} == {key: failed[key] for key in asked} == asked
    assert list(folder.iterdir()) == []


def test_a_killed_task_ends_its_job_on_the_host(start: Start, repository_url: str, folder: Path, slow: Path) -> None:
    """While the worker itself waits; the operator that does the work is another one than the task's."""
    start()
    operator = capturing(repository_url, folder)
    kill(operator, begun=lambda: operator._doing is not None and operator._doing._job is not None, folder=folder)


def test_a_new_try_ends_the_job_of_the_one_before(
    start: Start, repository_url: str, folder: Path, slow: Path, host: LabHost
) -> None:
    """Cleared while deferred: the new try's job is another one, and one backup is committed."""
    start()
    first = deferred(capturing(repository_url, folder, deferrable=True))
    second = deferred(capturing(repository_url, folder, deferrable=True), try_number=2)
    assert hidden(folder) == [second.begun["job"]]
    slow.unlink()
    done = capturing(repository_url, folder).execute_complete(context(try_number=2), fired(second))  # type: ignore[arg-type]
    late = capturing(repository_url, folder).execute_complete(context(), fired(first))  # type: ignore[arg-type]
    assert (late["status"], late["backup_id"]) == ("already", done["backup_id"])
    assert len(list(folder.iterdir())) == 1
    assert left_in_docker(host) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"consistency": "pause"}, "use 'snapshot'"),
        ({"consistency": "none"}, "nobody is there when the export ends"),
        ({"archive_location": None, "deferrable": True}, "only with archive_location"),
        ({"archive_location": "host:relative"}, "an absolute path"),
        ({"layout": "layers"}, "layout 'layers' shares"),
        ({"kind": "image", "source": BASE, "bandwidth_limit": 1000}, "bandwidth_limit"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs_on_the_host(
    arguments: dict[str, Any], message: str, start: Start, repository_url: str, folder: Path, host: LabHost
) -> None:
    """Permanently; also what only the container's labels make impossible."""
    start(pre="/bin/busybox touch /flushed")
    with pytest.raises(AirflowFailException, match=message):
        capturing(repository_url, folder, **arguments).execute(context())
    assert not folder.exists()
    assert list(storage_from_url(repository_url).list("")) == []
    assert host.daemon.docker("exec", NAME, "/bin/busybox", "ls", "/flushed", check=False).returncode != 0


def test_an_event_with_a_policy_that_is_none_is_refused(start: Start, repository_url: str, folder: Path) -> None:
    """It comes back through Airflow's database, and rotation would follow it."""
    start()
    event = fired(deferred(capturing(repository_url, folder, deferrable=True)))
    with pytest.raises(ConfigurationError, match="retention"):
        from_wire({**event["begun"], "retention": "keep_nothing=1"})  # type: ignore[typeddict-item]
    assert opened(repository_url).catalog.backups() == []
