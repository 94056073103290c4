# SPDX-License-Identifier: Apache-2.0
"""Two DAGs of as many mapped tasks: one backs up sources that did not change, the tasks of the other do nothing."""

from __future__ import annotations

import json
import os

import pendulum
from airflow.sdk import DAG, task

from airflow_provider_dockerbackup.operators.capture import DockerCaptureOperator

ENTRIES = json.loads(os.environ["BENCH_FLEET_ENTRIES"])
START = pendulum.datetime(2026, 1, 1, tz="UTC")

with DAG("fleet_ours", schedule=None, start_date=START, catchup=False):
    DockerCaptureOperator.partial(task_id="back_up", repository=os.environ["BENCH_FLEET_REPOSITORY"]).expand_kwargs(
        ENTRIES
    )

with DAG("fleet_empty", schedule=None, start_date=START, catchup=False):

    @task
    def nothing(number: int) -> int:
        """Return the number."""
        return number

    nothing.expand(number=list(range(len(ENTRIES))))
