# SPDX-License-Identifier: Apache-2.0
"""Stop, export, verify, remove, restore: against real Docker hosts over real SSH."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.remove import DockerRemoveOperator
from airflow_provider_dockerbackup.operators.restore import DockerBackupRestoreOperator
from airflow_provider_dockerbackup.operators.restore_container import DockerContainerRestoreOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.stop import DockerStopOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from tests.lab.images import BASE
from tests.lab.lab import LabHost
from tests.lab.mounts import unmount_under
from tests.operators.context import context

pytestmark = pytest.mark.usefixtures("connections")
NAME, IMAGE, VOLUME = "lab-retired", "lab/retired:1", "lab-retired-data"
SCRIPT = "date +%N >/state; date +%N >>/data/runs; date +%N >>/cache/runs; trap 'exit 3' TERM; sleep 1000 & wait"


@pytest.fixture
def source(host: LabHost) -> Iterator[LabHost]:
    """A host with a running container that has a named and an anonymous volume, and an image of one tag."""
    docker = host.daemon.docker
    docker("create", "--name", f"{NAME}-base", BASE, "true")
    docker("commit", "--message", "to be retired", f"{NAME}-base", IMAGE)
    docker("rm", f"{NAME}-base")
    options = ("--volume", f"{VOLUME}:/data", "--volume", "/cache", "--network", "none", "--restart", "always")
    docker("run", "--detach", "--name", NAME, *options, "--entrypoint", "/bin/sh", BASE, "-c", SCRIPT)
    before = volumes(host)
    yield host
    listed = docker("ps", "--all", "--quiet", "--filter", f"name={NAME}").stdout.decode().split()
    for container in listed:
        docker("rm", "--force", "--volumes", container, check=False)
    for volume in before & volumes(host):
        docker("volume", "rm", volume, check=False)
    restored = docker("image", "ls", "--quiet", "dockerbackup-restored").stdout.decode().split()
    for reference in (IMAGE, "lab/retired:2", *restored):
        docker("image", "rm", reference, check=False)


def volumes(host: LabHost) -> set[str]:
    """Return the names of a host's volumes."""
    return set(host.daemon.docker("volume", "ls", "--quiet").stdout.decode().split())


def state(host: LabHost) -> dict[str, Any]:
    """Return the container's state as the host's daemon tells it."""
    found: dict[str, Any] = json.loads(host.daemon.docker("container", "inspect", NAME).stdout)[0]["State"]
    return found


def is_there(host: LabHost, kind: str, name: str) -> bool:
    """Tell whether the host has an image or container."""
    return host.daemon.docker(kind, "inspect", name, check=False).returncode == 0


def execute(operator: Any, run_id: str = "run-1") -> Any:
    """Run an operator as a task instance of its own."""
    return operator.execute(context(task_id=operator.task_id, run_id=run_id))


def export(repository: str, run_id: str = "run-1") -> str:
    """Export the container and return the backup's id."""
    operator = DockerExportOperator(
        task_id="export", dockerbackup_conn_id="docker_host_1", container=NAME, repository=repository
    )
    backup_id: str = execute(operator, run_id)["backup_id"]
    return backup_id


def stop(repository: str, **options: Any) -> dict[str, Any]:
    """Stop the container."""
    operator = DockerStopOperator(
        task_id="stop", dockerbackup_conn_id="docker_host_1", container=NAME, repository=repository, **options
    )
    summary: dict[str, Any] = execute(operator)
    return summary


def verify(repository: str, backup_id: str) -> None:
    """Verify a backup in a throw-away daemon."""
    assert (
        execute(DockerBackupVerifyOperator(task_id="verify", backup_id=backup_id, repository=repository))["trust"]
        == "verified"
    )


def remove(repository: str, **options: Any) -> dict[str, Any]:
    """Remove something from the first host."""
    operator = DockerRemoveOperator(
        task_id="remove", dockerbackup_conn_id="docker_host_1", repository=repository, **options
    )
    summary: dict[str, Any] = execute(operator)
    return summary


def refused(repository: str, match: str, **options: Any) -> None:
    """See a removal refused for good."""
    with pytest.raises(AirflowFailException, match=match):
        remove(repository, **options)


def audit(repository: str) -> list[tuple[str, str]]:
    """Return the audit events about stops and removals, in order."""
    files = Path(repository.removeprefix("file://")).glob("audit/*/*.json")
    events = sorted((json.loads(file.read_bytes()) for file in files), key=lambda each: str(each["time"]))
    return [(each["type"], each["outcome"]) for each in events if each["type"].startswith(("stop.", "remove."))]


