# SPDX-License-Identifier: Apache-2.0
"""The index says what the catalog says, reads only what is new, and recovers from whatever happens to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.freshness import Rpo, freshness_of
from airflow_provider_dockerbackup.core.hold import HoldRequest, hold_backup
from airflow_provider_dockerbackup.core.page.events import EVENT_DAYS
from airflow_provider_dockerbackup.core.page.fleet import fleet_rows
from airflow_provider_dockerbackup.core.page.rows import source_row
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.quarantine import quarantine
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.retention.forget import ForgetRequest, forget
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateRequest, rotate
from airflow_provider_dockerbackup.exceptions import ConfigurationError, TransientError
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.core.onhost import hosts as on_host
from tests.core.page.making import Known
from tests.core.report.test_report import ACTOR, DAY, a_world
from tests.core.world import CONTAINER, IMAGE, World, spoil
from tests.lab.faults import small_disk


class Counting:
    """A storage that counts what is read, and fails when told to."""

    def __init__(self, inner: Storage, *, fails_after: int = 10**9) -> None:
        self._inner = inner
        self.read_paths: list[str] = []
        self._fails_after = fails_after

    def read(self, path: str, *, max_bytes: int = 64 * 1024 * 1024) -> bytes:
        """Read, or fail."""
        if len(self.read_paths) >= self._fails_after:
            raise TransientError("the link is gone")
        self.read_paths.append(path)
        return self._inner.read(path, max_bytes=max_bytes)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


def catalog_says(world: World, source: Source) -> dict[str, tuple[object, ...]]:
    """Return what the catalog knows of a source's backups, by id."""

    def of(backup: Backup) -> tuple[object, ...]:
        if backup.record is None:
            return ((), False, backup.trust)
        return (backup.points, backup.complete, backup.trust)

    return {each.backup_id: of(each) for each in world.repository.catalog.backups(source=source)}


def index_says(known: Known, source: Source) -> dict[str, tuple[object, ...]]:
    """Return the same from the index."""
    with known.asked() as index:
        return {each.row.backup_id: (each.row.points, each.whole, each.row.trust) for each in index.backups(source)}


def assert_equal(world: World, known: Known) -> None:
    """Require that a refreshed index says what the catalog says, of every source."""
    known.refresh(world.repository)
    for source in (IMAGE, CONTAINER):
        assert index_says(known, source) == catalog_says(world, source)
    with known.asked() as index:
        for source, row in index.sources():
            assert row == source_row(index.backups(source), leftovers=row.leftovers, now=world.clock.now())


@pytest.mark.parametrize("layout", ["archive", "layers"])
def test_the_index_says_what_the_catalog_says_after_every_kind_of_change(tmp_path: Path, layout: str) -> None:
    """Backups, confirmations, verifications, holds, damage and quarantine are all seen by the next refresh."""
    base = a_world()
    world, known = World(storage=base.storage, clock=base.clock) if layout == "archive" else _layers(), Known(tmp_path)
    assert_equal(world, known)
    first, second = (world.backup(run).backup for run in (1, 2))
    third = world.backup(3, CONTAINER).backup
    assert_equal(world, known)
    world.backup(4, force=False)  # a confirmation
    world.verify(world.again(first))
    hold_backup(world.repository, world.again(second), HoldRequest(reason="claim 17"), progress=world.progress)
    assert_equal(world, known)
    assert known.source(IMAGE).held(world.clock.now()) == 1
    record = world.again(second).whole()
    damaged = record.blob_sizes and f"blobs/sha256/{record.diff_ids and next(iter(record.blob_sizes))[7:]}"
    world.storage.delete(damaged or second.path + record.archive_file.name)
    assert_equal(world, known)
    assert known.source(IMAGE).damaged >= 1
    spoil(world.storage, third.path + "backup.json", data=b"{}")
    assert_equal(world, known)
    assert known.source(CONTAINER).good == ()
    quarantine(world.repository, third.backup_id, reason="broken", actor=ACTOR, progress=world.progress)
    assert_equal(world, known)
    assert (known.source(CONTAINER).backups, known.source(CONTAINER).leftovers) == (0, 1)


