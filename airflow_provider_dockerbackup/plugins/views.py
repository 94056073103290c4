# SPDX-License-Identifier: Apache-2.0
"""What each page's template is given."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.page.details import details
from airflow_provider_dockerbackup.core.page.fleet import STATES, Filters, FleetRow, counts, fleet_rows, in_order
from airflow_provider_dockerbackup.core.page.index import Index
from airflow_provider_dockerbackup.core.page.timeline import timeline
from airflow_provider_dockerbackup.core.places import BACKUP_ID, backup_path, id_beginning
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.exceptions import DockerBackupError, NotFoundError
from airflow_provider_dockerbackup.plugins.repositories import Shown, ShownRepository, Standing, configured
from airflow_provider_dockerbackup.transport.clock import SystemClock

PAGE_LENGTH: Final = 100
_EVENTS_SHOWN: Final = 50
_FOUND_BY_ID: Final = 20


def fleet_view(filters: Filters, *, number: int) -> dict[str, Any]:
    """Return what the fleet's page shows.

    :param number: of the page, from 1.
    """
    shown = configured()
    rows, standings, found = _all_rows(shown, filters)
    fitting = filters.of_any_state(rows)
    chosen_rows = in_order(filters.of_state(fitting))
    last = max(1, -(-len(chosen_rows) // PAGE_LENGTH))
    number = min(max(1, number), last)
    return {
        "shown": shown,
        "filters": filters,
        "query": {("q" if name == "text" else name): value for name, value in asdict(filters).items()},
        "states": STATES,
        "counts": counts(fitting),
        "standings": standings,
        "found": found,
        "found_limit": _FOUND_BY_ID,
        "total": len(chosen_rows),
        "rows": chosen_rows[(number - 1) * PAGE_LENGTH : number * PAGE_LENGTH],
        "number": number,
        "last": last,
    }


def chosen(filters: Filters) -> list[FleetRow]:
    """Return the sources that filters choose, in the page's order.

    :raises DockerBackupError: when one of the repositories cannot be read: a CSV has no place to say so.
    """
    shown = configured()
    rows, standings, _ = _all_rows(shown, filters)
    for _, _, standing in standings:
        if standing.problem:
            raise DockerBackupError(standing.problem)
    return in_order(filters.of_state(filters.of_any_state(rows)))


_Standings = list[tuple[ShownRepository, datetime | None, Standing]]


def _all_rows(shown: Shown, filters: Filters) -> tuple[list[FleetRow], _Standings, list[tuple[str, Source, str]]]:
    """Return the sources of all repositories, how far each is read, and backups whose ids begin with what is sought."""
    now = SystemClock().now()
    rows: list[FleetRow] = []
    standings: _Standings = []
    found: list[tuple[str, Source, str]] = []
    beginning = id_beginning(filters.text.strip())
    for each in shown.repositories:
        if filters.repository not in {"", each.name}:
            continue
        try:
            with each.index() as index:
                rows += fleet_rows(index.sources(), repository=each.name, rpo=shown.rpo, now=now)
                standings.append((each, index.as_of, each.standing))
                if beginning:
                    found += [(each.name, *pair) for pair in index.find(beginning, limit=_FOUND_BY_ID)]
        except DockerBackupError as err:
            # One repository that cannot be read hides no other.
            standings.append((each, None, Standing(busy="", problem=str(err))))
    return rows, standings, found


def source_view(repository: str, *, host: str, kind: str, name: str) -> dict[str, Any]:
    """Return what a source's page shows.

    :raises NotFoundError: when there is no such source.
    """
    shown = configured()
    here, source, now = shown.named(repository), _source(host, kind, name), SystemClock().now()
    with here.index() as index:
        known = index.source(source)
        if known is None:
            raise NotFoundError(f"no source {source} is known in {here.shown_url}{_not_yet(here, index)}")
        rows = list(fleet_rows([(source, known)], repository=here.name, rpo=shown.rpo, now=now))
        return {
            "here": here,
            "source": source,
            "fleet_row": rows[0] if rows else None,
            "timeline": timeline(source, index.backups(source), planned=index.policy_for(source), now=now),
            "aside": index.aside(source),
            "known_events": index.events_of(source=source, limit=_EVENTS_SHOWN),
            "standings": [(here, index.as_of, here.standing)],
        }


def backup_view(repository: str, backup_id: str, *, host: str, kind: str, name: str) -> dict[str, Any]:
    """Return what a backup's page shows: its record is read now.

    :param host: of its source, as ``kind`` and ``name``; without these it is looked up in the index.
    :raises NotFoundError: when there is no such backup.
    """
    shown = configured()
    here = shown.named(repository)
    if not BACKUP_ID.fullmatch(backup_id):
        raise NotFoundError(f"{backup_id!r} is no id of a backup")
    with here.index() as index:
        source = _source(host, kind, name) if host or kind or name else _source_of(index, here, backup_id)
        opened = here.open()
        backup = opened.catalog.at(backup_path(source, backup_id))
        if backup is None:
            raise NotFoundError(f"there is no backup {backup_id} of {source} in {here.shown_url}")
        return {
            "here": here,
            "source": source,
            "details": details(
                backup,
                repository_url=here.shown_url,
                recipients=opened.document.recipients,
                holders=_holders(index, backup),
                events=index.events_of(backup_id=backup_id, limit=_EVENTS_SHOWN),
                now=opened.clock.now(),
            ),
            "standings": [(here, index.as_of, here.standing)],
        }


def _holders(index: Index, backup: Backup) -> list[int]:
    record = backup.record
    return index.holders(record.image.layers) if record is not None and record.image is not None else []


def _source_of(index: Index, here: ShownRepository, backup_id: str) -> Source:
    for source, found in index.find(backup_id, limit=1):
        if found == backup_id:
            return source
    raise NotFoundError(f"no backup {backup_id} is known in {here.shown_url}{_not_yet(here, index)}")


def _not_yet(here: ShownRepository, index: Index) -> str:
    if index.as_of is None:
        return f"; the repository is being read for the first time ({here.standing.busy}), try again in a minute"
    return ""


def _source(host: str, kind: str, name: str) -> Source:
    try:
        return Source(host=host, kind=SourceKind(kind), name=name)
    except ValueError as err:
        raise NotFoundError(f"kind: expected image or container, got {kind!r}") from err
