# SPDX-License-Identifier: Apache-2.0
"""A source's page says why each backup is kept, and a backup's page all that is known of it."""

from __future__ import annotations

import csv
import io
import shlex
import subprocess
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import utc_text
from airflow_provider_dockerbackup.core.hold import HoldRequest, hold_backup
from airflow_provider_dockerbackup.core.page.details import Details, details
from airflow_provider_dockerbackup.core.page.rows import PlannedPolicy
from airflow_provider_dockerbackup.core.page.timeline import COLUMNS, Timeline, csv_rows, timeline
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.quarantine import quarantine
from airflow_provider_dockerbackup.core.report.output import csv_table
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateRequest, plan_for, rotate
from airflow_provider_dockerbackup.core.sizes import size_text
from tests.core.copies.making import Copies
from tests.core.page.making import Known
from tests.core.report.test_report import ACTOR, DAY, a_world
from tests.core.retention.test_own_policy import save
from tests.core.world import CONTAINER, IMAGE, World, spoil

POLICY = RetentionPolicy(keep_daily=2)


def line(world: World, known: Known) -> Timeline:
    """Return the image's timeline."""
    known.refresh(world.repository)
    with known.asked() as index:
        return timeline(IMAGE, index.backups(IMAGE), planned=index.policy_for(IMAGE), now=world.repository.clock.now())


def test_each_backup_says_what_a_rotation_would_say(tmp_path: Path) -> None:
    """The decisions are those of the plan itself, with the policy of the latest rotation."""
    world, known = a_world(), Known(tmp_path)
    for run in range(1, 6):
        world.backup(run)
        world.clock.advance(DAY)
    rotate(world.repository, RotateRequest(policy=POLICY, max_removed_share=1, actor=ACTOR), progress=world.progress)
    for run in range(6, 9):
        world.backup(run)
        world.clock.advance(DAY)
    world.verify(world.repository.catalog.backups(source=IMAGE)[-1])
    hold_backup(
        world.repository, world.repository.catalog.backups()[2], HoldRequest(reason="claim"), progress=world.progress
    )
    shown = line(world, known)
    plan = plan_for(world.repository, RotateRequest(policy=POLICY, max_removed_share=1))
    assert {each.backup.row.backup_id: (each.decision == "keep", each.rules) for each in shown.rows} == {
        each.candidate.backup_id: (each.keep, each.reasons) for each in plan.decisions
    }
    assert shown.policy == "keep_daily=2"
    assert any("held" in rule for each in shown.rows for rule in each.rules)
    assert "newest verified" in shown.rows[-1].rules
    assert [mark.x for mark in shown.marks] == sorted(mark.x for mark in shown.marks)
    assert shown.marks[0].x == 0
    assert shown.marks[-1].x < 100


def test_a_sources_own_policy_decides_on_the_page_as_it_does_in_a_rotation(tmp_path: Path) -> None:
    """It is shown beside the rotation's; one of the future that says something else keeps everything."""
    world, known = a_world(), Known(tmp_path)
    rotating = RotateRequest(policy=POLICY, max_removed_share=1, actor=ACTOR)
    for run in range(1, 4):
        save(world, run, retention="keep_last=1", force=True)
        if run == 1:
            rotate(world.repository, rotating, progress=world.progress)
        world.clock.advance(DAY)
    shown = line(world, known)
    assert (shown.policy, shown.own_policy) == ("keep_daily=2", "keep_last=1")
    assert [each.decision for each in shown.rows] == ["keep", "remove", "remove"]
    world.clock.advance(900 * DAY)
    save(world, 5, retention="keep_last=9", force=True)
    world.clock.advance(-900 * DAY)
    shown, plan = line(world, known), plan_for(world.repository, rotating)
    assert {each.decision for each in shown.rows} == {"keep"}
    assert [each.time for each in shown.marks] == sorted(each.backup.row.points[0] for each in shown.rows[1:])
    assert shown.marks[-1].x > 40
    assert all("a clock was wrong" in each.rules[0] for each in shown.rows)
    assert {each.backup.row.backup_id: each.rules for each in shown.rows} == {
        each.candidate.backup_id: each.reasons for each in plan.decisions
    }


def test_after_a_rotation_that_ignored_own_policies_the_page_ignores_them_too(tmp_path: Path) -> None:
    """What it says is what the same rotation decides."""
    world, known = a_world(), Known(tmp_path)
    rotating = RotateRequest(policy=POLICY, own_policies=False, max_removed_share=1, actor=ACTOR)
    for run in range(1, 5):
        save(world, run, retention="keep_last=1", force=True)
        if run == 2:
            rotate(world.repository, rotating, progress=world.progress)
        world.clock.advance(DAY)
    shown, plan = line(world, known), plan_for(world.repository, rotating)
    assert shown.own_policy == ""
    assert [each.decision for each in shown.rows] == ["keep", "keep", "remove", "remove"]
    assert {each.backup.row.backup_id: each.rules for each in shown.rows} == {
        each.candidate.backup_id: each.reasons for each in plan.decisions
    }


