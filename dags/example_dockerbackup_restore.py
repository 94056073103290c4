# SPDX-License-Identifier: Apache-2.0
"""### Restore a backup onto a Docker host

Loads a backup into the daemon of the host that the connection names and compares what it became with the record. It
touches no container, and takes no tag from another image. **Dry run is on by default**: the first run says what would
be done; trigger it again with dry run off.

`dockerbackup list --repository URL` shows the ids.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param

from airflow_provider_dockerbackup.operators.restore import DockerBackupRestoreOperator

with DAG(
    dag_id="example_dockerbackup_restore",
    dag_display_name="Docker: restore a backup",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "backup_id": Param("", type="string", title="Backup id, or the beginning of one"),
        "repository": Param("file:///srv/dockerbackup", type="string", title="Repository URL"),
        "target": Param("dockerbackup_default", type="string", title="Connection of the Docker host"),
        "tags": Param([], type="array", title="Names for the image (name:tag); none: dockerbackup-restored:<id>"),
        "recorded_tags": Param(False, type="boolean", title="Give it the tags of the source image"),
        "dry_run": Param(True, type="boolean", title="Dry run"),
    },
    tags=["backup", "docker", "example"],
) as dag:
    DockerBackupRestoreOperator(
        task_id="restore",
        dockerbackup_conn_id="{{ params.target }}",
        backup_id="{{ params.backup_id }}",
        repository="{{ params.repository }}",
        tags="{{ params.tags }}",
        recorded_tags="{{ params.recorded_tags }}",
        plan_only="{{ params.dry_run }}",
    )
