# SPDX-License-Identifier: Apache-2.0
r"""### Rotate the backups of a repository, after the newest were verified

Verifies a sample, the newest backup always among it, and removes then what the policy does not keep: the log says of
each backup why it stays or goes. At last a checkpoint makes sure that no event of the audit trail can vanish unseen.

The newest verified backup of a source always stays, and so do held ones. **Begin with a dry run**: *plan only*.

**Run it** from its Trigger button, where repository and policy can be chosen, or set a schedule below.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param, chain

from airflow_provider_dockerbackup.operators.checkpoint import DockerBackupCheckpointOperator
from airflow_provider_dockerbackup.operators.rotate import DockerBackupRotateOperator
from airflow_provider_dockerbackup.operators.sample import DockerBackupSampleOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator

REPOSITORY = "{{ params.repository }}"

with DAG(
    dag_id="example_dockerbackup_rotate",
    dag_display_name="Docker backups: verify, then rotate",
    doc_md=__doc__,
    schedule=None,  # "0 5 * * *" in earnest
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "repository": Param("file:///srv/dockerbackup", type="string", title="Repository URL"),
        "policy": Param(
            {"keep_daily": 7, "keep_weekly": 5, "keep_monthly": 12, "require_verified": True},
            type="object",
            title="Retention policy",
        ),
        "plan_only": Param(False, type="boolean", title="Plan only, remove nothing"),
    },
    tags=["backup", "docker", "example"],
) as dag:
    sample = DockerBackupSampleOperator(task_id="sample", repository=REPOSITORY, newest=1, oldest=0, random=1)
    verify = DockerBackupVerifyOperator.partial(
        task_id="verify", repository=REPOSITORY, level="load", max_active_tis_per_dagrun=1
    ).expand(backup_id=sample.output.map(lambda each: each["backup_id"]))
    rotate = DockerBackupRotateOperator(
        task_id="rotate", repository=REPOSITORY, policy="{{ params.policy }}", plan_only="{{ params.plan_only }}"
    )
    checkpoint = DockerBackupCheckpointOperator(task_id="checkpoint", repository=REPOSITORY)
    chain(verify, rotate, checkpoint)
