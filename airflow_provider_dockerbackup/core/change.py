# SPDX-License-Identifier: Apache-2.0
"""A destructive change on a Docker host: its intent is on record before it, its outcome after it."""

from __future__ import annotations

from typing import Any

from airflow_provider_dockerbackup.core.audit.event import Outcome
from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.exceptions import DockerBackupError


class Change:
    """Tells the audit trail of one change.

    :param trail: the events of this try.
    :param source: what is changed.
    :param host: where.
    :param progress: the reader.
    """

    def __init__(self, trail: Trail, *, source: Source, host: DockerHost, progress: Progress) -> None:
        self._trail = trail
        self._source = source
        self._host = host
        self._progress = progress

    @property
    def head(self) -> str | None:
        """Digest of the newest event of this try; None before the first."""
        return self._trail.head

    def intends(self, type_: str, **subject: Any) -> None:
        """Write the event without which the change must not begin.

        :raises DockerBackupError: when the storage does not take it.
        """
        try:
            self._record(type_, "intent", subject)
        except DockerBackupError as err:
            raise type(err)(
                f"{self._source} is not touched, for the audit trail does not take the event {type_}: {err}"
            ) from err

    def ended(self, type_: str, outcome: Outcome, **subject: Any) -> None:
        """Write what became of it; a trail that cannot be written is told to the reader."""
        try:
            self._record(type_, outcome, subject)
        except DockerBackupError as err:
            self._progress.note(f"WARNING: the audit trail lacks the event {type_}: {err}")

    def _record(self, type_: str, outcome: Outcome, subject: dict[str, Any]) -> None:
        self._trail.record(type_, outcome=outcome, source=str(self._source), subject=subject, access=self._host.access)
