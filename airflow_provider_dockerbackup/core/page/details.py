# SPDX-License-Identifier: Apache-2.0
"""One backup: its record, fidelity, layers, history, verifications, audit events, and how to restore it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient
from airflow_provider_dockerbackup.core.look.facts import backup_facts, fidelity_rows
from airflow_provider_dockerbackup.core.page.commands import restore_commands, why_unrestorable
from airflow_provider_dockerbackup.core.page.rows import EventRow, IndexedBackup, row_of
from airflow_provider_dockerbackup.core.page.timeline import state_of
from airflow_provider_dockerbackup.core.record import History
from airflow_provider_dockerbackup.core.since import Verification
from airflow_provider_dockerbackup.core.sizes import size_text


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBar:
    """One layer of an image, drawn to scale.

    :param share: of the largest layer, from 0 to 100.
    :param others: how many other backups in the repository have it at the same place.
    """

    diff_id: str
    size: str
    share: float
    others: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """Everything known of one backup.

    :param state: as in the timeline; ``deleted`` or ``quarantined`` when it is out of the catalog.
    :param facts: names and values.
    :param fidelity: outcome, subject, names and reason.
    :param layers: topmost first, as in ``docker history``.
    :param history: newest step first, with its number.
    :param restore: command lines, safe to paste into a shell; none when that cannot work.
    :param unrestorable: why there are none, as a sentence; empty when there are.
    """

    backup: Backup
    state: str
    facts: tuple[tuple[str, str], ...]
    fidelity: tuple[tuple[str, str, str, str], ...]
    layers: tuple[LayerBar, ...]
    shared: str
    own: str
    history: tuple[tuple[int, History], ...]
    verifications: tuple[Verification, ...]
    holds: tuple[str, ...]
    events: tuple[EventRow, ...]
    restore: tuple[str, ...]
    unrestorable: str


def details(
    backup: Backup,
    *,
    repository_url: str,
    recipients: Sequence[Recipient],
    holders: Sequence[int],
    events: Sequence[EventRow],
    now: datetime,
) -> Details:
    """Return everything known of a backup; of one with an unreadable record that is little.

    :param holders: for each layer, lowest first, how many backups have it at its place, this one among them.
    :param events: newest first.
    :param now: for holds, which may have ended by themselves.
    """
    record = backup.record
    image = record.image if record is not None else None
    sizes = [layer.size_bytes for layer in image.layers] if image is not None else []
    others = [max(0, count - 1) for count in holders]
    shared = sum(size for size, count in zip(sizes, others, strict=True) if count)
    return Details(
        backup=backup,
        state=_state(backup),
        facts=_facts(backup, recipients, now),
        fidelity=tuple(fidelity_rows(record.fidelity)) if record is not None else (),
        layers=_bars(backup, sizes, others),
        shared=size_text(shared),
        own=size_text(sum(sizes) - shared),
        history=tuple(reversed(list(enumerate(image.history, start=1)))) if image is not None else (),
        verifications=tuple(reversed(backup.verifications)),
        holds=tuple(map(str, backup.held(now))),
        events=tuple(events),
        restore=restore_commands(backup, repository_url=repository_url),
        unrestorable=why_unrestorable(backup),
    )


def _facts(backup: Backup, recipients: Sequence[Recipient], now: datetime) -> tuple[tuple[str, str], ...]:
    if backup.record is None:
        return (("problem", backup.problem),)
    return tuple(backup_facts(backup, recipients, now=now))


def _state(backup: Backup) -> str:
    if backup.deleted:
        return "deleted"
    if backup.quarantined:
        return "quarantined"
    whole = backup.record is not None and backup.complete
    return state_of(IndexedBackup(source=backup.source, row=row_of(backup), whole=whole))


def _bars(backup: Backup, sizes: Sequence[int], others: Sequence[int]) -> tuple[LayerBar, ...]:
    image = backup.record.image if backup.record is not None else None
    largest = max(sizes, default=0) or 1
    bars = [
        LayerBar(
            diff_id=layer.diff_id,
            size=size_text(size),
            share=round(100 * size / largest, 2),
            others=count,
        )
        for layer, size, count in zip(image.layers if image is not None else (), sizes, others, strict=True)
    ]
    return tuple(reversed(bars))
