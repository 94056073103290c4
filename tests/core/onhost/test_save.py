# SPDX-License-Identifier: Apache-2.0
"""Saves whose archive stays on the host: whatever dies or fails, what is in the catalog is whole and nothing stays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive_bytes import only_host
from airflow_provider_dockerbackup.core.attempt import Attempt
from airflow_provider_dockerbackup.core.copies.copy import CopyRequest, copy
from airflow_provider_dockerbackup.core.freshness import Rpo, freshness
from airflow_provider_dockerbackup.core.look.history import image_history
from airflow_provider_dockerbackup.core.look.tree import image_chains
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.onhost.leftovers import Leftovers
from airflow_provider_dockerbackup.core.onhost.place import JobPlace, parse_location, scope_of
from airflow_provider_dockerbackup.core.onhost.ports import HostJob, JobState
from airflow_provider_dockerbackup.core.record import BackupRecord, HostPlace
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.retention.forget import ForgetRequest, forget
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateRequest, rotate
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from tests.core.faults import Death, Fault, FaultyStorage, Plan
from tests.core.onhost.hosts import FOLDER, FaultyArchives, HostWorld, a_world, begun_save, finished, given_up, nowhere
from tests.core.world import HOST, IMAGE, World, assert_all_whole, assert_nothing_left, bury, contents

DAY = timedelta(hours=25)


def test_steps_and_layers_come_from_the_archive_where_the_record_has_none() -> None:
    """History and roll back look into the archive; the tree of layers, which is told from records, leaves it out."""
    world = a_world()
    other = World(host=world.host).backup(1).backup
    backup = world.save(1).backup
    assert backup.whole().image is not None
    plain = World(storage=world.storage, host=world.host, clock=world.clock)
    assert [step.created_by for step in image_history(world.repository, backup, progress=world.progress)] == [
        step.created_by
        for step in other.whole().image.history[::-1]  # type: ignore[union-attr]
    ]
    assert image_chains([backup]) == []
    with pytest.raises(ConfigurationError, match=r"lies on Docker host.*--archive-host"):
        plain.verify(backup, "digests")


def test_a_new_try_ends_the_job_of_an_old_one_whose_end_then_changes_nothing() -> None:
    """The old try may still be waited for when its task is cleared."""
    world = a_world()
    world.archives._at_once = False
    request, old = begun_save(world, 1)
    _, new = begun_save(world, 1)
    assert {job.place for job in world.archives.jobs(FOLDER, scope="")} == {new.place}
    world.archives.work()
    with pytest.raises(TransientError, match="folder is gone"):
        finished(world, request, old)
    assert finished(world, request, new) == "committed"
    assert finished(world, request, old) == "already"
    assert finished(world, request, new) == "already"
    assert len(assert_all_whole(world.repository)) == 1
    assert world.left_on_host() == set()


def test_a_job_that_is_being_committed_is_not_cleared_away_by_a_new_try() -> None:
    """The new try comes between the claim and the record: the old one commits, the new one finds that."""
    world = a_world()
    request, old = begun_save(world, 1)
    seen: list[str] = []

    def meanwhile(what: str) -> None:
        if what == "size" and not seen:
            seen.append(what)
            begun_save(world, 1)

    world.archives.before = meanwhile
    assert finished(world, request, old) == "committed"
    assert seen
    assert len(assert_all_whole(world.repository)) == 1
    world.clock.advance(DAY)
    world.archives.before = lambda what: None  # noqa: ARG005 - nothing
    world.save(2)
    assert len(world.left_on_host()) == 0


def test_jobs_of_other_work_of_the_source_stay_for_a_day_and_running_ones_longer() -> None:
    """Another run of the same source may be waited for."""
    world = a_world()
    world.archives._at_once = False
    _, waiting = begun_save(world, 1)
    _, over = begun_save(world, 4)
    world.archives.set_state(over.place, JobState(phase="ended", exit_status=0))
    begun_save(world, 5)
    assert over.place in {job.place for job in world.archives.jobs(FOLDER, scope="")}
    world.clock.advance(DAY)
    begun_save(world, 2)
    assert waiting.place in {job.place for job in world.archives.jobs(FOLDER, scope="")}
    assert over.place not in {job.place for job in world.archives.jobs(FOLDER, scope="")}
    world.archives.set_state(waiting.place, JobState(phase="killed"))
    begun_save(world, 3)
    assert waiting.place not in {job.place for job in world.archives.jobs(FOLDER, scope="")}


def test_jobs_of_another_repository_in_the_same_folder_are_none_of_ours() -> None:
    """Whoever shares the folder shares nothing else."""
    world, other = a_world(), a_world()
    assert scope_of(world.repository, IMAGE) != scope_of(other.repository, IMAGE)
    theirs = JobPlace.of(
        FOLDER, scope=scope_of(other.repository, IMAGE), backup_id=world.key(1).backup_id, attempt="0" * 12
    )
    image_id = world.host.inspect_image(IMAGE.name).id
    world.archives.start(
        HostJob(
            place=theirs,
            kind=SourceKind.IMAGE,
            subject=image_id,
            compression=Compression.NONE,
            level=None,
            needed_bytes=1,
            deadline_seconds=1,
        )
    )
    world.clock.advance(DAY)
    world.save(1)
    assert theirs in {job.place for job in world.archives.jobs(FOLDER, scope="")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": b"{}"}, "manifest.json names"),
        ({"manifest": b"[]"}, "exactly one image"),
        ({"manifest": b'[{"Config":"../x","Layers":[]}]'}, "manifest.json names"),
        ({"stored_size_bytes": 7}, "not the 7 that were written"),
    ],
)
def test_what_the_host_says_is_compared_as_far_as_it_can_be(change: dict[str, object], message: str) -> None:
    """Another configuration, several images, a file of another size: nothing is committed and nothing stays."""
    world = a_world()
    request, begun = begun_save(world, 1)
    world.archives.change_result(begun.place, **change)
    with pytest.raises(IntegrityError, match=message):
        finished(world, request, begun)
    assert world.repository.catalog.backups() == []
    assert world.left_on_host() == set()


def test_a_host_that_changed_a_byte_is_found_out_by_the_verification() -> None:
    """The digest of the file, and without compression of the tar, is in the record."""
    for compression in Compression:
        world = a_world()
        backup = world.save(1, compression=compression).backup
        (path,) = world.archives.files
        data = bytearray(world.archives.files[path])
        data[len(data) // 2] ^= 1
        world.archives.files[path] = bytes(data)
        assert world.verify(backup, "digests").verification == "failed"
        assert world.again(backup).trust == "failed"
        del world.archives.files[path]
        assert world.verify(backup, "digests").verification == "failed"


def test_a_host_that_told_another_digest_of_the_tar_is_found_out_as_well() -> None:
    """The file is what it said; what is in it is not."""
    world = a_world()
    request, begun = begun_save(world, 1)
    world.archives.change_result(begun.place, sha256=f"sha256:{'0' * 64}")
    assert finished(world, request, begun) == "committed"
    (backup,) = world.repository.catalog.backups()
    verification = world.verify(backup, "digests")
    assert (verification.verification, "content digest" in verification.problem) == ("failed", True)


def test_a_host_out_of_reach_says_nothing_about_a_backup() -> None:
    """No verification is written; the next one may pass."""
    world = a_world()
    backup = world.save(1).backup
    world.archives.unreachable = True
    with pytest.raises(TransientError):
        world.verify(backup, "digests")
    assert world.again(backup).verifications == ()


def test_unscanned_backups_take_no_place_in_retention_and_freshness() -> None:
    """They displace nothing; what is newer than the newest verified one stays until it is scanned."""
    world = a_world()
    backups = [world.save(run).backup for run in range(4)]
    now = world.clock.now()
    (fresh,) = freshness(world.repository.catalog.backups(), rpo=Rpo(), now=now, trust="any")
    assert fresh.state == "missing"
    policy = RetentionPolicy.of({"keep_last": 1})
    request = RotateRequest(policy=policy, max_removed_share=1, dry_run=True)
    kept = rotate(world.repository, request, progress=world.progress).plan.kept
    assert {each.backup_id for each in kept} == {each.backup_id for each in backups}
    world.verify(backups[1], "load")
    plan = rotate(world.repository, request, progress=world.progress).plan
    assert [each.backup_id for each in plan.removed] == [backups[0].backup_id]
    reasons = {each.candidate.backup_id: each.reasons for each in plan.decisions}
    assert reasons[backups[3].backup_id] == ("not scanned yet: verify it",)
    assert reasons[backups[0].backup_id] == ("it was never scanned, and a newer one is verified",)
    (fresh,) = freshness(world.repository.catalog.backups(), rpo=Rpo(), now=now, trust="any")
    assert fresh.newest == backups[1].newest_point


@pytest.mark.parametrize("fault", list(Fault))
def test_a_rotation_that_fails_or_dies_anywhere_is_finished_by_the_next(fault: Fault) -> None:
    """On the host and in the repository: what is deleted is gone from both in the end, what is kept is whole."""
    policy = RetentionPolicy.of({"keep_last": 1})

    def filled() -> HostWorld:
        world = a_world()
        for run in range(3):
            world.verify(world.save(run).backup, "digests")
        return world

    def rotating(world: HostWorld, plan: Plan | None = None) -> None:
        repository = world.repository
        if plan is not None:
            repository = world.on(FaultyStorage(world.storage, plan))
            repository.host_files = only_host(HOST, FaultyArchives(world.archives, plan))
        rotate(repository, RotateRequest(policy=policy, max_removed_share=1), progress=world.progress)

    counting = Plan()
    rotating(filled(), counting)
    chosen = [at for at, call in enumerate(counting.calls, 1) if "host" in call or "size" in call or "delete" in call]
    assert len(chosen) > 10
    for at in chosen:
        world = filled()
        with suppress(DockerBackupError, Death):
            rotating(world, Plan(at, fault))
        bury()
        assert_all_whole(world.repository)
        world.clock.advance(DAY)
        rotating(world)
        (kept,) = assert_all_whole(world.repository)
        assert set(world.archives.files) == {kept.whole().path_on_host}
        assert world.repository.catalog.unfinished_deletions() == []


def test_a_source_is_forgotten_while_its_host_is_gone_and_the_bytes_go_when_it_is_back() -> None:
    """Nothing is half told: the events say that bytes are left, the document that says where stays."""
    world = a_world()
    world.save(1)
    repository = world.repository
    repository.host_files = nowhere
    gone = forget(repository, ForgetRequest(source=IMAGE, reason="scrapped"), progress=world.progress)
    assert len(gone) == 1
    assert world.repository.catalog.backups() == []
    assert len(world.archives.files) == 1
    assert any('"outcome":"failure"' in data.decode() for data in contents(world.storage, "audit").values())
    world.clock.advance(DAY)
    policy = RetentionPolicy.of({"keep_last": 1})
    world.backup(9)
    rotate(world.repository, RotateRequest(policy=policy), progress=world.progress)
    assert world.archives.files == {}
    assert world.repository.catalog.unfinished_deletions() == []


def test_a_confirmed_backup_is_one_whose_archive_the_host_still_has() -> None:
    """One that is gone, or cannot be asked for, is saved anew, or not confirmed."""
    world = a_world()
    first = world.save(1)
    assert world.save(2, force=False).status == "unchanged"
    world.archives.files.clear()
    third = world.save(3, force=False)
    assert (third.status, third.backup.backup_id != first.backup.backup_id) == ("committed", True)


def test_a_sources_own_policy_goes_into_record_and_confirmation() -> None:
    """As with an archive in the repository."""
    world = a_world()
    told = []
    for run in (1, 2):
        outcome = world.save(run, force=False, retention="keep_daily=7")
        told.append((outcome.status, outcome.backup.told and outcome.backup.told[1]))
    assert told == [("committed", "keep_daily=7"), ("unchanged", "keep_daily=7")]


def test_what_is_known_of_a_job_cannot_hold_a_policy_that_is_none() -> None:
    """It comes back from Airflow's database, and goes into a record for good."""
    _, begun = begun_save(a_world(), 1)
    with pytest.raises(ConfigurationError, match="retention"):
        replace(begun, retention="keep_nothing=1")


