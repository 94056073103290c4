# SPDX-License-Identifier: Apache-2.0
"""From a task to its backup on the page "Image backups"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom, conf

from airflow_provider_dockerbackup.exceptions import DockerBackupError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class BackupLink(BaseOperatorLink):
    """The backup that a task made, verified or restored; no link before it is known."""

    name = "Image backup"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page's address, or an empty text while the task has returned nothing.

        It is called at the end of the task, also of one that failed or deferred.
        """
        summary = XCom.get_value(ti_key=ti_key, key="return_value")
        return address_of(summary, repository=getattr(operator, "repository", None), base_url=_base_url())


def address_of(summary: Any, *, repository: Any, base_url: str) -> str:
    """Return the page's address for what an operator returned; empty when that names no backup.

    :param repository: the operator's; a summary that has its own wins.
    :param base_url: of the web interface; its path comes first.
    """
    if not isinstance(summary, dict) or not summary.get("backup_id"):
        return ""
    # Imported here: workers load this module for every task, and follow the link's code for few.
    from airflow_provider_dockerbackup.hooks.storage import without_userinfo

    url = summary.get("repository") or repository
    try:
        shown = without_userinfo(url) if isinstance(url, str) else ""
    except DockerBackupError:
        return ""
    if not shown:
        return ""
    query = {"repository": shown, "backup": str(summary["backup_id"])}
    if summary.get("path"):
        # Only a backup that was just made names its own source; restores name the host they restored to.
        query |= {"host": summary.get("host", ""), "kind": summary.get("kind", ""), "name": summary.get("source", "")}
    return f"{urlsplit(base_url).path.rstrip('/')}/dockerbackup/backup?{urlencode(query)}"


def _base_url() -> str:
    return conf.get("api", "base_url", fallback="") or ""
