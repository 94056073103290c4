# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_dockerbackup.core.export import ExportRequest, export_container
from airflow_provider_dockerbackup.core.reading import container_document
from airflow_provider_dockerbackup.core.temporary import TEMPORARY, remove_temporary
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError
from airflow_provider_dockerbackup.transport.memory import FixedClock, MemoryDockerHost
from tests.core.faulty_docker import FaultyHost
from tests.core.world import BEGIN, CONTAINER, FILESYSTEM, IMAGE, World, app_archive, paths, spoil


def _world(status: str = "running") -> World:
    world = World(host=MemoryDockerHost(CONTAINER.host))
    world.host.add_archive(app_archive("one"))
    world.host.add_container("web", image=IMAGE.name, filesystem=FILESYSTEM, status=status)
    return world


@pytest.mark.parametrize(
    ("status", "consistency", "capture", "called"),
    [
        ("running", "snapshot", "snapshot", "export_temporary"),
        ("restarting", "snapshot", "crash", "export_temporary"),
        ("running", "pause", "paused", "export_paused"),
        ("running", "none", "crash", "export_container"),
        ("paused", "snapshot", "paused", "export_container"),
        ("exited", "snapshot", "stopped", "export_container"),
        ("exited", "pause", "stopped", "export_container"),
        ("created", "none", "stopped", "export_container"),
    ],
)
def test_a_container_is_captured_by_what_it_does_and_what_was_asked(
    status: str, consistency: Any, capture: str, called: str
) -> None:
    """Only a running container needs a consistency, and the record says how the bytes were taken."""
    world = _world(status)
    calls: list[str] = []
    host = FaultyHost(world.host, meanwhile=calls.append)
    record = world.backup(1, CONTAINER, host=host, consistency=consistency).backup.whole()
    assert record.capture == capture
    assert [call for call in calls if call.startswith("export")] == [called]
    assert record.container is not None
    assert (record.container.commit_seconds is not None) == (called == "export_temporary")
    ours = status == "running" and consistency != "none"
    assert (record.container.pause_seconds is not None) == ours
    assert any("was paused for" in note for note in world.progress.notes) == ours
    assert world.host.inspect_container("web").status == status
    assert [each.reference for each in world.host.list_images()] == [IMAGE.name]
    assert [each.name for each in world.host.list_containers()] == ["web"]


def test_a_snapshot_works_on_objects_that_name_their_work_and_their_end() -> None:
    """Whoever finds a temporary object on a host can tell whose it is and when it is due."""
    world = _world()
    seen: set[str] = set()

    def meanwhile(call: str) -> None:
        if call == "export_temporary":
            seen.update(each.name for each in world.host.list_containers())
            seen.update(each.reference for each in world.host.list_images())

    world.backup(1, CONTAINER, host=FaultyHost(world.host, meanwhile=meanwhile))
    work = world.key(1, CONTAINER).idempotency_key[:16]
    temporary = {name for name in seen if name.startswith(TEMPORARY)}
    assert {name[: len(TEMPORARY) + 18] for name in temporary} == {f"{TEMPORARY}:{work}-", f"{TEMPORARY}-{work}-"}


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        ("{work}-0123456789ab-9999999999", True),  # of the same work, whenever it is due
        ("fedcba9876543210-0123456789ab-{past}", True),  # of any work, overdue
        ("fedcba9876543210-0123456789ab-{future}", False),  # somebody else's, and live
        ("{work}-0123456789ab", False),
        ("{work}-0123456789ab-{past}-mine", False),
        ("mine", False),
    ],
)
def test_temporary_objects_are_removed_when_they_are_ours_or_overdue_and_never_else(name: str, goes: bool) -> None:
    """A run clears what its own tries or dead ones left on the host, and nothing that only looks alike."""
    world, work = World(host=MemoryDockerHost(CONTAINER.host, clock=FixedClock(BEGIN))), "0123456789abcdef"
    now = int(BEGIN.timestamp())
    shown = name.format(work=work, past=now - 1, future=now + 60)
    world.host.add_archive(app_archive("one", tag=f"{TEMPORARY}:{shown}"))
    world.host.add_archive(app_archive("two"))
    world.host.add_container(f"{TEMPORARY}-{shown}", image=IMAGE.name, filesystem=None, status="created")
    world.host.add_container(f"other-{TEMPORARY}-{shown}", image=IMAGE.name, filesystem=None, status="created")
    remove_temporary(world.host, work=work, progress=world.progress)
    left = {each.name for each in world.host.list_containers()} | {each.reference for each in world.host.list_images()}
    gone = {f"{TEMPORARY}-{shown}", f"{TEMPORARY}:{shown}"}
    assert left & gone == (set() if goes else gone)
    assert {f"other-{TEMPORARY}-{shown}", IMAGE.name} <= left
    assert len(world.progress.notes) == (2 if goes else 0)