@pytest.mark.parametrize(
    ("text", "folder"),
    [("host:/var/backups", "/var/backups"), ("host:/b/", "/b"), ('host:/it\'s a "folder"', '/it\'s a "folder"')],
)
def test_a_location_is_an_absolute_folder_of_the_host(text: str, folder: str) -> None:
    """A slash at its end is no difference."""
    assert parse_location(text) == folder


@pytest.mark.parametrize(
    "text", ["", "host:", "host:/", "host:x", "/x", "host://x", "host:/a/../b", "host:/a\n", "s3://x"]
)
def test_anything_else_is_refused_with_what_is_expected(text: str) -> None:
    """Also the root folder, and names with control characters."""
    with pytest.raises(ConfigurationError, match="expected host:/PATH"):
        parse_location(text)


@pytest.mark.parametrize("name", ["../../etc/passwd", "image-1.tar", "image-a1b2c3d4e5f6.tar/x", "backup.json"])
def test_a_record_cannot_name_any_other_file_on_a_host(name: str) -> None:
    """Whoever can write records must not choose what a rotation deletes."""
    world = a_world()
    record = world.save(1).backup.whole()
    changed = record.to_bytes().replace(record.archive_file.name.encode(), name.encode())
    with pytest.raises(IntegrityError, match="name of an archive on a host"):
        BackupRecord.from_bytes(changed, where="x")


