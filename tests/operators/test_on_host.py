# SPDX-License-Identifier: Apache-2.0
"""Archives that stay on a real Docker host: saved there, deferred, read back, rotated, and what faults leave."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AssetAlias, TaskDeferred

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook
from airflow_provider_dockerbackup.operators.on_host import WaitsForHost
from airflow_provider_dockerbackup.operators.restore import DockerBackupRestoreOperator
from airflow_provider_dockerbackup.operators.rotate import DockerBackupRotateOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from airflow_provider_dockerbackup.triggers import save_on_host
from airflow_provider_dockerbackup.triggers.save_on_host import SaveOnHostTrigger, from_wire
from tests.core.encryption.keys import age_pair
from tests.lab.faults import FaultProxy, small_disk
from tests.lab.lab import Lab, LabHost
from tests.operators.context import context

pytestmark = pytest.mark.usefixtures("connections")
HOSTS = ["docker_host_1"]
IMAGE = "lab/app:1"


def saving(repository: str, folder: Path, **arguments: Any) -> DockerSaveOperator:
    """Return the operator that saves on the host."""
    given: dict[str, Any] = {
        "image": IMAGE,
        "repository": repository,
        "archive_location": f"host:{folder}",
        "force": True,
        **arguments,
    }
    return DockerSaveOperator(task_id="save", dockerbackup_conn_id="docker_host_1", **given)


def deferred(operator: WaitsForHost, **of: Any) -> SaveOnHostTrigger:
    """Run the operator until it defers; return its trigger as a triggerer makes it."""
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(context(**of))
    assert caught.value.method_name == "execute_complete"
    path, arguments = caught.value.trigger.serialize()
    module, _, name = path.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))
    assert isinstance(trigger, SaveOnHostTrigger)
    return trigger


def fired(trigger: SaveOnHostTrigger) -> dict[str, Any]:
    """Run a trigger until its one event."""

    async def events() -> list[dict[str, Any]]:
        return [event.payload async for event in trigger.run()]

    found = asyncio.run(events())
    assert len(found) == 1
    payload: dict[str, Any] = json.loads(json.dumps(found[0]))
    return payload


def opened(url: str) -> Repository:
    """Return the repository."""
    return Repository.open(storage_from_url(url), clock=SystemClock())


def only_backup(url: str) -> Backup:
    """Return the one backup there."""
    (backup,) = opened(url).catalog.backups()
    return backup


def events_of(url: str) -> list[str]:
    """Return the types of all audit events, sorted."""
    storage = storage_from_url(url)
    return sorted(json.loads(storage.read(info.path))["type"] for info in storage.list("audit"))


def hidden(folder: Path) -> list[str]:
    """Return what is left of jobs."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def wait_for(reached: Callable[[], bool]) -> None:
    """Wait for the host."""
    for _ in range(400):
        if reached():
            return
        time.sleep(0.05)
    raise AssertionError(reached)


def kill(operator: WaitsForHost, *, begun: Callable[[], bool], folder: Path) -> None:
    """Kill a task once its job has begun, and wait until it has failed and the host has nothing of the job."""
    failures: list[TransientError] = []

    def run() -> None:
        try:
            operator.execute(context())
        except TransientError as err:
            failures.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(begun)
    operator.on_kill()
    thread.join(30)
    assert len(failures) == 1
    wait_for(lambda: list(folder.iterdir()) == [])


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_only_digests_travel_and_docker_loads_the_file_as_it_is(
    compression: str, repository_url: str, folder: Path, host: LabHost
) -> None:
    """Nothing but documents is in the repository; the archive is on the host, for its user alone."""
    summary = saving(repository_url, folder, compression=compression).execute(context())
    backup = only_backup(repository_url)
    record = backup.whole()
    assert (summary["status"], summary["trust"]) == ("committed", "unscanned")
    assert record.path_on_host is not None
    archive = Path(record.path_on_host)
    assert [path.name for path in folder.iterdir()] == [archive.name]
    assert archive.stat().st_size == record.stored_size_bytes
    assert archive.stat().st_mode & 0o777 == 0o600
    assert sum(info.size_bytes for info in storage_from_url(repository_url).list("backups")) < 40_000
    unpack = {"none": ["cat"], "gzip": ["gzip", "-dc"], "zstd": ["zstd", "-dc"]}[compression]
    tar = subprocess.run([*unpack, archive], check=True, capture_output=True).stdout
    assert len(tar) == record.size_bytes
    load = ["docker", "-H", host.daemon.docker_host, "load"]
    assert subprocess.run(load, input=tar, check=False, capture_output=True).returncode == 0
    assert events_of(repository_url) == ["backup.committed", "backup.started"]


