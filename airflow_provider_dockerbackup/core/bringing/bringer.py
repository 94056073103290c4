# SPDX-License-Identifier: Apache-2.0
"""What conversions and copies have alike in how they bring one backup."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import Attempt
from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.bringing.transfer import Transfer
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.throttle import Throttle


class BringRequest(Protocol):
    """What both are asked."""

    @property
    def tuning(self) -> Tuning:
        """How bytes are moved."""

    @property
    def compression(self) -> Compression | None:
        """Of what is made anew; None for the target's own."""


_Request = TypeVar("_Request", bound=BringRequest)


class Bringer(Generic[_Request]):
    """Base of a :class:`~airflow_provider_dockerbackup.core.bringing.run.Way`.

    :param trail: of the target, for this try.
    """

    def __init__(
        self, request: _Request, *, source: Repository, target: Repository, trail: Trail, progress: Progress
    ) -> None:
        self._request = request
        self._source = source
        self._target = target
        self._trail = trail
        self._progress = progress
        self._throttle = Throttle(target.clock, request.tuning.bandwidth_limit)

    def _transfer(self, backup: Backup, attempt: Attempt) -> Transfer:
        """Return what brings a backup's bytes into another form."""
        return Transfer(
            self._source,
            backup,
            attempt=attempt,
            tuning=self._request.tuning,
            compression=self._request.compression,
            throttle=self._throttle,
            progress=self._progress,
        )
