# SPDX-License-Identifier: Apache-2.0
"""The how-to on a second site: its DAG runs as it stands, and the second site restores when the first one is gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.operators.restore import DockerBackupRestoreOperator
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.cli.test_verbs import repository
from tests.lab.lab import LabHost
from tests.lab.s3 import LabS3
from tests.operators.context import context
from tests.pages import ROOT, fences

__all__ = ["repository"]
AIRFLOW = Path(sys.executable).parent / "airflow"


@pytest.mark.usefixtures("connections")
def test_the_dag_of_the_how_to_copies_and_verifies_and_the_second_site_restores_alone(
    repository: str, target: LabHost, s3: LabS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From local disk to S3, by connections; then the first repository is removed."""
    subprocess.run([AIRFLOW, "db", "migrate"], check=True, capture_output=True)
    extra = {"endpoint_url": s3.endpoint_url, "region_name": "us-east-1"}
    connection = {"conn_type": "aws", "login": "test", "password": "test", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SECOND_SITE", json.dumps(connection))
    url = f"s3://{s3.new_bucket()}/docker"
    (block,) = fences(ROOT / "docs/how-to/keep-a-second-site.md", "python")
    code = block.replace("s3://second-site/docker", url).replace("file:///srv/dockerbackup", repository)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "second_site.py").write_text(code)
    environment = {**os.environ, "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags")}
    subprocess.run([AIRFLOW, "dags", "test", "second_site"], check=True, capture_output=True, env=environment)
    options = {"key": "test", "secret": "test", "endpoint_url": s3.endpoint_url}
    backups = Repository.open(storage_from_url(url, **options), clock=SystemClock()).catalog.backups()
    assert sorted((each.source.name, each.trust) for each in backups) == [
        ("lab-app", "verified"),
        ("lab/app:1", "verified"),
    ]
    shutil.rmtree(repository.removeprefix("file://"))
    image = next(each.backup_id for each in backups if each.source.name == "lab/app:1")
    restore = DockerBackupRestoreOperator(
        task_id="restore",
        backup_id=image,
        repository=url,
        repository_conn_id="second_site",
        dockerbackup_conn_id="docker_host_2",
        tags=["lab/app:1"],
    )
    restore.execute(context(task_id="restore"))
    assert target.daemon.docker("image", "inspect", "lab/app:1").stdout