@pytest.mark.parametrize("layout", ["archive", "layers"])
def test_an_archive_or_blob_of_another_size_is_damage_until_it_is_put_right(tmp_path: Path, layout: str) -> None:
    """It is there, and nothing else of the backup changed."""
    world, known = a_world() if layout == "archive" else _layers(), Known(tmp_path)
    backup = world.backup(1).backup
    assert_equal(world, known)
    assert known.source(IMAGE).damaged == 0
    record = backup.whole()
    path = blob_path(next(iter(record.blob_sizes))) if layout == "layers" else backup.path + record.archive_file.name
    whole = world.storage.read(path)
    spoil(world.storage, path, data=b"short")
    assert_equal(world, known)
    assert known.source(IMAGE).damaged == 1
    spoil(world.storage, path, data=whole)
    assert_equal(world, known)
    assert known.source(IMAGE).damaged == 0


def test_a_backup_whose_last_verification_failed_is_damaged_and_protects_nothing(tmp_path: Path) -> None:
    """All of its files are there with their sizes."""
    world, known = a_world(), Known(tmp_path)
    backup = world.backup(1).backup
    spoil(world.storage, backup.path + backup.whole().archive_file.name)
    assert world.verify(backup, "digests").verification == "failed"
    assert_equal(world, known)
    assert (known.source(IMAGE).damaged, known.source(IMAGE).good) == (1, ())


def test_a_folder_without_a_record_is_a_leftover_of_its_source(tmp_path: Path) -> None:
    """A save died before it committed."""
    world, known = a_world(), Known(tmp_path)
    world.storage.create(world.key(1).path + "image-0123456789ab.tar", b"x")
    known.refresh(world.repository)
    assert (known.source(IMAGE).backups, known.source(IMAGE).leftovers) == (0, 1)
    with known.asked() as index:
        assert index.aside(IMAGE) == {"unfinished": 1}


def test_a_name_that_is_no_text_hides_nothing(tmp_path: Path) -> None:
    """Somebody's file lies in a backup's folder on a local disk."""
    world, known = World(storage=storage_from_url(str(tmp_path / "repository"))), Known(tmp_path)
    backup = world.backup(1).backup
    (tmp_path / "repository" / backup.path / os.fsdecode(b"caf\xe9")).write_bytes(b"x")
    assert_equal(world, known)
    assert known.source(IMAGE).backups == 1


def test_a_record_that_tells_an_impossible_size_hides_nothing(tmp_path: Path) -> None:
    """Whoever can write records must not stop the index of all others."""
    world, known = a_world(), Known(tmp_path)
    backup = world.backup(1).backup
    world.backup(2, CONTAINER)
    document = json.loads(world.storage.read(backup.path + "backup.json"))
    document["image"]["layers"][0]["size_bytes"] = 2**70
    spoil(world.storage, backup.path + "backup.json", data=json.dumps(document).encode())
    assert_equal(world, known)
    assert known.source(IMAGE).damaged == 0
    assert known.source(CONTAINER).backups == 1


def _layers() -> World:
    base = a_world()
    return World(storage=MemoryStorage(clock=base.clock), clock=base.clock, layout="layers")


def test_a_refresh_reads_only_what_is_new(tmp_path: Path) -> None:
    """The second one reads one folder and one day's new events; with nothing new, the repository's document alone."""
    world, known = a_world(), Known(tmp_path)
    for run in (1, 2, 3):
        world.backup(run)
    storage = Counting(world.storage)
    known.refresh(world.on(storage))  # type: ignore[arg-type]
    assert sum(path.endswith("/backup.json") for path in storage.read_paths) == 3
    again = Counting(world.storage)
    known.refresh(world.on(again))  # type: ignore[arg-type]
    assert again.read_paths == ["repository.json"]
    new = world.backup(4).backup
    third = Counting(world.storage)
    known.refresh(world.on(third))  # type: ignore[arg-type]
    assert [path for path in third.read_paths if path.startswith("backups/")] == [new.path + "backup.json"]
    assert sum(path.startswith("audit/") for path in third.read_paths) == 2


