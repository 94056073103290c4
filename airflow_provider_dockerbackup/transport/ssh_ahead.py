# SPDX-License-Identifier: Apache-2.0
"""A connection that is made while something else is asked, for the stream that follows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeGuard

import paramiko

# What lies between host and worker may forget a connection on which nothing comes, and tell neither side. And who waits
# for a place among captures, perhaps for hours, is not to hold a connection for it.
_FRESH_SECONDS = 30.0


class ConnectionAhead:
    """One connection, made in a thread of its own from now on; for whoever takes it first.

    One that nobody took within 30 s is closed.

    :param connect: gives a client that is connected; runs in the thread, and what it raises is raised by :meth:`take`.
    :raises RuntimeError: when no thread can be started.
    """

    def __init__(self, connect: Callable[[], paramiko.SSHClient]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._made = threading.Event()
        self._over = threading.Event()
        self._client: paramiko.SSHClient | None = None
        self._error: BaseException | None = None
        self._made_at = 0.0
        threading.Thread(target=self._make, name="dockerbackup-connect-ahead", daemon=True).start()

    @property
    def is_spent(self) -> bool:
        """Whether nothing can come of it any more: it failed, died, grew too old, or was taken."""
        with self._lock:
            return self._made.is_set() and not is_alive(self._client)

    def take(self) -> paramiko.SSHClient | None:
        """Return it, once it is made; None when it is too old or dead by now.

        :raises DockerBackupError: when it could not be made, unless that is long ago.
        """
        try:
            self._made.wait()
        except BaseException:  # a signal's handler may raise here, and then nobody else would close it
            self.drop()
            raise
        client = self._let_go()
        error, self._error = self._error, None
        if error is not None and time.monotonic() - self._made_at < _FRESH_SECONDS:
            raise error
        if client is None or is_alive(client):
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
        self._made_at = time.monotonic()
        with self._lock:
            self._client = client
            self._made.set()
        if client is not None:
            self._over.wait(_FRESH_SECONDS)
            self.drop()

    def _let_go(self) -> paramiko.SSHClient | None:
        """Return the connection to whoever asks first, and let the thread end."""
        with self._lock:
            client, self._client = self._client, None
            self._over.set()
        return client


def is_alive(client: paramiko.SSHClient | None) -> TypeGuard[paramiko.SSHClient]:
    """Tell whether there is a client, and it is connected as far as anybody here knows."""
    transport = client.get_transport() if client is not None else None
    return transport is not None and transport.is_active()
