# SPDX-License-Identifier: Apache-2.0
"""A test daemon that somebody gives is used by one at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.exceptions import ConfigurationError, TransientError
from airflow_provider_dockerbackup.transport.given_daemon import given_daemon
from airflow_provider_dockerbackup.transport.throwaway_daemon import throwaway_daemon
from tests.core.world import Notes

_HOLD = """
import sys, time
from airflow_provider_dockerbackup.transport.given_daemon import given_daemon
from tests.core.world import Notes
with given_daemon(sys.argv[1], progress=Notes()):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def socket_url() -> Iterator[str]:
    """The socket of a daemon that runs."""
    if os.geteuid() != 0:
        pytest.skip("a daemon of our own needs root")
    with throwaway_daemon() as daemon:
        yield f"unix://{Path(daemon.engine().data_root).parent}/docker.sock"


def test_a_second_one_waits_until_the_first_is_done(socket_url: str) -> None:
    """It says so once, and then goes on."""
    order: list[str] = []
    progress = Notes()
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with given_daemon(socket_url, progress=progress):
            order.append("second")

    with given_daemon(socket_url, progress=Notes()) as daemon:
        assert not daemon.disposable
        thread = threading.Thread(target=second)
        thread.start()
        waiting.wait()
        thread.join(timeout=1.5)
        order.append("first")
    thread.join(timeout=30)
    assert order == ["first", "second"]
    assert [note for note in progress.notes if "waits" in note] == progress.notes
    assert len(progress.notes) == 1


def test_waiting_has_an_end(socket_url: str) -> None:
    """The message says what is in the way, and it is worth a retry."""
    with (
        given_daemon(socket_url, progress=Notes()),
        pytest.raises(TransientError, match="in use by another verification"),
        given_daemon(socket_url, progress=Notes(), wait_seconds=0.1),
    ):
        pass


def test_a_killed_holder_blocks_nobody(socket_url: str) -> None:
    """The kernel lets go of what a dead process held."""
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, socket_url], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with (
        pytest.raises(TransientError),
        given_daemon(socket_url, progress=Notes(), wait_seconds=0.1),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with given_daemon(socket_url, progress=Notes(), wait_seconds=0.1) as daemon:
        assert daemon.image_ids() == frozenset()


def test_a_missing_daemon_is_told_before_anybody_waits(tmp_path: Path) -> None:
    """As without the wait."""
    with (
        pytest.raises(ConfigurationError, match="no such socket"),
        given_daemon(f"unix://{tmp_path}/no", progress=Notes()),
    ):
        pass
