# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup gc`` and ``undelete``, run as programs without Airflow on real local storage."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.cli.test_completion import offered
from tests.cli.test_keeping import backups, run
from tests.core.gc.making import Layered
from tests.core.world import World

OLD = 3 * 24 * 3600


@pytest.fixture
def made(tmp_path: Path) -> Layered:
    """Two backups that share a layer, the first deleted three days ago."""
    filled = Layered(storage=LocalStorage(tmp_path / "repository"), clock=SystemClock())
    first = filled.backup("base", "old top")
    filled.backup("base", "new top")
    filled.delete(first)
    age(tmp_path / "repository", OLD)
    return filled


def age(root: Path, seconds: float) -> None:
    """Make every file this much older."""
    for path in root.rglob("*"):
        if path.is_file():
            status = path.stat()
            os.utime(path, (status.st_atime - seconds, status.st_mtime - seconds))


def deleted_id(made: Layered) -> str:
    """The id of the deleted backup."""
    return next(iter(made.repository.catalog.deleted_names()))[0]


def test_gc_shows_what_it_finds_and_moves_it_to_the_trash(made: Layered, tmp_path: Path) -> None:
    """The dry run and the run agree, and the second run finds nothing."""
    repository = tmp_path / "repository"
    planned = json.loads(run(repository, "gc", "--dry-run", "--json"))
    assert (planned["found"]["garbage"], planned["done"]["trashed"], planned["audit_head"]) == (3, 0, None)
    assert made.has("old top")
    shown = run(repository, "gc")
    assert "went to the trash" in shown
    assert "for 7 days" in shown
    assert not made.has("old top")
    assert made.has("base", "new top")
    again = json.loads(run(repository, "gc", "--json"))
    assert (again["found"]["garbage"], again["done"]["trashed"]) == (0, 0)
    assert again["audit_head"].startswith("sha256:")
    age(repository, 8 * 24 * 3600)
    assert json.loads(run(repository, "gc", "--json"))["done"]["purged"] == 5
    assert not (repository / "trash").exists()
    made.require_whole()


def test_undelete_brings_a_backup_back_until_the_trash_is_emptied(made: Layered, tmp_path: Path) -> None:
    """From the trash, with its files and its layer map; once its bytes are gone it says how many."""
    repository = tmp_path / "repository"
    gone = deleted_id(made)
    run(repository, "gc")
    told = run(repository, "undelete", gone[:20])
    assert f"{gone} of ship-1 image lab/app:1 is in the catalog again" in told
    assert gone in backups(repository)
    made.require_whole()
    assert len(made.paths("layers/sha256")) == 3
    assert "is not deleted" in run(repository, "undelete", gone, code=6)
    assert "no backup 'x'" in run(repository, "undelete", "x", code=3)
    made.delete(next(path.rpartition("/")[0] + "/" for path in made.paths("backups") if gone in path))
    age(repository, OLD)
    run(repository, "gc")
    age(repository, 8 * 24 * 3600)
    run(repository, "gc", "--trash-days", "1")
    assert "gone for ever" in run(repository, "undelete", gone, code=3)
    assert run(repository, "check").count("incomplete") == 0


def test_undelete_within_the_grace_needs_no_trash(made: Layered, tmp_path: Path) -> None:
    """Nothing was collected yet."""
    document = json.loads(run(tmp_path / "repository", "undelete", deleted_id(made), "--json"))
    assert document["source"] == "ship-1 image lab/app:1"
    assert document["audit_head"].startswith("sha256:")
    made.require_whole()


def test_refusals_have_their_exit_codes(made: Layered, tmp_path: Path) -> None:
    """An unreadable record is 5, wrong numbers and layouts are 2."""
    repository = tmp_path / "repository"
    assert "grace_hours" in run(repository, "gc", "--grace-hours", "-1", code=2)
    broken = made.backup("other")
    (repository / broken / "backup.json").chmod(0o600)
    (repository / broken / "backup.json").write_text("{}")
    assert "dockerbackup quarantine" in run(repository, "gc", code=5)
    assert made.has("old top")
    shutil.rmtree(repository)
    World(storage=LocalStorage(repository)).backup(1)
    assert "layout 'archive'" in run(repository, "gc", code=2)
    assert "layout 'archive'" in run(repository, "undelete", "2026", code=2)


def test_ids_of_deleted_backups_complete(made: Layered, tmp_path: Path) -> None:
    """Only theirs: others cannot be undeleted."""
    environment = {"DOCKERBACKUP_REPOSITORY": str(tmp_path / "repository")}
    assert offered("dockerbackup undelete ", environment=environment) == [deleted_id(made)]
    assert offered("dockerbackup unde", environment=environment) == ["undelete"]