def test_an_unreadable_record_is_read_again_by_each_refresh(tmp_path: Path) -> None:
    """What was a bad moment of the storage does not stay in the index."""
    world, known = a_world(), Known(tmp_path)
    backup = world.backup(1).backup
    whole = world.storage.read(backup.path + "backup.json")
    spoil(world.storage, backup.path + "backup.json", data=b" " * len(whole))
    known.refresh(world.repository)
    assert known.source(IMAGE).damaged == 1
    spoil(world.storage, backup.path + "backup.json", data=whole)
    known.refresh(world.repository)
    assert known.source(IMAGE).damaged == 0


def test_a_refresh_that_fails_midway_forgets_nothing_and_the_next_goes_on(tmp_path: Path) -> None:
    """Batches that were read stay; `as of` moves only when a listing was read whole."""
    world, known = a_world(), Known(tmp_path)
    for run in range(1, 300):
        world.backup(run)
    with pytest.raises(TransientError, match="the link is gone"):
        known.refresh(world.on(Counting(world.storage, fails_after=270)))  # type: ignore[arg-type]
    with known.asked() as index:
        assert index.as_of is None
        assert len(index.backups(IMAGE)) == 256
    assert known.source(IMAGE).backups == 256
    storage = Counting(world.storage)
    known.refresh(world.on(storage))  # type: ignore[arg-type]
    assert sum(path.endswith("/backup.json") for path in storage.read_paths) == 299 - 256
    assert known.source(IMAGE).backups == 299


def test_a_source_that_was_ended_on_purpose_is_empty_and_comes_again_with_a_new_backup(tmp_path: Path) -> None:
    """`forget` leaves nothing to be called unprotected."""
    world, known = a_world(), Known(tmp_path)
    world.backup(1)
    forget(world.repository, ForgetRequest(source=IMAGE, reason="gone"), progress=world.progress)
    known.refresh(world.repository)
    assert (known.source(IMAGE).backups, known.source(IMAGE).leftovers) == (0, 0)
    with known.asked() as index:
        assert index.aside(IMAGE) == {"deleted": 1}
    world.backup(2)
    known.refresh(world.repository)
    assert known.source(IMAGE).backups == 1


def test_a_folder_that_vanishes_takes_its_layers_with_it(tmp_path: Path) -> None:
    """Counts of who else has a layer go down again."""
    world, known = a_world(), Known(tmp_path)
    backups = [world.backup(run).backup for run in (1, 2)]
    image = backups[0].whole().image
    assert image is not None
    known.refresh(world.repository)
    with known.asked() as index:
        assert index.holders(image.layers) == [2, 2]
        assert index.holders(image.layers[::-1]) == [0, 0]  # the same layers at other places
    for info in list(world.storage.list(backups[1].path.rstrip("/"))):
        world.storage.delete(info.path)
    known.refresh(world.repository)
    with known.asked() as index:
        assert index.holders(image.layers) == [1, 1]


def test_events_are_known_for_thirty_days_and_then_forgotten(tmp_path: Path) -> None:
    """The window moves; a day that is over is not listed again."""
    world, known = a_world(), Known(tmp_path)
    backup = world.backup(1).backup
    known.refresh(world.repository)
    with known.asked() as index:
        types = [each.type for each in index.events_of(backup_id=backup.backup_id, limit=9)]
        assert types == ["backup.committed", "backup.started"]
        assert [each.type for each in index.events_of(source=IMAGE, limit=1)] == ["backup.committed"]
    world.clock.advance((EVENT_DAYS + 1) * DAY)
    known.refresh(world.repository)
    with known.asked() as index:
        assert index.events_of(backup_id=backup.backup_id, limit=9) == []


