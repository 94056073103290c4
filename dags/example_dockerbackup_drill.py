# SPDX-License-Identifier: Apache-2.0
r"""### Restore drill: prove that a sample of the backups restores

Chooses the newest backup, the oldest and one at random, and any that looks damaged; the log says which was chosen why,
and so does the audit trail. Each is then read again, loaded into an empty throw-away Docker daemon on the worker, which
needs root and `docker.io` there, and compared with its record. Those whose names match *run* are also started there,
without network, until they prove to work: by their HEALTHCHECK, or by staying up.

A backup that fails is a failed task. The time that each restore took is in its verification: `dockerbackup show ID`.

**Run it** from its Trigger button, where the repository can be chosen, or set a schedule below.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param

from airflow_provider_dockerbackup.operators.sample import DockerBackupSampleOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator

REPOSITORY = "{{ params.repository }}"

with DAG(
    dag_id="example_dockerbackup_drill",
    dag_display_name="Docker backups: restore drill",
    doc_md=__doc__,
    schedule=None,  # "@daily" in earnest
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "repository": Param("file:///srv/dockerbackup", type="string", title="Repository URL"),
        "newest": Param(1, type="integer", minimum=0, title="How many of the newest"),
        "oldest": Param(1, type="integer", minimum=0, title="How many of the oldest"),
        "random": Param(1, type="integer", minimum=0, title="How many of the others, by lot"),
        "run": Param([], type="array", title="Names to run, as patterns; others are loaded only"),
    },
    tags=["backup", "docker", "example"],
) as dag:
    sample = DockerBackupSampleOperator(
        task_id="sample",
        repository=REPOSITORY,
        newest="{{ params.newest }}",
        oldest="{{ params.oldest }}",
        random="{{ params.random }}",
        run_names="{{ params.run }}",
    )
    DockerBackupVerifyOperator.partial(
        task_id="verify",
        repository=REPOSITORY,
        map_index_template="{{ task.backup_id }}",
        max_active_tis_per_dagrun=1,
    ).expand_kwargs(sample.output.map(lambda each: {"backup_id": each["backup_id"], "level": each["level"]}))
