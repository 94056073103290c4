# SPDX-License-Identifier: Apache-2.0
"""Garbage collection as a task, on a real repository on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.operators.garbage_collect import DockerBackupGarbageCollectOperator
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.cli.test_garbage import OLD, age
from tests.core.gc.making import Layered
from tests.operators.context import context


@pytest.fixture
def made(tmp_path: Path) -> Layered:
    """Two backups, the first deleted three days ago."""
    filled = Layered(storage=LocalStorage(tmp_path / "repository"), clock=SystemClock())
    filled.delete(filled.backup("base", "old top"))
    filled.backup("base", "new top")
    age(tmp_path / "repository", OLD)
    return filled


def operator(tmp_path: Path, **parameters: object) -> DockerBackupGarbageCollectOperator:
    """The operator on that repository."""
    return DockerBackupGarbageCollectOperator(
        task_id="collect",
        repository=f"file://{tmp_path}/repository",
        **parameters,  # type: ignore[arg-type]
    )


def test_a_task_collects_and_says_what_it_did(made: Layered, tmp_path: Path) -> None:
    """First as a dry run, with values as templates render them; then in earnest."""
    planned = operator(tmp_path, plan_only="true", grace_hours="12").execute(context(task_id="collect"))
    assert (planned["garbage"], planned["trashed"], planned["dry_run"], planned["gc"]) == (3, 0, True, "")
    done = operator(tmp_path).execute(context(task_id="collect"))
    assert (done["backups"], done["blobs"], done["trashed"], done["missing"]) == (1, 7, 3, 0)
    assert (tmp_path / "repository/trash" / done["gc"]).is_dir()
    assert done["audit_head"].startswith("sha256:")
    assert not made.has("old top")
    made.require_whole()


@pytest.mark.parametrize(
    ("parameters", "told"),
    [({"grace_hours": "soon"}, "grace_hours: expected a number"), ({"trash_days": -1}, "trash_days")],
)
def test_wrong_values_fail_for_good(made: Layered, tmp_path: Path, parameters: dict[str, object], told: str) -> None:
    """Trying again would not help."""
    with pytest.raises(AirflowFailException, match=told):
        operator(tmp_path, **parameters).execute(context(task_id="collect"))
    assert made.has("old top")
