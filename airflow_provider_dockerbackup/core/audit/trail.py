# SPDX-License-Identifier: Apache-2.0
"""Write audit events: each names the one before it in its own try, and the latest checkpoint that the try saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.audit.event import CHECKPOINTS, AuditEvent, Outcome, checkpoint_path
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.ports import Clock, Progress, Storage
from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError, NotFoundError

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.audit.signature import Signer


class Trail:
    """Writes the events of one try, each naming its predecessor.

    :param storage: the repository's storage.
    :param repository_id: the repository's id.
    :param clock: gives each event its time.
    :param actor: who acts: DAG run or user, and software versions.
    :param signer: signs the events; None leaves them unsigned.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        repository_id: str,
        clock: Clock,
        actor: Mapping[str, str],
        signer: Signer | None = None,
        after: str | None = None,
    ) -> None:
        self._storage = storage
        self._repository_id = repository_id
        self._clock = clock
        self._actor = dict(actor)
        self._signer = signer
        self._head: str | None = after
        self._head_path = ""
        self._intended_at: float | None = None

    @property
    def head(self) -> str | None:
        """Digest of the newest event of this try; None before the first."""
        return self._head

    @property
    def head_path(self) -> str:
        """Where the newest event of this try stands; empty before the first."""
        return self._head_path

    def record(
        self,
        type_: str,
        *,
        outcome: Outcome,
        source: str = "",
        subject: Mapping[str, Any] | None = None,
        access: Mapping[str, str] | None = None,
        parents: tuple[str, ...] = (),
    ) -> str:
        """Write one event and return its digest.

        :param type_: such as ``backup.committed``.
        :param outcome: ``success``, ``failure`` or ``intent``.
        :param subject: what changed, becomes the event's ``object``.
        :param parents: further events that it follows.
        :raises DockerBackupError: when the storage does not take it.
        """
        own = self._head or latest_checkpoint(self._storage)[1]
        event = self.made(
            AuditEvent(
                type=type_,
                time=self._clock.now(),
                repository_id=self._repository_id,
                parents=tuple(dict.fromkeys([*([own] if own else []), *parents])),
                actor=self._actor,
                access=dict(access or {}),
                source=source,
                object=dict(subject or {}),
                outcome=outcome,
                duration_seconds=self._duration(outcome),
            )
        )
        self.write(event)
        return self._head or ""

    def tell(self, type_: str, *, progress: Progress, outcome: Outcome, **rest: Any) -> None:
        """Write one event after a change that stands anyway; a trail that cannot be written is told to the reader.

        :param rest: as for :meth:`record`.
        """
        try:
            self.record(type_, outcome=outcome, **rest)
        except DockerBackupError as err:
            progress.note(f"WARNING: the audit trail lacks the event {type_}: {err}")

    def made(self, event: AuditEvent) -> AuditEvent:
        """Return the event with its signature, if there is a key."""
        if self._signer is None:
            return event
        return event.model_copy(update={"signature": self._signer.sign(event.payload())})

    def write(self, event: AuditEvent) -> None:
        """Write an event as it is; it becomes the head.

        :raises ConflictError: when there is one under its name; for checkpoints this need not be the same.
        """
        data = event.to_bytes()
        digest = sha256_of(data)
        path = event.path(digest)
        try:
            self._storage.create(path, data)
        except ConflictError:
            if self._storage.read(path) != data:
                raise
        self._head, self._head_path = digest, path

    def _duration(self, outcome: Outcome) -> float | None:
        now = self._clock.monotonic()
        if outcome == "intent":
            self._intended_at = now
            return None
        return None if self._intended_at is None else round(now - self._intended_at, 3)


def latest_checkpoint(storage: Storage) -> tuple[int, str | None]:
    """Return number and digest of the latest checkpoint; 0 and None when there is none."""
    numbers = []
    for info in storage.list(CHECKPOINTS):
        stem = info.path.removeprefix(CHECKPOINTS + "/").removesuffix(".json")
        if stem.isdigit() and info.path == checkpoint_path(int(stem)):
            numbers.append(int(stem))
    if not numbers:
        return 0, None
    number = max(numbers)
    try:
        return number, sha256_of(storage.read(checkpoint_path(number)))
    except NotFoundError:  # somebody removes checkpoints; whoever verifies the trail will see it
        return number, None
