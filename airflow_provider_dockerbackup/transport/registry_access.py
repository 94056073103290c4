# SPDX-License-Identifier: Apache-2.0
"""Who may push, and whether anything moves."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A name and a password for one task; the password is never shown.

    :param password: at least 256 random bits.
    """

    user: str = "dockerbackup"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    def matches(self, authorization: str) -> bool:
        """Tell whether an ``Authorization`` header carries it, in a time that does not depend on how wrong it is."""
        scheme, _, given = authorization.partition(" ")
        known = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._basic.encode())
        return known and scheme.lower() == "basic"

    def client_configuration(self, registry: str) -> bytes:
        """Return the ``config.json`` with which a Docker client uses it for one registry, in one line.

        :param registry: ``address:port``.
        """
        return json.dumps({"auths": {registry: {"auth": self._basic}}}).encode()

    @property
    def _basic(self) -> str:
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class Activity:
    """When something last came over a link, how much, and what it stands in the midst of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard = self._moved = time.monotonic()
        self._working = self._receiving = 0
        self.received_bytes = 0

    def heard(self) -> None:
        """Note a sign of life that is not counted."""
        self._heard = time.monotonic()

    def received(self, size_bytes: int) -> None:
        """Count what came."""
        with self._lock:
            self.received_bytes += size_bytes
            self._heard = self._moved = time.monotonic()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the body as work of ours, however long it takes."""
        with self._lock:
            self._working += 1
        try:
            yield
        finally:
            with self._lock:
                self._working -= 1
                self._moved = time.monotonic()

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Count the body as waiting for the rest of something that has begun."""
        with self._lock:
            self._receiving += 1
        try:
            yield
        finally:
            with self._lock:
                self._receiving -= 1

    @property
    def is_receiving(self) -> bool:
        """Whether the rest of something that has begun is waited for."""
        return self._receiving > 0

    def silent_seconds(self) -> float:
        """Return for how long there was no sign of life."""
        return time.monotonic() - self._heard

    def idle_seconds(self) -> float:
        """Return for how long nothing that counts came, and nothing was worked on."""
        with self._lock:
            return 0.0 if self._working else time.monotonic() - self._moved