@pytest.mark.parametrize("days", [-1, 1])
def test_an_event_of_a_worker_whose_clock_is_wrong_by_a_day_is_seen(tmp_path: Path, days: int) -> None:
    """It comes into a day that was read already, or one that is yet to come."""
    world, known = a_world(), Known(tmp_path)
    world.clock.advance(10 * DAY)
    known.refresh(world.repository)
    world.clock.advance(days * DAY)
    backup = world.backup(1).backup
    world.clock.advance(-days * DAY)
    known.refresh(world.repository)
    with known.asked() as index:
        assert len(index.events_of(backup_id=backup.backup_id, limit=9)) == 2


def test_an_event_that_somebody_changed_is_not_believed_and_not_read_again(tmp_path: Path) -> None:
    """Its name is the digest of what was written."""
    world, known = a_world(), Known(tmp_path)
    backup = world.backup(1).backup
    for info in list(world.storage.list("audit")):
        spoil(world.storage, info.path, data=world.storage.read(info.path).replace(b"success", b"failure"))
    known.refresh(world.repository)
    with known.asked() as index:
        types = [each.type for each in index.events_of(backup_id=backup.backup_id, limit=9)]
    assert types == ["backup.started"]
    storage = Counting(world.storage)
    known.refresh(world.on(storage))  # type: ignore[arg-type]
    assert storage.read_paths == ["repository.json"]


def test_backups_are_found_by_the_beginning_of_their_ids_and_not_more_than_asked_for(tmp_path: Path) -> None:
    """The newest first, also one that is out of the catalog."""
    world, known = a_world(), Known(tmp_path)
    ids = [world.backup(run).backup.backup_id for run in (1, 2, 3)]
    forget(world.repository, ForgetRequest(source=IMAGE, reason="gone"), progress=world.progress)
    known.refresh(world.repository)
    with known.asked() as index:
        assert index.find(ids[1][:12], limit=9) == [(IMAGE, ids[1])]
        assert index.find("2", limit=2) == [(IMAGE, each) for each in (ids[2], ids[1])]


def test_the_latest_rotation_that_looked_at_a_source_gives_its_policy(tmp_path: Path) -> None:
    """An older one does not count, nor one for another source."""
    world, known = a_world(), Known(tmp_path)
    world.backup(1)
    world.backup(1, CONTAINER)
    for days, names in ((5, ("*",)), (7, ("*",)), (9, (CONTAINER.name,))):
        request = RotateRequest(policy=RetentionPolicy(keep_daily=days), names=names, actor=ACTOR)
        rotate(world.repository, request, progress=world.progress)
        world.clock.advance(DAY)
    known.refresh(world.repository)
    with known.asked() as index:
        planned = [index.policy_for(source) for source in (IMAGE, CONTAINER)]
    assert [each and each.policy for each in planned] == [{"keep_daily": 7}, {"keep_daily": 9}]


def test_the_policy_of_a_rotation_is_forgotten_with_its_event(tmp_path: Path) -> None:
    """The page says "of the last 35 days", longer than any month: the last one shows it, the next one does not."""
    world, known = a_world(), Known(tmp_path)
    world.backup(1)
    rotate(world.repository, RotateRequest(policy=RetentionPolicy(keep_daily=7), actor=ACTOR), progress=world.progress)
    found = []
    for days in (0, 35, 1):
        world.clock.advance(days * DAY)
        known.refresh(world.repository)
        with known.asked() as index:
            planned = index.policy_for(IMAGE)
        found.append(planned and planned.policy)
    assert found == [{"keep_daily": 7}, {"keep_daily": 7}, None]


def judged(world: World, known: Known) -> tuple[str, datetime | None]:
    """Return the image's word in the fleet, and its newest verified point; require that the catalog says the same."""
    now, backups = world.clock.now(), world.repository.catalog.backups(source=IMAGE)
    verified = freshness_of(IMAGE, backups, rpo=Rpo(), now=now)
    good = freshness_of(IMAGE, backups, rpo=Rpo(), now=now, trust="any")
    (row,) = fleet_rows([(IMAGE, known.source(IMAGE))], repository="main", rpo=Rpo(), now=now)
    assert row.freshness == verified
    words = {"missing": "unprotected" if good.state == "missing" else "never verified"}
    assert row.state == words.get(verified.state, verified.state)
    return row.state, verified.newest


