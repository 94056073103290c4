# SPDX-License-Identifier: Apache-2.0
"""### Remove an image or a stopped container that is backed up

Refuses, and says what the nearest backup lacks, unless a verified backup of exactly that image is in the repository, or
an export of that container taken after it stopped. Volumes stay. **Dry run is on by default**: the first run says what
would be done; trigger it again with dry run off.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param

from airflow_provider_dockerbackup.operators.remove import DockerRemoveOperator

with DAG(
    dag_id="example_dockerbackup_remove",
    dag_display_name="Docker: remove what is backed up",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "image": Param("", type="string", title="Image (name:tag or ID); give this or a container"),
        "container": Param("", type="string", title="Container (name or full ID)"),
        "repository": Param("file:///srv/dockerbackup", type="string", title="Repository URL"),
        "host": Param("dockerbackup_default", type="string", title="Connection of the Docker host"),
        "required_level": Param(
            "load", enum=["digests", "load", "run"], title="Verification its backup must have passed"
        ),
        "dry_run": Param(True, type="boolean", title="Dry run"),
    },
    tags=["backup", "docker", "example"],
) as dag:
    DockerRemoveOperator(
        task_id="remove",
        dockerbackup_conn_id="{{ params.host }}",
        image="{{ params.image }}",
        container="{{ params.container }}",
        repository="{{ params.repository }}",
        required_level="{{ params.required_level }}",
        plan_only="{{ params.dry_run }}",
    )
