# SPDX-License-Identifier: Apache-2.0
"""DAGs whose schedule began long ago: one catches up, one is there to be backfilled, one captures all the same."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG

from airflow_provider_dockerbackup.operators.commit import DockerCommitOperator
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator

REPOSITORY = os.environ.get("LAB_REPOSITORY", "file:///srv/dockerbackup")
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

with DAG("lab_catches_up", schedule="@daily", start_date=TODAY - timedelta(days=3), catchup=True, max_active_runs=1):
    # It begins before the API server answers, and a task that cannot reach that fails.
    DockerSaveOperator(
        task_id="save",
        image="lab/base:1",
        repository=REPOSITORY + "-caught-up",
        retries=5,
        retry_delay=timedelta(seconds=5),
    )

# It ended, so that the scheduler makes no run of its own.
with DAG(
    "lab_backfilled",
    schedule="@daily",
    start_date=TODAY - timedelta(days=30),
    end_date=TODAY - timedelta(days=20),
    catchup=False,
):
    DockerSaveOperator(task_id="save", image="lab/base:1", repository=REPOSITORY + "-backfilled")
    DockerExportOperator(task_id="export", container="lab-app", repository=REPOSITORY + "-backfilled")
    DockerCommitOperator(task_id="commit", container="lab-app", image="lab/past:1")
    DockerSaveOperator(task_id="allowed", image="lab/base:1", repository=REPOSITORY + "-allowed", allow_past_runs=True)
