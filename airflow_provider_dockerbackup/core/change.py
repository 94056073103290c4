# SPDX-License-Identifier: Apache-2.0
"""What the audit trail is told of a change on a Docker host: that it begins, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow_provider_dockerbackup.core.audit.event import Outcome
from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.exceptions import DockerBackupError, problem_of


class Change:
    """Tells the audit trail of one change.

    :param trail: the events of this try.
    :param source: what is changed, or is the source of what is restored.
    :param host: where.
    :param progress: the reader.
    :param about: what each of its events says.
    """

    def __init__(
        self,
        trail: Trail,
        *,
        source: Source,
        host: DockerHost,
        progress: Progress,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._trail = trail
        self._source = source
        self._host = host
        self._progress = progress
        self._about = dict(about or {})

    @property
    def head(self) -> str | None:
        """Digest of the newest event of this try; None before the first."""
        return self._trail.head

    def intends(self, type_: str, **subject: Any) -> None:
        """Write the event without which a destructive change must not begin.

        :raises DockerBackupError: when the storage does not take it.
        """
        try:
            self._record(type_, "intent", subject)
        except DockerBackupError as err:
            raise type(err)(
                f"{self._source} is not touched, for the audit trail does not take the event {type_}: {err}"
            ) from err

    def tell(self, type_: str, outcome: Outcome, **subject: Any) -> None:
        """Write an event; a trail that cannot be written, or a host out of reach, is told to the reader."""
        try:
            self._record(type_, outcome, subject)
        except DockerBackupError as err:
            self._progress.note(f"WARNING: the audit trail lacks the event {type_}: {err}")

    @contextmanager
    def or_failed(self, type_: str, **subject: Any) -> Iterator[None]:
        """Tell, when the body raises, that the change failed, and of what."""
        try:
            yield
        except BaseException as err:
            self.tell(type_, "failure", **subject, problem=problem_of(err))
            raise

    def _record(self, type_: str, outcome: Outcome, subject: dict[str, Any]) -> None:
        self._trail.record(
            type_,
            outcome=outcome,
            source=str(self._source),
            subject={**self._about, **subject},
            access=self._host.access,
        )
