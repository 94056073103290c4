# SPDX-License-Identifier: Apache-2.0
r"""### Save the images of a Docker host, each layer once, and collect what is no longer needed

Saves images into a repository of layout `layers`: a layer that any backup of the repository has is neither sent nor
stored again. At the end what no backup needs any more goes to the repository's trash, from which it can be brought back
for a week.

**Before the first run** create the connection `dockerbackup_default`, as for `example_dockerbackup_images`.

**Run it** from its Trigger button, or set a schedule below. Garbage is collected once for a repository, by one DAG, and
need not be collected after every save. Each new backup is an asset event, on which `example_dockerbackup_verify_saved`
runs.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, AssetAlias, Param, chain

from airflow_provider_dockerbackup.operators.garbage_collect import DockerBackupGarbageCollectOperator
from airflow_provider_dockerbackup.operators.list_sources import DockerListSourcesOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator

REPOSITORY = "{{ params.repository }}"

with DAG(
    dag_id="example_dockerbackup_layers",
    dag_display_name="Docker images: each layer once",
    doc_md=__doc__,
    schedule=None,  # "@daily" in earnest
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "repository": Param("file:///srv/dockerbackup-layers", type="string", title="Repository URL"),
        "names": Param(["*"], type="array", title="Images to save, as patterns of name:tag"),
    },
    tags=["backup", "docker", "example"],
) as dag:
    images = DockerListSourcesOperator(task_id="list_images", kind="image", names="{{ params.names }}")
    save = DockerSaveOperator.partial(
        task_id="save",
        repository=REPOSITORY,
        layout="layers",
        outlets=[AssetAlias("dockerbackup_saved")],  # example_dockerbackup_verify_saved runs on it
        map_index_template="{{ task.image }}",
        max_active_tis_per_dagrun=2,
    ).expand(image=images.output)
    collect = DockerBackupGarbageCollectOperator(task_id="collect_garbage", repository=REPOSITORY)
    chain(save, collect)
