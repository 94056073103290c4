# SPDX-License-Identifier: Apache-2.0
r"""### Back up one container: as an image with all layers, and as a flat filesystem

Commits the container and saves the image that this makes, which keeps layers and history. Beside it, exports the
container's filesystem with its configuration. Both are loaded into a throw-away Docker daemon on the worker. Data of
volumes is in neither: the log and the record name the volumes.

Around both, commands in the container can bring its application to rest: the first, such as a dump of a database,
before the capture, the second after it. A first command that fails stops the backup.

**Before the first run** create the connection `dockerbackup_default`:

    airflow connections add dockerbackup_default --conn-type dockerbackup --conn-host web1.example.com \
        --conn-login backup --conn-extra '{"key_file": "/etc/airflow/id_ed25519"}'

**Run it** from its Trigger button: the form asks for the container's name.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param, chain

from airflow_provider_dockerbackup.operators.commit import DockerCommitOperator
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator

REPOSITORY = "{{ params.repository }}"

with DAG(
    dag_id="example_dockerbackup_container",
    dag_display_name="Docker container: commit, save and export",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "container": Param("app", type="string", title="Container"),
        "repository": Param("file:///srv/dockerbackup", type="string", title="Repository URL"),
        "before": Param([], type="array", title="Command before, one word a line, such as sync"),
        "after": Param([], type="array", title="Command after, one word a line"),
    },
    tags=["backup", "docker", "example"],
) as dag:
    container = "{{ params.container }}"
    commands = {"pre_command": "{{ params.before }}", "post_command": "{{ params.after }}"}
    commit = DockerCommitOperator(
        task_id="commit",
        container=container,
        image="backup/" + container + ":nightly",
        message="run {{ run_id }}",
        **commands,
    )
    save = DockerSaveOperator(
        task_id="save", image="backup/" + container + ":nightly", repository=REPOSITORY, compression="zstd"
    )
    export = DockerExportOperator(
        task_id="export", container=container, repository=REPOSITORY, compression="zstd", **commands
    )
    for backup in (save, export):
        verify = DockerBackupVerifyOperator(
            task_id=f"verify_{backup.task_id}", backup_id=backup.output["backup_id"], repository=REPOSITORY
        )
        chain(backup, verify)
    chain(commit, save)
    chain(commit, export)  # one after the other: each lets the application go on when it is done
