# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.layers.choice import CaptureChoice
from airflow_provider_dockerbackup.core.layers.documents import MAPS_FOLDER, LayerMap
from airflow_provider_dockerbackup.core.model import Consistency
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.ports import DockerHost, Storage
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.faults import Death, Fault, FaultyStorage, Plan
from tests.core.faulty_docker import FaultyHost, in_pieces
from tests.core.world import (
    CONTAINER,
    IMAGE,
    World,
    app_archive,
    assert_all_whole,
    assert_nothing_left,
    bury,
    contents,
    paths,
)

PIECE_BYTES = 3000
FAULTS = pytest.mark.parametrize("fault", list(Fault))
LAYOUTS = pytest.mark.parametrize("layout", ["archive", "layers"])
WORK = pytest.mark.parametrize(
    ("source", "consistency"),
    [(IMAGE, "snapshot"), (CONTAINER, "snapshot"), (CONTAINER, "pause"), (CONTAINER, "none")],
    ids=["save", "snapshot", "paused", "crash"],
)


def _storage(kind: str, folder: Path) -> Storage:
    return LocalStorage(folder / "repository") if kind == "local" else MemoryStorage()


def _broken(
    world: World,
    source: Source,
    consistency: Consistency,
    *,
    storage: Plan,
    host: Plan,
    capture: CaptureChoice = "auto",
) -> str:
    """Do run 2 with faults, and return how it ended."""
    plain: DockerHost = FaultyHost(world.host, host, cutter=in_pieces(PIECE_BYTES))
    try:
        repository = world.on(FaultyStorage(world.storage, storage))
        return world.backup(
            2, source, repository=repository, host=plain, consistency=consistency, capture=capture
        ).status
    except (TransientError, Death) as err:
        return type(err).__name__


def _assert_recovers(world: World, source: Source, consistency: Consistency, good: dict[str, bytes]) -> None:
    """Require what must hold right after a fault, and after the next clean try and run."""
    bury()
    for path, data in good.items():
        assert world.storage.read(path) == data
    # Visible means whole, at any moment.
    assert_all_whole(world.repository)
    # Airflow tries the same work again; another run of the source comes after it.
    assert world.backup(2, source, consistency=consistency).status in {"committed", "already"}
    world.backup(3, source, consistency=consistency)
    assert [each.backup_id for each in assert_all_whole(world.repository)] == [
        world.key(run, source).backup_id for run in (3, 2, 1)
    ]
    assert_nothing_left(world.repository)
    assert [each.name for each in world.host.list_containers()] == ["web"]
    assert [each.reference for each in world.host.list_images()] == [IMAGE.name]
    assert world.host.inspect_container("web").status == "running"
    assert world.progress.open == 0


@FAULTS
@pytest.mark.parametrize(
    ("kind", "source", "consistency", "layout"),
    [
        ("memory", IMAGE, "snapshot", "archive"),
        ("local", IMAGE, "snapshot", "archive"),
        ("memory", CONTAINER, "pause", "archive"),
        ("local", CONTAINER, "snapshot", "archive"),
        ("memory", IMAGE, "snapshot", "layers"),
        ("local", IMAGE, "snapshot", "layers"),
        ("memory", CONTAINER, "snapshot", "layers"),
    ],
    ids=["save-memory", "save-local", "paused-memory", "snapshot-local", "save-layers", "save-layers-local", "layers"],
)
def test_a_backup_that_meets_a_fault_of_the_storage_is_whole_or_not_there(
    kind: str, source: Source, consistency: Consistency, layout: str, fault: Fault, tmp_path: Path
) -> None:
    """Each call to the storage fails once, in each way: nothing half is seen, nothing old is harmed, all heals."""
    counting = Plan()
    assert _broken(World(layout=layout), source, consistency, storage=counting, host=Plan()) == "committed"
    ends = set()
    for at in range(1, len(counting.calls) + 1):
        world = World(storage=_storage(kind, _made(tmp_path / str(at))), layout=layout)
        good = contents(world.storage, world.backup(1, source, consistency=consistency).backup.path)
        ends.add(_broken(world, source, consistency, storage=Plan(at, fault), host=Plan()))
        _assert_recovers(world, source, consistency, good)
    # Only a lost audit event lets a backup go on; any other fault is told.
    told = "Death" if fault in {Fault.DEATH, Fault.DEATH_AFTER} else "TransientError"
    assert told in ends
    assert ends <= {told, "committed", "already"}


@FAULTS
@WORK
@LAYOUTS
def test_a_backup_that_meets_a_fault_of_the_host_is_whole_or_not_there(
    source: Source, consistency: Consistency, layout: str, fault: Fault
) -> None:
    """Each single call to the host, and each piece of its stream, fails once, in each way."""
    counting = Plan()
    assert _broken(World(layout=layout), source, consistency, storage=Plan(), host=counting) == "committed"
    for at in range(1, len(counting.calls) + 1):
        world = World(layout=layout)
        good = contents(world.storage, world.backup(1, source, consistency=consistency).backup.path)
        ended = _broken(world, source, consistency, storage=Plan(), host=Plan(at, fault))
        assert ended == ("Death" if fault in {Fault.DEATH, Fault.DEATH_AFTER} else "TransientError")
        _assert_recovers(world, source, consistency, good)


