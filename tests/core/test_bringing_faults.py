# SPDX-License-Identifier: Apache-2.0
"""A conversion or a copy that is cut anywhere harms nothing, shows nothing half, and goes on when it is run again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.audit.proof import prove
from airflow_provider_dockerbackup.core.audit.reading import stored_events
from airflow_provider_dockerbackup.core.repository import REPOSITORY_FILE
from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.bringing import Bringing
from tests.core.conversion.making import Conversion
from tests.core.copies.making import Copies
from tests.core.faults import Death, Fault, FaultyStorage, Plan
from tests.core.world import assert_all_whole, assert_nothing_left, bury, paths

PIECE_BYTES = 3000
RACERS = 6
WAYS = pytest.mark.parametrize("way", [Conversion, Copies])
LAYOUTS = pytest.mark.parametrize("layout", ["archive", "layers"])
FAULTS = pytest.mark.parametrize("fault", list(Fault))


Way = type[Conversion] | type[Copies]


def _filled(way: Way, layout: str, folder: Path | None = None) -> Bringing:
    return way(layout, target=LocalStorage(folder) if folder is not None else None).fill(next_version=False)


def _broken(made: Bringing, *, source: Plan, target: Plan) -> str:
    """Convert or copy with faults, and return how it ended."""
    try:
        outcome = made.run(
            source=FaultyStorage(made.world.storage, source, piece_bytes=PIECE_BYTES),
            target=FaultyStorage(made.target, target, piece_bytes=PIECE_BYTES),
        )
    except TransientError:
        return "TransientError"
    except Death:
        pass
    else:
        assert outcome.failed == ()
        return "done"
    bury()
    return "Death"


def _assert_recovers(made: Bringing, before: dict[str, bytes]) -> None:
    """Require what must hold right after a fault, and after the next run."""
    assert made.everything() == before
    if REPOSITORY_FILE in paths(made.target, prefix=""):
        held = {each.backup_id: each.holds for each in made.world.repository.catalog.backups()}
        for backup in assert_all_whole(made.repository):
            assert backup.holds == held[backup.backup_id]
    outcome = made.run()
    assert outcome.failed == ()
    assert {each.state for each in outcome.results} <= {made.done, "finished", "already"}
    made.assert_same()
    assert_nothing_left(made.repository)
    assert prove(stored_events(made.target, keys={}), keys_given=False).intact
    assert {each.state for each in made.run().results} == {"already"}
    assert made.world.progress.open == 0


@WAYS
@LAYOUTS
@pytest.mark.parametrize(
    ("kind", "fault"),
    [*(("memory", fault) for fault in Fault), ("local", Fault.DEATH), ("local", Fault.DEATH_AFTER)],
    ids=str,
)
def test_a_run_that_meets_a_fault_of_the_target_goes_on(
    way: Way, layout: str, fault: Fault, kind: str, tmp_path: Path
) -> None:
    """Each call to the storage fails once, in each way."""
    filled, counting = _filled(way, layout), Plan()
    before = filled.everything()
    assert _broken(filled, source=Plan(), target=counting) == "done"
    ends = set()
    for at in range(1, len(counting.calls) + 1):
        made = filled.anew(LocalStorage(tmp_path / str(at)) if kind == "local" else None)
        ends.add(_broken(made, source=Plan(), target=Plan(at, fault)))
        _assert_recovers(made, before)
    told = "Death" if fault in {Fault.DEATH, Fault.DEATH_AFTER} else "TransientError"
    assert told in ends
    assert ends <= {told, "done"}


@FAULTS
@WAYS
@LAYOUTS
def test_a_run_that_meets_a_fault_of_the_source_goes_on(way: Way, layout: str, fault: Fault) -> None:
    """Each call fails once, in each way; nothing but calls that read is ever made."""
    filled, counting = _filled(way, layout), Plan()
    before = filled.everything()
    assert _broken(filled, source=counting, target=Plan()) == "done"
    assert {call.split()[0] for call in counting.calls} <= {"read", "stat", "list", "chunks", "piece"}
    for at in range(1, len(counting.calls) + 1):
        made = filled.anew()
        ended = _broken(made, source=Plan(at, fault), target=Plan())
        assert ended == ("Death" if fault in {Fault.DEATH, Fault.DEATH_AFTER} else "TransientError")
        _assert_recovers(made, before)


@WAYS
@LAYOUTS
@pytest.mark.parametrize("kind", ["memory", "local"])
def test_of_several_runs_at_once_each_backup_is_committed_by_one(
    way: Way, layout: str, kind: str, tmp_path: Path
) -> None:
    """They harm neither each other nor the source, and leave nothing."""
    made = _filled(way, layout, tmp_path / "target" if kind == "local" else None)
    before, barrier = made.everything(), threading.Barrier(RACERS)

    def race(_: int) -> list[str]:
        barrier.wait()
        return [each.state for each in made.run().results]

    with ThreadPoolExecutor(RACERS) as pool:
        ends = list(pool.map(race, range(RACERS)))
    for states in zip(*ends, strict=True):
        assert states.count(made.done) == 1
        assert set(states) <= {made.done, "finished", "already"}
    assert made.everything() == before
    made.assert_same()
    assert_nothing_left(made.repository)


@LAYOUTS
def test_the_record_of_a_copy_comes_after_all_that_goes_with_it_was_read_back_and_before_its_event(layout: str) -> None:
    """The order of calls is law: bytes, read back, what holds the backup, record, event."""
    made, plan = _filled(Copies, layout), Plan()
    assert _broken(made, source=Plan(), target=plan) == "done"
    held = next(each for each in made.repository.catalog.backups() if each.holds)
    record = plan.calls.index(f"create {held.path}backup.json")
    names = list(held.whole().files) if layout == "archive" else []
    objects = {held.path + name for name in names} | {f"blobs/sha256/{each[7:]}" for each in held.whole().blob_sizes}
    for path in objects:
        written = plan.calls.index(next(call for call in plan.calls if call in (f"commit {path}", f"create {path}")))
        assert written < plan.calls.index(f"chunks {path}") < record
    documents = [n for n, call in enumerate(plan.calls) if call.startswith("create " + held.path)]
    kinds = [plan.calls[n].rsplit("/", 1)[1].partition("-2")[0] for n in documents]
    assert kinds == ["confirmed", "hold", "backup.json"]
    assert next(call for call in plan.calls[record + 1 :] if call.startswith("create")).startswith("create audit/")


def test_the_record_of_a_conversion_comes_after_all_that_goes_with_it_and_before_its_event() -> None:
    """The order of writes is law: bytes, what holds the backup, record, event, verification."""
    made = _filled(Conversion, "archive")
    plan = Plan()
    assert _broken(made, source=Plan(), target=plan) == "done"
    held = next(each for each in made.repository.catalog.backups() if each.holds)
    written = [call for call in plan.calls if call.startswith(("create", "commit"))]
    first = next(n for n, call in enumerate(written) if held.path in call)
    mine = [n for n, call in enumerate(written) if held.path in call and n >= first]
    names = [written[n].rsplit("/", 1)[1].partition("-2")[0] for n in mine]
    assert names == ["oci-layout", "index.json", "confirmed", "hold", "backup.json", "verification"]
    record = next(n for n in mine if written[n].endswith("backup.json"))
    assert written[record + 1].startswith("create audit/")
