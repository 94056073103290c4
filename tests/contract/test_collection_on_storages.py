# SPDX-License-Identifier: Apache-2.0
"""Garbage is collected while three tries store, on real local storage and a real S3 server: no backup loses a blob.

Without any grace, so that nothing but the protocol protects them; a barrier before each call to the storage, after
which one goes on, or all at once; and deaths.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from airflow_provider_dockerbackup.core.gc.pins import Pins
from airflow_provider_dockerbackup.core.layers.store import LayerStore
from airflow_provider_dockerbackup.core.places import RECORD_FILE, blob_path
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.record import BackupRecord
from airflow_provider_dockerbackup.exceptions import ConflictError
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.faults import FaultyStorage
from tests.core.gc.making import Layered
from tests.core.gc.turns import HastyClock, TurnPlan, Turns, run_together
from tests.core.world import Notes

WRITERS = ("writer-1", "writer-2", "writer-3")
SWEEPERS = ("sweeper-1", "sweeper-2")
GARBAGE = ("shared", "base")
_LATEST_BEGIN = 40  # calls of others, before a try begins

NewStorage = Callable[[], Storage]


@pytest.fixture(params=["local", "s3"])
def new_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewStorage]:
    """Makes empty storages of one kind."""
    if request.param == "local":
        yield lambda: LocalStorage(tmp_path / uuid4().hex)
    else:
        server = request.getfixturevalue("atomic_s3")
        yield lambda: storage_from_url(f"s3://{server.bucket}/{uuid4().hex}", **server.storage_options)


class Scene:
    """A repository with garbage that three tries are about to need, and two sweepers."""

    def __init__(self, storage: Storage, turns: Turns, *, seed: int) -> None:
        self._turns = turns
        chosen = random.Random(seed)  # noqa: S311 - schedules, not secrets
        self._idle = {actor: chosen.randint(0, _LATEST_BEGIN) for actor in WRITERS}
        self.made = Layered(storage=storage, clock=HastyClock())
        for name in GARBAGE:
            self.made.layer(name)
        self.records = {actor: self.made.record([*GARBAGE, f"own {actor}"], files=False) for actor in WRITERS}
        self.notes = Notes()
        self.trashed = 0

    def _storage(self, actor: str) -> FaultyStorage:
        return FaultyStorage(self.made.storage, TurnPlan(self._turns, actor))

    def write(self, actor: str) -> None:
        """Make a backup, as a try does: pin, look, store, look again, record, look once more."""
        plan = TurnPlan(self._turns, actor)
        storage = FaultyStorage(self.made.storage, plan)
        for _ in range(self._idle[actor]):
            plan.call("nothing yet", lambda: None)
        repository = self.made.on(storage)
        path, record = self.records[actor]
        with Pins(repository, attempt=f"{actor}-0", clock=HastyClock(), progress=self.notes) as pins:
            store = LayerStore(repository, pins=pins, progress=self.notes, threads=1)
            for name in self._names(record):
                store.put(name.encode())
            pins.require_fresh()
            self._require_blobs(storage, record)
            storage.create(path + RECORD_FILE, record.to_bytes())
            self._require_blobs(storage, record)

    def sweep(self, actor: str) -> None:
        """Collect garbage, again and again, until all backups are there or their writers are gone."""
        for _ in range(3):
            try:
                self.trashed += self.made.collect(self._storage(actor), grace_hours=0).done.trashed
            except ConflictError:  # the other sweeper holds the lease
                continue

    def _names(self, record: BackupRecord) -> list[str]:
        blobs = record.blobs
        assert blobs is not None
        number = int(record.backup_id[-16:], 16)
        own = next(actor for actor, (_, each) in self.records.items() if each is record)
        return [*GARBAGE, f"own {own}", f"manifest {number}", f"config {number}"]

    @staticmethod
    def _require_blobs(storage: Storage, record: BackupRecord) -> None:
        for digest, size_bytes in record.blob_sizes.items():
            assert storage.stat(blob_path(digest)).size_bytes == size_bytes


def play(new_storage: NewStorage, seed: int, *, together: bool, deaths: int) -> tuple[Scene, dict[str, BaseException]]:
    """Let them all work at once, and return what became of it."""
    actors = [*WRITERS, *SWEEPERS]
    turns = Turns(actors, seed=seed, together=together, deaths=deaths)
    scene = Scene(new_storage(), turns, seed=seed)
    work: dict[str, Callable[[], None]] = {}
    for actor in WRITERS:
        work[actor] = lambda actor=actor: scene.write(actor)  # type: ignore[misc]
    for actor in SWEEPERS:
        work[actor] = lambda actor=actor: scene.sweep(actor)  # type: ignore[misc]
    return scene, run_together(turns, work)


def seeds(request: pytest.FixtureRequest) -> range:
    """How many schedules: real requests to a server take longer than files."""
    local = "local" in request.node.callspec.id
    return range(24 if local else 4)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "all at once"])
def test_no_backup_loses_a_blob_however_tries_and_sweepers_meet(
    new_storage: NewStorage, request: pytest.FixtureRequest, together: bool
) -> None:
    """Every try ends with a whole backup; sweepers took garbage away that was needed a moment later, and waited."""
    trashed = waited = 0
    for seed in seeds(request):
        scene, errors = play(new_storage, seed, together=together, deaths=0)
        assert errors == {}, seed
        assert len(list(scene.made.repository.catalog.each())) == len(WRITERS), seed
        for backup in scene.made.repository.catalog.each():
            assert backup.complete, seed
        assert scene.made.has(*GARBAGE), seed
        assert scene.made.paths("pins") == scene.made.paths("gc/condemned") == [], seed
        trashed += scene.trashed
        waited += sum("waiting for a garbage collection" in note for note in scene.notes.notes)
    assert trashed > 0
    print(f"{trashed} blobs went to the trash, {waited} times a try waited")


def test_no_backup_loses_a_blob_when_some_of_them_die(new_storage: NewStorage, request: pytest.FixtureRequest) -> None:
    """Whoever dies wherever: each record that is there is whole, and the next collection puts the rest right."""
    for seed in seeds(request):
        scene, errors = play(new_storage, 1000 + seed, together=False, deaths=2)
        assert len(errors) <= 2, (seed, errors)
        for backup in scene.made.repository.catalog.each():
            assert backup.complete, seed
        if "local" in request.node.callspec.id:  # on S3 pins and leases of the dead have their time first
            scene.made.collect(grace_hours=0)
            needed = {digest for each in scene.made.repository.catalog.each() for digest in each.whole().blob_sizes}
            assert scene.made.blobs() == needed, seed
            assert scene.made.paths("pins") == scene.made.paths("gc/condemned") == []


@pytest.mark.parametrize("new_storage", ["local"], indirect=True)
def test_tries_that_do_not_wait_for_condemned_blobs_are_caught(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs above can fail: without that wait some try finds, at its last look or too late, that a blob is gone."""
    monkeypatch.setattr(Pins, "_await_acquittal", lambda *_: None)
    for seed in range(40):
        scene, errors = play(new_storage, seed, together=False, deaths=0)
        if errors or not all(each.complete for each in scene.made.repository.catalog.each()):
            return
    pytest.fail("nothing was lost in 40 schedules")
