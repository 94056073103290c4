# SPDX-License-Identifier: Apache-2.0
r"""### Back up a fleet: what the containers of many hosts ask for by their labels

Asks each host which containers have the label `dockerbackup.enable=true`, backs up those that are due, each as a mapped
task of its own named *host: container*, and at the end says which have no fresh backup and which hosts did not answer.
Labels decide how often (`dockerbackup.schedule`), how long backups stay (`dockerbackup.retention`), and what runs in
the container before and after (`dockerbackup.pre`, `dockerbackup.post`). One failing host or container stops no other.

**Before the first run** create a connection for each host, and the pool that limits how many backups run at once:

    airflow pools set dockerbackup 8 "backups of Docker hosts"

**Run it** from its Trigger button, or set a schedule below: the DAG runs often, and a source is due as its label says.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param, chain

from airflow_provider_dockerbackup.operators.capture import DockerCaptureOperator
from airflow_provider_dockerbackup.operators.fleet_freshness import DockerFleetFreshnessOperator
from airflow_provider_dockerbackup.operators.list_due import DockerListDueOperator

REPOSITORY = "{{ params.repository }}"

with DAG(
    dag_id="example_dockerbackup_fleet",
    dag_display_name="Docker fleet: back up what labels ask for",
    doc_md=__doc__,
    schedule=None,  # "@hourly" in earnest
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "hosts": Param(["dockerbackup_default"], type="array", title="Connections of the Docker hosts"),
        "repository": Param("file:///srv/dockerbackup", type="string", title="Repository URL"),
        "kinds": Param(["container"], type="array", title="What of each: container, image"),
        "schedule": Param("1d", type="string", title="How often what has no label dockerbackup.schedule"),
    },
    tags=["backup", "docker", "example"],
) as dag:
    fleet = {
        "hosts": "{{ params.hosts }}",
        "repository": REPOSITORY,
        "kinds": "{{ params.kinds }}",
        "schedule": "{{ params.schedule }}",
    }
    due = DockerListDueOperator(task_id="list_due", **fleet)
    back_up = DockerCaptureOperator.partial(
        task_id="back_up",
        repository=REPOSITORY,
        compression="zstd",
        pool="dockerbackup",
        map_index_template="{{ task.host }}: {{ task.source }}",
    ).expand_kwargs(due.output)
    fresh = DockerFleetFreshnessOperator(task_id="check_freshness", trigger_rule="all_done", **fleet)
    chain(back_up, fresh)
