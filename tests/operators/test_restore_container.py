# SPDX-License-Identifier: Apache-2.0
"""A container of one real Docker host made anew on another."""

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
from airflow_provider_dockerbackup.operators.restore_container import DockerContainerRestoreOperator
from tests.lab.images import BASE
from tests.lab.lab import LabHost
from tests.operators.context import context

pytestmark = pytest.mark.usefixtures("connections")
NAME = "lab-anew"
SECRET = "first line\nsecond 'line' $(hunter2)"
SCRIPT = "test -e /fail && exit 7; sleep 1000 & trap 'exit 0' TERM; wait"


@pytest.fixture
def source(host: LabHost, target: LabHost) -> Iterator[LabHost]:
    """The first host, whose containers of the test are removed afterwards, as are those of the target."""
    yield host
    for each in (host, target):
        listed = each.daemon.docker("ps", "--all", "--quiet", "--filter", f"name={NAME}").stdout.decode().split()
        if listed:
            each.daemon.docker("rm", "--force", "--volumes", *listed, check=False)
        each.daemon.docker("volume", "rm", f"{NAME}-data", check=False)


def run_source(host: LabHost, *, script: str = SCRIPT) -> None:
    """Run a container with a bit of everything."""
    options = ["--name", NAME, "--network", "none", "--restart", "on-failure:2", "--hostname", "anew"]
    options += ["--env", f"SECRET={SECRET}", "--label", f"note={SECRET}", "--volume", f"{NAME}-data:/data"]
    options += ["--tmpfs", "/scratch:size=65536", "--publish", "127.0.0.1:18080:80", "--ulimit", "nofile=100:200"]
    options += [
        "--memory",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "50",
        "--shm-size",
        "1m",
        "--log-opt",
        "max-size=1m",
    ]
    options += ["--cap-drop", "ALL", "--cap-add", "CHOWN", "--security-opt", "no-new-privileges", "--init"]
    options += ["--dns", "192.0.2.1", "--add-host", "db:192.0.2.2", "--stop-timeout", "1", "--read-only"]
    options += ["--user", "0:0", "--workdir", "/data", "--entrypoint", "/bin/sh", "--health-cmd", "test -d /data"]
    options += ["--health-interval", "1s"]
    host.daemon.docker("run", "--detach", *options, BASE, "-c", script)


def export(repository: str) -> str:
    """Back the container up and return the backup's id."""
    operator = DockerExportOperator(
        task_id="export", dockerbackup_conn_id="docker_host_1", container=NAME, repository=repository
    )
    backup_id: str = operator.execute(context(task_id="export"))["backup_id"]
    return backup_id


def restore(repository: str, backup_id: str, **options: Any) -> dict[str, Any]:
    """Make the container anew on the second host."""
    operator = DockerContainerRestoreOperator(
        task_id="restore", dockerbackup_conn_id="docker_host_2", backup_id=backup_id, repository=repository, **options
    )
    summary: dict[str, Any] = operator.execute(context(task_id="restore"))
    return summary


def inspect(host: LabHost, name: str = NAME) -> dict[str, Any]:
    """Return what a host says of a container."""
    document: dict[str, Any] = json.loads(host.daemon.docker("container", "inspect", name).stdout)[0]
    return document


def test_a_container_comes_back_on_another_host_as_it_was(
    source: LabHost, target: LabHost, repository_url: str
) -> None:
    """All that inspect shows is the same, but for what names this very container."""
    run_source(source)
    backup_id = export(repository_url)
    planned = restore(repository_url, backup_id, plan_only=True)
    assert target.daemon.docker("ps", "--all", "--quiet").stdout == b""
    restored = restore(repository_url, backup_id)
    assert restored["status"] == "created"
    assert planned["options"] == restored["options"]
    assert {"--publish", "--memory", "--volume", "--restart"} <= set(restored["options"])
    assert restored["not_carried_over"] == ["data of the volume at /data"]
    before, after = inspect(source), inspect(target)
    assert after["State"]["Status"] == "running"
    assert after["HostConfig"] == {**before["HostConfig"], "ContainerIDFile": after["HostConfig"]["ContainerIDFile"]}
    labels = {"dockerbackup.restored": backup_id, "dockerbackup.replaces": "stopped"}
    assert after["Config"].pop("Labels") == {**before["Config"].pop("Labels"), **labels}
    assert f"SECRET={SECRET}" in after["Config"]["Env"]
    for config in (before["Config"], after["Config"]):
        for key in ("Image", "AttachStdout", "AttachStderr"):
            config.pop(key)
    assert after["Config"] == before["Config"]
    assert (after["Path"], after["Args"]) == (before["Path"], before["Args"])
    assert "hunter2" not in json.dumps([planned, restored])


def test_a_running_container_is_replaced_and_kept(source: LabHost, target: LabHost, repository_url: str) -> None:
    """The old one is refused first, then kept stopped; a second run finds it done."""
    run_source(source)
    backup_id = export(repository_url)
    target.daemon.docker("image", "load", input=source.daemon.docker("image", "save", BASE).stdout)
    run_source(target)
    old = inspect(target)["Id"]
    with pytest.raises(AirflowFailException, match=r"ConflictError.*--replace"):
        restore(repository_url, backup_id)
    assert inspect(target)["State"]["Running"]
    restored = restore(repository_url, backup_id, replace="true", healthy_within_seconds="30")
    assert restored["status"] == "replaced"
    assert inspect(target)["Id"] == restored["container_id"] != old
    kept = inspect(target, restored["kept"])
    assert (kept["Id"], kept["State"]["Running"]) == (old, False)
    assert restore(repository_url, backup_id, replace=True)["status"] == "already"


def test_an_old_container_runs_again_when_the_new_one_ends(
    source: LabHost, target: LabHost, repository_url: str
) -> None:
    """A backup whose command exits at once costs the old one a short stop only; no secret is in the message."""
    run_source(source, script="exit 7")
    backup_id = export(repository_url)
    target.daemon.docker("image", "load", input=source.daemon.docker("image", "save", BASE).stdout)
    run_source(target)
    old = inspect(target)["Id"]
    with pytest.raises(AirflowFailException, match="put back") as caught:
        restore(repository_url, backup_id, replace=True, healthy_within_seconds=20)
    assert "hunter2" not in str(caught.value)
    assert (inspect(target)["Id"], inspect(target)["State"]["Running"]) == (old, True)
    names = target.daemon.docker("ps", "--all", "--format", "{{.Names}}").stdout.decode().split()
    assert names == [NAME]


def test_the_command_does_the_same(source: LabHost, target: LabHost, repository_url: str) -> None:
    """Without Airflow, under another name."""
    run_source(source)
    backup_id = export(repository_url)
    words = ["restore-container", backup_id, "-r", repository_url, "--host", target.name]
    words += ["-F", str(target.ssh_config_path), "--name", f"{NAME}-2", "--network", "none"]
    program = Path(sys.executable).parent / "dockerbackup"
    for more, says in ((["--dry-run"], "would be created"), ([], "is created")):
        done = subprocess.run([program, *words, *more], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert says in done.stdout
        assert "not carried over: data of the volume at /data" in done.stdout
    assert inspect(target, f"{NAME}-2")["State"]["Running"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replace": "maybe"}, "replace: expected true or false"),
        ({"running_seconds": "x"}, "running_seconds: expected a whole number"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], message: str) -> None:
    """Before a repository or host is asked."""
    with pytest.raises(AirflowFailException, match=message):
        restore("file:///no/such/repository", "2026", **options)
