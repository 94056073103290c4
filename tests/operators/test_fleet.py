# SPDX-License-Identifier: Apache-2.0
"""A fleet of two real hosts: what labels ask for is due, is backed up as they say, and is missed when it is not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.operators.capture import DockerCaptureOperator
from airflow_provider_dockerbackup.operators.fleet_freshness import DockerFleetFreshnessOperator
from airflow_provider_dockerbackup.operators.list_due import DockerListDueOperator
from airflow_provider_dockerbackup.operators.rotate import DockerBackupRotateOperator
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.lab.images import BASE, build_base
from tests.lab.lab import Lab, LabHost
from tests.lab.processes import wait_until
from tests.lab.s3 import CONNECTION_ID, LabS3
from tests.operators.context import RUN_TIME, context

pytestmark = pytest.mark.usefixtures("connections")
HOSTS = ["docker_host_1", "docker_host_2"]
Run = Callable[..., None]


@pytest.fixture
def run(lab: Lab) -> Iterator[Run]:
    """Start a container with labels on a host; all are removed at the end."""
    started: list[tuple[LabHost, str]] = []

    def begin(host: int, name: str, **labels: str) -> None:
        daemon = lab.hosts[host - 1].daemon
        build_base(daemon)
        options = [f"--label=dockerbackup.{label}={text}" for label, text in labels.items()]
        started.append((lab.hosts[host - 1], name))
        command = ("/bin/busybox", "sleep", "600")
        daemon.docker("run", "--detach", "--network", "none", "--name", name, *options, BASE, *command)

    yield begin
    for host, name in started:
        host.daemon.docker("rm", "--force", "--volumes", name, check=False)
    lab.hosts[1].daemon.docker("rmi", BASE, check=False)


@pytest.fixture
def second_host_down(lab: Lab) -> Iterator[None]:
    """The second host's sshd is stopped."""
    lab.hosts[1].stop_sshd()
    yield
    lab.hosts[1].start_sshd()


def list_due(repository: str, *, day: int = 0, **options: Any) -> Any:
    """List what is due on both hosts in the run of a day."""
    operator = DockerListDueOperator(task_id="due", repository=repository, **({"hosts": HOSTS} | options))
    return operator.execute(context(task_id="due", run_time=RUN_TIME + timedelta(days=day)))


def capture(repository: str, entry: dict[str, Any], *, day: int = 0, **options: Any) -> Any:
    """Back one source up in the run of a day."""
    operator = DockerCaptureOperator(task_id="back_up", repository=repository, **entry, **options)
    return operator.execute(context(task_id="back_up", run_id=f"run {day}", run_time=RUN_TIME + timedelta(days=day)))


def check(repository: str, *, day: int = 0, **options: Any) -> Any:
    """Look for what has no fresh backup at the end of the run of a day."""
    operator = DockerFleetFreshnessOperator(task_id="fresh", repository=repository, **({"hosts": HOSTS} | options))
    return operator.execute(context(task_id="fresh", run_time=RUN_TIME + timedelta(days=day)))


def opened(repository: str) -> Repository:
    """Return the repository."""
    return Repository.open(storage_from_url(repository), clock=SystemClock())


def in_container(host: LabHost, name: str, script: str) -> str:
    """Run a script in a container of a host."""
    done = host.daemon.docker("exec", name, "/bin/busybox", "sh", "-c", script)
    return str(done.stdout.decode())


