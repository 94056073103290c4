# SPDX-License-Identifier: Apache-2.0
"""What lists say of a source is counted from its backups, and a rotation's policy is for what it looked at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_dockerbackup.core.page.rows import (
    TREND_LENGTH,
    BackupRow,
    IndexedBackup,
    KeptHold,
    PlannedPolicy,
    source_row,
)
from tests.core.world import CONTAINER, IMAGE

NOW = datetime(2026, 11, 27, 6, 0, tzinfo=UTC)


def captured(days_ago: int, *confirmed_days_ago: int) -> IndexedBackup:
    """Return a backup as big as it is old."""
    points = tuple(NOW - timedelta(days=days) for days in (days_ago, *confirmed_days_ago))
    row = BackupRow(backup_id=f"{days_ago} days", points=points, files_whole=True, stored_size_bytes=days_ago)
    return IndexedBackup(source=IMAGE, row=row, whole=True)


def test_a_trend_is_of_the_newest_captures_in_their_order() -> None:
    """A confirmation says that nothing changed: it makes an old capture no new one, though the newest point."""
    newest_first = [captured(days) for days in range(2, 20)]
    row = source_row([captured(20, 1), *newest_first], leftovers=0, now=NOW)
    assert row.stored_bytes == tuple(range(TREND_LENGTH + 1, 1, -1))
    assert (row.newest_id, row.newest_point) == ("20 days", NOW - timedelta(days=1))
    assert row.backups == 19


def test_a_backup_is_held_until_the_last_of_its_holds_ends() -> None:
    """Two holds on one backup are one held backup; one that never ends outlasts all others."""
    soon, later = (NOW + timedelta(days=days) for days in (1, 2))

    def backup(*ends: datetime | None) -> IndexedBackup:
        holds = tuple(KeptHold(text="claim", until=end) for end in ends)
        row = BackupRow(backup_id=str(ends), points=(NOW,), files_whole=True, holds=holds)
        return IndexedBackup(source=IMAGE, row=row, whole=True)

    row = source_row([backup(), backup(soon), backup(later, soon), backup(soon, None)], leftovers=0, now=NOW)
    moments = (NOW, soon, later, NOW + timedelta(days=99999))
    assert [row.held(moment) for moment in moments] == [3, 2, 1, 1]


@pytest.mark.parametrize(
    ("hosts", "names", "covered"),
    [
        (("*",), ("*",), True),
        (("ship-*",), ("other", "lab/*"), True),
        (("*",), ("other",), False),
        (("other",), ("*",), False),
    ],
)
def test_a_policy_is_for_the_hosts_and_names_of_its_rotation(
    hosts: tuple[str, ...], names: tuple[str, ...], *, covered: bool
) -> None:
    """Both have to fit."""
    planned = PlannedPolicy(time=NOW, policy={}, hosts=hosts, names=names)
    assert planned.covers(IMAGE) is covered
    assert planned.covers(CONTAINER) is (covered and names == ("*",))
