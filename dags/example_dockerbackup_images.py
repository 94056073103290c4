# SPDX-License-Identifier: Apache-2.0
r"""### Save the images of a Docker host, and prove that they restore

Lists the images of the host, saves each into the repository (one that did not change is confirmed instead), and loads
every backup into an empty throw-away Docker daemon on the worker, which needs root and `docker.io` there.

**Before the first run** create the connection `dockerbackup_default`:

    airflow connections add dockerbackup_default --conn-type dockerbackup --conn-host web1.example.com \
        --conn-login backup --conn-extra '{"key_file": "/etc/airflow/id_ed25519"}'

**Run it** from its Trigger button, where the repository can be chosen, or set a schedule below.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param, chain

from airflow_provider_dockerbackup.operators.list_sources import DockerListSourcesOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator

with DAG(
    dag_id="example_dockerbackup_images",
    dag_display_name="Docker images: save and verify",
    doc_md=__doc__,
    schedule=None,  # "@daily" in earnest
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "repository": Param("file:///srv/dockerbackup", type="string", title="Repository URL"),
        "names": Param(["*"], type="array", title="Images to save, as patterns of name:tag"),
    },
    tags=["backup", "docker", "example"],
) as dag:
    images = DockerListSourcesOperator(task_id="list_images", kind="image", names="{{ params.names }}")
    save = DockerSaveOperator.partial(
        task_id="save",
        repository="{{ params.repository }}",
        compression="zstd",
        map_index_template="{{ task.image }}",
        max_active_tis_per_dagrun=2,
    ).expand(image=images.output)
    verify = DockerBackupVerifyOperator.partial(
        task_id="verify", repository="{{ params.repository }}", level="load", max_active_tis_per_dagrun=1
    ).expand(backup_id=save.output.map(lambda backup: backup["backup_id"]))
    chain(save, verify)
