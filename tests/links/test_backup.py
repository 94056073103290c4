# SPDX-License-Identifier: Apache-2.0
"""From a task to its backup: an address where a backup is known, nothing where none is."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from airflow_provider_dockerbackup.links.backup import BackupLink, address_of
from airflow_provider_dockerbackup.operators.capture import DockerCaptureOperator
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.restore import DockerBackupRestoreOperator
from airflow_provider_dockerbackup.operators.restore_container import DockerContainerRestoreOperator
from airflow_provider_dockerbackup.operators.rollback import DockerBackupRollbackOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator

BACKUP_ID = "20261123T224157Z-01294b60b9071429"
SAVED = {
    "backup_id": BACKUP_ID,
    "host": "web1",
    "kind": "image",
    "source": "app:1",
    "repository": "s3://bucket/prefix",
    "path": "backups/web1/image-app%3A1/x/",
}


def test_a_saved_backup_is_named_with_its_source() -> None:
    """So that the page reads that one folder, also when its index has not seen it yet."""
    link = urlsplit(address_of(SAVED, repository="s3://conn@bucket/prefix", base_url="https://air.example.com/flow/"))
    assert (link.scheme, link.netloc, link.path) == ("", "", "/flow/dockerbackup/backup")
    assert dict(parse_qsl(link.query)) == {
        "repository": "s3://bucket/prefix",
        "backup": BACKUP_ID,
        "host": "web1",
        "kind": "image",
        "name": "app:1",
    }


def test_the_repository_that_the_task_told_of_is_the_one_that_is_named() -> None:
    """The operator's may be a template, which was another one in another run."""
    link = urlsplit(address_of(SAVED, repository="s3://bucket/other", base_url=""))
    assert dict(parse_qsl(link.query))["repository"] == "s3://bucket/prefix"


def test_a_restore_names_the_backup_alone_for_its_host_is_the_target() -> None:
    """A connection id in the operator's URL stays out of the address."""
    summary = {"backup_id": BACKUP_ID, "host": "web2", "image_id": "sha256:0"}
    link = urlsplit(address_of(summary, repository="s3://conn@bucket/prefix", base_url=""))
    assert dict(parse_qsl(link.query)) == {"repository": "s3://bucket/prefix", "backup": BACKUP_ID}


@pytest.mark.parametrize(
    ("summary", "repository"),
    [
        (None, "/srv"),
        ({}, "/srv"),
        ("text", "/srv"),
        ({"backup_id": None}, "/srv"),
        ({"backup_id": BACKUP_ID}, None),
        ({"backup_id": BACKUP_ID}, "http://[broken"),
    ],
)
def test_there_is_no_link_where_no_backup_is_known(summary: Any, repository: Any) -> None:
    """A task that failed, deferred or returned something else."""
    assert address_of(summary, repository=repository, base_url="") == ""


@pytest.mark.parametrize(
    "operator",
    [
        *(DockerSaveOperator, DockerExportOperator, DockerCaptureOperator, DockerBackupVerifyOperator),
        *(DockerBackupRestoreOperator, DockerContainerRestoreOperator, DockerBackupRollbackOperator),
    ],
)
def test_every_operator_of_backups_has_the_link(operator: type[Any]) -> None:
    """Its name is what people see on the task."""
    (link,) = operator.operator_extra_links
    assert isinstance(link, BackupLink)
    assert link.name == "Image backup"
