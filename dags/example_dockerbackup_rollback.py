# SPDX-License-Identifier: Apache-2.0
"""### Roll a tag back

Points a tag of a Docker host back to an earlier backup, or to an earlier step of an archived image's own history. The
image is run in a test daemon first; the tag moves last, and what it stood for stays as `<name>:before-<backup id>`, so
that every rollback can be rolled back. No container is touched. **Dry run is on by default**: the first run says what
would be done; trigger it again with dry run off.

`dockerbackup list --repository URL` shows the ids, `dockerbackup history ID` the steps.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param

from airflow_provider_dockerbackup.operators.rollback import DockerBackupRollbackOperator

with DAG(
    dag_id="example_dockerbackup_rollback",
    dag_display_name="Docker: roll a tag back",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "tag": Param("app:latest", type="string", title="Tag on the host (name:tag)"),
        "backup_id": Param("previous", type="string", title="Backup id, the beginning of one, or previous"),
        "step": Param(None, type=["null", "integer"], minimum=1, title="Steps of its history to keep; none: all"),
        "repository": Param("file:///srv/dockerbackup", type="string", title="Repository URL"),
        "target": Param("dockerbackup_default", type="string", title="Connection of the Docker host"),
        "prove": Param("run", enum=["run", "load", "none"], title="What a test daemon does with the image first"),
        "dry_run": Param(True, type="boolean", title="Dry run"),
    },
    tags=["backup", "docker", "example"],
) as dag:
    DockerBackupRollbackOperator(
        task_id="rollback",
        dockerbackup_conn_id="{{ params.target }}",
        tag="{{ params.tag }}",
        backup_id="{{ params.backup_id }}",
        step="{{ params.step }}",
        repository="{{ params.repository }}",
        prove="{{ params.prove }}",
        plan_only="{{ params.dry_run }}",
    )
