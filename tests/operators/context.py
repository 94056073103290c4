# SPDX-License-Identifier: Apache-2.0
"""The part of a task's context that the operators read, for tests that call them without a scheduler."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from airflow.sdk.execution_time.context import OutletEventAccessors

RUN_TIME = datetime(2026, 11, 23, 21, 4, tzinfo=UTC)


def context(
    *,
    dag_id: str = "dag",
    run_id: str = "run-1",
    task_id: str = "task",
    map_index: int = -1,
    try_number: int = 1,
    run_time: datetime = RUN_TIME,
    **run_parts: Any,
) -> Any:
    """Return the context of one try of one task instance.

    :param run_parts: of the DAG run, what is not as in a manual one without a logical date.
    """
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        dag_id=dag_id,
        run_id=run_id,
        task_id=task_id,
        map_index=map_index,
        try_number=try_number,
        pushed=pushed,
        xcom_push=lambda *, key, value: pushed.update({key: value}),
    )
    parts = {"run_type": "manual", "logical_date": None, "run_after": run_time, "clear_number": 0}
    run = SimpleNamespace(**{"triggering_user_name": "jane", **parts, **run_parts})
    return {"ti": ti, "dag_run": run, "outlet_events": OutletEventAccessors()}
