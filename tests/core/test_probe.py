# SPDX-License-Identifier: Apache-2.0
"""The probe finds each promise that a storage breaks, says what to do, and removes what it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from airflow_provider_dockerbackup.core.model import ObjectInfo
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.probe import probe
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.memory import FixedClock, MemoryStorage, MemoryWriter


class Replacing(MemoryStorage):
    """A store that knows no conditional writes."""

    def create(self, path: str, data: bytes) -> None:
        """Replace what is there."""
        try:
            super().create(path, data)
        except ConflictError:
            self.delete(path)
            super().create(path, data)


class Flipping(MemoryStorage):
    """A store that changes a bit of what it streams."""

    @contextmanager
    def chunks(self, path: str) -> Iterator[Iterator[bytes]]:
        """Stream an object with its first bit flipped."""
        with super().chunks(path) as chunks:
            yield (bytes([chunk[0] ^ 1]) + chunk[1:] for chunk in chunks)


class Publishing(MemoryStorage):
    """A store that commits what was given up, as a file of fsspec does at the end of its ``with``."""

    def writer(self, path: str) -> MemoryWriter:
        """Begin an object that nobody can give up."""

        class Committing(MemoryWriter):
            def close(self) -> None:
                if self._open:
                    self.commit()
                super().close()

        return Committing(self, path)


class Overwriting(MemoryStorage):
    """Moves over what is there."""

    def move(self, path: str, *, to: str) -> None:
        """Replace what is there."""
        self.delete(to)
        super().move(path, to=to)


class Forgetful(MemoryStorage):
    """A store whose listings lag behind."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Leave out what is new."""
        return (info for info in super().list(prefix) if not info.path.endswith("/listed"))


class ReadOnly(MemoryStorage):
    """A store that grants no right to write."""

    def create(self, path: str, data: bytes) -> None:
        """Refuse."""
        raise ConfigurationError(f"cannot write {path}: AccessDenied")


class Undeletable(MemoryStorage):
    """A store that grants no right to delete."""

    def delete(self, path: str) -> None:
        """Refuse."""
        raise ConfigurationError(f"cannot delete {path}: AccessDenied")


def failed(storage: Storage) -> list[str]:
    """Names of the promises that the probe found broken."""
    report = probe(storage, clock=SystemClock())
    broken = [check for check in report.checks if not check.ok]
    assert report.ok is not bool(broken)
    assert all(check.detail for check in report.checks)
    return [check.name for check in broken]


def test_sound_storage_passes_and_nothing_is_left() -> None:
    """Every check is made and named."""
    storage = MemoryStorage()
    report = probe(storage, clock=SystemClock())
    assert report.ok
    assert len(report.checks) == 10
    assert report.url == storage.url
    assert list(storage.list("")) == []


def test_foreign_objects_are_left_alone() -> None:
    """A repository that is in use can be probed."""
    storage = MemoryStorage()
    storage.create("backups/a/backup.json", b"x")
    storage.create("probe/other", b"x")
    assert probe(storage, clock=SystemClock()).ok
    assert sorted(info.path for info in storage.list("")) == ["backups/a/backup.json", "probe/other"]


def test_storage_that_replaces_is_found_out() -> None:
    """Where a second document replaces the first, two tasks at once would harm each other."""
    storage = Replacing()
    assert failed(storage) == [
        "create-only documents",
        "create-only archives",
        "objects named at their end",
        "moves",
    ]
    assert list(storage.list("")) == []


def test_storage_that_changes_bytes_is_found_out() -> None:
    """What is read must be what was written."""
    assert "read back equal" in failed(Flipping())


def test_storage_that_publishes_aborted_archives_is_found_out() -> None:
    """A truncated archive must never become visible."""
    storage = Publishing()
    assert failed(storage) == ["aborted archives leave nothing"]
    assert list(storage.list("")) == []


def test_storage_that_moves_over_objects_is_found_out() -> None:
    """Nothing that is moved out of the way may be lost."""
    assert failed(Overwriting()) == ["moves"]


def test_storage_whose_listing_lags_is_found_out() -> None:
    """The catalog is a listing: what it does not show does not exist."""
    assert failed(Forgetful()) == ["listing is up to date"]


def test_nothing_more_is_tried_when_nothing_can_be_written() -> None:
    """One clear reason, not nine that follow from it."""
    assert failed(ReadOnly()) == ["writable"]


def test_missing_right_to_delete_is_found_out() -> None:
    """Rotation will need it."""
    assert failed(Undeletable()) == ["listing is up to date", "cleaned up"]


def test_clock_that_is_wrong_is_found_out() -> None:
    """With clocks apart, ages mean nothing and nothing may be deleted by them."""
    store, machine = FixedClock(), FixedClock()
    machine.advance(timedelta(seconds=301))
    report = probe(MemoryStorage(clock=store), clock=machine)
    assert [check.name for check in report.checks if not check.ok] == ["clocks agree"]
    assert report.skew_seconds == 301
    machine = FixedClock()
    machine.advance(timedelta(seconds=299))
    assert probe(MemoryStorage(clock=store), clock=machine).ok
