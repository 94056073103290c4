# SPDX-License-Identifier: Apache-2.0
"""Containers whose archive stays on a real Docker host: exported there, deferred, killed, read back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.core.temporary import TEMPORARY
from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.restore_container import DockerContainerRestoreOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.faults.worker import Worker
from tests.lab.lab import LabHost
from tests.operators.context import context
from tests.operators.test_on_host import HOSTS, deferred, events_of, fired, hidden, only_backup, opened, wait_for

pytestmark = pytest.mark.usefixtures("connections")
NAME = "on-host"
SECRET = "hunter2"


@pytest.fixture
def container(host: LabHost) -> Iterator[str]:
    """A running container that has written a file, with a secret in its environment."""
    host.daemon.docker(
        "run",
        "--detach",
        "--name",
        NAME,
        "--user",
        "0",
        "--no-healthcheck",
        "--env",
        f"PASSWORD={SECRET}",
        "lab/app:1",
        "sleep",
        "600",
    )
    host.daemon.docker("exec", NAME, "sh", "-c", "echo written >/written")
    yield NAME
    host.daemon.docker("rm", "--force", "--volumes", NAME)


def exporting(repository: str, folder: Path, **arguments: Any) -> DockerExportOperator:
    """Return the operator that exports on the host."""
    given: dict[str, Any] = {
        "container": NAME,
        "repository": repository,
        "archive_location": f"host:{folder}",
        **arguments,
    }
    return DockerExportOperator(task_id="export", dockerbackup_conn_id="docker_host_1", **given)


def left_in_docker(host: LabHost) -> list[str]:
    """Return the temporary images and containers on the host."""
    listed = host.daemon.docker("ps", "--all", "--format", "{{.Names}}").stdout
    listed += host.daemon.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout
    return [line for line in listed.decode().splitlines() if line.startswith(TEMPORARY)]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_only_documents_travel_and_the_archive_holds_what_the_container_wrote(
    compression: str, repository_url: str, folder: Path, host: LabHost, container: str
) -> None:
    """No secret is in the file's name, the summary or the trail; nothing of the snapshot stays."""
    operator = exporting(repository_url, folder, compression=compression)
    summary = operator.execute(context())
    record = only_backup(repository_url).whole()
    assert (summary["status"], summary["trust"], record.capture) == ("committed", "unscanned", "snapshot")
    assert record.container is not None
    assert record.container.pause_seconds is not None
    archive = Path(record.path_on_host or "")
    assert [path.name for path in folder.iterdir()] == [archive.name]
    assert archive.name.startswith(f"{record.backup_id}-rootfs-")
    assert archive.stat().st_mode & 0o777 == 0o600
    assert sum(info.size_bytes for info in storage_from_url(repository_url).list("backups")) < 60_000
    unpack = {"none": ["cat"], "gzip": ["gzip", "-dc"], "zstd": ["zstd", "-dc"]}[compression]
    with (
        subprocess.Popen([*unpack, archive], stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar,
    ):
        assert "written" in {member.name for member in tar}
    storage = storage_from_url(repository_url)
    told = b"".join(storage.read(info.path) for info in storage.list("audit"))
    assert SECRET not in str(summary)
    assert SECRET.encode() not in told + record.to_bytes()
    assert left_in_docker(host) == []
    assert events_of(repository_url) == ["backup.committed", "backup.started"]


def test_a_deferred_export_is_committed_verified_and_restored(
    repository_url: str, folder: Path, host: LabHost, target: LabHost, container: str
) -> None:
    """What passes through Airflow's database holds no secret; the container comes back, configuration and all."""
    trigger = deferred(exporting(repository_url, folder, deferrable=True, compression="gzip"))
    assert SECRET not in json.dumps(trigger.serialize()[1])
    event = fired(trigger)
    assert SECRET not in json.dumps(event)
    summary = exporting(repository_url, folder).execute_complete(context(), event)  # type: ignore[arg-type]
    assert summary["status"] == "committed"
    assert hidden(folder) == []
    assert left_in_docker(host) == []
    verified = DockerBackupVerifyOperator(
        task_id="verify",
        backup_id=summary["backup_id"],
        repository=repository_url,
        level="load",
        archive_host_conn_ids=HOSTS,
    ).execute(context())
    assert verified["trust"] == "verified"
    DockerContainerRestoreOperator(
        task_id="restore",
        backup_id=summary["backup_id"],
        repository=repository_url,
        dockerbackup_conn_id="docker_host_2",
        archive_host_conn_ids=HOSTS,
    ).execute(context())
    try:
        assert target.daemon.docker("exec", NAME, "cat", "/written").stdout == b"written\n"
        assert SECRET.encode() in target.daemon.docker("exec", NAME, "env").stdout
    finally:
        target.daemon.docker("rm", "--force", "--volumes", NAME)


def test_a_stopped_container_is_exported_as_it_is_and_covers_its_removal(
    repository_url: str, folder: Path, host: LabHost, container: str
) -> None:
    """No snapshot is needed; the job says that it stood still."""
    host.daemon.docker("stop", "--time", "1", NAME)
    exporting(repository_url, folder, consistency="none").execute(context())
    record = only_backup(repository_url).whole()
    assert (record.capture, record.consistency) == ("stopped", "stopped")
    assert record.container is not None
    assert record.container.commit_seconds is None


def test_a_stopped_container_that_is_started_meanwhile_is_not_committed(
    repository_url: str, folder: Path, host: LabHost, container: str, slow: Path
) -> None:
    """Its files would not be of one moment; the task is tried again."""
    host.daemon.docker("stop", "--time", "1", NAME)
    trigger = deferred(exporting(repository_url, folder, deferrable=True))
    host.daemon.docker("start", NAME)
    slow.unlink()
    with pytest.raises(TransientError, match="was started while it was exported"):
        exporting(repository_url, folder).execute_complete(context(), fired(trigger))  # type: ignore[arg-type]
    assert list(folder.iterdir()) == []
    assert opened(repository_url).catalog.backups() == []
    assert events_of(repository_url) == ["backup.failed", "backup.started"]


@pytest.mark.parametrize("by", ["the trigger", "a new try", "SIGKILL"])
def test_an_ended_job_leaves_neither_archive_nor_snapshot_and_the_container_runs(
    by: str, repository_url: str, folder: Path, host: LabHost, container: str, slow: Path
) -> None:
    """Marked, cleared, or killed on the host itself."""
    trigger = deferred(exporting(repository_url, folder, deferrable=True))
    assert len(left_in_docker(host)) == 2
    if by == "the trigger":
        asyncio.run(trigger.on_kill())
    elif by == "a new try":
        slow.unlink()
        assert exporting(repository_url, folder).execute(context(try_number=2))["status"] == "committed"
    else:
        process = folder / trigger.begun["job"] / "process"
        os.kill(int(process.read_text().split()[0]), signal.SIGKILL)
        with pytest.raises(TransientError, match="processes were killed"):
            exporting(repository_url, folder).execute_complete(context(), fired(trigger))  # type: ignore[arg-type]
    wait_for(lambda: left_in_docker(host) == [])
    assert hidden(folder) == []
    assert host.daemon.docker("inspect", "--format", "{{.State.Status}}", NAME).stdout == b"running\n"


def test_a_snapshot_that_somebody_removes_is_worth_another_try(
    repository_url: str, folder: Path, host: LabHost, container: str, slow: Path
) -> None:
    """The container itself is still there, although docker says that there is no such container."""
    trigger = deferred(exporting(repository_url, folder, deferrable=True))
    (temporary,) = [name for name in left_in_docker(host) if ":" not in name]
    host.daemon.docker("rm", temporary)
    slow.unlink()
    with pytest.raises(TransientError, match="was removed while it was exported"):
        exporting(repository_url, folder).execute_complete(context(), fired(trigger))  # type: ignore[arg-type]
    assert left_in_docker(host) == []
    assert list(folder.iterdir()) == []


def test_the_try_after_a_killed_worker_ends_its_job_and_commits_one_backup(
    repository_url: str, folder: Path, host: LabHost, container: str, slow: Path
) -> None:
    """SIGKILL while it waits: the job goes on without it, until somebody comes or its deadline does."""
    options: dict[str, Any] = {"container": NAME, "repository": repository_url, "archive_location": f"host:{folder}"}
    with Worker("export", run_id="killed", dockerbackup_conn_id="docker_host_1", **options) as worker:
        wait_for(lambda: any(folder.glob(".dockerbackup-*/process")))
        worker.kill()
    (old,) = hidden(folder)
    assert len(left_in_docker(host)) == 2
    slow.unlink()
    summary = exporting(repository_url, folder).execute(context(run_id="killed", task_id="export", try_number=2))
    assert summary["status"] == "committed"
    assert only_backup(repository_url).whole().attempt not in old
    assert len(list(folder.iterdir())) == 1
    assert left_in_docker(host) == []


def test_commands_run_around_the_commit(repository_url: str, folder: Path, host: LabHost, container: str) -> None:
    """Before the snapshot and after it; not in it what came after."""
    exporting(
        repository_url,
        folder,
        pre_command=["sh", "-c", "echo flushed >/flushed"],
        post_command=["sh", "-c", "echo again >/again"],
    ).execute(context())
    record = only_backup(repository_url).whole()
    assert record.consistency == "quiesced"
    with tarfile.open(record.path_on_host or "") as tar:
        names = set(tar.getnames())
    assert "flushed" in names
    assert "again" not in names
    assert host.daemon.docker("exec", NAME, "cat", "/again").stdout == b"again\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"consistency": "pause"}, "use 'snapshot'"),
        ({"consistency": "none", "post_command": ["true"]}, "nobody is there when the export ends"),
        ({"archive_location": None, "deferrable": True}, "only with archive_location"),
        ({"archive_location": "host:relative"}, "an absolute path"),
        ({"layout": "layers"}, "layout 'layers' shares"),
        ({"bandwidth_limit": 1000}, "bandwidth_limit"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs_on_the_host(
    arguments: dict[str, Any], message: str, repository_url: str, folder: Path, host: LabHost, container: str
) -> None:
    """Permanently: trying again is of no use."""
    with pytest.raises(AirflowFailException, match=message):
        exporting(repository_url, folder, **arguments).execute(context())
    assert not folder.exists()
    assert left_in_docker(host) == []
    assert list(storage_from_url(repository_url).list("")) == []


def test_an_event_that_names_another_image_removes_none(
    repository_url: str, folder: Path, host: LabHost, container: str
) -> None:
    """It comes back through Airflow's database, and the image of an export that failed is deleted."""
    event = fired(deferred(exporting(repository_url, folder, deferrable=True)))
    host.daemon.docker("tag", "lab/app:1", "mine:1")
    try:
        for name in ("mine:1", "dockerbackup-temporary:0123456789abcdef-0123456789ab-1790000000"):
            begun = {**event["begun"], "temporary": name}
            with pytest.raises(AirflowFailException, match="is no temporary image of try"):
                exporting(repository_url, folder, container="another").execute_complete(
                    context(),
                    {**event, "begun": begun},  # type: ignore[typeddict-item]
                )
        assert host.daemon.docker("image", "inspect", "--format", "{{.Id}}", "mine:1").stdout
    finally:
        host.daemon.docker("rmi", "mine:1")