def test_a_container_is_stopped_exported_verified_removed_and_restored(source: LabHost, repository_url: str) -> None:
    """Each step out of its order is refused; volumes survive; the restored one has the named volume's data."""
    kept = {each["Name"] for each in json.loads(source.daemon.docker("container", "inspect", NAME).stdout)[0]["Mounts"]}
    assert len(kept) == 2
    snapshot = export(repository_url)
    verify(repository_url, snapshot)
    refused(repository_url, f"ConflictError: container {NAME} on host-1 is running", container=NAME)
    assert stop(repository_url, plan_only="True")["status"] == "stopped"
    assert state(source)["Running"]
    stopped = stop(repository_url, timeout_seconds="20")
    assert (stopped["status"], stopped["exit_code"], stopped["finished_at"]) == (
        "stopped",
        3,
        state(source)["FinishedAt"],
    )
    assert stop(repository_url)["status"] == "already"
    refused(repository_url, r"ConflictError: .*was taken before it stopped \(capture snapshot\)", container=NAME)
    backup_id = export(repository_url, run_id="run-2")
    record = json.loads(
        next(Path(repository_url.removeprefix("file://")).glob(f"*/*/*/{backup_id}/backup.json")).read_bytes()
    )
    assert (record["capture"], record["consistency"]) == ("stopped", "stopped")
    refused(repository_url, "ConflictError: .*is not verified, and level load is demanded", container=NAME)
    verify(repository_url, backup_id)
    assert remove(repository_url, container=NAME, plan_only=True)["backup_id"] == backup_id
    assert is_there(source, "container", NAME)
    source.daemon.docker("cp", __file__, f"{NAME}:/late")
    refused(repository_url, "ConflictError: .*its files are not those of", container=NAME, compare_files="true")
    backup_id = export(repository_url, run_id="run-3")
    verify(repository_url, backup_id)
    removed = remove(repository_url, container=NAME, compare_files="true")
    assert (removed["status"], removed["backup_id"], removed["trust"]) == ("removed", backup_id, "verified")
    assert set(removed["volumes_left"]) == kept <= volumes(source)
    assert not is_there(source, "container", NAME)
    assert remove(repository_url, container=NAME)["status"] == "already"
    refused(repository_url, "NotFoundError", container=f"{NAME}-typo")
    assert audit(repository_url) == [
        ("stop.started", "intent"),
        ("stop.done", "success"),
        ("stop.done", "success"),
        ("remove.started", "intent"),
        ("remove.done", "success"),
        ("remove.done", "success"),
    ]
    restore = DockerContainerRestoreOperator(
        task_id="restore",
        dockerbackup_conn_id="docker_host_1",
        backup_id=backup_id,
        repository=repository_url,
        healthy_within_seconds=30,
        running_seconds=1,
    )
    assert execute(restore)["status"] == "created"
    runs = source.daemon.docker("exec", NAME, "cat", "/data/runs").stdout.split()
    assert len(runs) == 2


def test_a_container_that_was_started_since_its_backup_stays(source: LabHost, repository_url: str) -> None:
    """Also when it is stopped again, by whoever."""
    source.daemon.docker("stop", NAME)
    backup_id = export(repository_url)
    verify(repository_url, backup_id)
    assert remove(repository_url, container=NAME, plan_only=True)["status"] == "removed"
    source.daemon.docker("start", NAME)
    source.daemon.docker("stop", NAME)
    refused(repository_url, "ConflictError: .*before the container was last started", container=NAME)
    assert is_there(source, "container", NAME)
    assert audit(repository_url) == []


