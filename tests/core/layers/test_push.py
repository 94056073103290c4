# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.layers.documents import HINTS_FOLDER
from airflow_provider_dockerbackup.core.record import BlobSet
from airflow_provider_dockerbackup.exceptions import PushUnavailableError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.core.faults import Plan
from tests.core.faulty_docker import FaultyHost
from tests.core.world import HOST, IMAGE, World, app_archive, assert_all_whole, paths


def _blobs(backup: Backup) -> BlobSet:
    found = backup.whole().blobs
    assert found is not None
    return found


def test_a_pushed_backup_is_the_saved_one() -> None:
    """The same blobs under the same names, whichever way they came."""
    pushed, saved = World(layout="layers"), World(layout="layers")
    by_push = pushed.backup(1, capture="push").backup
    by_save = saved.backup(1, capture="save").backup
    assert (by_push.whole().capture, by_save.whole().capture) == ("push", "save")
    assert _blobs(by_push).sizes == _blobs(by_save).sizes
    assert by_push.whole().diff_ids == by_save.whole().diff_ids
    assert pushed.verify(by_push).proves_restore


def test_a_second_push_sends_only_the_layer_that_changed() -> None:
    """The engine asks, and hears that the lower layer need not come."""
    world = World(layout="layers")
    first = _blobs(world.backup(1, capture="push").backup)
    world.host.add_archive(app_archive("two"))
    second = _blobs(world.backup(2, capture="push").backup)
    assert second.layers[0] == first.layers[0]
    assert second.layers[1] != first.layers[1]
    assert second.received_bytes < first.received_bytes
    assert_all_whole(world.repository)


def test_what_an_engine_calls_its_layers_is_remembered_for_that_engine_alone() -> None:
    """One hint for each layer it sent."""
    world = World(layout="layers")
    world.backup(1, capture="push")
    folders = {path.split("/")[2] for path in paths(world.storage, prefix=HINTS_FOLDER)}
    assert (len(folders), len(paths(world.storage, prefix=HINTS_FOLDER))) == (1, 2)


def test_a_layer_that_came_by_save_is_sent_once_more_by_the_first_push_and_stored_once() -> None:
    """The engine does not know that it is there; the repository does."""
    world = World(layout="layers")
    first = _blobs(world.backup(1, capture="save").backup)
    second = _blobs(world.backup(2, capture="push").backup)
    assert second.layers == first.layers
    assert second.new_bytes == 0
    third = _blobs(world.backup(3, capture="push").backup)
    assert third.received_bytes < second.received_bytes


class _NoPush(MemoryDockerHost):
    """A host whose sshd forbids forwarding."""

    def push_image(self, image_id: str, **_: object) -> object:  # type: ignore[override]
        """Refuse."""
        raise PushUnavailableError(f"{self.name} does not forward ports")


def _host() -> _NoPush:
    host = _NoPush(HOST)
    host.add_archive(app_archive("one"))
    return host


def test_a_host_that_cannot_push_is_saved_from_unless_a_push_was_asked_for() -> None:
    """Auto falls back and says why."""
    world = World(layout="layers", host=_host())
    with pytest.raises(PushUnavailableError):
        world.backup(1, capture="push")
    backup = world.backup(2, capture="auto").backup
    assert backup.whole().capture == "save"
    assert_all_whole(world.repository)


@pytest.mark.parametrize("capture", ["push", "save"])
def test_an_image_that_is_replaced_meanwhile_is_never_taken_for_the_other(capture: str) -> None:
    """What is fetched is asked for by ID, so a moving tag changes nothing."""
    world = World(layout="layers")
    image = world.host.inspect_image(IMAGE.name)
    plan = Plan()
    host = FaultyHost(world.host, plan)
    backup = world.backup(1, host=host, capture="push" if capture == "push" else "save").backup
    recorded = backup.whole().image
    assert recorded is not None
    assert recorded.id == image.id
