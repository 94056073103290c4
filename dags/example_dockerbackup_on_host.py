# SPDX-License-Identifier: Apache-2.0
r"""### Keep archives of images on the Docker host itself

Each image is saved, compressed and hashed on its host, into a folder there; only digests and the record travel, and no
worker waits for that: the triggerer does. Then each archive is read once over SSH and loaded into an empty throw-away
daemon: before that a backup counts for nothing. At the end old ones go by a policy, from the host as well.

**Before the first run** create the connection `dockerbackup_default`, as for `example_dockerbackup_images`, and choose
a folder on the host that its SSH user may write to. For many images also make a pool that counts deferred tasks,
`airflow pools set dockerbackup 8 "backups of Docker hosts" --include-deferred`, and give `save` `pool="dockerbackup"`:
without it all of their jobs begin at once.

**Run it** from its Trigger button, or set a schedule below.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param, chain

from airflow_provider_dockerbackup.operators.list_sources import DockerListSourcesOperator
from airflow_provider_dockerbackup.operators.rotate import DockerBackupRotateOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator

REPOSITORY = "{{ params.repository }}"
HOSTS = ["dockerbackup_default"]

with DAG(
    dag_id="example_dockerbackup_on_host",
    dag_display_name="Docker images: archives on the host",
    doc_md=__doc__,
    schedule=None,  # "@daily" in earnest
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "repository": Param("file:///srv/dockerbackup", type="string", title="Repository URL"),
        "location": Param("host:/var/backups/docker", type="string", title="Folder on the Docker host"),
        "names": Param(["*"], type="array", title="Images to save, as patterns of name:tag"),
        "policy": Param({"keep_daily": 7}, type="object", title="Which backups stay"),
    },
    tags=["backup", "docker", "example"],
) as dag:
    images = DockerListSourcesOperator(task_id="list_images", kind="image", names="{{ params.names }}")
    save = DockerSaveOperator.partial(
        task_id="save",
        repository=REPOSITORY,
        archive_location="{{ params.location }}",
        compression="gzip",
        deferrable=True,
    ).expand(image=images.output)
    verify = DockerBackupVerifyOperator.partial(
        task_id="verify", repository=REPOSITORY, archive_host_conn_ids=HOSTS, max_active_tis_per_dagrun=1
    ).expand(backup_id=save.output.map(lambda backup: backup["backup_id"]))
    rotate = DockerBackupRotateOperator(
        task_id="rotate", repository=REPOSITORY, policy="{{ params.policy }}", archive_host_conn_ids=HOSTS
    )
    chain(save, verify, rotate)
