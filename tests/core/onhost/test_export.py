# SPDX-License-Identifier: Apache-2.0
"""Exports whose archive stays on the host: whatever dies or fails, the catalog is whole and nothing stays."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.copies.copy import CopyRequest, copy
from airflow_provider_dockerbackup.core.look.files import list_files
from airflow_provider_dockerbackup.core.onhost.ports import JobState
from airflow_provider_dockerbackup.core.places import RECORD_FILE
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.restore import RestoreRequest
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateRequest, rotate
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost, MemoryStorage
from tests.core.faults import Fault, Plan
from tests.core.onhost.hosts import FOLDER, HostWorld, a_world, begun_export, finished
from tests.core.world import CONTAINER, FILESYSTEM, assert_all_whole, assert_nothing_left, paths

DAY = timedelta(hours=25)


def set_status(world: HostWorld, status: str, *, started_at: str | None = None) -> None:
    """Let the container do something else."""
    state = world.host.container(CONTAINER.name).document["State"]
    state["Status"] = status
    if started_at is not None:
        state["StartedAt"] = started_at


@pytest.mark.parametrize(
    ("status", "consistency", "capture"),
    [
        ("running", "snapshot", "snapshot"),
        ("restarting", "snapshot", "crash"),
        ("running", "none", "crash"),
        ("paused", "snapshot", "paused"),
        ("exited", "none", "stopped"),
    ],
)
def test_a_container_is_captured_by_what_it_does_and_what_was_asked(
    status: str, consistency: Any, capture: str
) -> None:
    """As an export through the worker; the record says as much of the container, and of what a restore gives back."""
    world = a_world()
    set_status(world, status)
    record = world.export(1, consistency=consistency).backup.whole()
    other = world.backup(2, CONTAINER, consistency=consistency).backup.whole()
    assert (record.capture, record.consistency) == (capture, capture)
    assert record.container is not None
    assert other.container is not None
    own = {"configuration_file", "commit_seconds"}
    assert record.container.model_dump(exclude=own) == other.container.model_dump(exclude=own)
    assert record.diff_ids == other.diff_ids
    files = [item for item in record.fidelity.items if item.subject == "files"]
    assert "compared when a verification reads" in files[0].reason
    without = [item for item in record.fidelity.items if item not in files]
    assert without == [item for item in other.fidelity.items if item.subject != "files"]
    assert world.host.inspect_container(CONTAINER.name).status == status
    assert world.left_in_docker() == set()


def test_commands_run_around_the_commit_and_before_the_job_begins() -> None:
    """Nobody is there any more when it ends."""
    world = a_world()
    world.archives._at_once = False
    commands = QuiesceCommands(before=("flush",), after=("go",))
    request, begun = begun_export(world, 1, commands=commands)
    assert [command for _, command, _ in world.host.executed] == [("flush",), ("go",)]
    world.archives.work()
    assert finished(world, request, begun) == "committed"
    record = world.repository.catalog.backups()[0].whole()
    assert record.consistency == "quiesced"
    assert record.container is not None
    assert record.container.pre_command_seconds is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"consistency": "pause"}, r"'pause' would keep .* use 'snapshot'"),
        ({"consistency": "none", "commands": QuiesceCommands(after=("go",))}, "nobody is there when the export ends"),
        ({"consistency": "never"}, "expected one of snapshot, pause, none"),
    ],
)
def test_what_nobody_could_see_to_is_refused_before_anything_is_touched(changes: dict[str, Any], message: str) -> None:
    """With what to do instead."""
    world = a_world()
    with pytest.raises(ConfigurationError, match=message):
        begun_export(world, 1, **changes)
    assert world.archives.jobs(FOLDER, scope="") == ()
    assert world.host.executed == []
    assert world.host.inspect_container(CONTAINER.name).status == "running"


def test_commands_for_a_container_that_does_not_run_are_refused() -> None:
    """As for other exports; nothing is touched."""
    world = a_world()
    set_status(world, "exited")
    with pytest.raises(ConflictError, match="is exited, so pre_command"):
        begun_export(world, 1, commands=QuiesceCommands(before=("flush",)))
    assert world.archives.jobs(FOLDER, scope="") == ()


@pytest.mark.parametrize(
    ("status", "then", "message"),
    [
        ("exited", {"status": "running", "started_at": "2026-03-02T00:00:00Z"}, "was started while it was exported"),
        ("exited", {"status": "exited", "started_at": "2026-03-02T00:00:00Z"}, "was started while it was exported"),
        ("paused", {"status": "running"}, "was paused by somebody else and woken"),
    ],
)
def test_a_container_that_did_not_rest_all_the_while_is_not_committed(
    status: str, then: dict[str, str], message: str
) -> None:
    """Between the look at it and the job's end hours may pass, in which it waited for its turn."""
    world = a_world()
    world.archives._at_once = False
    set_status(world, status)
    request, begun = begun_export(world, 1)
    set_status(world, **then)
    world.archives.work()
    with pytest.raises(TransientError, match=message):
        finished(world, request, begun)
    assert world.repository.catalog.backups() == []
    assert world.left_on_host() == set()


def test_a_snapshot_does_not_care_what_becomes_of_its_container() -> None:
    """It may be stopped, or be gone, before the job has its turn."""
    world = a_world()
    world.archives._at_once = False
    request, begun = begun_export(world, 1)
    set_status(world, "exited")
    world.host.remove_container(CONTAINER.name)
    world.archives.work()
    assert finished(world, request, begun) == "committed"
    record = world.repository.catalog.backups()[0].whole()
    assert record.container is not None
    assert record.container.status == "running"


