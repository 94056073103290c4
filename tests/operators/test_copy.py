# SPDX-License-Identifier: Apache-2.0
"""Copies as tasks: from disk to S3 by connections, with values as templates render them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, Stats

from airflow_provider_dockerbackup.core.audit.proof import Anchor, prove
from airflow_provider_dockerbackup.core.audit.reading import stored_events
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.operators.copy import DockerBackupCopyOperator
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.encryption.keys import age_pair
from tests.core.world import CONTAINER, World, app_archive, assert_all_whole, spoil
from tests.lab.s3 import LabS3
from tests.operators.context import context


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two images and a container in a repository on disk."""
    world = World(storage=LocalStorage(tmp_path / "source"))
    world.clock = SystemClock()  # type: ignore[assignment]
    world.backup(1)
    world.host.add_archive(app_archive("two"))
    world.backup(2)
    world.backup(3, CONTAINER)
    return world


def copied(world: World, target: str, **options: Any) -> Any:
    """Copy as a task."""
    operator = DockerBackupCopyOperator(
        task_id="copy", repository=str(world.storage.url), target_repository=target, **options
    )
    return operator.execute(context(task_id="copy"))


def opened(url: str, **options: str) -> Repository:
    """Return a repository."""
    return Repository.open(storage_from_url(url, **options), clock=SystemClock())


def test_a_repository_goes_to_s3_by_a_connection(world: World, s3: LabS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a dry run, which makes nothing there; a second run finds everything there; the actor is the task."""
    extra = {"endpoint_url": s3.endpoint_url, "region_name": "us-east-1"}
    connection = {"conn_type": "aws", "login": "test", "password": "test", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SECOND_SITE", json.dumps(connection))
    url = f"s3://{s3.new_bucket()}/backups"
    planned = copied(world, url, plan_only="true", target_repository_conn_id="second_site")
    assert (planned["copied"], planned["new_bytes"], planned["dry_run"], planned["audit_head"]) == (3, 0, True, None)
    done = copied(world, url, target_repository_conn_id="second_site")
    options = {"key": "test", "secret": "test", "endpoint_url": s3.endpoint_url}
    backups = assert_all_whole(opened(url, **options))
    assert done["copied_ids"] == [each.backup_id for each in backups]
    assert (done["copied"], done["finished"], done["already"], done["skipped"]) == (3, 0, 0, 0)
    assert (done["repository"], done["target_repository"]) == (world.storage.url, url)
    assert done["new_bytes"] == sum(each.whole().stored_size_bytes for each in backups)
    event = json.loads(storage_from_url(url, **options).read(_event(url, done["audit_head"], options)))
    assert (event["type"], event["actor"]["task_id"]) == ("copy.done", "copy")
    again = copied(world, url, target_repository_conn_id="second_site")
    assert (again["copied"], again["already"], again["new_bytes"]) == (0, 3, 0)


def _event(url: str, digest: str, options: dict[str, str]) -> str:
    name = digest.removeprefix("sha256:")
    return next(each.path for each in storage_from_url(url, **options).list("audit") if name in each.path)


def test_rendered_values_choose_what_is_copied(world: World, tmp_path: Path) -> None:
    """Numbers and flags come as text from templates; ids come from another task's XCom."""
    target = f"file://{tmp_path}/target"
    wanted = world.repository.catalog.backups()[-1].backup_id
    assert copied(world, target, backup_ids=[wanted])["copied_ids"] == [wanted]
    assert copied(world, target, names=["web"], newest="1", since="2000y")["copied"] == 1
    assert copied(world, target, hosts=["ship-*"], newest=1)["already"] == 1
    with pytest.raises(AirflowFailException, match="NotFoundError: no backup matches hosts"):
        copied(world, target, hosts=["nowhere"])


def test_a_damaged_backup_fails_the_task_after_the_others_were_copied(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trying again cannot mend it, so the task is not retried; the error says which and why, the log what was done."""
    target = f"file://{tmp_path}/target"
    damaged = world.repository.catalog.backups(source=CONTAINER)[0]
    spoil(world.storage, damaged.path + damaged.whole().archive_file.name)
    with pytest.raises(AirflowFailException, match=rf"IntegrityError: 1 of 3 .* {damaged.backup_id} of .*web: "):
        copied(world, target)
    assert len(assert_all_whole(opened(target))) == 2
    (head,) = re.findall(r"audit head (sha256:[0-9a-f]{64})", capsys.readouterr().out)
    events = stored_events(storage_from_url(target), keys={})
    assert prove(events, keys_given=False, anchors=[Anchor(digest=head)]).intact


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"newest": "few"}, "newest: expected a whole number"),
        ({"newest": 0}, "newest: expected a whole number from 1 on"),
        ({"since": "soon"}, "since: expected a duration"),
        ({"layout": "tape"}, "layout: expected one of"),
        ({"compression": "lz4"}, "compression: expected one of"),
        ({"plan_only": "perhaps"}, "plan_only: expected true or false"),
        ({"recipients": [age_pair().public]}, "recipients: only one is given"),
        ({"hosts": []}, "hosts: expected a list of patterns"),
        ({"bandwidth_limit": 1}, "bandwidth_limit: expected at least"),
        ({"backup_ids": "2026"}, "backup_ids: expected a list"),
    ],
)
def test_bad_parameters_are_named_and_nothing_is_made(
    world: World, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    """Before the target is touched."""
    with pytest.raises(AirflowFailException, match=f"ConfigurationError: {said}"):
        copied(world, f"file://{tmp_path}/target", **options)
    assert not (tmp_path / "target").exists()


def test_a_target_in_the_source_is_refused(world: World, tmp_path: Path) -> None:
    """Also by way of a link."""
    (tmp_path / "link").symlink_to(tmp_path / "source")
    for target in (f"{tmp_path}/source", f"file://{tmp_path}/source/inner", f"{tmp_path}/link/inner"):
        with pytest.raises(AirflowFailException, match=r"ConfigurationError: the target .* must be apart"):
            copied(world, target)


def test_metrics_tell_what_was_copied(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of backups and bytes."""
    told: dict[str, float] = {}
    monkeypatch.setattr(Stats, "gauge", lambda name, value, **_: told.update({name: value}))
    done = copied(world, f"file://{tmp_path}/target")
    assert told == {
        "dockerbackup.copy.copied": 3,
        "dockerbackup.copy.already": 0,
        "dockerbackup.copy.new_bytes": done["new_bytes"],
    }
