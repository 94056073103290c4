# SPDX-License-Identifier: Apache-2.0
"""Asset events: what tasks tell DAGs that are scheduled on their outlets, and how those read it.

Everybody who may read assets reads these events, so that they hold names, digests and sizes only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import Asset, AssetAlias
from airflow.sdk.definitions.asset import AssetRef

from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.operators.summary import is_of_backup

if TYPE_CHECKING:
    from airflow.sdk import Context

SCHEME = "x-dockerbackup"
# Of a summary, what consumers need: what was made, and the proof of it. None grows with what was backed up.
_TOLD = (
    *("backup_id", "backup_source", "host", "kind", "source", "container", "image", "image_id", "status", "dry_run"),
    *("repository", "target_repository", "content_digest", "size_bytes", "stored_size_bytes", "level"),
    *("verification", "trust", "audit_head"),
)
# Outcomes after which a backup of this very work stands in the repository.
_MADE = frozenset({"committed", "already"})


def backup_asset(*, host: str, kind: str, source: str) -> Asset:
    """Return the asset that stands for the backups of a source, as tasks with an ``AssetAlias`` outlet tell it.

    :param host: name of the Docker host in the repository.
    :param kind: ``image`` or ``container``.
    :param source: image reference as Docker shows it, ``app:1``, or container name.
    """
    where = f"{quote(host, safe=':')}/{SourceKind(kind).value}/{quote(source, safe='/:@')}"
    return Asset(uri=f"{SCHEME}://{where}")


def tell_outlets(context: Context, outlets: Iterable[Any], summary: Mapping[str, Any]) -> None:
    """Put what a task did into the asset events of its outlets.

    Airflow makes an event for each asset outlet of a task that succeeds, whatever the task did: it gets the summary. An
    alias outlet gets an event only when a backup was made, by this try or by an earlier one of the same work, which may
    have been killed before Airflow heard of it.
    """
    extra = {key: summary[key] for key in _TOLD if summary.get(key) is not None}
    for outlet in outlets:
        if isinstance(outlet, Asset | AssetRef):
            context["outlet_events"][outlet].extra.update(extra)
        elif isinstance(outlet, AssetAlias) and _made_backup(summary):
            asset = backup_asset(host=summary["host"], kind=summary["kind"], source=summary["source"])
            context["outlet_events"][outlet].add(asset, extra=extra)


def _made_backup(summary: Mapping[str, Any]) -> bool:
    return is_of_backup(summary) and summary.get("status") in _MADE


def backup_ids(triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[str]:
    """Return the ids of the backups that the events which triggered a DAG run tell of, each once, oldest event first.

    :param triggering_asset_events: the task's context variable of that name. Events of others than this provider's
        operators, and those that tell of an unchanged source, are left out.
    """
    events = (event for each in triggering_asset_events.values() for event in each)
    told = [event.extra for event in sorted(events, key=lambda event: event.timestamp) if event.extra]
    return list(dict.fromkeys(str(extra["backup_id"]) for extra in told if _made_backup(extra)))