@pytest.mark.parametrize("level", ["digests", "load"])
def test_it_counts_once_a_verification_has_read_it(level: str, repository_url: str, folder: Path) -> None:
    """Streamed through the strict scanner from the host."""
    backup_id = saving(repository_url, folder, compression="zstd").execute(context())["backup_id"]
    summary = DockerBackupVerifyOperator(
        task_id="verify",
        backup_id=backup_id,
        repository=repository_url,
        level=level,  # type: ignore[arg-type]
        archive_host_conn_ids=HOSTS,
    ).execute(context())
    assert summary["trust"] == {"digests": "checked", "load": "verified"}[level]
    assert summary["bytes_read"] >= only_backup(repository_url).whole().size_bytes


def test_a_changed_byte_on_the_host_fails_the_verification(repository_url: str, folder: Path) -> None:
    """Whoever has the host has the archive, and not the record."""
    backup_id = saving(repository_url, folder).execute(context())["backup_id"]
    path = Path(only_backup(repository_url).whole().path_on_host or "")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    verify = DockerBackupVerifyOperator(
        task_id="verify", backup_id=backup_id, repository=repository_url, level="digests", archive_host_conn_ids=HOSTS
    )
    with pytest.raises(AirflowFailException, match="IntegrityError"):
        verify.execute(context())
    assert only_backup(repository_url).trust == "failed"


