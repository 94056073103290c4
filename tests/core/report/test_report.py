# SPDX-License-Identifier: Apache-2.0
"""The audit report says what is, and each control passes or fails for the reason it names."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import timedelta
from html.parser import HTMLParser

import pytest

from airflow_provider_dockerbackup.core.audit.signature import SigningKey, keyring
from airflow_provider_dockerbackup.core.freshness import Rpo
from airflow_provider_dockerbackup.core.hold import HoldRequest, ReleaseRequest, hold_backup, release_backup
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.report.build import build_report, live_things
from airflow_provider_dockerbackup.core.report.controls import NAMES
from airflow_provider_dockerbackup.core.report.model import LiveThing, Report, ReportRequest
from airflow_provider_dockerbackup.core.report.output import rows, to_csv, to_dict, to_html
from airflow_provider_dockerbackup.core.retention.duration import Duration
from airflow_provider_dockerbackup.core.retention.forget import ForgetRequest, forget
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateRequest, rotate
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from tests.core.world import CONTAINER, HOST, IMAGE, TickingClock, World, spoil

DAY = timedelta(days=1)
ACTOR = {"dag_id": "nightly", "run_id": "run 7"}


def a_world() -> World:
    """A world whose storage has the workers' clock."""
    clock = TickingClock()
    return World(storage=MemoryStorage(clock=clock), clock=clock)


def reported(
    world: World, *, live: tuple[LiveThing, ...] = (), hosts: tuple[str, ...] = (), **limits: object
) -> Report:
    """Return the report of now."""
    request = ReportRequest(**limits)  # type: ignore[arg-type]
    return build_report(world.repository, request, live=live, live_hosts=hosts)


def status(report: Report, name: str) -> str:
    """Return the result of a control."""
    return next(each.status for each in report.controls if each.name == name)


def test_every_control_is_there_and_an_empty_repository_has_no_recovery_point() -> None:
    """All eleven by their names, each with a reason."""
    report = reported(a_world())
    assert [each.name for each in report.controls] == list(NAMES)
    assert all(each.detail for each in report.controls)
    assert status(report, "BACKUP_LAST_RECOVERY_POINT_CREATED") == "fail"
    assert report.trail.intact


def test_freshness_counts_verified_backups_only_and_against_the_limit_of_the_source() -> None:
    """Not verified, then verified, then too old; a confirmation would do, a limit of its own wins."""
    world = a_world()
    backup = world.backup(1).backup
    assert reported(world).sources[0].freshness == "never verified"
    world.verify(backup)
    report = reported(world)
    assert (report.sources[0].freshness, status(report, "BACKUP_LAST_RECOVERY_POINT_CREATED")) == ("ok", "pass")
    assert report.drills[0].backup_id == backup.backup_id
    assert status(report, "RESTORE_TIME_FOR_RESOURCES_MEET_TARGET") == "pass"
    world.clock.advance(2 * DAY)
    report = reported(world)
    assert report.sources[0].freshness == "breach"
    stale = report.failed(("BACKUP_LAST_RECOVERY_POINT_CREATED",))[0]
    assert stale.evidence == (str(IMAGE),)
    assert stale.detail == "of 1 sources 0 have no verified backup, and of 1 it is too old"
    assert report.failed(("BACKUP_RECOVERY_POINT_MINIMUM_RETENTION_CHECK", "trail")) == ()
    assert reported(world, rpo=Rpo(by_source={"lab/*": Duration(days=3)})).sources[0].freshness == "ok"
    assert reported(world, rpo=Rpo(by_source={f"{HOST} image *": Duration(days=3)})).sources[0].freshness == "ok"
    assert status(report, "BACKUP_PLAN_MIN_FREQUENCY_AND_MIN_RETENTION_CHECK") == "fail"


