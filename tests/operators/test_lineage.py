# SPDX-License-Identifier: Apache-2.0
"""What tasks moved, by OpenLineage's names, from the summaries of tasks that really ran."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.openlineage.extractors.base import DefaultExtractor

from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator
from airflow_provider_dockerbackup.operators.commit import DockerCommitOperator
from airflow_provider_dockerbackup.operators.lineage import DataPlace, Movement, movement
from airflow_provider_dockerbackup.operators.restore import DockerBackupRestoreOperator
from airflow_provider_dockerbackup.operators.rollback import DockerBackupRollbackOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from tests.lab.lab import LabHost
from tests.operators.context import context

pytestmark = pytest.mark.usefixtures("connections")


def told(operator: DockerBackupBaseOperator, **run: Any) -> tuple[Any, list[Any], list[Any]]:
    """Run a task; return its summary and the inputs and outputs that Airflow's OpenLineage provider finds."""
    summary = operator.execute(context(task_id=operator.task_id, **run))
    found = DefaultExtractor(operator).extract_on_complete(None)
    assert found is not None
    return summary, found.inputs, found.outputs


def names(datasets: list[Any]) -> list[tuple[str, str]]:
    """Return the names of datasets."""
    return [(each.namespace, each.name) for each in datasets]


def test_images_flow_from_a_host_into_a_repository_and_back(
    host: LabHost, target: LabHost, repository_url: str
) -> None:
    """With the backup as version, and what it takes as size; what did not happen is not told."""
    folder = f"{repository_url.removeprefix('file://')}/backups/{host.name}/image-lab%2Fbase%3A1"
    common: dict[str, Any] = {"repository": repository_url}
    on_host: dict[str, Any] = {**common, "dockerbackup_conn_id": "docker_host_1"}
    save = DockerSaveOperator(task_id="save", image="lab/base:1", **on_host)
    summary, inputs, outputs = told(save)
    assert names(inputs) == [(f"docker://{host.name}", "lab/base:1")]
    assert names(outputs) == [("file", folder)]
    assert outputs[0].facets["version"].datasetVersion == summary["backup_id"]
    assert outputs[0].outputFacets["outputStatistics"].size == summary["stored_size_bytes"]
    _, inputs, outputs = told(save, run_id="run-2")
    assert (names(inputs), outputs) == ([(f"docker://{host.name}", "lab/base:1")], []), "unchanged"
    backup: dict[str, Any] = {**common, "backup_id": summary["backup_id"]}
    _, inputs, outputs = told(DockerBackupVerifyOperator(task_id="verify", level="digests", **backup))
    assert (names(inputs), outputs) == ([("file", folder)], [])
    assert inputs[0].facets["version"].datasetVersion == summary["backup_id"]
    to_target: dict[str, Any] = {**backup, "dockerbackup_conn_id": "docker_host_2", "tags": ["lineage/base:1"]}
    _, inputs, outputs = told(DockerBackupRestoreOperator(task_id="plan", plan_only=True, **to_target))
    assert (names(inputs), outputs) == ([("file", folder)], [])
    _, inputs, outputs = told(DockerBackupRestoreOperator(task_id="restore", **to_target))
    assert names(inputs) == [("file", folder)]
    assert names(outputs) == [(f"docker://{target.name}", "lineage/base:1")]
    back = DockerBackupRollbackOperator(
        task_id="back", tag="lab/base:1", prove="none", plan_only=True, **{**on_host, **backup}
    )
    _, inputs, outputs = told(back)
    assert (names(inputs), outputs) == ([("file", folder)], [])


def test_a_commit_flows_from_a_container_to_an_image(host: LabHost) -> None:
    """Without any repository."""
    commit = DockerCommitOperator(
        task_id="commit", dockerbackup_conn_id="docker_host_1", container="lab-app", image="lab/lineage:1"
    )
    try:
        _, inputs, outputs = told(commit)
    finally:
        host.daemon.docker("rmi", "lab/lineage:1", check=False)
    assert names(inputs) == [(f"docker://{host.name}", "container/lab-app")]
    assert names(outputs) == [(f"docker://{host.name}", "lab/lineage:1")]


def test_a_task_that_failed_has_no_lineage(repository_url: str) -> None:
    """Airflow asks after a failure, too."""
    save = DockerSaveOperator(
        task_id="save", dockerbackup_conn_id="docker_host_1", image="lab/absent:1", repository=repository_url
    )
    with pytest.raises(AirflowFailException):
        save.execute(context(task_id="save"))
    assert DefaultExtractor(save).extract_on_failure(None) is None


@pytest.mark.parametrize(
    ("repository", "namespace", "name"),
    [
        ("s3://backups/docker", "s3://backups", "docker/backups/web1/container-shop"),
        ("s3://backups", "s3://backups", "backups/web1/container-shop"),
        ("gs://backups/a/b/", "gs://backups", "a/b/backups/web1/container-shop"),
        ("/srv/backups", "file", "/srv/backups/backups/web1/container-shop"),
        ("file:///srv/backups/", "file", "/srv/backups/backups/web1/container-shop"),
    ],
)
def test_a_repository_is_named_as_files_and_objects_are(repository: str, namespace: str, name: str) -> None:
    """By OpenLineage's naming rules; and a container that is restored is what it becomes on its host."""
    summary = {"backup_id": "b", "backup_source": "web1 container shop", "host": "web2", "name": "shop-2"}
    moved = movement(summary, repository=repository)
    assert moved.read == (DataPlace(namespace=namespace, name=name, version="b"),)
    assert moved.written == (DataPlace(namespace="docker://web2", name="container/shop-2"),)


def test_a_rollback_moves_a_tag_and_other_tasks_nothing() -> None:
    """Rotations and reports are no movement of data."""
    rolled = {"backup_id": "b", "backup_source": "web1 image app:1", "host": "web1", "tag": "app:1", "dry_run": False}
    assert movement(rolled, repository="/r").written == (DataPlace(namespace="docker://web1", name="app:1"),)
    removed = {"backup_id": "b", "backup_source": "web1 image app:1", "host": "web1", "object_id": "sha256:00"}
    for summary in ({"removed": 3}, removed):
        assert movement(summary, repository="/r") == Movement()


@pytest.mark.parametrize(("copied", "dry_run"), [(2, False), (0, False), (2, True)])
def test_a_copy_moves_from_one_repository_to_another(copied: int, dry_run: bool) -> None:
    """As whole repositories; nothing is told where nothing was copied."""
    urls = {"repository": "file:///srv/backups", "target_repository": "s3://second-site"}
    moved = movement({**urls, "copied": copied, "dry_run": dry_run}, repository="file:///srv/backups")
    assert moved.read == (DataPlace(namespace="file", name="/srv/backups"),)
    written = (DataPlace(namespace="s3://second-site", name="/"),)
    assert moved.written == (written if copied and not dry_run else ())
