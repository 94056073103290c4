# SPDX-License-Identifier: Apache-2.0
"""Which storage a repository URL in a task names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.hooks.storage import storage_of
from airflow_provider_dockerbackup.transport.storage import storage_from_url


@pytest.mark.parametrize("form", ["{}", "{}/a b", "file://{}/a%20b", "file://{}/a b"])
def test_tasks_and_the_command_line_mean_the_same_folder(tmp_path: Path, form: str) -> None:
    """A backup that a task made is found by ``dockerbackup restore``, whatever the folder is called."""
    url = form.format(tmp_path)
    storage_of(url).create("document", b"x")
    assert storage_from_url(url).read("document") == b"x"
    assert storage_of(url).url == storage_from_url(url).url


def test_a_url_without_its_third_slash_is_refused() -> None:
    """It would be a folder of the worker's working directory, and another one with every worker."""
    with pytest.raises(ConfigurationError, match="file:///srv/backups"):
        storage_of("file://srv/backups")


def test_a_local_repository_costs_a_task_no_import_of_object_stores(tmp_path: Path) -> None:
    """Airflow imports boto3 when it is asked for any filesystem: half a second of each task."""
    program = (
        "import sys; from airflow_provider_dockerbackup.hooks.storage import storage_of; "
        f"storage_of('file://{tmp_path}').create('document', b'x'); "
        "sys.exit(sorted({'boto3', 'botocore', 's3fs', 'requests'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