def test_after_a_rotation_of_an_older_release_own_policies_count_on_the_page(tmp_path: Path) -> None:
    """Its event does not say whether they did."""
    world, known = a_world(), Known(tmp_path)
    for run in (1, 2):
        save(world, run, retention="keep_last=1", force=True)
        world.clock.advance(DAY)
    event = {"policy": {"keep_daily": 2}, "hosts": ["*"], "names": ["*"], "own_policies": {}}
    world.repository.trail(ACTOR).record("rotate.planned", outcome="intent", subject=event)
    shown = line(world, known)
    assert (shown.own_policy, [each.decision for each in shown.rows]) == ("keep_last=1", ["keep", "remove"])


def test_a_policy_that_came_along_with_copies_only_keeps_more_on_the_page_too(tmp_path: Path) -> None:
    """The second site's page says what its rotation does."""
    made, known = Copies(), Known(tmp_path)
    for run in range(4):
        save(made.world, run, retention="keep_last=1", force=True)
        made.clock.advance(DAY)
    made.run()
    site = World(storage=made.target, host=made.world.host, clock=made.clock)
    rotating = RotateRequest(policy=RetentionPolicy(keep_last=4), max_removed_share=1, actor=ACTOR)
    rotate(site.repository, rotating, progress=site.progress)
    shown, plan = line(site, known), plan_for(site.repository, rotating)
    assert [each.decision for each in shown.rows] == ["keep"] * 4
    assert {each.backup.row.backup_id: each.rules for each in shown.rows} == {
        each.candidate.backup_id: each.reasons for each in plan.decisions
    }


def test_without_a_rotation_nothing_is_said_to_go(tmp_path: Path) -> None:
    """It says that it does not know."""
    world, known = a_world(), Known(tmp_path)
    world.backup(1)
    shown = line(world, known)
    assert shown.rows[0].decision == ""
    assert "no rotation" in shown.unknown


def test_a_hold_is_told_until_it_ends_also_without_a_rotation(tmp_path: Path) -> None:
    """Afterwards a rotation would not heed it, and the page says nothing of it."""
    world, known = a_world(), Known(tmp_path)
    backup = world.backup(1).backup
    request = HoldRequest(reason="claim 17", until=world.clock.now() + DAY)
    hold_backup(world.repository, backup, request, progress=world.progress)
    (shown,) = line(world, known).rows
    assert [rule.startswith("held until ") and "claim 17" in rule for rule in shown.rules] == [True]
    world.clock.advance(2 * DAY)
    assert line(world, known).rows[0].rules == ()
    world.backup(2)
    rotate(world.repository, RotateRequest(policy=POLICY, actor=ACTOR), progress=world.progress)
    assert not any("held" in rule for each in line(world, known).rows for rule in each.rules)


def test_a_policy_that_a_newer_release_made_decides_nothing_and_the_backups_are_shown(tmp_path: Path) -> None:
    """The page says why."""
    world, known = a_world(), Known(tmp_path)
    backup = world.backup(1).backup
    world.clock.advance(DAY)
    known.refresh(world.repository)
    planned = PlannedPolicy(time=world.clock.now(), policy={"keep_fortnightly": 2}, hosts=("*",), names=("*",))
    with known.asked() as index:
        shown = timeline(IMAGE, index.backups(IMAGE), planned=planned, now=world.clock.now())
    assert [(each.backup.row.backup_id, each.decision) for each in shown.rows] == [(backup.backup_id, "")]
    assert "unknown keep_fortnightly" in shown.unknown


def test_a_backup_without_its_archive_is_called_incomplete_on_both_pages(tmp_path: Path) -> None:
    """Whatever a verification said before."""
    world, known = a_world(), Known(tmp_path)
    backup = world.backup(1).backup
    world.verify(backup)
    world.storage.delete(backup.path + backup.whole().archive_file.name)
    assert [each.state for each in line(world, known).rows] == ["incomplete"]
    assert known_of(world, backup, holders=(1, 1)).state == "incomplete"


@pytest.mark.parametrize("layout", ["archive", "layers"])
def test_a_backup_without_its_archive_or_a_blob_has_no_command_and_says_why(layout: str) -> None:
    """It cannot work; the record is still shown."""
    world = World(layout=layout)
    backup = world.backup(1).backup
    assert known_of(world, backup, holders=(1, 1)).unrestorable == ""
    record = backup.whole()
    lost = blob_path(next(iter(record.blob_sizes))) if layout == "layers" else backup.path + record.archive_file.name
    world.storage.delete(lost)
    found = known_of(world, backup, holders=(1, 1))
    assert (found.state, found.restore) == ("incomplete", ())
    assert "missing" in found.unrestorable
    assert found.layers


