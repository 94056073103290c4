# SPDX-License-Identifier: Apache-2.0
"""The repository of an operator that reads backups, wherever their archives lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.repository import Repository


class ReadsBackups:
    """Part of an operator that reads backups."""

    repository: str
    repository_conn_id: str | None
    archive_host_conn_ids: Sequence[str] | None

    def _opened(self) -> Repository:
        """Return the repository, with the configured private key and the hosts that keep archives.

        :raises NotFoundError: when there is none.
        """
        from airflow_provider_dockerbackup.hooks.storage import existing_repository

        return existing_repository(
            self.repository,
            conn_id=self.repository_conn_id,
            reads_archives=True,
            archive_host_conn_ids=self.archive_host_conn_ids,
        )