def test_what_is_due_is_backed_up_and_is_not_due_again_before_its_time(run: Run, repository_url: str) -> None:
    """Over both hosts, oldest first and spread over them; the check agrees each day."""
    run(1, "shop", enable="true", schedule="2d", retention="keep_last=3")
    run(1, "wiki", enable="true")
    run(1, "cache", enable="false")
    run(2, "mail", enable="true", schedule="@daily")
    entries = list_due(repository_url, kinds=["container", "image"])
    assert [(each["host"], each["kind"], each["source"]) for each in entries] == [
        ("host-1", "container", "shop"),
        ("host-2", "container", "mail"),
        ("host-1", "container", "wiki"),
        ("host-2", "image", BASE),
        ("host-1", "image", BASE),
    ]
    assert "they differ in their labels" in entries[-1]["problem"]
    entries = list_due(repository_url)
    with pytest.raises(AirflowFailException, match=r"StaleError: 3 sources .*mail \(newest none; due: @daily\)"):
        check(repository_url)
    for entry in entries:
        assert capture(repository_url, entry)["status"] == "committed"
    assert list_due(repository_url) == []
    assert check(repository_url) == {"hosts": 2, "sources": 3, "stale": [], "unlisted": []}
    assert [each["source"] for each in list_due(repository_url, day=1)] == ["wiki", "mail"]
    stale = check(repository_url, day=1, fail=False)["stale"]
    assert [(each["source"], each["newest_run"]) for each in stale] == [
        ("wiki", "2026-11-23 21:04 UTC"),
        ("mail", "2026-11-23 21:04 UTC"),
    ]
    assert check(repository_url, day=1, grace="1d")["stale"] == []
    assert [each["source"] for each in list_due(repository_url, day=2, limit=2)] == ["shop", "mail"]


def test_commands_and_policy_of_labels_are_followed_and_are_in_no_xcom(
    run: Run, lab: Lab, repository_url: str, tmp_path: Path
) -> None:
    """Nothing of a label is a template or reaches a shell of the host: it runs in its own container, word by word."""
    hostile = "{{ 6 * 7 }} $(touch /tmp/host); `id` 'it''s' hunter2"
    words = f'["/bin/busybox", "sh", "-c", "printf %s \\"$0\\" > /tmp/said", "{hostile}"]'
    run(1, "shop", enable="true", pre=words, post="/bin/busybox rm /tmp/said", retention="keep_last=1")
    (entry,) = list_due(repository_url, hosts=HOSTS[:1])
    assert "hunter2" not in str(entry)
    Path("/tmp/host").unlink(missing_ok=True)
    summary = capture(repository_url, entry)
    backup = opened(repository_url).catalog.find(summary["backup_id"])
    assert (backup.whole().consistency, backup.whole().retention) == ("quiesced", "keep_last=1")
    archive = (tmp_path / "repository" / backup.path / backup.whole().archive_file.name).read_bytes()
    assert hostile.encode() in archive
    assert in_container(lab.hosts[0], "shop", "ls /tmp") == ""
    assert not Path("/tmp/host").exists()


def test_what_the_dag_says_of_a_capture_holds_for_the_export(run: Run, repository_url: str) -> None:
    """Labels say what is run in a container, the DAG how it is captured and stored."""
    run(1, "shop", enable="true")
    (entry,) = list_due(repository_url, hosts=HOSTS[:1])
    summary = capture(repository_url, entry, consistency="none", compression="gzip", layout="archive")
    record = opened(repository_url).catalog.find(summary["backup_id"]).whole()
    assert (record.capture, record.archive_file.compression.value) == ("crash", "gzip")


def test_rotation_keeps_by_the_label_also_when_the_container_is_gone(run: Run, lab: Lab, repository_url: str) -> None:
    """The newest record carries it; the DAG's policy is for the others."""
    run(1, "shop", enable="true", retention="keep_last=3")
    run(1, "wiki", enable="true")
    for day in range(4):
        for entry in list_due(repository_url, day=day, hosts=HOSTS[:1]):
            capture(repository_url, entry, day=day)
    lab.hosts[0].daemon.docker("rm", "--force", "shop")
    rotate = DockerBackupRotateOperator(
        task_id="rotate", repository=repository_url, policy={"keep_last": 1}, max_removed_share=0.9
    )
    assert rotate.execute(context(task_id="rotate"))["removed"] == 1 + 3
    left = [each.source.name for each in opened(repository_url).catalog.backups()]
    assert (left.count("shop"), left.count("wiki")) == (3, 1)


