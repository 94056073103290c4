# SPDX-License-Identifier: Apache-2.0
"""The main job from and to other engines than the installed one: newer ones, and the containerd image store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.remove import DockerRemoveOperator
from airflow_provider_dockerbackup.operators.restore import DockerBackupRestoreOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from tests.lab.engines import Engine
from tests.lab.images import build_app, run_app_container
from tests.lab.lab import Lab, LabHost
from tests.operators.context import context

ENGINES = [Engine(version="26"), Engine(version="28"), Engine(version="28", containerd_store=True)]


@pytest.fixture(scope="module", params=ENGINES, ids=str)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """A Docker host with another engine, an image and a running container."""
    with Lab.start(tmp_path_factory.mktemp("other"), engine=request.param) as lab:
        build_app(lab.hosts[0].daemon)
        run_app_container(lab.hosts[0].daemon)
        yield lab.hosts[0]


@pytest.fixture
def both(connections: None, other: LabHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to the lab's hosts, and ``other`` to the other engine's."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", other.airflow_connection())


def execute(operator: Any) -> Any:
    """Run an operator as a task instance of its own."""
    return operator.execute(context(task_id=operator.task_id))


def there_and_back(source: str, target: str, repository: str) -> dict[str, Any]:
    """Save lab/app:1 from one host, prove it, and restore it to another; return what the restore said."""
    save = DockerSaveOperator(
        task_id="save", dockerbackup_conn_id=source, image="lab/app:1", repository=repository, compression="zstd"
    )
    backup_id = execute(save)["backup_id"]
    verify = DockerBackupVerifyOperator(task_id="verify", backup_id=backup_id, repository=repository)
    assert execute(verify)["trust"] == "verified"
    restore = DockerBackupRestoreOperator(
        task_id="restore", dockerbackup_conn_id=target, backup_id=backup_id, repository=repository, tags=["moved/app:1"]
    )
    restored: dict[str, Any] = execute(restore)
    return restored


def inspected(host: LabHost, reference: str) -> dict[str, Any]:
    """Return what an engine says of an image."""
    document: dict[str, Any] = json.loads(host.daemon.docker("image", "inspect", reference).stdout)[0]
    return document


@pytest.mark.usefixtures("both")
def test_an_image_of_another_engine_restores_to_the_installed_one(
    other: LabHost, target: LabHost, repository_url: str
) -> None:
    """Layers and configuration are the source's, whatever the engine calls the image."""
    restored = there_and_back("other", "docker_host_2", repository_url)
    assert restored["identical"]
    before, after = inspected(other, "lab/app:1"), inspected(target, "moved/app:1")
    assert after["RootFS"]["Layers"] == before["RootFS"]["Layers"]
    for key, value in before["Config"].items():
        assert after["Config"].get(key) == value or not value, key


@pytest.mark.usefixtures("both")
def test_an_image_of_the_installed_engine_restores_to_another_one(
    other: LabHost, host: LabHost, repository_url: str
) -> None:
    """The other way round: an older engine's archive becomes the same image on a newer engine."""
    restored = there_and_back("docker_host_1", "other", repository_url)
    assert restored["identical"]
    after = inspected(other, "moved/app:1")
    assert after["RootFS"]["Layers"] == inspected(host, "lab/app:1")["RootFS"]["Layers"]
    other.daemon.docker("image", "rm", "moved/app:1")


@pytest.mark.usefixtures("both")
def test_a_container_of_another_engine_is_exported_and_verified(other: LabHost, repository_url: str) -> None:
    """The snapshot of a running container works on every engine and leaves nothing behind."""
    export = DockerExportOperator(
        task_id="export", dockerbackup_conn_id="other", container="lab-app", repository=repository_url
    )
    backup_id = execute(export)["backup_id"]
    verify = DockerBackupVerifyOperator(task_id="verify", backup_id=backup_id, repository=repository_url)
    assert execute(verify)["trust"] == "verified"
    listed = other.daemon.docker("ps", "-a", "--format", "{{.Names}}").stdout + other.daemon.docker("images").stdout
    assert b"dockerbackup-" not in listed


@pytest.mark.usefixtures("both")
def test_an_image_and_a_stopped_container_of_another_engine_are_removed_when_verified(
    other: LabHost, repository_url: str
) -> None:
    """Each engine refuses to remove by ID what is in use or has two tags, and takes the one tag with the image."""
    docker = other.daemon.docker
    docker("create", "--name", "lab-gone", "--volume", "/cache", "lab/app:1", "true")
    docker("commit", "lab-gone", "lab/gone:1")
    docker("tag", "lab/gone:1", "lab/gone:2")
    docker("create", "--name", "lab-user", "lab/gone:1", "true")
    image_id = inspected(other, "lab/gone:1")["Id"]

    def remove(**options: Any) -> dict[str, Any]:
        operator = DockerRemoveOperator(
            task_id="remove", dockerbackup_conn_id="other", repository=repository_url, **options
        )
        done: dict[str, Any] = execute(operator)
        return done

    for taken in (
        DockerSaveOperator(task_id="save", dockerbackup_conn_id="other", image="lab/gone:1", repository=repository_url),
        DockerExportOperator(
            task_id="export", dockerbackup_conn_id="other", container="lab-gone", repository=repository_url
        ),
    ):
        backup_id = execute(taken)["backup_id"]
        execute(DockerBackupVerifyOperator(task_id="verify", backup_id=backup_id, repository=repository_url))
    with pytest.raises(AirflowFailException, match="several tags"):
        remove(image=image_id)
    assert docker("image", "rm", image_id, check=False).returncode != 0
    assert remove(image="lab/gone:2")["status"] == "untagged"
    with pytest.raises(AirflowFailException, match="is used by container lab-user"):
        remove(image="lab/gone:1")
    assert docker("image", "rm", image_id, check=False).returncode != 0
    docker("rm", "lab-user")
    assert remove(image="lab/gone:1")["status"] == "removed"
    assert docker("image", "inspect", image_id, check=False).returncode != 0
    volumes = remove(container="lab-gone")["volumes_left"]
    assert docker("container", "inspect", "lab-gone", check=False).returncode != 0
    assert len(volumes) == 3  # of the image, and its own
    docker("volume", "rm", *volumes)