def test_nothing_is_touched_when_the_audit_trail_cannot_be_written(source: LabHost, tmp_path: Path) -> None:
    """A disk that became read-only lets nothing be stopped or removed; a dry run needs no trail."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "lab-disk", str(disk)], check=True)
    repository = f"file://{disk}/repository"
    told = "is not touched, for the audit trail does not take the event"
    try:
        export(repository)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(AirflowFailException, match=rf"{told} stop\.started"):
            stop(repository)
        assert state(source)["Running"]
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        stop(repository)
        verify(repository, export(repository, run_id="run-2"))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert remove(repository, container=NAME, plan_only=True)["status"] == "removed"
        refused(repository, rf"{told} remove\.started", container=NAME)
        assert is_there(source, "container", NAME)
    finally:
        unmount_under(disk)


def test_an_image_is_saved_verified_removed_and_restored_with_its_id(source: LabHost, repository_url: str) -> None:
    """Refused while a container uses it; gone with its only tag; back with the same ID and tag."""
    image_id = json.loads(source.daemon.docker("image", "inspect", IMAGE).stdout)[0]["Id"]
    save = DockerSaveOperator(
        task_id="save", dockerbackup_conn_id="docker_host_1", image=IMAGE, repository=repository_url
    )
    backup_id = execute(save)["backup_id"]
    refused(repository_url, "ConflictError: .*is not verified", image=IMAGE)
    verify(repository_url, backup_id)
    refused(
        repository_url, "ConflictError: .*is verified, and level run is demanded", image=IMAGE, required_level="run"
    )
    source.daemon.docker("create", "--name", f"{NAME}-user", IMAGE, "true")
    refused(repository_url, f"ConflictError: .*is used by container {NAME}-user; remove what uses", image=IMAGE)
    source.daemon.docker("rm", f"{NAME}-user")
    source.daemon.docker("tag", IMAGE, "lab/retired:2")
    refused(repository_url, "ConflictError: .*several tags", image=image_id)
    assert remove(repository_url, image="lab/retired:2")["status"] == "untagged"
    assert is_there(source, "image", IMAGE)
    refused(repository_url, f"ConfigurationError: .*lists as {IMAGE}; name it as listed", image=f"docker.io/{IMAGE}")
    assert remove(repository_url, image=IMAGE)["status"] == "removed"
    assert not is_there(source, "image", IMAGE)
    assert not is_there(source, "image", image_id)
    restore = DockerBackupRestoreOperator(
        task_id="restore",
        dockerbackup_conn_id="docker_host_1",
        backup_id=backup_id,
        repository=repository_url,
        recorded_tags=True,
    )
    assert execute(restore)["identical"]
    assert json.loads(source.daemon.docker("image", "inspect", IMAGE).stdout)[0]["Id"] == image_id


def test_the_command_does_the_same(source: LabHost, repository_url: str) -> None:
    """Without Airflow; a refusal has its exit code."""
    program = Path(sys.executable).parent / "dockerbackup"
    options = ["-r", repository_url, "--host", source.name, "-F", str(source.ssh_config_path)]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *words, *options], capture_output=True, text=True, check=False, timeout=120)

    export(repository_url)
    refusal = run("remove", "container", NAME)
    assert (refusal.returncode, "is running and is not removed" in refusal.stderr) == (6, True)
    assert "would be stopped" in run("stop", NAME, "--dry-run").stdout
    assert state(source)["Running"]
    assert "with exit code 3" in run("stop", NAME, "--timeout", "20").stdout
    assert json.loads(run("stop", NAME, "--json").stdout)["status"] == "already"
    refusal = run("remove", "container", NAME, "--dry-run")
    assert (refusal.returncode, "capture snapshot" in refusal.stderr) == (6, True)
    verify(repository_url, export(repository_url, run_id="run-2"))
    planned = json.loads(run("remove", "container", NAME, "--dry-run", "--json").stdout)
    assert (planned["status"], len(planned["volumes_left"])) == ("removed", 2)
    assert is_there(source, "container", NAME)
    done = run("remove", "container", NAME)
    assert done.returncode == 0, done.stderr
    assert f"stays: volume {VOLUME}" in done.stdout
    assert not is_there(source, "container", NAME)
    assert run("remove", "container", f"{NAME}-typo").returncode == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected either image or container"),
        ({"image": IMAGE, "container": NAME}, "expected either image or container"),
        ({"image": IMAGE, "plan_only": "perhaps"}, "plan_only: expected true or false"),
    ],
)
def test_bad_input_of_a_removal_is_refused(options: dict[str, Any], message: str) -> None:
    """Before a repository or host is asked."""
    refused("file:///no/such/repository", f"ConfigurationError: {message}", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout_seconds": "soon"}, "timeout_seconds: expected a whole number, got 'soon'"),
        ({"plan_only": None}, "plan_only: expected true or false"),
    ],
)
def test_bad_input_of_a_stop_is_refused(options: dict[str, Any], message: str) -> None:
    """Before a repository or host is asked."""
    with pytest.raises(AirflowFailException, match=message):
        stop("file:///no/such/repository", **options)