def test_a_stopped_container_without_a_backup_is_unprotected() -> None:
    """What stands still counts too, unlike with AWS; an image's backup protects its containers."""
    world = a_world()
    live = live_things(world.host)
    assert {each.source for each in live} == {IMAGE, CONTAINER}
    report = reported(world, live=live, hosts=(HOST,))
    assert {each.how for each in report.coverage} == {"unprotected"}
    assert status(report, "BACKUP_RESOURCES_PROTECTED_BY_BACKUP_PLAN") == "fail"
    backup = world.backup(1).backup
    report = reported(world, live=live, hosts=(HOST,))
    assert {each.thing.source: each.how for each in report.coverage} == {IMAGE: "itself", CONTAINER: "its image"}
    assert status(report, "BACKUP_RESOURCES_PROTECTED_BY_BACKUP_PLAN") == "pass"
    gone = LiveThing(source=Source(host=HOST, kind=SourceKind.CONTAINER, name="old"), state="exited", image="other:1")
    report = reported(world, live=(*live, gone), hosts=(HOST,))
    assert report.failed(("BACKUP_RESOURCES_PROTECTED_BY_BACKUP_PLAN",))[0].evidence == (str(gone.source),)
    spoil(world.storage, backup.path + "backup.json", data=b"{")
    assert {each.how for each in reported(world, live=live, hosts=(HOST,)).coverage} == {"unprotected"}
    assert status(reported(world), "BACKUP_RESOURCES_PROTECTED_BY_BACKUP_PLAN") == "not applicable"


def test_deletions_are_listed_with_rule_and_age_and_young_ones_fail() -> None:
    """By rotation: manual deletion passes; by forget: it fails, and is an override."""
    world = a_world()
    for day in range(4):
        world.verify(world.backup(day).backup)
        world.clock.advance(DAY)
    policy = RetentionPolicy.of({"keep_last": 1})
    request = RotateRequest(policy=policy, max_removed_share=1, actor=ACTOR)
    rotate(world.repository, request, progress=world.progress)
    report = reported(world)
    assert len(report.deletions) == 3
    assert {each.rules for each in report.deletions} == {("no rule keeps it",)}
    assert [round(each.age_days or 0) for each in report.deletions] == [2, 3, 4]
    assert {each.who for each in report.deletions} == {"nightly run 7"}
    assert status(report, "BACKUP_RECOVERY_POINT_MANUAL_DELETION_DISABLED") == "pass"
    assert status(report, "BACKUP_RECOVERY_POINT_MINIMUM_RETENTION_CHECK") == "fail"
    assert status(reported(world, min_retention_days=1), "BACKUP_RECOVERY_POINT_MINIMUM_RETENTION_CHECK") == "pass"
    frequency = next(each for each in report.controls if each.name.startswith("BACKUP_PLAN"))
    assert "1 rotations had a policy" in frequency.detail
    assert [each.what for each in report.overrides] == ["a rotation was allowed to remove any share of the backups"]
    forget(world.repository, ForgetRequest(source=IMAGE, reason="gone", actor=ACTOR), progress=world.progress)
    report = reported(world)
    assert status(report, "BACKUP_RECOVERY_POINT_MANUAL_DELETION_DISABLED") == "fail"
    assert any("gone" in each.what for each in report.overrides)


def test_missing_files_failed_drills_holds_and_a_changed_trail_are_seen() -> None:
    """Each where it belongs."""
    world = a_world()
    backup = world.backup(1).backup
    hold_backup(world.repository, backup, HoldRequest(reason="claim", legal=True, actor=ACTOR), progress=world.progress)
    assert [(each.hold, each.by) for each in reported(world).holds] == [("under legal hold: claim", "nightly")]
    archive = backup.path + backup.whole().archive_file.name
    spoil(world.storage, archive)
    world.verify(world.again(backup))
    report = reported(world)
    assert (report.drills[0].result, status(report, "RESTORE_TIME_FOR_RESOURCES_MEET_TARGET")) == ("failed", "fail")
    assert any(each.type == "verify.failed" and each.problem for each in report.jobs)
    world.storage.delete(archive)
    report = reported(world)
    assert status(report, "BACKUP_RECOVERY_POINT_MANUAL_DELETION_DISABLED") == "fail"
    release = ReleaseRequest(reason="over", release_legal=True, actor=ACTOR)
    release_backup(world.repository, world.again(backup), release, progress=world.progress)
    report = reported(world)
    assert report.holds == ()
    assert any("legal hold" in each.what for each in report.overrides)
    gone = next(each.event for each in report.jobs if each.type == "backup.committed")
    hexadecimal = gone.removeprefix("sha256:")
    spoil(
        world.storage, next(each.path for each in world.storage.list("audit") if hexadecimal in each.path), data=b"{}"
    )
    report = reported(world)
    assert not report.trail.intact
    assert report.failed(("trail",))[0].name == "trail"


