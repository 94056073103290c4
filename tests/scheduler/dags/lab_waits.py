# SPDX-License-Identifier: Apache-2.0
"""A DAG that saves an image, then waits in the triggerer until it changes."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG, chain

from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.sensors.image_changed import DockerImageChangedSensor

WHAT: dict[str, Any] = {
    "image": "lab-waits/app:1",
    "repository": os.environ.get("LAB_REPOSITORY", "file:///srv/dockerbackup") + "-waits",
}

with DAG("lab_waits", schedule=None, catchup=False):
    chain(
        DockerSaveOperator(task_id="save", **WHAT),
        # A busy scheduler of Airflow fails a task that is back before it noticed that the task had left.
        DockerImageChangedSensor(task_id="wait", deferrable=True, poke_interval=15, timeout=300, **WHAT),
    )
