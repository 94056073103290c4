# SPDX-License-Identifier: Apache-2.0
"""What a host's containers ask for, and what of it is due, on hosts and repositories in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_dockerbackup.core import fleet
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.fleet import Selection, Wanted, due, newest_run
from airflow_provider_dockerbackup.core.labels import RESTORED_LABEL
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.retention.duration import Duration
from airflow_provider_dockerbackup.core.schedule import Schedule
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost, MemoryStorage
from tests.core.onhost.hosts import a_world
from tests.core.world import BEGIN, CONTAINER, FILESYSTEM, IMAGE, Notes, World, app_archive, docker_host, paths, spoil

BOTH = frozenset(SourceKind)
EVERY = Schedule()


def add(host: MemoryDockerHost, name: str, *, image: str = IMAGE.name, **labels: str) -> None:
    """Put a container with labels on a host."""
    ours = {f"dockerbackup.{label}": text for label, text in labels.items()}
    host.add_container(name, image=image, filesystem=FILESYSTEM, config={"Labels": ours})


def wanted(host: MemoryDockerHost, selection: Selection, notes: Notes | None = None) -> tuple[Wanted, ...]:
    """Return what a host's containers ask for."""
    return fleet.wanted(host, selection, progress=notes or Notes())


def names(found: tuple[Wanted, ...]) -> list[str]:
    """Return kind and name of what is wanted, those with a problem marked."""
    return [f"{each.source.kind.value} {each.source.name}{' !' if each.problem else ''}" for each in found]


def test_only_containers_that_say_so_are_wanted() -> None:
    """The lab's own container has no label, and one says no."""
    host = docker_host()
    add(host, "shop", enable="true")
    add(host, "cache", enable="false")
    assert names(wanted(host, Selection())) == ["container shop"]


def test_all_containers_are_wanted_but_those_that_say_no_and_those_of_a_capture() -> None:
    """A temporary container has the labels of that which it was made from."""
    host = docker_host()
    add(host, "shop", enable="true")
    add(host, "cache", enable="false")
    add(host, f"dockerbackup-temporary-{'5f' * 8}-{'0a' * 6}-1795555555", enable="true")
    add(host, "dockerbackup-rollback-20261123T210400Z-5f5f5f5f5f5f5f5f-0a0a0a0a", enable="true")
    add(host, "shop-dockerbackup-new-20261123T210400Z-5f5f5f5f5f5f5f5f", enable="true")
    assert names(wanted(host, Selection(select="all"))) == ["container shop", "container web"]


def test_a_container_whose_name_only_begins_as_ours_is_wanted() -> None:
    """Leaving it out would be to lose it silently."""
    host = docker_host()
    add(host, "dockerbackup-agent", enable="true")
    add(host, "dockerbackup-temporary-1", enable="true")
    assert names(wanted(host, Selection())) == ["container dockerbackup-agent", "container dockerbackup-temporary-1"]


OLD_ID, NEW_ID = "20261123T210400Z-5f5f5f5f5f5f5f5f", "20261124T210400Z-0a0a0a0a0a0a0a0a"


def put(host: MemoryDockerHost, name: str, *, status: str = "exited", restored: str = "") -> None:
    """Put a container with the label of one that is to be backed up on a host, as a restore leaves it."""
    labels = {"dockerbackup.enable": "true"} | ({RESTORED_LABEL: restored} if restored else {})
    host.add_container(name, image=IMAGE.name, filesystem=FILESYSTEM, status=status, config={"Labels": labels})


def test_a_container_that_a_restore_keeps_is_left_out_and_named() -> None:
    """It has the labels that it had, does not run any more, and another has its place; also after a second restore."""
    host, notes = docker_host(), Notes()
    put(host, f"shop-before-{OLD_ID}")
    put(host, f"shop-before-{NEW_ID}", restored=OLD_ID)
    put(host, "shop", status="running", restored=NEW_ID)
    assert names(wanted(host, Selection(), notes)) == ["container shop"]
    left_out = sorted(each for each in notes.notes if "is left out" in each)
    assert [each.split()[:3] for each in left_out] == [
        ["ship-1", "container", f"shop-before-{each}"] for each in (OLD_ID, NEW_ID)
    ]
    images = wanted(host, Selection(kinds=BOTH), notes)
    assert names(images) == ["container shop", f"image {IMAGE.name}"]


def test_a_container_that_nobody_wants_backed_up_is_not_named_as_left_out() -> None:
    """A restore keeps it, but it has no label."""
    host, notes = docker_host(), Notes()
    host.add_container(f"shop-before-{OLD_ID}", image=IMAGE.name, filesystem=FILESYSTEM, status="exited")
    put(host, "shop", restored=OLD_ID)
    assert names(wanted(host, Selection(), notes)) == ["container shop"]
    assert notes.notes == []