@pytest.mark.parametrize(
    "note", [b"", b"{}", b'{"container": {"Env": "secret"}, "image": null, "taken": {"capture": "x"}}']
)
def test_what_the_jobs_folder_says_must_be_readable_and_is_never_shown(note: bytes) -> None:
    """Whoever has the host can write there."""
    world = a_world()
    request, begun = begun_export(world, 1)
    world.archives.change_result(begun.place, note=note)
    with pytest.raises(IntegrityError, match="says of the container what cannot be read") as caught:
        finished(world, request, begun)
    assert "secret" not in str(caught.value)
    assert world.repository.catalog.backups() == []
    assert world.left_on_host() == set()


def test_a_job_must_say_whether_a_container_at_rest_stayed_so() -> None:
    """Else nobody knows."""
    world = a_world()
    set_status(world, "exited")
    request, begun = begun_export(world, 1)
    world.archives.change_result(begun.place, after=None)
    with pytest.raises(IntegrityError, match="does not say whether container web stood still"):
        finished(world, request, begun)
    assert world.repository.catalog.backups() == []


def test_a_killed_job_leaves_nothing_in_docker() -> None:
    """It could not remove the snapshot itself."""
    world = a_world()
    world.archives._at_once = False
    request, begun = begun_export(world, 1)
    assert len(world.left_in_docker()) == 2
    world.archives.set_state(begun.place, JobState(phase="killed"))
    with pytest.raises(TransientError, match="processes were killed"):
        finished(world, request, begun)
    assert world.left_in_docker() == set()
    assert world.left_on_host() == set()


def test_a_job_of_which_nobody_knows_whether_it_began_is_ended_and_its_snapshot_goes() -> None:
    """At once, and not with the next run."""
    world, counting = a_world(), Plan()
    a_world().export(1, plan=counting)
    world.archives._at_once = False
    with pytest.raises(TransientError, match="whether start was done"):
        world.export(1, plan=Plan(counting.calls.index("start") + 1, Fault.UNTOLD))
    assert world.left_on_host() == set()
    assert world.left_in_docker() == set()


def test_an_archive_whose_record_cannot_be_read_is_never_taken_for_one_that_none_names() -> None:
    """Its committer died before it cleared away the job, and the record was damaged since."""
    world, counting = a_world(), Plan()
    a_world().export(1, plan=counting)
    last = max(at for at, call in enumerate(counting.calls, start=1) if call.startswith("clear"))
    with suppress(DockerBackupError):
        world.export(1, plan=Plan(last, Fault.REFUSED))
    (archive,) = world.archives.files
    path = world.key(1, CONTAINER).path + RECORD_FILE
    data = world.storage.read(path)
    world.storage.delete(path)
    world.storage.create(path, data[: len(data) // 2])
    assert len(world.archives.jobs(FOLDER, scope="")) == 1
    world.clock.advance(DAY)
    world.export(2)
    assert archive in world.archives.files


def test_a_snapshot_outlives_the_time_that_its_job_may_wait_and_work() -> None:
    """Else another run would take it for left behind while it is exported."""
    world = a_world()
    world.archives._at_once = False
    before = int(world.host.now().timestamp())
    _, begun = begun_export(world, 1)
    assert int((begun.temporary or "").rsplit("-", 1)[1]) >= before + 2 * 3600


def test_it_is_rotated_restored_and_looked_into_like_any_other() -> None:
    """What has not been read takes no place; the one that goes takes its file on the host with it."""
    world = a_world()
    backups = [world.export(run, compression=Compression.GZIP).backup for run in range(2)]
    for backup in backups:
        world.verify(backup, "digests")
    request = RotateRequest(policy=RetentionPolicy.of({"keep_last": 1}), max_removed_share=1)
    (removed,) = rotate(world.repository, request, progress=world.progress).removed
    (kept,) = assert_all_whole(world.repository)
    assert set(world.archives.files) == {kept.whole().path_on_host}
    left = {path.rsplit("/", 1)[1].split("-")[0] for path in paths(world.storage) if removed in path}
    assert left == {"backup.json", "deleted", "verification"}
    target = MemoryDockerHost("other")
    world.restore(kept, RestoreRequest(tags=("back:1",)), host=target)
    assert target.inspect_image("back:1").diff_ids == kept.whole().diff_ids
    files = list_files(world.repository, kept, progress=world.progress)
    assert "etc/app.conf" in {each.path for each in files}


@pytest.mark.parametrize("layout", ["archive", "layers"])
def test_a_copy_brings_it_into_the_other_repository_scanned(layout: str) -> None:
    """There its record says as much as that of one that came through a worker; a second copy finds it there."""
    world = a_world()
    world.export(1, compression=Compression.GZIP)
    other = world.backup(2, CONTAINER).backup.whole().filesystem
    target = Repository.open_or_create(MemoryStorage(clock=world.clock), clock=world.clock, layout=layout)
    copy(CopyRequest(), source=world.repository, target=target, progress=world.progress)
    copied = {backup.backup_id: backup.whole() for backup in assert_all_whole(target)}
    assert copied[world.key(1, CONTAINER).backup_id].path_on_host is None
    assert copied[world.key(1, CONTAINER).backup_id].filesystem == other
    again = copy(CopyRequest(), source=world.repository, target=target, progress=world.progress)
    assert {each.state for each in again.planned} == {"already"}
    assert_nothing_left(target)


def test_a_host_that_changed_a_byte_is_found_out_by_the_verification() -> None:
    """In a file's content, which no tar checks."""
    world = a_world()
    backup = world.export(1).backup
    (path,) = world.archives.files
    data = world.archives.files[path]
    world.archives.files[path] = data.replace(b"port = 80", b"port = 81")
    assert FILESYSTEM.count(b"port = 80") == 1
    assert world.verify(backup, "digests").verification == "failed"