def test_a_record_cannot_lead_out_of_its_folder_by_its_id() -> None:
    """The id is the other half of the file's name."""
    world = a_world()
    record = world.save(1).backup.whole()
    changed = record.to_bytes().replace(record.backup_id.encode(), b"../../etc/x")
    with pytest.raises(IntegrityError, match="name of an archive on a host"):
        BackupRecord.from_bytes(changed, where="x")


def test_two_saves_at_once_of_one_work_commit_one_backup() -> None:
    """A second worker does all of the work while the first one waits for its job."""
    world = a_world()
    done: list[str] = []

    def meanwhile(what: str) -> None:
        if what == "state" and not done:
            done.append("begun")
            done.append(world.save(1).status)

    world.archives.before = meanwhile
    with suppress(TransientError, ConflictError):
        done.append(world.save(1).status)
    assert done[:2] == ["begun", "committed"]
    assert done[2:] in ([], ["already"])
    assert len(assert_all_whole(world.repository)) == 1
    assert world.left_on_host() == set()


def test_a_try_that_commits_another_way_first_wins_and_the_archive_on_the_host_goes() -> None:
    """The record that stands names bytes in the repository; ours withdraws."""
    world = a_world()
    request, begun = begun_save(world, 1)
    stored: list[str] = []

    def meanwhile(what: str) -> None:
        if what == "publish" and not stored:
            stored.append(world.backup(1).status)

    world.archives.before = meanwhile
    assert finished(world, request, begun) == "already"
    assert stored == ["committed"]
    assert world.archives.files == {}
    assert world.left_on_host() == set()
    assert_all_whole(world.repository)