@pytest.mark.parametrize(
    ("name", "status", "in_its_place"),
    [
        (f"shop-before-{OLD_ID}", "running", ("shop", OLD_ID)),
        (f"shop-before-{OLD_ID}", "restarting", ("shop", OLD_ID)),
        (f"shop-before-{OLD_ID}", "paused", ("shop", OLD_ID)),
        (f"shop-before-{OLD_ID}", "exited", None),
        (f"shop-before-{OLD_ID}", "exited", ("shop", "")),
        (f"shop-before-{OLD_ID}", "exited", ("shop", NEW_ID)),
        (f"shop-before-{OLD_ID}", "exited", ("wiki", OLD_ID)),
        (f"shop-before-{OLD_ID}-2", "exited", ("shop", OLD_ID)),
        ("shop-before-monday", "exited", ("shop", OLD_ID)),
    ],
)
def test_a_container_that_may_be_needed_is_not_left_out(
    name: str, status: str, in_its_place: tuple[str, str] | None
) -> None:
    """It runs, or what was to take its place is not there, or is another one, or somebody called it so."""
    host = docker_host()
    put(host, name, status=status)
    if in_its_place is not None:
        put(host, in_its_place[0], restored=in_its_place[1])
    assert f"container {name}" in names(wanted(host, Selection()))


def test_a_container_proves_no_place_taken_but_that_of_another() -> None:
    """Its own label does not count for its own name; an empty one says nothing."""
    host = docker_host()
    put(host, f"shop-before-{OLD_ID}", restored=OLD_ID)
    add(host, f"wiki-before-{OLD_ID}", enable="true", restored="")
    put(host, "wiki")
    assert len(names(wanted(host, Selection()))) == 3


def test_labels_decide_on_schedule_and_retention() -> None:
    """And where none does, the selection."""
    host = docker_host()
    add(host, "shop", enable="true", schedule="7d", retention="keep_last=3")
    add(host, "wiki", enable="true")
    default = Schedule(rule=Duration(hours=24))
    shop, wiki = wanted(host, Selection(schedule=default))
    assert (str(shop.schedule), shop.retention) == ("7d", "keep_last=3")
    assert (wiki.schedule, wiki.retention) == (default, "")


def test_a_wrong_label_spoils_its_own_container_only() -> None:
    """It is wanted, so that its task says what is wrong; also when it cannot be told whether it is wanted."""
    host = docker_host()
    add(host, "shop", enable="true")
    add(host, "typo", enable="ture")
    add(host, "wiki", enable="true", schedule="soon")
    found = wanted(host, Selection(kinds=BOTH))
    assert names(found) == ["container shop", "container typo !", "container wiki !", f"image {IMAGE.name}"]
    assert "ship-1 container wiki: label dockerbackup.schedule" in found[2].problem
    assert due(found[1], datetime(2100, 1, 1, tzinfo=UTC), at=BEGIN, selection=Selection())


def test_an_image_of_several_containers_is_wanted_once() -> None:
    """Whichever way its name is written; and not at all where all leave it out."""
    host = docker_host()
    host.add_archive(app_archive("one", tag="lab/tool:latest"))
    add(host, "one", image="lab/tool", enable="true", schedule="7d")
    add(host, "two", image="lab/tool:latest", enable="true", schedule="7d")
    add(host, "three", enable="true", exclude="image")
    add(host, "four", enable="true", exclude="container")
    found = wanted(host, Selection(kinds=BOTH))
    assert names(found) == [
        "container one",
        "container three",
        "container two",
        "image lab/app:1",
        "image lab/tool:latest",
    ]
    assert str(found[-1].schedule) == "7d"
    assert names(wanted(host, Selection(kinds=frozenset({SourceKind.IMAGE})))) == [
        "container three !",
        "image lab/app:1",
        "image lab/tool:latest",
    ]


def test_containers_that_disagree_about_their_image_spoil_the_image_only() -> None:
    """Nobody can say whose label counts."""
    host = docker_host()
    add(host, "one", enable="true", retention="keep_last=1")
    add(host, "two", enable="true")
    found = wanted(host, Selection(kinds=BOTH))
    assert names(found) == ["container one", "container two", "image lab/app:1 !"]
    assert "of containers one, two: they differ" in found[2].problem


def test_a_container_that_says_what_holds_for_all_agrees_with_one_that_says_nothing() -> None:
    """About the schedule of their image."""
    host = docker_host()
    add(host, "one", enable="true", schedule="24h")
    add(host, "two", enable="true")
    (image,) = wanted(
        host, Selection(kinds=frozenset({SourceKind.IMAGE}), schedule=Schedule.parse("24h", what="schedule"))
    )
    assert (image.problem, str(image.schedule)) == ("", "24h")


def test_an_image_whose_name_moved_on_is_not_what_runs() -> None:
    """Saving it would back up something else, and what runs would be lost with the next prune."""
    host = docker_host()
    add(host, "shop", enable="true")
    host.add_archive(app_archive("two"))
    (found,) = wanted(host, Selection(kinds=frozenset({SourceKind.IMAGE})))
    assert "the name stands for sha256:" in found.problem
    host.remove_image(IMAGE.name)
    (found,) = wanted(host, Selection(kinds=frozenset({SourceKind.IMAGE})))
    assert "there is no image of that name" in found.problem


