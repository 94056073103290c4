# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.operators.rollback import DockerBackupRollbackOperator
from tests.faults.bench import FAULTY, Bench, connect
from tests.faults.test_restore_faults import images, loading, once
from tests.faults.worker import Worker
from tests.lab.lab import LabHost
from tests.lab.processes import wait_until
from tests.operators.context import context

TAG = "rolled/app:1"


def options(bench: Bench) -> dict[str, Any]:
    """Return a rollback to the one backup, without a test daemon so that the load is soon there."""
    return bench.options(docker=FAULTY, tag=TAG, backup_id=next(iter(bench.backup_ids)), prove="none")


def rollback(bench: Bench) -> dict[str, Any]:
    """Run it in this process."""
    operator = DockerBackupRollbackOperator(task_id="rollback", **options(bench))
    summary: dict[str, Any] = operator.execute(context(task_id="rollback"))
    return summary


def finishes(bench: Bench, target: LabHost, before: list[str]) -> None:
    """See that the next run finishes, keeps the old image, and leaves no name or container of ours."""
    (old,) = [line.split()[1] for line in before if line.startswith(f"{TAG} ")]
    done = rollback(bench)
    now = dict(line.split() for line in images(target.daemon))
    assert (done["image_id"], done["previous_id"]) == (now[TAG], old)
    assert now[done["kept"]] == old != now[TAG]
    assert not any(name.startswith("dockerbackup-") for name in now)
    assert target.daemon.docker("ps", "--all", "--quiet").stdout == b""


@pytest.fixture
def standing(bench: Bench, target: LabHost, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images of the target before, one of them under the tag; the faulty connection leads there."""
    connect(monkeypatch, target, conn_id=FAULTY)
    target.daemon.docker("import", "-", TAG, input=bytes(10240))
    return images(target.daemon)


def test_the_next_rollback_finishes_when_a_worker_was_killed_in_the_middle_of_the_load(
    bench: Bench, target: LabHost, standing: list[str]
) -> None:
    """SIGKILL: the tag stands for the old image, the half load comes to nothing, and again works."""
    daemon = target.daemon
    pid = daemon.pid
    with Worker("rollback", run_id="killed", **options(bench)) as worker:
        assert wait_until(lambda: bool(loading(daemon)), seconds=30, interval=0.001)
        os.kill(pid, signal.SIGSTOP)
        try:
            worker.kill()
        finally:
            os.kill(pid, signal.SIGCONT)
    assert wait_until(lambda: not loading(daemon), seconds=20)
    assert images(daemon) == standing
    assert [event["type"] for event in bench.events("rollback.")] == ["rollback.started"]
    finishes(bench, target, standing)


def test_no_tag_moves_when_the_link_is_cut_in_the_middle_of_a_rollback(
    bench: Bench, target: LabHost, standing: list[str]
) -> None:
    """Worth a retry, and the retry finishes it."""
    pid = target.daemon.pid

    def cut() -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            target.kill_sessions()
        finally:
            os.kill(pid, signal.SIGCONT)

    with (
        once(lambda: loading(target.daemon), cut),
        pytest.raises(TransientError, match=r"docker load on host-2 .*try again"),
    ):
        rollback(bench)
    assert wait_until(lambda: not loading(target.daemon), seconds=20)
    assert images(target.daemon) == standing
    assert [event["type"] for event in bench.events("rollback.")] == ["rollback.started", "rollback.failed"]
    finishes(bench, target, standing)