@pytest.mark.parametrize("other", ["commits", "gives up", "finds that it failed"])
def test_what_one_claimed_stays_known_when_another_fails_to_and_the_first_one_dies(other: str) -> None:
    """Both have the same job before them; its folder must go on telling of the archive until that has an owner."""
    world = a_world()
    request, begun = begun_save(world, 1)
    first = Plan()
    refused: list[str] = []
    others: dict[str, Callable[[], object]] = {
        "commits": lambda: finished(world, request, begun),
        "gives up": lambda: given_up(world, request, begun),
        "finds that it failed": lambda: finished(world, request, begun, state=JobState(phase="killed")),
    }

    def meanwhile(what: str) -> None:
        if what == "size" and not refused:
            refused.append("claimed")
            with pytest.raises(DockerBackupError):
                others[other]()
            first.dead = True

    world.archives.before = meanwhile
    archives, repository = FaultyArchives(world.archives, first), world.on(FaultyStorage(world.storage, first))
    with pytest.raises(Death):
        finished(world, request, begun, archives=archives, repository=repository)
    assert refused == ["claimed"]
    assert len(world.archives.files) == 1
    bury()
    world.clock.advance(DAY)
    world.save(2)
    assert world.left_on_host() == set()
    assert len(assert_all_whole(world.repository)) == 1


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.UNTOLD])
def test_whoever_does_not_know_whether_they_published_takes_nothing_back(fault: Fault) -> None:
    """The same job is before two processes: one commits, the other one's link is lost while it publishes."""
    world = a_world()
    request, begun = begun_save(world, 1)
    lost: list[str] = []

    def meanwhile(what: str) -> None:
        if what == "size" and not lost:
            counting = Plan()
            broken = FaultyArchives(world.archives, counting)
            counting.at, counting.fault = 3, fault  # state, saved, publish
            with pytest.raises(TransientError, match="injected"):
                finished(world, request, begun, archives=broken)
            lost.extend(counting.calls)

    world.archives.before = meanwhile
    assert finished(world, request, begun) == "committed"
    assert lost[2] == "publish"
    assert len(assert_all_whole(world.repository)) == 1
    assert world.left_on_host() == set()