def test_it_is_restored_to_another_host_and_hosts_are_found_in_the_configuration(
    repository_url: str, folder: Path, target: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the host through the worker; without a connection nothing is touched and the message says what to give."""
    backup_id = saving(repository_url, folder, compression="gzip").execute(context())["backup_id"]
    arguments: dict[str, Any] = {
        "task_id": "restore",
        "backup_id": backup_id,
        "repository": repository_url,
        "tags": ["back:1"],
        "dockerbackup_conn_id": "docker_host_2",
    }
    with pytest.raises(AirflowFailException, match=r"lies on Docker host 'host-1'.*archive_host_conn_ids"):
        DockerBackupRestoreOperator(**arguments).execute(context())
    monkeypatch.setenv("AIRFLOW__DOCKERBACKUP__ARCHIVE_HOST_CONN_IDS", "docker_host_2, docker_host_1")
    summary = DockerBackupRestoreOperator(**arguments).execute(context())
    assert summary["identical"]
    assert b"back:1" in target.daemon.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout


def test_an_unchanged_image_is_confirmed_only_while_the_host_has_the_archive(repository_url: str, folder: Path) -> None:
    """A record whose bytes were removed by hand is no reason not to save."""
    first = saving(repository_url, folder).execute(context(run_id="1"))
    again = saving(repository_url, folder, force=False).execute(context(run_id="2"))
    assert (again["status"], again["backup_id"]) == ("unchanged", first["backup_id"])
    Path(only_backup(repository_url).whole().path_on_host or "").unlink()
    third = saving(repository_url, folder, force=False).execute(context(run_id="3"))
    assert third["status"] == "committed"


def test_a_rotation_removes_the_bytes_on_the_host_also_one_that_could_not_at_first(
    repository_url: str, folder: Path
) -> None:
    """Without a way to the host the backup is out of the catalog, its bytes stay, and the next rotation finishes."""
    ids = [
        saving(repository_url, folder, compression="zstd").execute(context(run_id=str(run)))["backup_id"]
        for run in range(2)
    ]
    for backup_id in ids:
        DockerBackupVerifyOperator(
            task_id="verify",
            backup_id=backup_id,
            repository=repository_url,
            level="digests",
            archive_host_conn_ids=HOSTS,
        ).execute(context())

    def rotate(hosts: list[str]) -> dict[str, Any]:
        operator = DockerBackupRotateOperator(
            task_id="rotate", repository=repository_url, policy={"keep_last": 1}, archive_host_conn_ids=hosts
        )
        return dict(operator.execute(context(task_id="rotate")))

    first = rotate([])
    assert (first["removed_ids"], first["freed_bytes"]) == ([ids[0]], 0)
    assert only_backup(repository_url).backup_id == ids[1]
    assert len(list(folder.iterdir())) == 2
    second = rotate(HOSTS)
    assert (second["removed_ids"], second["kept"]) == ([ids[0]], 1)
    assert second["freed_bytes"] > 0
    assert [path.name[: len(ids[1])] for path in folder.iterdir()] == [ids[1]]
    assert not opened(repository_url).catalog.unfinished_deletions()


def test_a_deferred_save_commits_once_and_leaves_nothing_of_the_job(repository_url: str, folder: Path) -> None:
    """The trigger is made anew from what Airflow stores; the event brings all that the second half needs."""
    trigger = deferred(saving(repository_url, folder, deferrable=True))
    event = fired(trigger)
    assert event["status"] == "over"
    told, alias = context(), AssetAlias("saved")
    second_half = saving(repository_url, folder, deferrable=True, outlets=[alias])
    summary = second_half.execute_complete(told, event)  # type: ignore[arg-type]
    assert summary["status"] == "committed"
    assert hidden(folder) == []
    (made,) = told["outlet_events"][alias].asset_alias_events
    assert (made.extra["backup_id"], made.extra["trust"]) == (summary["backup_id"], "unscanned")
    again = saving(repository_url, folder, deferrable=True).execute_complete(context(), event)  # type: ignore[arg-type]
    assert (again["status"], again["backup_id"]) == ("already", summary["backup_id"])
    assert len(list(folder.iterdir())) == 1
    assert events_of(repository_url).count("backup.committed") == 1


def test_a_save_that_was_deferred_before_an_upgrade_is_committed_after_it(repository_url: str, folder: Path) -> None:
    """Its trigger says nothing of the policy and of what was asked for, as those of the versions before did."""
    given = {"deferrable": True, "retention": "keep_last=3"}
    trigger = deferred(saving(repository_url, folder, **given))
    for name in ("asked", "retention"):
        del trigger.begun[name]  # type: ignore[misc]
    event = fired(trigger)
    assert event["status"] == "over"
    saving(repository_url, folder, **given).execute_complete(context(), event)  # type: ignore[arg-type]
    assert only_backup(repository_url).whole().retention == "keep_last=3"
    assert hidden(folder) == []


def test_airflows_default_defers_what_can_be_and_nothing_else(
    repository_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation whose operators all defer still saves through the worker where bytes must go there."""
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert saving(repository_url, folder, archive_location=None).execute(context(run_id="1"))["status"] == "committed"
    deferred(saving(repository_url, folder), run_id="2")
    assert saving(repository_url, folder, deferrable=False).execute(context(run_id="3"))["status"] == "committed"


def test_a_triggerer_may_be_restarted_and_two_may_wait_at_once(repository_url: str, folder: Path, slow: Path) -> None:
    """All state is on the host: the second run of the trigger sees what the first saw."""
    trigger = deferred(saving(repository_url, folder, deferrable=True))

    async def cut_short() -> None:
        async for _ in trigger.run():
            raise AssertionError

    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(cut_short(), 2))

    async def both() -> list[Any]:
        async def wait(each: SaveOnHostTrigger) -> list[Any]:
            return [event.payload["status"] async for event in each.run()]

        waiting = [asyncio.ensure_future(wait(SaveOnHostTrigger(**trigger.serialize()[1]))) for _ in range(2)]
        await asyncio.sleep(0.5)
        slow.unlink()
        return list(await asyncio.gather(*waiting))

    assert asyncio.run(both()) == [["over"], ["over"]]