def test_a_point_of_the_future_gives_a_source_the_same_word_as_freshness_does(tmp_path: Path) -> None:
    """A worker's clock was wrong: its backup, though verified, counts when that moment has come, and not before."""
    world, known = a_world(), Known(tmp_path)
    world.clock.advance(900 * DAY)
    world.verify(world.backup(1).backup)
    world.clock.advance(-900 * DAY)
    known.refresh(world.repository)
    assert judged(world, known) == ("unprotected", None)
    world.clock.advance(900 * DAY)
    assert judged(world, known)[0] == "ok"
    world.clock.advance(-900 * DAY)
    right = world.backup(2).backup
    known.refresh(world.repository)
    assert judged(world, known) == ("never verified", None)
    world.verify(world.again(right))
    known.refresh(world.repository)
    assert judged(world, known) == ("ok", right.newest_point)
    world.clock.advance(3 * DAY)
    assert judged(world, known) == ("stale", right.newest_point)
    world.clock.advance(897 * DAY)
    assert judged(world, known)[0] == "ok"


def test_an_archive_that_nobody_scanned_on_its_host_protects_nothing(tmp_path: Path) -> None:
    """As for freshness: it counts once a verification has read it, and its size on the host is not asked for."""
    world, known = on_host.a_world(), Known(tmp_path)
    backup = world.save(1).backup
    world.archives.unreachable = True
    known.refresh(world.repository)
    assert judged(world, known) == ("unprotected", None)
    assert known.source(IMAGE).damaged == 0
    world.archives.unreachable = False
    world.verify(backup, "digests")
    known.refresh(world.repository)
    assert judged(world, known) == ("never verified", None)
    world.verify(world.again(backup), "load")
    known.refresh(world.repository)
    assert judged(world, known) == ("ok", backup.newest_point)


def test_a_clock_that_went_back_has_every_source_counted_anew(tmp_path: Path) -> None:
    """The API server's own clock was wrong when it read the repository: nothing new would come to count it again."""
    world, known = a_world(), Known(tmp_path)
    right = world.backup(1).backup
    world.verify(right)
    world.clock.advance(900 * DAY)
    world.verify(world.backup(2).backup)
    known.refresh(world.repository)
    assert judged(world, known)[0] == "ok"
    world.clock.advance(-900 * DAY)
    known.refresh(world.repository)
    assert judged(world, known) == ("ok", right.newest_point)


def test_a_new_repository_at_the_same_place_starts_a_new_index(tmp_path: Path) -> None:
    """Nothing of the old one is shown."""
    old, new, known = a_world(), a_world(), Known(tmp_path)
    backup = old.backup(1).backup
    rotate(old.repository, RotateRequest(policy=RetentionPolicy(keep_last=1), actor=ACTOR), progress=old.progress)
    known.refresh(old.repository)
    with known.asked() as index:
        assert index.events_of(source=IMAGE, limit=1)
        assert index.policy_for(IMAGE)
    known.refresh(new.repository)
    with known.asked() as index:
        assert index.sources() == []
        assert index.events_of(backup_id=backup.backup_id, limit=1) == []
        assert index.policy_for(IMAGE) is None


def test_only_one_writes_at_a_time_and_readers_do_not_wait(tmp_path: Path) -> None:
    """A second writer is told that there is one, also in the same process."""
    known = Known(tmp_path)
    known.refresh(a_world().repository)
    with known.file.writing() as first, known.file.writing() as second:
        assert first is not None
        assert second is None
        first.execute("INSERT INTO meta VALUES ('x', 'y')")
        with known.asked() as index:
            assert index.sources() == []