class _Page(HTMLParser):
    """Checks that every element is closed in order, and collects what a page would load."""

    _VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open one."""
        if tag not in self._VOID:
            self.open.append(tag)
        self.loads += [
            f"{name}={value}" for name, value in attrs if name in {"src", "href", "action"} or name[:2] == "on"
        ]
        if tag in {"script", "link", "iframe", "img", "object"}:
            self.loads.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close one."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect the text."""
        self.text += data


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "=cmd|' /C calc'!A0", "a\u202eb\x1b[31m", "&amp;"])
def test_hostile_names_stay_text_in_every_form(name: str) -> None:
    """Names come from hosts: no element, no formula."""
    world = a_world()
    thing = LiveThing(source=Source(host=name, kind=SourceKind.CONTAINER, name=name), state=name, image=name)
    world.verify(world.backup(1).backup)
    report = reported(world, live=(thing,), hosts=(name,))
    page = _Page()
    page.feed(to_html(report))
    page.close()
    assert page.open == []
    assert page.loads == []
    assert name in page.text
    table = list(csv.reader(io.StringIO(to_csv(report))))
    assert {len(row) for row in table} == {5}
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in table for cell in row)
    assert json.loads(json.dumps(to_dict(report)))["coverage"][0]["thing"]["source"]["name"] == name


def test_the_table_says_whether_signatures_were_checked() -> None:
    """A trail is called intact also without keys: whoever reads the table sees which it was."""
    world = a_world()
    key = SigningKey.generate()
    without = build_report(world.repository, ReportRequest())
    given = build_report(world.repository, ReportRequest(), keys=keyring([key.public_key]))
    told = [next(row[3] for row in rows(report) if row[0] == "trail") for report in (without, given)]
    assert ["signatures not checked" in told[0], "signatures checked" in told[1]] == [True, True]


def test_a_trail_that_is_older_than_its_key_is_called_not_signed_in_every_form() -> None:
    """Nobody is told that it was changed, nor that it is intact; the control fails with what to do."""
    world = a_world()
    world.backup(1)
    key = SigningKey.generate()
    world.clock.advance(DAY)
    signing = world.repository
    signing.signer = key
    world.backup(2, repository=signing)
    report = build_report(world.repository, ReportRequest(), keys=keyring([key.public_key]))
    assert next(row[2] for row in rows(report) if row[0] == "trail") == "not signed"
    html = to_html(report)
    assert "not signed before" in html
    assert "older-than-key" not in html
    (failed,) = report.failed(("trail",))
    assert "dockerbackup audit checkpoint" in failed.detail


def test_sources_without_a_verified_backup_and_those_with_an_old_one_are_counted_apart() -> None:
    """What to do about them differs."""
    world = a_world()
    world.verify(world.backup(1).backup)
    world.clock.advance(2 * DAY)
    world.backup(3, CONTAINER)
    (late,) = reported(world).failed(("BACKUP_LAST_RECOVERY_POINT_CREATED",))
    assert late.detail == "of 2 sources 1 have no verified backup, and of 1 it is too old"


def test_the_page_prints_and_says_states_as_words() -> None:
    """Nothing from elsewhere, a style for print and for the dark, table heads with a scope."""
    world = a_world()
    world.verify(world.backup(1).backup)
    html = to_html(reported(world))
    assert "@media print" in html
    assert "prefers-color-scheme: dark" in html
    assert "http" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    assert html.count("<th scope=") == html.count("<th") - html.count("<thead")
    assert ">pass<" in html
    assert ">ok<" in html