def test_csv_tells_the_capture_and_the_newest_confirmation_apart(tmp_path: Path) -> None:
    """Both are points of one backup."""
    world, known = a_world(), Known(tmp_path)
    first = world.backup(1)
    world.clock.advance(DAY)
    assert world.backup(2, force=False).status == "unchanged"
    (told,) = csv.DictReader(io.StringIO(csv_table(COLUMNS, csv_rows(line(world, known).rows))))
    captured, confirmed = world.again(first.backup).points
    assert (told["captured_at"], told["newest_point"], told["points"]) == (utc_text(captured), utc_text(confirmed), "2")


def test_an_unreadable_record_blocks_its_source_and_is_shown_first(tmp_path: Path) -> None:
    """Everything stays, for the reason that the rotation gives."""
    world, known = a_world(), Known(tmp_path)
    backups = [world.backup(run).backup for run in (1, 2)]
    rotate(world.repository, RotateRequest(policy=POLICY, actor=ACTOR), progress=world.progress)
    spoil(world.storage, backups[0].path + "backup.json", data=b"{}")
    shown = line(world, known)
    assert [each.state for each in shown.rows] == ["unreadable", "not verified"]
    assert all(each.decision == "keep" and "blocked" in each.rules[0] for each in shown.rows)


def known_of(world: World, backup: Backup, *, holders: tuple[int, ...] = ()) -> Details:
    """Return a backup's details."""
    return details(
        world.again(backup),
        repository_url="s3://bucket/it's here",
        recipients=world.repository.document.recipients,
        holders=holders,
        events=(),
        now=world.clock.now(),
    )


def test_layers_are_shared_or_own_and_stand_topmost_first() -> None:
    """Bytes add up to the image, and bars are to the scale of the largest layer."""
    world = a_world()
    found = known_of(world, world.backup(1).backup, holders=(3, 1))
    assert [each.others for each in found.layers] == [0, 2]
    assert max(each.share for each in found.layers) == 100
    image = found.backup.whole().image
    assert image is not None
    assert [found.shared, found.own] == [size_text(layer.size_bytes) for layer in image.layers]
    assert [each.diff_id for each in found.layers] == [each.diff_id for each in reversed(image.layers)]
    assert [number for number, _ in found.history] == [2, 1]


def test_no_value_of_a_configuration_is_in_a_page() -> None:
    """Names alone: the record has no more."""
    world = a_world()
    text = repr(known_of(world, world.backup(1).backup, holders=(1, 1)).facts)
    assert "Env.PATH" in text
    assert "/bin" not in text


def test_the_commands_that_restore_survive_a_shell() -> None:
    """A URL with a quote and a blank is one word; a container has a second way."""
    world = a_world()
    (command,) = known_of(world, world.backup(1).backup, holders=(1, 1)).restore
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[4] == "s3://bucket/it's here"
    assert shlex.split(command)[:2] == ["dockerbackup", "restore"]
    container = world.backup(2, CONTAINER).backup
    assert [each.split()[1] for each in known_of(world, container).restore] == ["restore", "restore-container"]


def test_a_backup_with_an_unreadable_record_has_no_command_that_restores_it() -> None:
    """Its page says why."""
    world = a_world()
    backup = world.backup(1).backup
    spoil(world.storage, backup.path + "backup.json", data=b"{}")
    found = known_of(world, backup)
    assert (found.state, found.restore, found.layers) == ("unreadable", (), ())
    assert "unreadable" in found.unrestorable
    assert found.facts[0][0] == "problem"


def test_a_backup_in_quarantine_is_called_so_and_has_no_command() -> None:
    """Nobody restores it by mistake."""
    world = a_world()
    backup = world.backup(1).backup
    world.storage.delete(backup.path + backup.whole().archive_file.name)
    quarantine(world.repository, backup.backup_id, reason="odd", actor=ACTOR, progress=world.progress)
    aside = world.repository.catalog.at(backup.path)
    assert aside is not None
    found = details(aside, repository_url="/r", recipients=(), holders=(1, 1), events=(), now=world.clock.now())
    assert (found.state, found.restore) == ("quarantined", ())
    assert "quarantine" in found.unrestorable


def test_verifications_stand_newest_first() -> None:
    """The last one decides."""
    world = a_world()
    backup = world.backup(1).backup
    for level in ("digests", "load"):
        world.verify(world.again(backup), level)
    assert [each.level for each in known_of(world, backup, holders=(1, 1)).verifications] == ["load", "digests"]


def test_a_deleted_backup_is_called_so_and_has_no_command() -> None:
    """The tombstone still tells what it was."""
    world = a_world()
    backup = world.backup(1).backup
    for run in (2, 3):
        world.clock.advance(DAY)
        world.backup(run)
    rotate(world.repository, RotateRequest(policy=POLICY, max_removed_share=1, actor=ACTOR), progress=world.progress)
    tombstone = world.repository.catalog.at(backup.path)
    assert tombstone is not None
    found = details(tombstone, repository_url="/r", recipients=(), holders=(1, 1), events=(), now=world.clock.now())
    assert (found.state, found.restore) == ("deleted", ())
    assert "deleted" in found.unrestorable
    assert dict(found.facts)["backup"] == backup.backup_id
