# SPDX-License-Identifier: Apache-2.0
"""A test daemon that the user gives: one piece of work at a time on it."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256

from airflow_provider_dockerbackup.core.ports import Progress, TestDaemon
from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.transport.test_daemon import SdkTestDaemon
from airflow_provider_dockerbackup.transport.throwaway_daemon import throwaway_daemon

WAIT_SECONDS = 6 * 3600.0
_LOOK_SECONDS = 0.5


def test_daemon_at(base_url: str | None, *, progress: Progress) -> AbstractContextManager[TestDaemon]:
    """Give the test daemon at a URL, or an empty throw-away one for None."""
    return throwaway_daemon() if base_url is None else given_daemon(base_url, progress=progress)


@contextmanager
def given_daemon(base_url: str, *, progress: Progress, wait_seconds: float = WAIT_SECONDS) -> Iterator[SdkTestDaemon]:
    """Connect to a test daemon and use it alone: others on this machine wait until it is free.

    Two at once would see each other's images as ones that were there before, and count known layers wrongly.

    :param base_url: such as ``unix:///run/test-docker.sock``.
    :param wait_seconds: how long to wait for others.
    :raises ConfigurationError: when there is no such daemon.
    :raises TransientError: when it does not answer, or stays in use.
    """
    with (
        SdkTestDaemon.connect(base_url) as daemon,
        _alone(daemon.engine().engine_id, base_url, progress=progress, wait_seconds=wait_seconds),
    ):
        yield daemon


@contextmanager
def _alone(engine_id: str, base_url: str, *, progress: Progress, wait_seconds: float) -> Iterator[None]:
    """Hold a name in Linux's abstract socket namespace: exclusive, without a file, and gone with its process."""
    name = f"\0dockerbackup-test-daemon-{sha256(engine_id.encode()).hexdigest()[:32]}"
    deadline = time.monotonic() + wait_seconds
    told = False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held:
        while True:
            try:
                held.bind(name)
                break
            except OSError as err:
                if err.errno != errno.EADDRINUSE:
                    raise
            if time.monotonic() > deadline:
                raise TransientError(
                    f"the test daemon at {base_url} has been in use by another verification on this machine for "
                    f"{wait_seconds:g} s; try again later, or give another daemon"
                )
            if not told:
                progress.note(f"waits until another verification on this machine is done with {base_url}")
                told = True
            time.sleep(_LOOK_SECONDS)
        yield
