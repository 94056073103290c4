# SPDX-License-Identifier: Apache-2.0
"""Verbs that keep a repository in order, run as programs without Airflow."""

from __future__ import annotations

import json
import os
import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import Confirmation
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.cli.test_verbs import PROGRAM
from tests.core.world import IMAGE, World


class _Now(SystemClock):
    """The real time, as worlds want it."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Four backups of an image on disk, all verified."""
    root = tmp_path / "repository"
    world = World(storage=LocalStorage(root))
    world.clock = _Now()  # type: ignore[assignment]
    for run in range(4):
        world.verify(world.backup(run).backup)
    return root


def run(repository: Path, *arguments: str, code: int = 0, key: Path | None = None) -> str:
    """Run a verb on the repository, and return what it prints; errors when it ends otherwise."""
    environment = {**os.environ, "DOCKERBACKUP_REPOSITORY": str(repository)}
    if key is not None:
        environment["DOCKERBACKUP_SIGNING_KEY"] = str(key)
    done = subprocess.run(
        [PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout if code == 0 else done.stderr + done.stdout


def backups(repository: Path) -> list[str]:
    """Return the ids in the catalog, newest first."""
    listed: list[dict[str, Any]] = json.loads(run(repository, "list", "--json"))
    return [each["backup_id"] for each in listed]


def test_rotate_shows_its_plan_and_removes_what_it_showed(repository: Path) -> None:
    """The dry run and the run agree; a hold keeps one more, and its release lets it go."""
    newest, second, third, oldest = backups(repository)
    assert f"{IMAGE} is under legal hold: claim 17" in run(
        repository, "hold", oldest, "--reason", "claim 17", "--legal"
    )
    assert re.search(r"^hold: +under legal hold: claim 17$", run(repository, "show", oldest), re.MULTILINE)
    (told,) = json.loads(run(repository, "show", oldest, "--json"))["holds"]
    assert (told["reason"], told["legal"]) == ("claim 17", True)
    policy = ("rotate", "--keep-last", "2", "--max-removed-share", "1")
    planned = json.loads(run(repository, *policy, "--dry-run", "--json"))
    assert planned["removed"] == [third]
    assert backups(repository) == [newest, second, third, oldest]
    shown = run(repository, *policy)
    assert "under legal hold: claim 17" in shown
    assert "3 kept, 1 removed" in shown
    assert backups(repository) == [newest, second, oldest]
    assert "legal hold" in run(repository, "release", oldest, "--reason", "x", code=6)
    run(repository, "release", oldest, "--reason", "settled", "--legal")
    assert json.loads(run(repository, *policy, "--json"))["removed"] == [oldest]
    assert "policy" in run(repository, "rotate", code=2)
    assert "keep_daily" in run(repository, "rotate", "--keep-daily", "many", code=2)


def test_a_source_with_a_policy_of_its_own_is_rotated_by_that_unless_told_otherwise(repository: Path) -> None:
    """The plan and the backup say so."""
    opened = Repository.open(LocalStorage(repository), clock=SystemClock())
    newest, second, *_ = opened.catalog.backups()
    confirmation = Confirmation(
        backup_id=newest.backup_id,
        idempotency_key="0" * 64,
        confirmed_at=newest.whole().captured_at
        + timedelta(microseconds=1),  # not in the future of what follows at once
        image_id="",
        retention="keep_last=2",
        actor={},
    )
    opened.storage.create(f"{newest.path}confirmed-20260309T060000Z-0.json", confirmation.to_bytes())
    policy = ("rotate", "--keep-last", "4", "--max-removed-share", "1")
    ignored = json.loads(run(repository, *policy, "--ignore-own-policies", "--dry-run", "--json"))
    assert (ignored["own_policies"], len(ignored["removed"])) == ({}, 1)
    planned = json.loads(run(repository, *policy, "--dry-run", "--json"))
    assert planned["own_policies"] == {str(IMAGE): "keep_last=2"}
    assert f"{IMAGE} has a policy of its own: keep_last=2" in run(repository, *policy)
    # The confirmation is a point as well: it and the capture before it are the two.
    assert backups(repository) == [newest.backup_id]
    assert second.backup_id not in backups(repository)
    assert "keep_last=2, by the source's own label" in run(repository, "show", newest.backup_id)


def test_the_backups_of_a_period_are_listed_and_verified(repository: Path) -> None:
    """From its first moment on, until before its last; one without any backup proves nothing."""
    listed = json.loads(run(repository, "list", "--json"))
    newest, second, third, oldest = (each["backup_id"] for each in listed)
    period = ("--since", listed[2]["captured_at"], "--until", listed[0]["captured_at"])
    found = json.loads(run(repository, "list", "--json", *period))
    assert [each["backup_id"] for each in found] == [second, third]
    shown = run(repository, "list", *period)
    assert second in shown
    assert newest not in shown
    verify = ("verify", "--level", "digests", "--json")
    verified = json.loads(run(repository, *verify, *period))
    assert [each["backup_id"] for each in verified] == [second, third]
    latest = json.loads(run(repository, *verify, "--newest", *period))
    assert [each["backup_id"] for each in latest] == [second]
    assert "has a point before 2001-01-01" in run(repository, *verify, "--until", "2001-01-01", code=3)
    assert run(repository, "list", "--until", "2001-01-01", "--json") == "[]\n"
    assert "--since: expected a date" in run(repository, "list", "--since", "yesterday", code=2)
    assert "either ids" in run(repository, "verify", oldest, *period, code=2)


def test_forget_ends_a_source(repository: Path) -> None:
    """First as a dry run, then in earnest; a second time there is nothing to forget."""
    words = ("forget", IMAGE.host, "image", IMAGE.name, "--reason", "replaced")
    assert run(repository, *words, "--dry-run").count("would be removed") == 4
    assert run(repository, *words).count("is removed") == 4
    assert backups(repository) == []
    run(repository, *words, code=3)
    assert not list(repository.rglob("*.tar*"))


def test_check_names_a_damaged_backup_and_quarantine_puts_it_aside(repository: Path) -> None:
    """Exit code 5 until it is put aside; lifting brings it back."""
    assert "nothing is odd" in run(repository, "check")
    oldest = backups(repository)[-1]
    next(repository.rglob(f"{oldest}/image-*.tar")).unlink()
    (repository / "backups" / "notes.txt").write_text("hello")
    found = run(repository, "check", code=5)
    assert "incomplete" in found
    assert "foreign" in found
    run(repository, "quarantine", backups(repository)[0], "--reason", "x", code=6)
    run(repository, "quarantine", oldest, "--reason", "disk failure")
    assert oldest not in backups(repository)
    assert "quarantined" in run(repository, "check")
    run(repository, "quarantine", oldest, "--lift", "--reason", "repaired")
    assert oldest in backups(repository)


def test_the_trail_is_signed_checkpointed_and_proven(repository: Path, tmp_path: Path) -> None:
    """With a key of its own; what was there before the key is taken over; a removed event is named."""
    key = tmp_path / "audit.key"
    run(repository, "audit", "keygen", str(key))
    run(repository, "audit", "keygen", str(key), code=6)
    anchors = tmp_path / "anchors.txt"
    anchors.write_text(run(repository, "audit", "checkpoint", key=key))
    run(repository, "hold", backups(repository)[0], "--reason", "claim", key=key)
    with anchors.open("a") as file:
        file.write(run(repository, "audit", "checkpoint", key=key))
    words = ("audit", "verify", "--public-key", f"{key}.pub", "--anchors", str(anchors))
    assert run(repository, *words).endswith("intact\n")
    assert "NOT checked" in run(repository, "audit", "verify")
    shown = run(repository, "audit", "log", "--type", "hold.")
    assert shown.count("hold.set") == 1
    events = json.loads(run(repository, "audit", "log", "--json"))
    held = next(each for each in events if each["type"] == "hold.set")
    gone = held["digest"].removeprefix("sha256:")
    next(repository.rglob(f"{gone}.json")).unlink()
    assert held["digest"] in run(repository, *words, code=5)


def test_a_trail_older_than_its_key_is_not_signed_until_a_checkpoint_is(repository: Path, tmp_path: Path) -> None:
    """Exit code 5 in other words than for a changed one; the checkpoint needs no new event."""
    run(repository, "audit", "checkpoint")
    key = tmp_path / "audit.key"
    run(repository, "audit", "keygen", str(key))
    verify = ("audit", "verify", "--public-key", f"{key}.pub")
    told = run(repository, *verify, code=5)
    assert "the audit trail is not signed: 13 events are older than the key" in told
    assert "was changed:" not in told
    document = json.loads(run(repository, *verify, "--json", code=5).partition("\n")[2])
    assert (document["state"], document["signed_since"]) == ("not signed", None)
    report = ("audit", "report", "--public-key", f"{key}.pub", "--fail-on", "trail")
    assert "trail: the audit trail is not signed" in run(repository, *report, code=5)
    assert "checkpoint 2, 0 new events" in run(repository, "audit", "checkpoint", key=key)
    assert run(repository, *verify).endswith("intact\n")


def test_a_repository_with_tombstones_opens_and_lists_only_what_is_there(repository: Path) -> None:
    """Records of removed backups stay readable for whoever asks."""
    run(repository, "rotate", "--keep-last", "1", "--max-removed-share", "1")
    opened = Repository.open(LocalStorage(repository), clock=SystemClock())
    assert len(opened.catalog.backups()) == 1
    assert len(opened.catalog.deleted()) == 3


def test_the_report_is_a_table_a_page_and_an_exit_code(repository: Path, tmp_path: Path) -> None:
    """The same facts in each form; a control that fails is exit code 5, after the report was written."""
    report = ("audit", "report", "--rpo", "1d")
    table = run(repository, *report)
    assert "BACKUP_LAST_RECOVERY_POINT_CREATED" in table
    drills = [line for line in table.splitlines() if line.startswith("restore drill")]
    assert sorted(backups(repository)) == sorted(
        each for line in drills for each in backups(repository) if each in line
    )
    page = tmp_path / "report.html"
    failing = (*report, "--fail-on", "BACKUP_RECOVERY_POINT_ENCRYPTED")
    assert "not encrypted" in run(repository, *failing, "--format", "html", "-o", str(page), code=5)
    assert page.read_text().startswith("<!doctype html>")
    found = json.loads(run(repository, *report, "--format", "json"))
    assert found["trail"]["findings"] == []
    assert found["sources"][0]["freshness"] == "ok"
    assert found["job_counts"] == {"backup.committed": 4, "verify.passed": 4}
    assert run(repository, *report, "--format", "csv").startswith("section,item,status,detail,evidence")
    assert "--rpo-for" in run(repository, *report, "--rpo-for", "x", code=2)
    assert "--fail-on" in run(repository, *report, "--fail-on", "NO_SUCH", code=2)


def test_a_listing_loads_no_library_that_it_does_not_need(repository: Path) -> None:
    """What only other verbs need takes longer to import than the whole listing does."""
    code = (
        "import sys; from airflow_provider_dockerbackup.cli.main import cli; "
        f"cli.main(['list', '-r', {str(repository)!r}], standalone_mode=False); "
        "sys.exit(sorted({'paramiko', 'docker', 'requests', 'jinja2', 'fsspec', 'airflow'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([PROGRAM.parent / "python", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_sources_without_a_fresh_backup_are_told_by_the_exit_code(repository: Path, tmp_path: Path) -> None:
    """And by name; what was never restored counts only when asked to."""
    fresh = json.loads(run(repository, "freshness", "--rpo", "1h", "--json"))
    assert [(each["source"], each["state"], each["limit"]) for each in fresh] == [(IMAGE.name, "ok", "1h")]
    backup = Repository.open(LocalStorage(repository), clock=SystemClock()).catalog.backups()[0]
    age_hours = (SystemClock().now() - backup.newest_point).total_seconds() / 3600
    assert abs(fresh[0]["age_seconds"] / 3600 - age_hours) < 0.1
    unproven = tmp_path / "unproven"
    world = World(storage=LocalStorage(unproven))
    world.clock = _Now()  # type: ignore[assignment]
    world.backup(1)
    told = run(unproven, "freshness", code=7)
    assert "missing" in told
    assert "1 of 1 sources have no fresh backup" in told
    assert "ok" in run(unproven, "freshness", "--trust", "any", "--rpo-for", "lab/*=2d")


def test_a_bad_limit_is_named(repository: Path) -> None:
    """Before the repository is read."""
    assert "--rpo" in run(repository, "freshness", "--rpo", "soon", code=2)
    assert "--rpo-for" in run(repository, "freshness", "--rpo-for", "x", code=2)