def test_an_archive_whose_record_stands_stays_whatever_is_raised_afterwards() -> None:
    """The task's time is over right after the record was created."""
    world = a_world()
    _, begun = begun_save(world, 1)
    record = world.save(2).backup.whole()
    name = record.archive_file.name.replace(record.attempt, begun.place.attempt)
    leftovers = Leftovers(begun.place, world.archives, world.progress)
    attempt = Attempt(world.repository, world.key(1), progress=world.progress, name=begun.place.attempt)
    with suppress(KeyboardInterrupt), leftovers, attempt, leftovers.published(name, attempt):
        document = attempt.document("image", b"{}")
        place = HostPlace(folder=begun.place.folder, document=document)
        archive = record.archive_file.model_copy(update={"name": name, "on_host": place})
        key = {"backup_id": world.key(1).backup_id, "idempotency_key": world.key(1).idempotency_key}
        attempt.commit(record.model_copy(update={**key, "attempt": attempt.name, "archive": archive}))
        raise KeyboardInterrupt
    assert len(assert_all_whole(world.repository)) == 2
    world.save(3)
    assert world.left_on_host() == set()


def test_an_archive_stays_while_the_record_under_its_id_cannot_be_read() -> None:
    """A newer version of the package may have written it, and it may name the archive."""
    world = a_world()
    request, begun = begun_save(world, 1)
    record = f"{world.key(1).path}backup.json"

    def meanwhile(what: str) -> None:
        if what == "size" and not contents(world.storage, record):
            world.storage.create(record, b'{"schema_version": "9.0"}')

    world.archives.before = meanwhile
    with pytest.raises(IntegrityError, match="schema_version"):
        finished(world, request, begun)
    assert len(world.archives.files) == 1
    assert begun.place in {job.place for job in world.archives.jobs(FOLDER, scope="")}


def test_a_job_whose_end_was_begun_by_somebody_who_died_is_ended_by_the_next_run() -> None:
    """It was claimed while it ran, so nobody is committing what it makes; one that is over waits for a day."""
    world = a_world()
    world.archives._at_once = False
    _, running = begun_save(world, 1)
    _, over = begun_save(world, 2)
    world.archives.set_state(over.place, JobState(phase="ended", exit_status=0))
    world.archives.claim(running.place)
    world.archives.claim(over.place)
    begun_save(world, 3)
    left = {job.place for job in world.archives.jobs(FOLDER, scope="")}
    assert running.place not in left
    assert over.place in left


def test_a_copy_brings_the_archive_into_the_other_repository_scanned() -> None:
    """There it is a backup like any other, layers and all; one that its host spoilt does not come."""
    world = a_world()
    world.save(1, compression=Compression.GZIP)
    world.save(2)
    (spoilt,) = [path for path in world.archives.files if path.endswith(".tar")]
    world.archives.files[spoilt] = world.archives.files[spoilt][:-1024] + b"x" * 1024
    target = Repository.open_or_create(MemoryStorage(clock=world.clock), clock=world.clock)
    outcome = copy(CopyRequest(), source=world.repository, target=target, progress=world.progress)
    assert sorted(each.state for each in outcome.results) == ["copied", "failed"]
    (copied,) = assert_all_whole(target)
    assert copied.whole().path_on_host is None
    assert copied.whole().image is not None
    assert len(copied.whole().image.layers) == len(copied.whole().diff_ids)  # type: ignore[union-attr]
    assert_nothing_left(target)
