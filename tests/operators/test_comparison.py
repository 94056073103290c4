# SPDX-License-Identifier: Apache-2.0
"""The comparison this project began with: one container, by commit and save, and by export, and what comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_dockerbackup.operators.commit import DockerCommitOperator
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.restore import DockerBackupRestoreOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from tests.lab.lab import LabHost
from tests.operators.context import context

pytestmark = pytest.mark.usefixtures("connections")
COMMITTED = "lab/compared:1"
KEYS = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "User", "WorkingDir", "Labels", "Volumes", "Healthcheck")
MORE_KEYS = ("StopSignal", "Shell", "OnBuild")


def run(operator: Any) -> dict[str, Any]:
    """Run an operator as a task."""
    summary: dict[str, Any] = operator.execute(context(task_id=operator.task_id))
    return summary


def history(host: LabHost, image: str) -> list[str]:
    """Each step's command, size and comment as ``docker history --no-trunc`` shows them."""
    shown = host.daemon.docker(
        "history", "--no-trunc", "--human=false", "--format", "{{.CreatedBy}}|{{.Size}}|{{.Comment}}", image
    )
    return shown.stdout.decode().splitlines()


def inspected(host: LabHost, kind: str, name: str) -> dict[str, Any]:
    """What ``docker inspect`` says."""
    document: dict[str, Any] = json.loads(host.daemon.docker(kind, "inspect", name).stdout)[0]
    return document


def test_load_keeps_layers_and_history_and_import_keeps_neither(
    host: LabHost, target: LabHost, repository_url: str
) -> None:
    """Save and load: the same image. Export: one layer, with the container's configuration, or with import without."""
    source: dict[str, Any] = {"dockerbackup_conn_id": "docker_host_1", "repository": repository_url}
    run(
        DockerCommitOperator(
            task_id="commit",
            dockerbackup_conn_id="docker_host_1",
            container="lab-app",
            image=COMMITTED,
            message="to be compared",
        )
    )
    saved = run(DockerSaveOperator(task_id="save", image=COMMITTED, **source))
    exported = run(DockerExportOperator(task_id="export", container="lab-app", **source))

    def restore(backup: dict[str, Any], tag: str, **options: Any) -> dict[str, Any]:
        run(
            DockerBackupRestoreOperator(
                task_id="restore",
                dockerbackup_conn_id="docker_host_2",
                repository=repository_url,
                backup_id=backup["backup_id"],
                tags=[tag],
                **options,
            )
        )
        return inspected(target, "image", tag)

    original, container = inspected(host, "image", COMMITTED), inspected(host, "container", "lab-app")
    loaded = restore(saved, "compared/loaded:1")
    assert (loaded["Id"], loaded["RootFS"], loaded["Config"]) == (
        original["Id"],
        original["RootFS"],
        original["Config"],
    )
    assert len(loaded["RootFS"]["Layers"]) > 5
    assert history(target, "compared/loaded:1") == history(host, COMMITTED)

    put_back = restore(exported, "compared/exported:1")
    assert put_back["RootFS"]["Layers"] == exported["diff_ids"]
    assert len(history(target, "compared/exported:1")) == 1
    for key in (*KEYS, *MORE_KEYS):
        assert (put_back["Config"].get(key) or None) == (container["Config"].get(key) or None), key

    imported = restore(exported, "compared/imported:1", method="import")
    assert imported["RootFS"]["Layers"] == exported["diff_ids"]
    assert len(history(target, "compared/imported:1")) == 1
    assert not any(imported["Config"].get(key) for key in (*KEYS, *MORE_KEYS) if key != "Env")
    host.daemon.docker("rmi", COMMITTED)
