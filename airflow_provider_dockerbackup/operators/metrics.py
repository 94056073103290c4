# SPDX-License-Identifier: Apache-2.0
"""Metrics in Airflow's own Stats, so that they go wherever Airflow's do: StatsD, OpenTelemetry.

Names are stable; docs/reference/metrics.md lists them. What differs from source to source is a tag: a backend without
tags, as plain StatsD, shows one number for all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Stats

from airflow_provider_dockerbackup.core.record import Source

if TYPE_CHECKING:
    from airflow.sdk import Context

PREFIX = "dockerbackup"
# What a summary says that tells series apart; none of it is without bound but names of sources.
_TAGS = ("host", "kind", "source", "level", "status")
# Of a summary: which numbers are metrics, by the end of their names.
GAUGES: Mapping[str, Mapping[str, str]] = {
    "backup": {"size_bytes": "bytes", "stored_size_bytes": "stored_bytes"},
    "verification": {"bytes_read": "bytes", "restore_seconds": "restore_seconds"},
    "restore": {"seconds": "restore_seconds"},
    "rotation": {"kept": "kept", "removed": "removed", "freed_bytes": "freed_bytes"},
    "copy": {"copied": "copied", "already": "already", "new_bytes": "new_bytes"},
    "gc": {"garbage": "garbage", "trashed": "trashed", "garbage_bytes": "garbage_bytes"},
}
# What is none of the characters that names of metrics may have in Airflow.
_ODD = re.compile(r"[^A-Za-z0-9_./-]", re.ASCII)
_TAGS_CHARACTERS = 190
_VALUE_CHARACTERS = 60
# So that none of the tags that tell checks apart is left out.
_CHECK_CHARACTERS = 48
KINDS = (*GAUGES, "commit", "removal", "rollback", "audit", "freshness")
AGE = f"{PREFIX}.rpo_age_seconds"
STALE = f"{PREFIX}.stale_sources"


def tell_success(kind: str, summary: Any, *, seconds: float, context: Context) -> None:
    """Count a task that did its work, with its numbers.

    :param kind: one of :data:`KINDS`.
    """
    found = summary if isinstance(summary, dict) else {}
    tags = tags_of({key: found[key] for key in _TAGS if found.get(key)} | _task(context))
    Stats.incr(f"{PREFIX}.{kind}.success", tags=tags)
    Stats.timing(f"{PREFIX}.{kind}.duration", seconds * 1000, tags=tags)
    if found.get("dry_run"):
        return
    for key, name in GAUGES.get(kind, {}).items():
        if isinstance(found.get(key), int | float):
            Stats.gauge(f"{PREFIX}.{kind}.{name}", found[key], tags=tags)


def tell_failure(kind: str, error: BaseException, *, seconds: float, context: Context) -> None:
    """Count a task that failed, by the class of its error."""
    tags = tags_of({"error": type(error).__name__} | _task(context))
    Stats.incr(f"{PREFIX}.{kind}.failure", tags=tags)
    Stats.timing(f"{PREFIX}.{kind}.duration", seconds * 1000, tags=tags)


def tell_age(source: Source, age_seconds: float) -> None:
    """Tell how old the newest backup of a source is that counts."""
    tags = tags_of({"host": source.host, "kind": source.kind.value, "source": source.name})
    Stats.gauge(AGE, age_seconds, tags=tags)


def tell_stale(number: int, *, repository: str, context: Context) -> None:
    """Tell how many sources a check found without a fresh backup.

    Each check is a series of its own, for the last one of a repository would overwrite what others found in it.
    """
    map_index = context["ti"].map_index
    mapped = {"map_index": map_index} if map_index is not None and map_index >= 0 else {}
    tags = tags_of(_task(context) | mapped | {"repository": repository}, longest=_CHECK_CHARACTERS)
    Stats.gauge(STALE, number, tags=tags)


def tags_of(values: Mapping[str, Any], *, longest: int = _VALUE_CHARACTERS) -> dict[str, str]:
    """Return tags that Airflow's StatsD logger takes; it drops a metric, tags and all, for one odd character.

    Together they must stay below 250 characters there, so the last ones may be left out.

    :param longest: how many characters of a value stay, its last ones.
    """
    tags: dict[str, str] = {}
    left = _TAGS_CHARACTERS
    for key, value in values.items():
        text = _ODD.sub("_", str(value))[-longest:]
        left -= len(key) + len(text) + 2
        if left >= 0:
            tags[key] = text
    return tags


def _task(context: Context) -> dict[str, str]:
    ti = context["ti"]
    return {"dag_id": ti.dag_id, "task_id": ti.task_id}
