# SPDX-License-Identifier: Apache-2.0
"""What the trigger that waits for a job on a host does when its task is marked or cleared."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from airflow_provider_dockerbackup.triggers.save_on_host import BegunWire, SaveOnHostTrigger

JOB = ".dockerbackup-0123456789abcdef-20261123T210400Z-0123456789abcdef-0123456789ab"
AIRFLOWS_SECONDS = 3.0


@pytest.fixture
def mute_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A connection to a host that accepts and never says a word, whose own limit is beyond that of Airflow."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        extra = {"no_host_key_check": True, "conn_timeout": 20, "look_for_keys": "false"}
        connection = {"conn_type": "ssh", "host": "127.0.0.1", "port": listening.getsockname()[1], "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_MUTE", json.dumps(connection))
        yield "mute"


def waiting(conn_id: str) -> SaveOnHostTrigger:
    """Return the trigger of a job."""
    begun = BegunWire(
        folder="/var/backups/docker",
        job=JOB,
        subject="sha256:" + "0" * 64,
        temporary=None,
        began_at=datetime(2026, 11, 23, 21, 4, tzinfo=UTC).isoformat(),
        compression="none",
        audit_head=None,
    )
    return SaveOnHostTrigger(conn_id=conn_id, begun=begun, deadline=2e9)


async def marked(trigger: SaveOnHostTrigger) -> None:
    """End a trigger's wait as Airflow's triggerer does when its task is marked: within the task that was cancelled."""

    async def run() -> None:
        try:
            async for _ in trigger.run():
                raise AssertionError
        except asyncio.CancelledError:
            await asyncio.wait_for(trigger.on_kill(), timeout=AIRFLOWS_SECONDS)

    task = asyncio.ensure_future(run())
    await asyncio.sleep(0.1)
    task.cancel("__airflow_user_action__")
    await task


def test_a_host_that_does_not_answer_is_told_of_before_airflows_limit(
    mute_host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Past that limit nobody would learn that the job goes on."""
    monkeypatch.setenv("AIRFLOW__TRIGGERER__ON_KILL_TIMEOUT", f"{AIRFLOWS_SECONDS:g}")
    asyncio.run(marked(waiting(mute_host)))
    assert f"the job {JOB} may go on until its deadline" in capsys.readouterr().out
