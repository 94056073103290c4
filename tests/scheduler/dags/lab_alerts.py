# SPDX-License-Identifier: Apache-2.0
"""DAGs that alert: one fails, one is late."""

from __future__ import annotations

import time
from datetime import timedelta

from airflow.sdk import (  # type: ignore[attr-defined] # Airflow's stub does not have them all
    DAG,
    AsyncCallback,
    DeadlineAlert,
    DeadlineReference,
    task,
)

from airflow_provider_dockerbackup.notifications.webhook import DockerBackupWebhookNotifier
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator

alert = DockerBackupWebhookNotifier()

with DAG("lab_fails", schedule=None, catchup=False, on_failure_callback=alert):
    DockerSaveOperator(
        task_id="save",
        image="lab/absent:1",
        repository="file:///srv/dockerbackup",
        retries=3,
        on_failure_callback=alert,
    )


@task
def wait() -> None:
    """Take longer than the DAG may."""
    time.sleep(15)


with DAG(
    "lab_late",
    schedule=None,
    catchup=False,
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(seconds=1),
        callback=AsyncCallback(DockerBackupWebhookNotifier),
    ),
):
    wait()
