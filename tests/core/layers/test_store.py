# SPDX-License-Identifier: Apache-2.0
"""Several tries store the same blobs at once: nobody takes the other's away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.gc.pins import Pins
from airflow_provider_dockerbackup.core.layers.store import LayerStore
from airflow_provider_dockerbackup.core.model import ObjectInfo
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.transport.memory import FixedClock, MemoryStorage
from tests.core.faults import FaultyStorage, Plan
from tests.core.gc.making import Layered
from tests.core.world import Notes

DATA = b"a layer that two hosts save at once"
DIFF_ID = sha256_of(DATA)


class Racing(FaultyStorage):
    """A storage on which another try stores the same blob right after we looked for it.

    :param before: whether something damaged was in its place until then.
    """

    def __init__(self, inner: Storage, path: str, content: bytes) -> None:
        super().__init__(inner, Plan())
        self._other = inner
        self._path = path
        self._content = content
        self._raced = False

    def stat(self, path: str) -> ObjectInfo:
        """Say what was there, and let the other act."""
        try:
            return super().stat(path)
        finally:
            if path == self._path and not self._raced:
                self._raced = True
                self._other.delete(path)
                self._other.create(path, self._content)


@contextmanager
def store_on(made: Layered, storage: Storage) -> Iterator[LayerStore]:
    """The blobs of a repository, for one try."""
    repository = made.on(storage)
    with Pins(repository, attempt="fedcba987654", clock=FixedClock(), progress=Notes()) as pins:
        yield LayerStore(repository, pins=pins, progress=made.notes, threads=1)


def layer_digest() -> tuple[str, bytes]:
    """Name and content of the blob of the layer."""
    made = Layered(storage=MemoryStorage(), clock=FixedClock())
    with store_on(made, made.storage) as store, store.layer() as writer:
        writer.write(DATA)
        blob = writer.publish(diff_id=DIFF_ID)
    return blob.digest, made.storage.read(blob_path(blob.digest))


@pytest.mark.parametrize("damaged", [False, True], ids=["not there before", "damaged before"])
@pytest.mark.parametrize("kind", ["layer", "document"])
def test_a_blob_that_another_try_stored_meanwhile_stays(damaged: bool, kind: str) -> None:
    """It is used; it was never away for longer than a look at it takes."""
    digest, content = layer_digest() if kind == "layer" else (sha256_of(DATA), DATA)
    made = Layered(storage=MemoryStorage(), clock=FixedClock())
    if damaged:
        made.storage.create(blob_path(digest), b"damaged")
    with store_on(made, Racing(made.storage, blob_path(digest), content)) as store:
        if kind == "document":
            store.put(DATA)
        else:
            with store.layer() as writer:
                writer.write(DATA)
                assert writer.publish(diff_id=DIFF_ID).digest == digest
        assert store.new_bytes == 0
    assert made.storage.read(blob_path(digest)) == content
    assert made.paths("quarantine") == []