def test_a_trigger_waits_through_a_lost_link(
    repository_url: str, folder: Path, slow: Path, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It connects again, and one connection serves all looks in between."""
    trigger = deferred(saving(repository_url, folder, deferrable=True, poll_seconds=0.2))
    with FaultProxy(host.address, host.ssh_port) as proxy:
        connection = json.loads(host.airflow_connection())
        connection["port"] = proxy.port
        monkeypatch.setenv("AIRFLOW_CONN_DOCKER_HOST_1", json.dumps(connection))

        async def wait() -> list[Any]:
            waiting = asyncio.ensure_future(collect())
            await asyncio.sleep(3)
            assert proxy.connections == 1
            proxy.cut_after(0)
            await asyncio.sleep(1)
            proxy.heal()
            slow.unlink()
            return await waiting

        async def collect() -> list[Any]:
            return [event.payload["status"] async for event in trigger.run()]

        assert asyncio.run(wait()) == ["over"]
        assert proxy.connections >= 2


def test_marking_the_task_ends_the_job_of_this_try_and_no_other(repository_url: str, folder: Path, slow: Path) -> None:
    """Airflow starts a new try before the old trigger is killed: each kill is for one job."""
    old = deferred(saving(repository_url, folder, deferrable=True), run_id="1")
    other = deferred(saving(repository_url, folder, deferrable=True), run_id="2")
    asyncio.run(old.on_kill())
    assert hidden(folder) == [other.begun["job"]]
    asyncio.run(old.on_kill())
    event = fired(old)
    assert event["status"] == "over"
    with pytest.raises(TransientError, match="folder is gone"):
        saving(repository_url, folder, deferrable=True).execute_complete(context(run_id="1"), event)  # type: ignore[arg-type]
    slow.unlink()
    done = saving(repository_url, folder, deferrable=True).execute_complete(
        context(run_id="2"),
        fired(other),  # type: ignore[arg-type]
    )
    assert done["status"] == "committed"


@pytest.mark.parametrize("killed", ["task", "trigger"])
def test_a_kill_leaves_a_job_alone_that_is_being_committed(killed: str, repository_url: str, folder: Path) -> None:
    """Its folder must go on telling of the archive until a record does."""
    operator = saving(repository_url, folder, deferrable=True)
    trigger = deferred(operator)
    assert fired(trigger)["status"] == "over"
    begun = from_wire(trigger.begun)
    with DockerBackupHook("docker_host_1").docker_host() as docker:
        docker.archives.publish(begun.place, archive=f"image-{begun.place.attempt}.tar")
    if killed == "trigger":
        asyncio.run(trigger.on_kill())
    else:
        operator.on_kill()
    assert hidden(folder) == [trigger.begun["job"]]


def test_a_new_try_ends_the_job_of_the_one_before(repository_url: str, folder: Path, slow: Path) -> None:
    """The same work twice at once commits one backup; the first one's end changes nothing."""
    first = deferred(saving(repository_url, folder, deferrable=True))
    second = deferred(saving(repository_url, folder, deferrable=True), try_number=2)
    assert hidden(folder) == [second.begun["job"]]
    slow.unlink()
    done = saving(repository_url, folder).execute_complete(context(try_number=2), fired(second))  # type: ignore[arg-type]
    assert done["status"] == "committed"
    late = saving(repository_url, folder).execute_complete(context(), fired(first))  # type: ignore[arg-type]
    assert (late["status"], late["backup_id"]) == ("already", done["backup_id"])
    assert len(list(folder.iterdir())) == 1


def test_a_killed_job_fails_the_task_so_that_it_is_tried_again(repository_url: str, folder: Path, slow: Path) -> None:
    """SIGKILL on the host: nothing is committed, nothing is left, and the trail says so."""
    trigger = deferred(saving(repository_url, folder, deferrable=True))
    process = folder / trigger.begun["job"] / "process"
    os.kill(int(process.read_text().split()[0]), signal.SIGKILL)
    event = fired(trigger)
    with pytest.raises(TransientError, match="processes were killed"):
        saving(repository_url, folder, deferrable=True).execute_complete(context(), event)  # type: ignore[arg-type]
    assert list(folder.iterdir()) == []
    assert events_of(repository_url) == ["backup.failed", "backup.started"]
    assert opened(repository_url).catalog.backups() == []


def test_a_host_that_was_started_anew_is_noticed(repository_url: str, folder: Path, slow: Path) -> None:
    """The folder of the job is there after a reboot, its process is not."""
    trigger = deferred(saving(repository_url, folder, deferrable=True))
    process = folder / trigger.begun["job"] / "process"
    pid, boot, start = process.read_text().split()
    process.write_text(f"{pid} {boot[::-1]} {start}\n")
    event = fired(trigger)
    with pytest.raises(TransientError, match="started anew"):
        saving(repository_url, folder, deferrable=True).execute_complete(context(), event)  # type: ignore[arg-type]
    process = Path(f"/proc/{pid}")
    if process.exists():
        os.kill(int(pid), signal.SIGTERM)


def test_a_trigger_has_a_deadline_of_its_own(repository_url: str, folder: Path, slow: Path) -> None:
    """Airflow's own limits do not hold while a task is deferred, and leave the remote work behind."""
    trigger = deferred(saving(repository_url, folder, deferrable=True))
    trigger.deadline = time.time() + 1
    event = fired(trigger)
    assert event["status"] == "deadline"
    with pytest.raises(TransientError, match="not done in time"):
        saving(repository_url, folder, deferrable=True).execute_complete(context(), event)  # type: ignore[arg-type]
    assert list(folder.iterdir()) == []
    assert events_of(repository_url) == ["backup.failed", "backup.started"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("key file", r"cannot read .*missing: .*; the triggerer needs it too"),
        ("host key", "the host key is not the expected one"),
        ("login", "login refused"),
    ],
)
def test_what_the_triggerer_will_be_refused_again_stops_retries_and_ends_the_job(
    wrong: str,
    message: str,
    repository_url: str,
    folder: Path,
    slow: Path,
    lab: Lab,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each retry would begin a job, and end it without having waited for it; the worker itself reaches the host."""
    worker = os.environ["AIRFLOW_CONN_DOCKER_HOST_1"]
    trigger = deferred(saving(repository_url, folder, deferrable=True))
    connection = json.loads(worker)
    other = lab.hosts[1]
    connection["extra"] |= {
        "key file": {"key_file": str(tmp_path / "missing")},
        "host key": {"host_key": other.host_key},
        "login": {"key_file": str(other.private_key_path), "look_for_keys": "false"},
    }[wrong]
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_HOST_1", json.dumps(connection))
    event = fired(trigger)
    assert event["status"] == "refused"
    assert hidden(folder) == [trigger.begun["job"]]
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_HOST_1", worker)
    with pytest.raises(AirflowFailException, match=rf"ConfigurationError: .*{message}.*nothing was committed"):
        saving(repository_url, folder, deferrable=True).execute_complete(context(), event)  # type: ignore[arg-type]
    assert list(folder.iterdir()) == []
    assert events_of(repository_url) == ["backup.failed", "backup.started"]


def test_a_host_that_the_triggerer_lost_is_worth_another_try(
    repository_url: str, folder: Path, slow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be there again; the job is ended where the worker reaches it."""
    worker = os.environ["AIRFLOW_CONN_DOCKER_HOST_1"]
    trigger = deferred(saving(repository_url, folder, deferrable=True, poll_seconds=0.1))
    monkeypatch.setattr(save_on_host, "_LONGEST_BACKOFF_SECONDS", 0.01)
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_HOST_1", '{"conn_type": "ssh", "host": "127.0.0.1", "port": 1}')
    event = fired(trigger)
    assert event["status"] == "unreachable"
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_HOST_1", worker)
    with pytest.raises(TransientError, match=r"the host was not reached for too long: .*cannot connect"):
        saving(repository_url, folder, deferrable=True).execute_complete(context(), event)  # type: ignore[arg-type]
    assert list(folder.iterdir()) == []
    assert events_of(repository_url) == ["backup.failed", "backup.started"]


def test_an_event_that_is_none_of_ours_stops_retries(repository_url: str, folder: Path) -> None:
    """It would come to nothing each time, after a whole job on the host."""
    event = {"status": "over", "problem": "", "begun": {"folder": str(folder)}}
    with pytest.raises(AirflowFailException, match="the trigger's event is none of ours"):
        saving(repository_url, folder, deferrable=True).execute_complete(context(), event)  # type: ignore[arg-type]


def test_a_full_disk_fails_the_task_and_says_where(repository_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beforehand when the size of the image does not fit."""
    with small_disk(200_000) as disk, pytest.raises(TransientError, match="no space left"):
        saving(repository_url, disk / "archives").execute(context())
    assert events_of(repository_url) == ["backup.failed", "backup.started"]


def test_fields_that_were_rendered_otherwise_are_refused_and_nothing_is_committed(
    repository_url: str, folder: Path
) -> None:
    """A template that tells the time of rendering names another work after the deferral."""
    event = fired(deferred(saving(repository_url, folder, deferrable=True)))
    with pytest.raises(AirflowFailException, match="other values than when its job began"):
        saving(repository_url, folder, image="lab/committed:1").execute_complete(context(), event)  # type: ignore[arg-type]
    assert opened(repository_url).catalog.backups() == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"archive_location": None, "deferrable": True}, "only with archive_location"),
        ({"archive_location": "host:relative"}, "an absolute path"),
        ({"archive_location": "host:/var/../etc"}, "an absolute path"),
        ({"archive_location": "host:/"}, "folder of its own"),
        ({"archive_location": "host:/x\ny"}, "cannot be printed"),
        ({"archive_location": "/var/backups"}, "expected host:/PATH"),
        ({"layout": "layers"}, "layout 'layers' shares"),
        ({"bandwidth_limit": 1000}, "bandwidth_limit"),
        ({"capture": "push"}, "capture"),
        ({"deferrable": True, "poll_seconds": 0.0}, "poll_seconds: expected seconds > 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs_on_the_host(
    arguments: dict[str, Any], message: str, repository_url: str, folder: Path
) -> None:
    """Permanently: trying again is of no use."""
    with pytest.raises(AirflowFailException, match=message):
        saving(repository_url, folder, **arguments).execute(context())
    assert not folder.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {"archive_location": "host:relative"},
        {"layout": "layers"},
        {"recipients": [age_pair().public, age_pair().public]},
        {"bandwidth_limit": 10_000_000},
    ],
)
def test_no_repository_is_made_for_what_is_refused(
    arguments: dict[str, Any], repository_url: str, folder: Path
) -> None:
    """A layout and recipients are for ever; the next run would find a repository that it cannot use either."""
    with pytest.raises(AirflowFailException):
        saving(repository_url, folder, **arguments).execute(context())
    assert list(storage_from_url(repository_url).list("")) == []


def test_a_location_that_is_no_folder_is_told_with_what_to_do(repository_url: str, folder: Path) -> None:
    """And not as a job that is there already, although mkdir says the same."""
    folder.write_text("")
    with pytest.raises(AirflowFailException, match=r"File exists.*give the SSH user a folder that it can write to"):
        saving(repository_url, folder).execute(context())


def test_the_worker_asks_once_what_the_image_is(
    repository_url: str, folder: Path, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command is a round trip; the job asks once more when it begins."""
    docker, log = tmp_path / "telling-docker", tmp_path / "log"
    docker.write_text(f'#!/bin/sh\necho "$1 $2" >>"{log}"\nexec docker "$@"\n')
    docker.chmod(0o755)
    connection = json.loads(host.airflow_connection())
    connection["extra"]["docker_command"] = str(docker)
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_HOST_1", json.dumps(connection))
    saving(repository_url, folder).execute(context())
    calls = log.read_text().splitlines()
    assert sum("image inspect" in call for call in calls) == 2, calls


def test_a_deferrable_save_is_refused_with_a_connection_that_triggers_cannot_use(
    repository_url: str, folder: Path, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the job is begun: it would run, and nobody could wait for it."""
    connection = json.loads(host.airflow_connection())
    connection["extra"]["ciphers"] = ["aes256-ctr"]
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_HOST_1", json.dumps(connection))
    with pytest.raises(AirflowFailException, match="a trigger cannot use its extra ciphers"):
        saving(repository_url, folder, deferrable=True).execute(context())
    assert not folder.exists()


def test_a_killed_task_ends_its_job_on_the_host(repository_url: str, folder: Path, slow: Path) -> None:
    """While the worker itself waits."""
    operator = saving(repository_url, folder)
    kill(operator, begun=lambda: operator._job is not None, folder=folder)
    with DockerBackupHook("docker_host_1").docker_host() as docker:
        assert docker.archives.jobs(str(folder), scope=".dockerbackup-") == ()