def test_a_container_whose_image_is_gone_is_backed_up_all_the_same() -> None:
    """The container lives on without its image, and so does its backup."""
    world = _world("exited")
    world.host._images.remove(IMAGE.name)  # by force, for the container uses it
    backup = world.backup(1, CONTAINER).backup
    assert container_document(world.repository, backup)["image"] is None
    assert world.verify(backup).verification == "passed"


def test_the_container_document_holds_the_whole_inspect_document_and_is_checked() -> None:
    """What is needed to re-create the container is there to the letter, and a changed letter is found."""
    world = _world()
    backup = world.backup(1, CONTAINER).backup
    document = container_document(world.repository, backup)
    assert document["container"] == world.host.inspect_container("web").document
    part = backup.whole().container
    assert part is not None
    spoil(world.storage, backup.path + part.configuration_file.name)
    with pytest.raises(IntegrityError, match=f"{part.configuration_file.name}: the sha256 is"):
        container_document(world.repository, backup)


@pytest.mark.parametrize("number", [2**53, 2**63 - 1, -(2**63)])
def test_a_number_beyond_canonical_json_is_kept_in_the_container_document(number: int) -> None:
    """Engines write 64-bit numbers, which must not be rounded or refused."""
    world = _world()
    world.host.add_container("big", image=IMAGE.name, filesystem=FILESYSTEM, config={"Limit": number})
    backup = world.backup(1, CONTAINER.model_copy(update={"name": "big"})).backup
    assert container_document(world.repository, backup)["container"]["Config"]["Limit"] == number


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"consistency": "maybe"}, "consistency: expected one of snapshot, pause, none, got 'maybe'"),
        ({"pause_limit_seconds": 0}, "pause_limit_seconds: expected at least 1, got 0"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_touched(fields: dict[str, Any], message: str) -> None:
    """The message names field and value, and neither host nor repository was asked."""
    world = _world()
    request = ExportRequest(key=world.key(1, CONTAINER), **fields)
    calls: list[str] = []
    host = FaultyHost(world.host, meanwhile=calls.append)
    with pytest.raises(ConfigurationError, match=message):
        export_container(request, host=host, repository=world.repository, progress=world.progress)
    assert calls == []
    assert paths(world.storage, prefix="") == {"repository.json"}


def test_another_work_of_the_same_host_keeps_its_temporary_objects() -> None:
    """Two exports at once on one host do not take each other's temporary container away."""
    world = _world()
    world.host.add_container("db", image=IMAGE.name, filesystem=FILESYSTEM)
    other = CONTAINER.model_copy(update={"name": "db"})
    inner: list[str] = []

    def meanwhile(call: str) -> None:
        if call == "export_temporary":
            inner.append(world.backup(1, other).status)

    assert world.backup(1, CONTAINER, host=FaultyHost(world.host, meanwhile=meanwhile)).status == "committed"
    assert inner == ["committed"]
    assert len(world.repository.catalog.backups()) == 2