def test_a_container_that_leaves_out_all_that_is_backed_up_is_told() -> None:
    """It says that it wants a backup, and gets none."""
    host = docker_host()
    add(host, "shop", enable="true", exclude="container")
    (found,) = wanted(host, Selection())
    assert "leaves nothing of what is backed up here (container)" in found.problem


def run_of(day: int) -> datetime:
    """Return the time of a run."""
    return BEGIN + timedelta(days=day)


def newest(world: World, source: Source = IMAGE, *, day: int = 30) -> datetime | None:
    """Return the newest run that counts, as seen on a day."""
    return newest_run(world.repository.catalog, source, now=run_of(day))


def test_the_newest_run_is_that_of_a_capture_or_of_a_confirmation() -> None:
    """Told by names, so the time that a capture took does not count."""
    world = World()
    assert newest(world) is None
    world.backup(1, force=False)
    world.clock.advance(timedelta(hours=5))
    assert newest(world) == run_of(1)
    assert world.backup(2, force=False).status == "unchanged"
    assert newest(world) == run_of(2)
    world.backup(3, force=True)
    assert newest(world) == run_of(3)
    assert newest(world, CONTAINER) is None


@pytest.mark.parametrize("harm", ["bytes", "record", "verification", "deleted"])
def test_a_backup_that_is_not_whole_makes_its_source_due_again(harm: str) -> None:
    """The one before it counts then."""
    world = World()
    world.backup(1)
    backup = world.backup(2).backup
    if harm == "bytes":
        world.storage.delete(backup.path + backup.whole().archive_file.name)
    elif harm == "record":
        spoil(world.storage, backup.path + "backup.json", data=b"{}")
    elif harm == "deleted":
        world.storage.create(f"{backup.path}deleted-20260303T060000.000000Z.json", b"{}")
    else:
        _spoil_archive(world, backup)
        world.verify(backup, "digests")
    assert newest(world) == run_of(1)


def test_a_backup_of_the_future_does_not_stop_those_of_today() -> None:
    """The clock of whoever made it was wrong; clocks of workers may differ by minutes."""
    world = World()
    world.backup(1)
    world.backup(9)
    assert newest(world, day=5) == run_of(1)
    assert newest(world, day=9) == run_of(9)
    assert newest_run(world.repository.catalog, IMAGE, now=run_of(9) - timedelta(minutes=4)) == run_of(9)


def test_an_archive_on_its_host_counts_once_it_was_scanned() -> None:
    """Nobody but the host has read it: what is due would else not be, and the check would be content."""
    world = a_world()
    backup = world.save(1).backup
    assert newest_run(world.repository.catalog, IMAGE, now=run_of(9)) is None
    assert world.verify(backup, "digests").verification == "passed"
    assert newest_run(world.repository.catalog, IMAGE, now=run_of(9)) == run_of(1)


def test_a_folder_with_an_impossible_time_is_no_backup_and_no_error() -> None:
    """Somebody made it by hand."""
    world = World()
    backup = world.backup(1).backup
    odd = backup.path.replace(backup.backup_id.split("-")[0], "99999999T999999Z")
    world.storage.create(odd + "backup.json", world.storage.read(backup.path + "backup.json"))
    assert newest(world) == run_of(1)
    assert world.backup(2, force=False).status == "unchanged"
    (confirmed,) = (path for path in paths(world.storage) if "/confirmed-" in path)
    world.storage.create(backup.path + "confirmed-99999999T999999Z-0.json", world.storage.read(confirmed))
    assert newest(world) == world.again(backup).newest_point


def _spoil_archive(world: World, backup: Backup) -> None:
    spoil(world.storage, backup.path + backup.whole().archive_file.name)


def test_only_what_is_needed_is_read() -> None:
    """Of a long series one record is read; of others their names are listed."""
    storage = CountingStorage()
    world = World(storage=storage)
    for day in range(6):
        world.backup(day)
    storage.read_paths.clear()
    assert newest(world) == run_of(5)
    assert len([path for path in storage.read_paths if path.startswith("backups/")]) == 1


class CountingStorage(MemoryStorage):
    """Remembers what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.read_paths: list[str] = []

    def read(self, path: str, **limits: int) -> bytes:
        """Return an object."""
        self.read_paths.append(path)
        return super().read(path, **limits)


def test_a_source_is_due_by_the_time_of_the_run() -> None:
    """To the second: names have no more."""
    source = Wanted(source=CONTAINER, schedule=EVERY)
    run = BEGIN.replace(microsecond=250_000)
    assert not due(source, BEGIN, at=run, selection=Selection())
    assert due(source, BEGIN, at=run + timedelta(seconds=1), selection=Selection())
    assert due(source, None, at=run, selection=Selection())
