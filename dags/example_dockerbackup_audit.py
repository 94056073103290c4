# SPDX-License-Identifier: Apache-2.0
r"""### Audit report: what is covered, fresh, drilled and deleted, and is the trail intact?

Writes `report.html`, `report.json` and `report.csv`, and fails when a source has no verified backup within its RPO, or
when somebody edited the audit trail.

**Before the first run** create the connection `dockerbackup_default`, or name others: their live images and containers
are compared with the repository, stopped ones too.

**Run it** from its Trigger button, or set a schedule below.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param

from airflow_provider_dockerbackup.operators.audit import DockerBackupAuditOperator

with DAG(
    dag_id="example_dockerbackup_audit",
    dag_display_name="Docker backups: audit report",
    doc_md=__doc__,
    schedule=None,  # "@weekly" in earnest
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "repository": Param("file:///srv/dockerbackup", type="string", title="Repository URL"),
        "hosts": Param(["dockerbackup_default"], type="array", title="Connections of the Docker hosts to compare"),
        "rpo": Param("36h", type="string", title="How old the newest verified backup may be"),
        "output": Param("/tmp/dockerbackup-report", type="string", title="Folder for the report"),  # noqa: S108
        "fail_on": Param(
            ["BACKUP_LAST_RECOVERY_POINT_CREATED", "trail"], type="array", title="Controls that fail the task"
        ),
    },
    tags=["backup", "docker", "example"],
) as dag:
    DockerBackupAuditOperator(
        task_id="audit",
        repository="{{ params.repository }}",
        hosts="{{ params.hosts }}",
        rpo="{{ params.rpo }}",
        output_folder="{{ params.output }}",
        fail_on="{{ params.fail_on }}",
    )
