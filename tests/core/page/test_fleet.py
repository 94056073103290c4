# SPDX-License-Identifier: Apache-2.0
"""Each source gets the word that its backups earn, the worst on top, and filters choose among them."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_dockerbackup.core.document import utc_text
from airflow_provider_dockerbackup.core.freshness import Rpo
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.page.fleet import (
    COLUMNS,
    Filters,
    FleetRow,
    counts,
    csv_rows,
    fleet_rows,
    in_order,
    trend_of,
)
from airflow_provider_dockerbackup.core.page.rows import SourceRow
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.report.output import csv_table
from airflow_provider_dockerbackup.core.sizes import size_text

NOW = datetime(2026, 11, 27, 6, 0, tzinfo=UTC)


def ago(hours: float) -> datetime:
    """Return a moment before now."""
    return NOW - timedelta(hours=hours)


def source(name: str, *, host: str = "web1") -> Source:
    """Return an image of a host."""
    return Source(host=host, kind=SourceKind.IMAGE, name=name)


FLEET = {
    source("fresh:1"): SourceRow(backups=3, good=(ago(2),), verified=(ago(2),), newest_point=ago(2)),
    source("old:1"): SourceRow(backups=3, good=(ago(2),), verified=(ago(40),), newest_point=ago(2)),
    source("older:1"): SourceRow(backups=3, good=(ago(2),), verified=(ago(400),), newest_point=ago(2)),
    source("hoped:1", host="db1"): SourceRow(backups=1, good=(ago(1),), newest_point=ago(1)),
    source("broken:1", host="db1"): SourceRow(backups=2, damaged=2, newest_point=ago(1)),
    source("begun:1"): SourceRow(leftovers=1),
    source("ended:1"): SourceRow(),
}


def rows(**limits: str) -> list[FleetRow]:
    """Return the fleet in the page's order."""
    rpo = Rpo.parse("36h", limits)
    return in_order(fleet_rows(FLEET.items(), repository="main", rpo=rpo, now=NOW))


def test_a_hold_that_has_ended_holds_nothing() -> None:
    """A hold without an end keeps its backup, one that ended does not, and nobody looked at the repository since."""
    ends = (None, NOW + timedelta(seconds=1), NOW, ago(1))
    known = {source("held:1"): SourceRow(backups=5, good=(ago(2),), verified=(ago(2),), held_until=ends)}
    found = {}
    for now in (ago(2), NOW, NOW + timedelta(hours=1)):
        made = fleet_rows(known.items(), repository="main", rpo=Rpo.parse("36h", {}), now=now)
        (line,) = csv.DictReader(io.StringIO(csv_table(COLUMNS, csv_rows(made))))
        found[now] = line["held"]
    assert list(found.values()) == ["4", "2", "1"]


def test_the_worst_is_on_top_and_a_source_that_was_ended_is_left_out() -> None:
    """Unprotected, never verified, stale with the oldest first, ok."""
    assert [(each.source.name, each.state) for each in rows()] == [
        ("broken:1", "unprotected"),
        ("begun:1", "unprotected"),
        ("hoped:1", "never verified"),
        ("older:1", "stale"),
        ("old:1", "stale"),
        ("fresh:1", "ok"),
    ]


def test_a_limit_of_its_own_decides() -> None:
    """The same backup is fresh by one limit and stale by another."""
    states = {each.source.name: each.state for each in rows(**{"old*": "3d", "fresh:1": "1h"})}
    assert (states["old:1"], states["older:1"], states["fresh:1"]) == ("ok", "stale", "stale")


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (Filters(text="OLD web1"), ["older:1", "old:1"]),
        (Filters(text="old db1"), []),
        (Filters(host="db1"), ["broken:1", "hoped:1"]),
        (Filters(state="ok"), ["fresh:1"]),
        (Filters(kind="container"), []),
        (Filters(repository="other"), []),
        (Filters(repository="main", kind="image", state="stale", host="web1", text="er"), ["older:1"]),
    ],
)
def test_filters_choose(filters: Filters, names: list[str]) -> None:
    """All that is asked for must hold."""
    assert [each.source.name for each in filters.of_state(filters.of_any_state(rows()))] == names


def test_words_are_found_in_any_case_of_host_and_name() -> None:
    """People type small letters; hosts and containers are called as somebody liked."""
    known = {source("Shop", host="DB1"): FLEET[source("old:1")]}
    found = list(fleet_rows(known.items(), repository="main", rpo=Rpo(), now=NOW))
    assert Filters(text="shop db1").of_any_state(found) == found


def test_counts_by_state_do_not_depend_on_the_state_that_is_asked_for() -> None:
    """They are the way from one state to another; the other filters hold."""
    assert counts(Filters(state="ok", host="web1").of_any_state(rows())) == {
        "unprotected": 1,
        "never verified": 0,
        "stale": 2,
        "ok": 1,
    }


def test_csv_has_every_column_and_no_cell_that_a_spreadsheet_runs() -> None:
    """A name that begins as a formula does is made harmless."""
    known = {source("=cmd()"): FLEET[source("old:1")]}
    found = fleet_rows(known.items(), repository="main", rpo=Rpo(), now=NOW)
    (line,) = csv.DictReader(io.StringIO(csv_table(COLUMNS, csv_rows(found))))
    assert (line["source"], line["state"], line["age_hours"], line["rpo"]) == ("'=cmd()", "stale", "40.0", "36h")


def test_the_newest_backup_and_the_newest_verified_one_are_told_apart() -> None:
    """Of sizes the newest is told."""
    known = {
        source("old:1"): SourceRow(
            backups=2, verified=(ago(40),), newest_id="n", newest_point=ago(2), stored_bytes=(7, 5_000_000)
        )
    }
    (row,) = fleet_rows(known.items(), repository="main", rpo=Rpo(), now=NOW)
    (line,) = csv.DictReader(io.StringIO(csv_table(COLUMNS, csv_rows([row]))))
    assert (line["newest_backup"], line["newest_point"]) == ("n", utc_text(ago(2)))
    assert line["newest_verified"] == utc_text(ago(40))
    assert (line["stored_bytes"], row.stored) == ("5000000", size_text(5_000_000))


def test_a_trends_line_rises_with_the_sizes() -> None:
    """In a box of 100 by 20, whose top is 0."""
    assert trend_of((0, 50, 100)).points == "0.0,19.0 50.0,10.0 100.0,1.0"


@pytest.mark.parametrize(
    ("sizes", "text"), [((), ""), ((5,), ""), ((100, 112), "+12 %"), ((100, 100), "even"), ((0, 5), "from nothing")]
)
def test_a_trend_is_told_in_words_as_well(sizes: tuple[int, ...], text: str) -> None:
    """One size is no trend."""
    trend = trend_of(sizes)
    assert trend.text == text
    assert bool(trend.points) == bool(text)
