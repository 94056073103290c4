# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.save import SaveRequest, save_image
from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from tests.core.faults import Fault, FaultyStorage, Plan
from tests.core.faulty_docker import FaultyHost
from tests.core.world import IMAGE, World, app_archive, assert_all_whole, assert_nothing_left, paths, spoil


def _confirmations(world: World) -> list[str]:
    return sorted(path for path in paths(world.storage) if "/confirmed-" in path)


def _archive(backup: Backup) -> str:
    return backup.path + backup.whole().archive_file.name


def test_an_unchanged_image_is_confirmed_and_not_saved() -> None:
    """The newest backup gets a confirmation, the host is asked for no bytes, and the task says unchanged."""
    world = World()
    first = world.backup(1, force=False).backup
    host = FaultyHost(world.host)
    outcome = world.backup(2, force=False, host=host)
    assert outcome.status == "unchanged"
    assert outcome.backup.backup_id == first.backup_id
    assert len(outcome.backup.confirmations) == 1
    assert host.streams == []
    assert_nothing_left(world.repository)


def test_an_unchanged_image_costs_one_question() -> None:
    """A fleet's night is mostly these: nothing is asked that only a save needs, and nothing twice."""
    world, plan = World(), Plan()
    world.backup(1, force=False)
    host = FaultyHost(world.host, plan)
    outcome = save_image(
        SaveRequest(key=world.key(2)),
        host=host,
        repository=world.repository,
        progress=world.progress,
        image=host.inspect_image(IMAGE.name),
    )
    assert (outcome.status, plan.calls) == ("unchanged", ["inspect_image"])


def test_a_changed_image_is_saved() -> None:
    """Another image under the same tag is another backup."""
    world = World()
    world.backup(1, force=False)
    world.host.add_archive(app_archive("two"))
    assert world.backup(2, force=False).status == "committed"
    assert _confirmations(world) == []


def test_an_image_with_the_same_layers_and_another_configuration_is_saved() -> None:
    """Layers alone are not the identity."""
    world = World()
    world.backup(1, force=False)
    world.host.add_archive(app_archive("one", config={"User": "app"}))
    assert world.backup(2, force=False).status == "committed"


def test_an_image_that_equals_only_an_older_backup_is_saved() -> None:
    """A roll-back on the host is a new state; the newest backup decides."""
    world = World()
    world.backup(1, force=False)
    world.host.add_archive(app_archive("two"))
    world.backup(2, force=False)
    world.host.add_archive(app_archive("one"))
    assert world.backup(3, force=False).status == "committed"


def test_an_unchanged_image_is_saved_when_asked_to() -> None:
    """``force`` makes a backup all the same."""
    world = World()
    world.backup(1)
    assert world.backup(2, force=True).status == "committed"


@pytest.mark.parametrize("harm", ["gone", "short", "failed", "unreadable"])
def test_an_unchanged_image_is_saved_again_when_its_backup_is_not_sound(harm: str) -> None:
    """Missing or short bytes, a failed verification, an unreadable record: not confirmed, a new backup is made."""
    world = World()
    first = world.backup(1).backup
    if harm == "gone":
        world.storage.delete(_archive(first))
    elif harm == "short":
        spoil(world.storage, _archive(first), data=world.storage.read(_archive(first))[:-512])
    elif harm == "failed":
        spoil(world.storage, _archive(first))
        assert world.verify(first, "digests").verification == "failed"
    else:
        spoil(world.storage, f"{first.path}backup.json", data=b"{")
    outcome = world.backup(2, force=False)
    assert outcome.status == "committed"
    assert _confirmations(world) == []
    assert world.verify(outcome.backup).verification == "passed"


def test_an_image_whose_verification_passed_again_is_confirmed() -> None:
    """A failure that was overcome does not count for ever."""
    world = World()
    first = world.backup(1).backup
    good = world.storage.read(_archive(first))
    spoil(world.storage, _archive(first))
    world.verify(first, "digests")
    spoil(world.storage, _archive(first), data=good)
    world.verify(first, "digests")
    assert world.backup(2, force=False).status == "unchanged"


@pytest.mark.parametrize("bytes_gone", [False, True])
def test_an_image_whose_backup_is_deleted_during_the_confirmation_is_saved(bytes_gone: bool) -> None:
    """A deletion that comes between the look and the confirmation is seen by the second look."""
    storage = MemoryStorage()
    world = World(storage=storage)
    first = world.backup(1).backup

    class Deleting(FaultyStorage):
        def create(self, path: str, data: bytes) -> None:
            if "/confirmed-" in path:
                storage.create(f"{first.path}deleted-20260301T000000Z.json", b"{}")
                if bytes_gone:
                    storage.delete(_archive(first))
            super().create(path, data)

    outcome = world.backup(2, force=False, repository=world.on(Deleting(storage, Plan())))
    assert outcome.status == "committed"
    assert outcome.backup.backup_id != first.backup_id
    assert [each.backup_id for each in assert_all_whole(world.repository)] == [outcome.backup.backup_id]


def test_a_cleared_run_confirms_once() -> None:
    """The same run done again finds its own confirmation and writes no second one."""
    world = World()
    world.backup(1)
    for _ in range(3):
        assert world.backup(2, force=False).status == "unchanged"
    assert len(_confirmations(world)) == 1
    world.backup(3, force=False)
    assert len(_confirmations(world)) == 2


@pytest.mark.parametrize("fault", list(Fault)[:2])
def test_a_run_that_fails_at_the_confirmation_confirms_once_when_tried_again(fault: Fault) -> None:
    """Whether the confirmation was written or not, the next try ends with exactly one."""
    world = World()
    world.backup(1)
    counting = Plan()
    world.backup(3, force=False, repository=world.on(FaultyStorage(world.storage, counting)))
    at = next(n for n, call in enumerate(counting.calls, 1) if call.startswith("create") and "/confirmed-" in call)
    for path in _confirmations(world):
        world.storage.delete(path)
    plan = Plan(at, fault)
    with pytest.raises(TransientError, match="injected"):
        world.backup(3, force=False, repository=world.on(FaultyStorage(world.storage, plan)))
    assert world.backup(3, force=False).status == "unchanged"
    assert len(_confirmations(world)) == 1


def test_only_a_backup_of_the_same_source_is_confirmed() -> None:
    """Another tag of the very same image has its own backup."""
    world = World()
    world.backup(1)
    world.host.tag_image(world.host.inspect_image(IMAGE.name).id, reference="lab/other:1")
    other = IMAGE.model_copy(update={"name": "lab/other:1"})
    assert world.backup(2, other, force=False).status == "committed"
