# SPDX-License-Identifier: Apache-2.0
r"""### Verify what was just saved

Runs by itself whenever a task with the outlet `AssetAlias("dockerbackup_saved")` has made backups, as those of
`example_dockerbackup_layers` do: reads exactly these backups again and loads them into an empty throw-away Docker
daemon on the worker, which needs root and `docker.io` there. So saving DAGs stay short, and other workers verify.

**Before the first run** set the Airflow variable `dockerbackup_repository` to the repository's URL. Which backups are
verified comes with the event; where they are does not, for events can be made by everybody who may write assets.

**Run it** by hand with ids of backups, or leave it to the events.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import DAG, AssetAlias, Param, task

from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator


@task
def saved(triggering_asset_events: Any = None, params: Any = None) -> list[str]:
    """Return the ids of the backups to verify."""
    from airflow_provider_dockerbackup.operators.asset_events import backup_ids

    return backup_ids(triggering_asset_events) or list(params["backup_ids"])


with DAG(
    dag_id="example_dockerbackup_verify_saved",
    dag_display_name="Docker backups: verify what was just saved",
    doc_md=__doc__,
    schedule=[AssetAlias("dockerbackup_saved")],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={"backup_ids": Param([], type="array", title="Backups to verify, when it is run by hand")},
    tags=["backup", "docker", "example"],
) as dag:
    DockerBackupVerifyOperator.partial(
        task_id="verify",
        repository="{{ var.value.get('dockerbackup_repository', 'file:///srv/dockerbackup-layers') }}",
        map_index_template="{{ task.backup_id }}",
        max_active_tis_per_dagrun=1,
    ).expand(backup_id=saved())
