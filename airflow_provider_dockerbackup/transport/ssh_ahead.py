# SPDX-License-Identifier: Apache-2.0
"""A connection that is made while something else is asked, for the stream that follows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import paramiko

# What lies between host and worker may forget a connection on which nothing comes, and tell neither side.
_FRESH_SECONDS = 30.0


class ConnectionAhead:
    """One connection, made in a thread of its own from now on; for whoever takes it first.

    :param connect: gives a client that is connected; runs in the thread, and what it raises is raised by :meth:`take`.
    """

    def __init__(self, connect: Callable[[], paramiko.SSHClient]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._client: paramiko.SSHClient | None = None
        self._error: BaseException | None = None
        self._unwanted = False
        self._done_at = 0.0
        self._thread = threading.Thread(target=self._make, name="dockerbackup-connect-ahead", daemon=True)
        self._thread.start()

    def take(self) -> paramiko.SSHClient | None:
        """Return it, once it is made; None when it is too old or dead by now.

        :raises DockerBackupError: when it could not be made, unless that is long ago.
        """
        self._thread.join()
        client = self._let_go()
        fresh = time.monotonic() - self._done_at < _FRESH_SECONDS
        if self._error is not None and fresh:
            raise self._error
        if client is None:
            return None
        transport = client.get_transport()
        if fresh and transport is not None and transport.is_active():
            return client
        client.close()
        return None

    def drop(self) -> None:
        """Close it, now or as soon as it is made; waits for nothing."""
        client = self._let_go()
        if client is not None:
            client.close()

    def _make(self) -> None:
        client: paramiko.SSHClient | None = None
        try:
            client = self._connect()
        except BaseException as err:  # noqa: BLE001 - whatever it is, who takes the connection gets it
            self._error = err
        self._done_at = time.monotonic()
        with self._lock:
            if not self._unwanted:
                self._client = client
                return
        if client is not None:
            client.close()

    def _let_go(self) -> paramiko.SSHClient | None:
        with self._lock:
            self._unwanted = True
            client, self._client = self._client, None
        return client
