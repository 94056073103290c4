# SPDX-License-Identifier: Apache-2.0
"""What holds of every archive that stays on its host, saved or exported: the catalog is whole and nothing stays."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.onhost.place import JobPlace
from airflow_provider_dockerbackup.core.onhost.ports import JobState
from airflow_provider_dockerbackup.core.reading import container_document
from airflow_provider_dockerbackup.core.record import BackupRecord, Source
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, TransientError
from tests.core.encryption.keys import age_pair
from tests.core.faults import Death, Fault, Plan
from tests.core.onhost.hosts import FOLDER, FaultyArchives, HostWorld, a_world, begun_by, finished, given_up
from tests.core.world import CONTAINER, IMAGE, assert_all_whole, assert_nothing_left, bury, contents

DAY = timedelta(hours=25)
BOTH = pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["image", "container"])


def assert_no_leftovers(world: HostWorld) -> None:
    """Require that nothing is on the host, in its Docker and in the repository but what records name."""
    assert world.left_on_host() == set()
    assert world.left_in_docker() == set()
    assert_nothing_left(world.repository)


@BOTH
@pytest.mark.parametrize("compression", list(Compression))
def test_the_repository_gets_documents_alone_and_reads_the_bytes_from_the_host(
    source: Source, compression: Compression
) -> None:
    """The record is read back as it was written; a verification reads the archive and makes it count."""
    world = a_world()
    backup = world.keep_on_host(1, source, compression=compression).backup
    record = backup.whole()
    stem, documents = ("image", ("image",)) if source == IMAGE else ("rootfs", ("rootfs", "container"))
    assert record.archive_file.name == f"{stem}-{record.attempt}.tar{compression.suffix}"
    assert record.path_on_host == f"{FOLDER}/{record.backup_id}-{record.archive_file.name}"
    assert set(world.archives.files) == {record.path_on_host}
    assert BackupRecord.from_bytes(record.to_bytes(), where="x") == record
    assert set(record.files) == {f"{name}-{record.attempt}.json" for name in documents}
    assert_all_whole(world.repository)
    assert_no_leftovers(world)
    if source == CONTAINER:
        assert container_document(world.repository, backup)["container"]["Name"] == f"/{CONTAINER.name}"
    assert backup.trust == "unscanned"
    assert world.verify(backup, "digests").verification == "passed"
    assert world.again(backup).trust == "checked"
    assert world.verify(backup, "load").verification == "passed"
    assert world.again(backup).trust == "verified"


@BOTH
@pytest.mark.parametrize("fault", list(Fault))
def test_whatever_fails_or_dies_the_next_runs_put_it_right(source: Source, fault: Fault) -> None:
    """Every call to storage, engine and jobs in turn: the catalog is whole, the work commits once, nothing stays."""
    counting = Plan()
    a_world().keep_on_host(1, source, plan=counting)
    assert len(counting.calls) > 20
    for at in range(1, len(counting.calls) + 1):
        world = a_world()
        plan = Plan(at, fault)
        with suppress(DockerBackupError, Death):
            world.keep_on_host(1, source, plan=plan)
        bury()
        where = (fault, plan.calls[-1] if at > len(plan.calls) else plan.calls[at - 1])
        assert_all_whole(world.repository)
        world.clock.advance(timedelta(minutes=5))
        assert world.keep_on_host(1, source).status in {"committed", "already"}, where
        assert len(assert_all_whole(world.repository)) == 1, where
        for run in (2, 3):
            world.clock.advance(DAY)
            world.keep_on_host(run, source)
        assert len(assert_all_whole(world.repository)) == 3, where
        assert world.left_on_host() == set(), where
        assert world.left_in_docker() == set(), where
        assert_nothing_left(world.repository)


@BOTH
def test_an_archive_that_was_published_untold_goes_after_a_day(source: Source) -> None:
    """Until then nobody can tell it from one that is being committed; the next try commits its own at once."""
    world = a_world()
    request, begun = begun_by(world, 1, source)
    untold = FaultyArchives(world.archives, Plan(3, Fault.UNTOLD))  # what became of it, what it wrote, publish
    with pytest.raises(TransientError, match="whether publish was done"):
        finished(world, request, begun, archives=untold)
    assert len(world.archives.files) == 1
    assert world.keep_on_host(1, source).status == "committed"
    assert len(world.archives.files) == 2
    world.clock.advance(DAY)
    world.keep_on_host(2, source)
    assert len(world.archives.files) == 2
    assert len(assert_all_whole(world.repository)) == 2
    assert_no_leftovers(world)


@BOTH
def test_jobs_in_the_folder_before_a_change_of_location_are_removed_too(source: Source) -> None:
    """Of the same work at once, also while they run; of other work, and what a dead one published, after a day."""
    world = a_world()
    world.keep_on_host(1, source)
    world.archives._at_once = False
    begun = {run: begun_by(world, run, source)[1].place for run in (3, 4, 5)}
    for place in (begun[3], begun[4]):
        world.archives.set_state(place, JobState(phase="ended", exit_status=0))
    stem = "image" if source == IMAGE else "rootfs"
    world.archives.publish(begun[4], archive=f"{stem}-{begun[4].attempt}.tar")
    world.archives._at_once = True
    world.folder = "/elsewhere"

    def left() -> set[JobPlace]:
        return {job.place for job in world.archives.jobs(FOLDER, scope="")}

    world.keep_on_host(5, source)
    assert left() == {begun[3], begun[4]}
    world.clock.advance(DAY)
    world.keep_on_host(6, source)
    assert left() == set()
    assert len(assert_all_whole(world.repository)) == 3
    assert world.left_on_host() == set()


@BOTH
def test_a_folder_before_a_change_of_location_is_not_looked_at_for_ever(source: Source) -> None:
    """Each look is a command; and one that fails hinders no backup."""
    world = a_world()
    world.keep_on_host(1, source)
    world.folder = "/elsewhere"
    looks: list[str] = []

    def look(what: str) -> None:
        if what == "jobs":
            looks.append(what)
            if len(looks) == 2:
                raise TransientError("the folder is away")

    world.archives.before = look
    assert world.keep_on_host(2, source).status == "committed"
    assert len(looks) == 2
    assert any(f"may be left in {FOLDER} on the host" in note for note in world.progress.notes)
    for run in range(3, 20):
        world.clock.advance(DAY)
        looks.clear()
        world.keep_on_host(run, source)
    assert len(looks) == 1


@BOTH
def test_too_little_space_fails_it_and_the_trail_says_so(source: Source) -> None:
    """The job did not begin, so it cannot remove what was made for it."""
    world = a_world()
    world.archives.free_bytes = 10
    with pytest.raises(TransientError, match="no space left"):
        world.keep_on_host(1, source)
    assert b"backup.failed" in b"".join(contents(world.storage, "audit").values())
    assert_no_leftovers(world)


@BOTH
def test_repositories_that_cannot_have_archives_on_hosts_are_refused(source: Source) -> None:
    """Encrypted ones, and those of layout layers; before anything begins."""
    for world in (HostWorld(layout="layers"), HostWorld(recipients=(age_pair().recipient, age_pair().recipient))):
        with pytest.raises(ConfigurationError, match="archive_location"):
            world.keep_on_host(1, source)
        assert world.archives.jobs(FOLDER, scope="") == ()
        assert world.left_in_docker() == set()


@BOTH
@pytest.mark.parametrize("kind", [ConfigurationError, TransientError])
def test_what_is_given_up_is_ended_and_fails_as_its_problem_does(source: Source, kind: type[DockerBackupError]) -> None:
    """Whoever gives it up knows whether another try is of use; the trail tells why, and nothing stays on the host."""
    world = a_world()
    world.archives._at_once = False
    request, begun = begun_by(world, 1, source)
    with pytest.raises(kind, match="the triggerer is refused"):
        given_up(world, request, begun, kind("the triggerer is refused"))
    told = b"".join(contents(world.storage, "audit").values())
    assert b"backup.failed" in told
    assert b"the triggerer is refused" in told
    assert_no_leftovers(world)
