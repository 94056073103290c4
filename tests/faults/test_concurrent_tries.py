# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.faults.bench import FAULTY, IMAGE, Bench, connect, unharmed
from tests.faults.gate import Gate
from tests.faults.worker import Worker
from tests.lab.lab import LabHost


@pytest.mark.parametrize("runs", [("same", "same"), ("one", "other")])
def test_tries_at_the_same_time_commit_one_backup_a_run(
    runs: tuple[str, str], anywhere: Bench, gate: Gate, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both tries are in mid-stream at once; each reports its run's one backup, and the loser leaves nothing."""
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=gate.docker(after_bytes=2_000_000))
    before = anywhere.backup_ids
    options = anywhere.options(docker=FAULTY, image=IMAGE, force=True)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker("save", run_id=run, try_number=number, **options))
            for number, run in enumerate(runs, start=1)
        ]
        gate.wait(streams=2)
        gate.open()
        results = [worker.result() for worker in workers]
    assert {result.get("error") for result in results} == {None}
    expected = {"committed", "already"} if runs[0] == runs[1] else {"committed"}
    assert {result["status"] for result in results} == expected
    ids = {result["backup_id"] for result in results}
    assert len(ids) == len(set(runs))
    unharmed(anywhere, before | ids)
    told = sorted(event["type"] for event in anywhere.events("backup.") if event["actor"]["run_id"] in runs)
    ends = ["backup.committed", "backup.superseded" if len(ids) == 1 else "backup.committed"]
    assert told == sorted(["backup.started"] * 2 + ends)