@FAULTS
@pytest.mark.parametrize("capture", ["push", "save"])
@pytest.mark.parametrize("side", ["storage", "host"])
def test_a_changed_image_that_meets_a_fault_on_its_way_into_layers_is_whole_or_not_there(
    side: str, capture: CaptureChoice, fault: Fault
) -> None:
    """Of a layer that is held and one that is new: each call to storage or host, and each piece of a blob, fails."""
    at, ends = 0, set[str]()
    while True:
        at += 1
        world = World(layout="layers")
        good = contents(world.storage, world.backup(1, capture=capture).backup.path)
        world.host.add_archive(app_archive("two"))
        plan = Plan(at, fault)
        plans = {"storage": Plan(), "host": plan} if side == "host" else {"storage": plan, "host": Plan()}
        ends.add(_broken(world, IMAGE, "snapshot", capture=capture, **plans))
        if len(plan.calls) < at:
            break
        _assert_recovers(world, IMAGE, "snapshot", good)
        assert _left_of_pushes(world) == set()
    told = "Death" if fault in {Fault.DEATH, Fault.DEATH_AFTER} else "TransientError"
    assert told in ends
    assert ends <= {told, "committed", "already"}


def _left_of_pushes(world: World) -> set[str]:
    """Return the blobs that are not those of their names, and layer maps that name what is not there."""
    wrong = {
        path for path in paths(world.storage, prefix="blobs") if sha256_of(world.storage.read(path))[7:] not in path
    }
    for path in paths(world.storage, prefix=MAPS_FOLDER):
        named = LayerMap.from_bytes(world.storage.read(path), where=path)
        wrong |= {path} - ({path} if blob_path(named.digest) in paths(world.storage, prefix="blobs") else set())
    return wrong


@FAULTS
@pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["save", "snapshot"])
def test_a_backup_whose_withdrawal_fails_as_well_is_cleaned_up_by_the_next(source: Source, fault: Fault) -> None:
    """The stream breaks and then the storage fails too, at each call after it: what stays is removed later."""
    broken = Plan()
    _broken(World(), source, "snapshot", storage=Plan(), host=broken)
    cut = broken.calls.index("piece of the stream") + 2
    counting = Plan()
    world = World()
    world.backup(1, source, consistency="snapshot")
    assert _broken(world, source, "snapshot", storage=counting, host=Plan(cut)) == "TransientError"
    for at in range(1, len(counting.calls) + 1):
        world = World()
        good = contents(world.storage, world.backup(1, source, consistency="snapshot").backup.path)
        _broken(world, source, "snapshot", storage=Plan(at, fault), host=Plan(cut))
        _assert_recovers(world, source, "snapshot", good)


def test_a_fault_of_the_storage_that_only_the_trail_meets_is_told_and_loses_no_backup() -> None:
    """A backup goes on without its audit event, and says so loudly."""
    counting = Plan()
    _broken(World(), IMAGE, "snapshot", storage=counting, host=Plan())
    events = [n for n, call in enumerate(counting.calls, 1) if call.startswith("create audit/")]
    assert len(events) == 2
    for at in events:
        world = World()
        assert _broken(world, IMAGE, "snapshot", storage=Plan(at), host=Plan()) == "committed"
        assert any(note.startswith("WARNING: the audit trail lacks the event backup.") for note in world.progress.notes)


def test_a_commit_whose_answer_is_lost_is_found_by_the_next_try() -> None:
    """The record was created and the caller did not learn it: nothing is taken back, the next try says already."""
    counting = Plan()
    _broken(World(), IMAGE, "snapshot", storage=counting, host=Plan())
    at = next(n for n, call in enumerate(counting.calls, 1) if call.endswith("/backup.json") and "create" in call)
    world = World()
    assert _broken(world, IMAGE, "snapshot", storage=Plan(at, Fault.UNTOLD), host=Plan()) == "TransientError"
    assert len(assert_all_whole(world.repository)) == 1
    assert world.backup(2).status == "already"


def test_a_record_is_created_after_the_bytes_it_names_and_before_its_event() -> None:
    """The order of writes is law: archive and document, record, event."""
    for source in (IMAGE, CONTAINER):
        counting = Plan()
        _broken(World(), source, "snapshot", storage=counting, host=Plan())
        written = [call.rsplit("/", 1)[1] for call in counting.calls if call.split()[0] in {"create", "commit"}]
        record = written.index("backup.json")
        bytes_written = [n for n, name in enumerate(written) if name.startswith(("image-", "rootfs-", "container-"))]
        assert len(bytes_written) == (1 if source is IMAGE else 2)
        assert max(bytes_written) < record
        assert record == len(written) - 2


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
