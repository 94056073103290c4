# SPDX-License-Identifier: Apache-2.0
"""The audit trail: content-addressed events, each naming the one before it in its own try.

An event's name is the sha256 of its bytes (RFC 8785 canonical JSON), so an edit shows, and writers need no lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import Field

from airflow_provider_dockerbackup.core.document import Document, UtcTime, sha256_of
from airflow_provider_dockerbackup.core.ports import Clock, Storage
from airflow_provider_dockerbackup.exceptions import ConflictError


class AuditEvent(Document):
    """One fact about a change.

    :param type: such as ``backup.committed``.
    :param parents: digests of the events that came before it in this try.
    :param source: ``host kind name``, empty when it is about none.
    :param object: what changed: backup id, digests, sizes; no secrets.
    """

    type: str
    time: UtcTime
    parents: tuple[str, ...] = ()
    actor: dict[str, str]
    access: dict[str, str] = Field(default_factory=dict)
    source: str = ""
    object: dict[str, Any] = Field(default_factory=dict)
    outcome: str


class Trail:
    """Writes the events of one try, each naming its predecessor.

    :param storage: the repository's storage.
    :param clock: gives each event its time.
    :param actor: who acts: DAG run or user, and software versions.
    """

    def __init__(self, storage: Storage, *, clock: Clock, actor: Mapping[str, str]) -> None:
        self._storage = storage
        self._clock = clock
        self._actor = dict(actor)
        self._head: str | None = None

    @property
    def head(self) -> str | None:
        """Digest of the newest event of this try; None before the first."""
        return self._head

    def record(
        self,
        type_: str,
        *,
        outcome: str,
        source: str = "",
        subject: Mapping[str, Any] | None = None,
        access: Mapping[str, str] | None = None,
    ) -> str:
        """Write one event and return its digest.

        :param type_: such as ``backup.committed``.
        :param outcome: ``success``, ``failure`` or ``intent``.
        :param subject: what changed, becomes the event's ``object``.
        :raises DockerBackupError: when the storage does not take it.
        """
        event = AuditEvent(
            type=type_,
            time=self._clock.now(),
            parents=(self._head,) if self._head else (),
            actor=self._actor,
            access=dict(access or {}),
            source=source,
            object=dict(subject or {}),
            outcome=outcome,
        )
        data = event.to_bytes()
        digest = sha256_of(data)
        # Content-addressed: when the name is there already, so are the same bytes.
        with suppress(ConflictError):
            self._storage.create(f"audit/{event.time:%Y-%m-%d}/{digest.removeprefix('sha256:')}.json", data)
        self._head = digest
        return digest
