# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.restore import RestoreRequest
from airflow_provider_dockerbackup.core.thin import known_layers
from airflow_provider_dockerbackup.exceptions import IntegrityError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.core.world import World, app_archive


class _Target(MemoryDockerHost):
    """A target that tells what it was asked about."""

    def __init__(self, *chains: tuple[str, ...]) -> None:
        super().__init__("target")
        self._chains = chains

    def layer_chains(self) -> frozenset[tuple[str, ...]]:
        """Return the chains it was given."""
        return frozenset(self._chains)


def _backup(world: World) -> Backup:
    return world.backup(1).backup


def _record(*diff_ids: str) -> object:
    record = World(layout="layers").backup(1).backup.whole()
    assert record.image is not None
    return record.model_copy(update={"image": record.image.model_copy(update={"diff_ids": diff_ids})})


@pytest.mark.parametrize(
    ("chains", "known"),
    [
        ([], ""),
        (["a"], "a"),
        (["ab"], "ab"),
        (["abcd"], "abc"),
        (["ax", "abx"], "ab"),
        (["b", "xabc"], ""),
    ],
)
def test_the_layers_with_which_some_image_begins_as_well_are_not_sent(chains: list[str], known: str) -> None:
    """The longest common beginning, and nothing above it."""
    record = _record(*"abc")
    assert known_layers(record, _Target(*(tuple(each) for each in chains))) == frozenset(known)  # type: ignore[arg-type]


def test_a_layer_that_comes_once_more_above_what_is_known_is_sent() -> None:
    """It is one file in the archive."""
    assert known_layers(_record(*"aba"), _Target(("a", "b"))) == frozenset("b")  # type: ignore[arg-type]


def test_a_restore_to_a_host_that_has_the_lower_layer_sends_the_rest() -> None:
    """And the image is the recorded one."""
    world = World(layout="layers")
    backup = _backup(world)
    target = MemoryDockerHost("target")
    target.add_archive(app_archive("two"))
    outcome = world.restore(backup, RestoreRequest(tags=("back:1",)), host=target)
    assert outcome.identical
    assert target.inspect_image("back:1").diff_ids == backup.whole().diff_ids
    assert "target has 1 of 2 layers; they are not sent" in world.progress.notes


def test_a_target_that_refuses_what_is_left_out_gets_all_of_it() -> None:
    """Such as one whose image went meanwhile."""
    world = World(layout="layers")
    backup = _backup(world)
    target = _Target(backup.whole().diff_ids)
    assert world.restore(backup, RestoreRequest(tags=("back:1",)), host=target).identical
    assert any(note.startswith("target does not take it so; sending all") for note in world.progress.notes)
    with pytest.raises(IntegrityError):
        target.load_image([b"no archive"])