@pytest.mark.parametrize("position", [0, 4096])
def test_a_damaged_file_is_made_anew(tmp_path: Path, position: int) -> None:
    """Whoever meets it says so, and the next refresh reads everything again."""
    world, known = a_world(), Known(tmp_path)
    world.backup(1)
    known.refresh(world.repository)
    for suffix in ("-wal", "-shm"):
        Path(f"{known.file.path}{suffix}").unlink(missing_ok=True)
    data = bytearray(known.file.path.read_bytes())
    data[position : position + 100] = b"\xff" * 100
    known.file.path.write_bytes(data)
    with pytest.raises(TransientError, match="index"):
        known.refresh(world.repository)
    known.refresh(world.repository)
    assert known.source(IMAGE).backups == 1


def test_a_damaged_file_is_not_taken_from_under_its_writer(tmp_path: Path) -> None:
    """A reader removes it only when nobody writes: what is written to a removed file is lost in silence."""
    known = Known(tmp_path)
    known.refresh(a_world().repository)
    with known.file.writing() as connection:
        assert connection is not None
        connection.close()
        known.file.path.write_bytes(b"no database" * 1000)
        with pytest.raises(TransientError, match="cannot be read"), known.asked():
            pass
        assert known.file.path.exists()
    with pytest.raises(TransientError, match="cannot be read"), known.asked():
        pass
    assert not known.file.path.exists()


def test_a_full_disk_is_told_and_what_was_known_stays() -> None:
    """The refresh fails and says so; pages show what the index held, and with room again it goes on."""
    world = a_world()
    world.backup(1)
    with small_disk(500_000) as disk:
        known = Known(disk)
        known.refresh(world.repository)
        for run in range(2, 300):
            world.backup(run)
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - 40_000))
        with pytest.raises(TransientError, match="full"):
            known.refresh(world.repository)
        assert known.source(IMAGE).backups == 1
        filler.unlink()
        with pytest.raises(TransientError, match="full"):
            known.refresh(world.repository)
        assert known.source(IMAGE).backups >= 1


def test_a_folder_that_cannot_be_used_names_the_option(tmp_path: Path) -> None:
    """A file stands where the folder should be; readers of the page learn nothing of the API server's folders."""
    (tmp_path / "index").write_text("", encoding="ascii")
    with pytest.raises(ConfigurationError, match="page_index_folder") as raised, Known(tmp_path).asked():
        pass
    assert str(tmp_path) not in str(raised.value)


def test_the_folder_is_of_one_user_alone_and_one_of_another_user_is_refused(tmp_path: Path) -> None:
    """Who else may write there could have the page say anything."""
    known = Known(tmp_path)
    known.refresh(a_world().repository)
    folder = known.file.path.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    os.chown(folder, os.geteuid() + 1, -1)
    with pytest.raises(ConfigurationError, match="belongs to another user; set page_index_folder"), known.asked():
        pass
    with pytest.raises(ConfigurationError, match="belongs to another user"), known.file.writing():
        pass


def test_a_page_is_of_one_moment_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    """Its counts and its rows fit together."""
    world, known = a_world(), Known(tmp_path)
    world.backup(1)
    known.refresh(world.repository)
    with known.asked() as index:
        assert len(index.backups(IMAGE)) == 1
        world.backup(2)
        known.refresh(world.repository)
        assert len(index.backups(IMAGE)) == 1
        row = index.source(IMAGE)
    assert row is not None
    assert (row.backups, known.source(IMAGE).backups) == (1, 2)


def test_a_writer_that_is_killed_leaves_an_index_that_goes_on(tmp_path: Path) -> None:
    """A process dies amid a batch: its lock is gone with it, and half a batch is not there."""
    known = Known(tmp_path)
    world = a_world()
    world.backup(1)
    known.refresh(world.repository)
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tests.core.page.making import Known\n"
        "with Known(Path(sys.argv[1])).file.writing() as connection:\n"
        "    connection.execute('BEGIN'); connection.execute('DELETE FROM backup')\n"
        "    print('now', flush=True); time.sleep(600)\n"
    )
    dying = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert dying.stdout is not None
    dying.stdout.readline()
    dying.kill()
    dying.wait()
    dying.stdout.close()
    known.refresh(world.repository)
    assert known.source(IMAGE).backups == 1
    assert len(index_says(known, IMAGE)) == 1
