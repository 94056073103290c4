# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.sample import Sample, SampleRequest, draw_sample
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from tests.core.faults import Fault, FaultyStorage, Plan
from tests.core.world import CONTAINER, IMAGE, World, spoil


def _world(runs: int) -> tuple[World, list[str]]:
    """Return a world with so many backups of one image, and their ids, oldest first."""
    world = World()
    return world, [world.backup(run).backup.backup_id for run in range(1, runs + 1)]


def _draw(world: World, **request: Any) -> Sample:
    return draw_sample(world.repository, SampleRequest(**request), progress=world.progress)


def _by_reason(sample: Sample) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pick in sample.picks:
        found.setdefault(pick.reason, []).append(pick.backup.backup_id)
    return found


def test_the_newest_the_oldest_and_some_others_are_chosen() -> None:
    """Each has the reason it was chosen for, and the random ones are none of the others."""
    world, ids = _world(12)
    sample = _draw(world, newest=2, oldest=3, random=2, seed="a")
    found = _by_reason(sample)
    assert found["newest"] == [ids[11], ids[10]]
    assert found["oldest"] == [ids[2], ids[1], ids[0]]
    assert len(found["random"]) == 2
    assert set(found["random"]) <= set(ids[3:10])
    assert sample.population == 12


def test_the_same_seed_chooses_the_same_and_other_seeds_choose_all_in_time() -> None:
    """A retry drills what the first try drilled; no backup is left out for ever."""
    world, ids = _world(10)
    once, twice = (_by_reason(_draw(world, seed="run 1"))["random"] for _ in range(2))
    assert once == twice
    drawn = {_by_reason(_draw(world, seed=f"run {number}"))["random"][0] for number in range(100)}
    assert drawn == set(ids[1:9])


@pytest.mark.parametrize("runs", [0, 1, 2, 3])
def test_few_backups_are_each_chosen_once(runs: int) -> None:
    """A backup that is the newest and the oldest is one drill, not two."""
    world, ids = _world(runs)
    sample = _draw(world, newest=2, oldest=2, random=2)
    assert sorted(pick.backup.backup_id for pick in sample.picks) == sorted(ids)


def test_damaged_backups_are_always_chosen_besides() -> None:
    """An unreadable record or a file that is missing or short must come to light in the drill."""
    world, ids = _world(8)
    unreadable, short, gone = (world.repository.catalog.find(each) for each in ids[2:5])
    spoil(world.storage, f"{unreadable.path}backup.json", data=b"{}")
    spoil(world.storage, short.path + short.whole().archive_file.name, data=b"short")
    world.storage.delete(gone.path + gone.whole().archive_file.name)
    found = _by_reason(_draw(world, newest=1, oldest=0, random=0))
    assert sorted(found["damaged"]) == sorted(ids[2:5])
    assert found["newest"] == [ids[7]]


def test_only_what_matches_is_drawn_from() -> None:
    """Host and name are patterns, and the population is what they leave."""
    world, _ = _world(3)
    container = world.backup(4, CONTAINER).backup.backup_id
    sample = _draw(world, names=["we*"], hosts=["ship-?"])
    assert [pick.backup.backup_id for pick in sample.picks] == [container]
    assert sample.population == 1
    assert _draw(world, hosts=["other"]).picks == ()
    assert _draw(world, names=[IMAGE.name, "web"]).population == 4


def test_the_choice_is_in_the_audit_trail() -> None:
    """Who reads it later sees what was drawn, from how many, and by which seed."""
    world, _ = _world(3)
    sample = _draw(world, seed="run 7")
    events = [json.loads(world.storage.read(info.path)) for info in world.storage.list("audit")]
    (event,) = [each for each in events if each["type"] == "sample.drawn"]
    assert event["object"]["seed"] == "run 7"
    assert event["object"]["population"] == 3
    assert event["object"]["picks"] == [
        {"backup_id": pick.backup.backup_id, "reason": pick.reason} for pick in sample.picks
    ]


def test_a_trail_that_cannot_be_written_stops_no_drill() -> None:
    """The log says loudly that the event is missing."""
    world, ids = _world(1)
    plan = Plan()
    draw_sample(world.on(FaultyStorage(world.storage, plan)), SampleRequest(), progress=world.progress)
    (last,) = [number for number, call in enumerate(plan.calls, start=1) if call.startswith("create audit/")]
    faulty = FaultyStorage(world.storage, Plan(last, Fault.REFUSED))
    sample = draw_sample(world.on(faulty), SampleRequest(), progress=world.progress)
    assert [pick.backup.backup_id for pick in sample.picks] == ids
    assert any("WARNING" in note and "audit" in note for note in world.progress.notes)


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"newest": -1}, "newest"),
        ({"oldest": True}, "oldest"),
        ({"random": 1.5}, "random"),
        ({"newest": 0, "oldest": 0, "random": 0}, "all 0"),
        ({"hosts": "web*"}, "hosts"),
        ({"names": []}, "names"),
    ],
)
def test_what_cannot_be_meant_is_refused(request_: dict[str, Any], told: str) -> None:
    """The message names the field."""
    with pytest.raises(ConfigurationError, match=told):
        SampleRequest(**request_).check()