def test_a_wrong_label_fails_its_own_task_and_no_other(run: Run, repository_url: str) -> None:
    """It is due in every run, after all others; the error names host, container, label and value."""
    run(1, "shop", enable="true", schedule="fortnightly")
    run(1, "wiki", enable="true")
    run(1, "evil", enable="true", pre="[" * 30_000, retention=f"keep_last={'9' * 5000}")
    entries = {each["source"]: each for each in list_due(repository_url, hosts=HOSTS[:1])}
    assert list(entries) == ["wiki", "evil", "shop"]
    said = r"ConfigurationError: host-1 container shop: label dockerbackup.schedule: .* got 'fortnightly'"
    with pytest.raises(AirflowFailException, match=said):
        capture(repository_url, entries["shop"])
    assert capture(repository_url, entries["wiki"])["status"] == "committed"
    assert [each["source"] for each in list_due(repository_url, hosts=HOSTS[:1])] == ["evil", "shop"]
    with pytest.raises(AirflowFailException, match=r"2 sources have no fresh backup \(hosts list 3\): .*fortnightly"):
        check(repository_url, hosts=HOSTS[:1])


@pytest.mark.usefixtures("second_host_down")
def test_a_host_that_is_down_hinders_no_other_and_is_named(
    run: Run, repository_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """So is one whose connection is missing; and when none answers, the listing is tried again."""
    run(1, "shop", enable="true")
    hosts = [*HOSTS, "not_there"]
    (entry,) = list_due(repository_url, hosts=hosts)
    assert "docker_host_2 was not listed" in capsys.readouterr().out
    capture(repository_url, entry)
    with pytest.raises(AirflowFailException, match=r"StaleError: 2 of 3 hosts .*docker_host_2 \(.*; not_there \(there"):
        check(repository_url, hosts=hosts)
    assert check(repository_url, hosts=hosts, fail="false")["stale"] == []
    with pytest.raises(TransientError, match="no host could be listed; the first: "):
        list_due(repository_url, hosts=hosts[1:])


def test_a_host_that_accepts_and_says_nothing_delays_no_backup_of_others(
    run: Run, monkeypatch: pytest.MonkeyPatch, repository_url: str
) -> None:
    """The listing ends when connecting may take no longer; the others are there."""
    run(1, "shop", enable="true")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        connection = {
            "conn_type": "dockerbackup",
            "host": "127.0.0.1",
            "port": silent.getsockname()[1],
            "extra": {"conn_timeout": 1, "host_name": "silent"},
        }
        monkeypatch.setenv("AIRFLOW_CONN_SILENT", json.dumps(connection))
        (entry,) = list_due(repository_url, hosts=["silent", "docker_host_1"])
        assert entry["source"] == "shop"


def test_a_listing_that_is_killed_ends(
    monkeypatch: pytest.MonkeyPatch, lab: Lab, repository_url: str, tmp_path: Path
) -> None:
    """Although a host does not answer: its connection is cut."""
    program, started = tmp_path / "slow", tmp_path / "started"
    program.write_text(f"#!/bin/sh\ntouch {started}\nexec sleep 600\n")
    program.chmod(0o755)
    slow = json.loads(lab.hosts[0].airflow_connection())
    slow["extra"]["docker_command"] = str(program)
    monkeypatch.setenv("AIRFLOW_CONN_SLOW", json.dumps(slow))
    operator = DockerListDueOperator(task_id="due", repository=repository_url, hosts=["slow", *HOSTS], connections=1)
    ended: list[BaseException] = []

    def listing() -> None:
        try:
            operator.execute(context(task_id="due"))
        except BaseException as err:  # noqa: BLE001 - looked at below
            ended.append(err)

    thread = threading.Thread(target=listing)
    thread.start()
    assert wait_until(started.exists, seconds=60)
    operator.on_kill()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert "no host could be listed" in str(ended[0])


def test_a_repository_on_s3_serves_a_fleet(run: Run, s3: LabS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed from several threads at once."""
    for name, value in s3.airflow_environment.items():
        monkeypatch.setenv(name, value)
    run(1, "shop", enable="true")
    run(2, "mail", enable="true")
    options: dict[str, Any] = {"repository_conn_id": CONNECTION_ID}
    url = f"s3://{s3.new_bucket()}/fleet"
    entries = list_due(url, **options)
    assert len(entries) == 2
    for entry in entries:
        capture(url, entry, **options)
    assert list_due(url, **options) == []
    assert check(url, **options)["stale"] == []


def test_what_is_recorded_of_a_host_that_is_down_is_held_against_the_rpo(
    run: Run, lab: Lab, repository_url: str
) -> None:
    """Nobody can ask it what it wants, but the repository knows what it had."""
    run(2, "mail", enable="true")
    (entry,) = list_due(repository_url, hosts=HOSTS[1:])
    capture(repository_url, entry)
    lab.hosts[1].stop_sshd()
    try:
        found = check(repository_url, hosts=HOSTS[1:], fail=False)
        assert (found["stale"], [each["host"] for each in found["unlisted"]]) == ([], ["host-2"])
        for path in opened(repository_url).storage.list("backups"):
            if path.path.endswith((".tar", ".tar.zst")):
                opened(repository_url).storage.delete(path.path)
        stale = check(repository_url, hosts=HOSTS[1:], fail=False)["stale"]
        assert [(each["source"], each["newest_run"]) for each in stale] == [("mail", None)]
    finally:
        lab.hosts[1].start_sshd()


def test_a_container_that_is_switched_off_after_the_listing_is_skipped(run: Run, lab: Lab, repository_url: str) -> None:
    """And one that is gone is not found."""
    run(1, "shop", enable="true")
    (entry,) = list_due(repository_url, hosts=HOSTS[:1])
    lab.hosts[0].daemon.docker("rm", "--force", "shop")
    with pytest.raises(AirflowFailException, match="NotFoundError"):
        capture(repository_url, entry)
    run(1, "shop", enable="false")
    with pytest.raises(AirflowSkipException, match="switched off by its label"):
        capture(repository_url, entry)


def test_an_unchanged_image_is_confirmed_and_is_a_run(run: Run, repository_url: str) -> None:
    """Its policy goes into the confirmation."""
    run(1, "shop", enable="true", exclude="container", schedule="1d", retention="keep_daily=7")
    for day, status in enumerate(["committed", "unchanged"]):
        (entry,) = list_due(repository_url, hosts=HOSTS[:1], kinds=["image"], day=day)
        assert capture(repository_url, entry, day=day)["status"] == status
        assert list_due(repository_url, hosts=HOSTS[:1], kinds=["image"], day=day) == []
    (backup,) = opened(repository_url).catalog.backups()
    assert [each.retention for each in backup.confirmations] == ["keep_daily=7"]


def test_a_fleet_that_asks_for_nothing_is_an_error(lab: Lab, repository_url: str) -> None:
    """It would succeed for ever without a backup; with select all there is the lab's own container."""
    with pytest.raises(AirflowFailException, match="NotFoundError: no container asks for a backup"):
        list_due(repository_url)
    assert list_due(repository_url, allow_empty=True) == []
    assert [each["source"] for each in list_due(repository_url, select="all")] == ["lab-app"]


@pytest.mark.parametrize(
    "options",
    [
        {"hosts": "docker_host_1"},
        {"hosts": []},
        {"select": "some"},
        {"kinds": ["volume"]},
        {"schedule": "soon"},
        {"timezone": "Mars"},
        {"limit": 0},
        {"connections": 0},
        {"allow_empty": "perhaps"},
    ],
)
def test_bad_parameters_are_named(options: dict[str, Any], repository_url: str) -> None:
    """Before, or instead of, anything is done."""
    with pytest.raises(AirflowFailException, match=f"^ConfigurationError: {next(iter(options))}"):
        list_due(repository_url, **options)


def test_two_connections_of_one_host_are_refused(
    monkeypatch: pytest.MonkeyPatch, lab: Lab, repository_url: str
) -> None:
    """Their sources would be the same; the same connection twice is once."""
    monkeypatch.setenv("AIRFLOW_CONN_SAME_HOST", lab.hosts[0].airflow_connection())
    found = check(repository_url, hosts=["docker_host_1", "docker_host_1", "same_host"], fail=False)
    assert [each["dockerbackup_conn_id"] for each in found["unlisted"]] == ["same_host"]
    assert "give one of them another host_name" in found["unlisted"][0]["problem"]
