# SPDX-License-Identifier: Apache-2.0
"""Write blobs so that each layer is stored once, whoever compresses it and however many do at once.

The order is law: pin, look, blob, layer map; each durable before the next. What another writer stored first is used.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Self

from airflow_provider_dockerbackup.core.archive.compression import layer_compressor
from airflow_provider_dockerbackup.core.document import compact_time, sha256_of
from airflow_provider_dockerbackup.core.encryption.stream import Encryptor, encrypted
from airflow_provider_dockerbackup.core.gc.pins import Pins
from airflow_provider_dockerbackup.core.layers.documents import EngineHint, LayerMap, hint_path, map_path
from airflow_provider_dockerbackup.core.places import BLOBS_FOLDER, blob_path
from airflow_provider_dockerbackup.core.ports import Progress, Storage
from airflow_provider_dockerbackup.core.record import Blob, LayerBlob
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import ConflictError, IntegrityError, NotFoundError, TransientError

_TRIES = 5


class LayerStore:
    """The blobs of a repository, for one try that writes. Safe to use from several threads.

    :param repository: of layout ``layers``.
    :param pins: keep what this try relies on.
    :param progress: told what was found damaged.
    :param level: of zstd, None for its default.
    :param threads: how many compress one layer.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        pins: Pins,
        progress: Progress,
        level: int | None = None,
        threads: int = 2,
    ) -> None:
        self._repository = repository
        self._storage = repository.storage
        self._recipients = repository.document.recipients
        self._pins = pins
        self._progress = progress
        self._level = level
        self.threads = threads
        self._lock = threading.Lock()
        self._new: dict[str, int] = {}

    @property
    def new_bytes(self) -> int:
        """What the blobs take that this try was the first to store."""
        with self._lock:
            return sum(self._new.values())

    @property
    def new(self) -> frozenset[str]:
        """Digests of the blobs that this try was the first to store."""
        with self._lock:
            return frozenset(self._new)

    def held(self, diff_ids: Iterable[str]) -> dict[str, LayerBlob]:
        """Return those of the layers that are there, pinned: their blobs stay until the pins are closed.

        A layer is there when its map is and the blob that it names has the recorded size. What a collection has
        condemned, or what was put aside as damaged, is not.
        """
        mapped = {diff_id: found for diff_id in dict.fromkeys(diff_ids) if (found := self._mapped(diff_id)) is not None}
        self._protect(each.digest for each in mapped.values())
        return {diff_id: blob for diff_id, blob in mapped.items() if self._size(blob.digest) == blob.stored_size_bytes}

    def layer(self, *, threads: int | None = None) -> LayerWriter:
        """Begin a new layer.

        :param threads: how many compress it; None for all that there are.
        """
        encryptor = Encryptor(self._recipients) if self._recipients else None
        return LayerWriter(self, level=self._level, threads=threads or self.threads, encryptor=encryptor)

    def put(self, data: bytes) -> Blob:
        """Store a small blob, a configuration or a manifest, and return it; one that is there is used."""
        return self.put_stored(encrypted(data, self._recipients) if self._recipients else data)

    def put_stored(self, data: bytes) -> Blob:
        """Store a small blob that is plain or encrypted already, as the repository has it, and return it."""
        blob = Blob(digest=sha256_of(data), size_bytes=len(data))
        self._protect([blob.digest])
        found = self._size(blob.digest)
        if found == blob.size_bytes and self._is(blob, data):
            return blob
        if found is not None:
            self._set_aside(blob.digest)
        try:
            self._storage.create(blob_path(blob.digest), data)
        except ConflictError:
            return blob  # another writer was faster: the same name is the same content
        self._count(blob.digest, blob.size_bytes)
        return blob

    def _is(self, blob: Blob, data: bytes) -> bool:
        try:
            return self._storage.read(blob_path(blob.digest)) == data
        except NotFoundError:
            return False  # a verification put it aside meanwhile

    def remember(self, hint: EngineHint) -> None:
        """Write down by which digest an engine calls a layer."""
        hint = self._as_stored(hint)
        try:
            self._storage.create(hint_path(hint), hint.to_bytes())
        except ConflictError:
            return

    def forget(self, hint: EngineHint) -> None:
        """Remove what was written down by :meth:`remember`."""
        self._storage.delete(hint_path(self._as_stored(hint)))

    def _as_stored(self, hint: EngineHint) -> EngineHint:
        return hint.model_copy(update={"diff_id": self._repository.layer_name(hint.diff_id)})

    def publish(self, writer: LayerWriter, *, diff_id: str) -> LayerBlob:
        """Make a layer that was written whole durable, and return the blob that holds it: ours, or an earlier one.

        :param diff_id: ``sha256:<hex>`` of what was written; proven by the caller.
        """
        if earlier := self.held([diff_id]):
            return earlier[diff_id]
        blob = LayerBlob(
            diff_id=self._repository.layer_name(diff_id),
            digest=writer.digest,
            size_bytes=writer.size_bytes,
            stored_size_bytes=writer.stored_size_bytes,
        )
        self._protect([blob.digest])
        found = self._size(blob.digest)
        if found != blob.stored_size_bytes:
            if found is not None:
                self._set_aside(blob.digest)
            self._commit(writer.commit, blob)
        used = self._map(blob, diff_id=diff_id)
        self._uncount(blob, used)
        return used

    def adopt(
        self, layer: LayerBlob, *, diff_id: str, chunks: Callable[[], AbstractContextManager[Iterator[bytes]]]
    ) -> LayerBlob:
        """Store the blob of another repository as it is, unless it is there, and return it as records name it here.

        The layer's map stays where it names another blob that is there. A new one is never written before the blob was
        read: one that is there already may hold anything.

        :param layer: as the other repository's records name it.
        :param diff_id: ``sha256:<hex>`` of the uncompressed layer.
        :param chunks: gives the blob; whoever gives it raises, before the end, what is wrong with it.
        """
        blob = layer.model_copy(update={"diff_id": self._repository.layer_name(diff_id)})
        self._protect([blob.digest])
        found = self._size(blob.digest)
        if found != blob.stored_size_bytes:
            if found is not None:
                self._set_aside(blob.digest)
            self._write(blob, chunks)
        elif not self.held([diff_id]):
            with chunks() as pieces:
                deque(pieces, maxlen=0)
        self._map(blob, diff_id=diff_id)
        return blob

    def _write(self, blob: LayerBlob, chunks: Callable[[], AbstractContextManager[Iterator[bytes]]]) -> None:
        writer = self._storage.staged(BLOBS_FOLDER)
        try:
            with chunks() as pieces:
                for piece in pieces:
                    writer.write(piece)
            self._commit(writer.commit, blob)
        finally:
            writer.close()

    def _commit(self, commit: Callable[[str], None], blob: LayerBlob) -> None:
        try:
            commit(blob.digest.removeprefix("sha256:"))
        except ConflictError:
            if self._size(blob.digest) != blob.stored_size_bytes:
                raise
            return
        self._count(blob.digest, blob.stored_size_bytes)

    def _map(self, blob: LayerBlob, *, diff_id: str) -> LayerBlob:
        """Write the layer's map and return the blob that it names in the end."""
        document = LayerMap(
            **blob.model_dump(include={"diff_id", "digest", "size_bytes", "stored_size_bytes"}),
            created_at=self._repository.clock.now(),
        )
        for _ in range(_TRIES):
            try:
                self._storage.create(map_path(blob.diff_id), document.to_bytes())
            except ConflictError:
                earlier = self.held([diff_id]).get(diff_id)
                if earlier is not None:
                    return earlier
                # It names a blob that is gone or damaged, or cannot be read.
                self._storage.delete(map_path(blob.diff_id))
            else:
                return blob
        raise TransientError(
            f"{self._storage.url}/{map_path(blob.diff_id)}: others keep changing it; try again, what was stored stays"
        )

    def _mapped(self, diff_id: str) -> LayerBlob | None:
        name = self._repository.layer_name(diff_id)
        path = map_path(name)
        try:
            found = LayerMap.from_bytes(self._storage.read(path), where=f"{self._storage.url}/{path}")
        except NotFoundError:
            return None
        except IntegrityError as err:
            self._progress.note(f"WARNING: {err}; the layer is fetched again")
            return None
        return found.blob if found.diff_id == name else None

    def _protect(self, digests: Iterable[str]) -> None:
        with self._lock:
            self._pins.protect(digests)

    def _size(self, digest: str) -> int | None:
        try:
            return self._storage.stat(blob_path(digest)).size_bytes
        except NotFoundError:
            return None

    def _set_aside(self, digest: str) -> None:
        """Move a blob that is not what its name says out of the way, so that it can be stored anew."""
        try:
            to = set_aside_path(digest, at=compact_time(self._repository.clock.now(), fraction=True))
            self._storage.move(blob_path(digest), to=to)
        except NotFoundError:
            return
        if not put_back(self._storage, to, digest):
            self._progress.note(f"WARNING: blob {digest} in {self._storage.url} was damaged; it was moved to {to}")

    def _uncount(self, blob: LayerBlob, used: LayerBlob) -> None:
        """Forget a blob that nobody will need, because another writer's is used for the same layer."""
        if blob.digest != used.digest:
            with self._lock:
                self._new.pop(blob.digest, None)

    def _count(self, digest: str, size_bytes: int) -> None:
        with self._lock:
            self._new[digest] = size_bytes


def digest_of(storage: Storage, path: str) -> str:
    """Return ``sha256:<hex>`` of the bytes of an object.

    :raises NotFoundError: when there is none.
    """
    found = hashlib.sha256()
    with storage.chunks(path) as chunks:
        for chunk in chunks:
            found.update(chunk)
    return f"sha256:{found.hexdigest()}"


def put_back(storage: Storage, path: str, digest: str) -> bool:
    """Move a blob back that was put aside, and tell so, if its bytes are good: another try stored them meanwhile.

    :param path: where it is.
    """
    if digest_of(storage, path) != digest:
        return False
    with suppress(ConflictError):
        storage.move(path, to=blob_path(digest))
    return True


def set_aside_path(digest: str, *, at: str) -> str:
    """Return where a damaged blob is moved to.

    :param at: time, for names that must differ.
    """
    return f"quarantine/{blob_path(digest)}-{at}-{secrets.token_hex(4)}"


class LayerWriter:
    """One layer being written: compressed with zstd on its way, nameless until it is published.

    :param store: where to.
    :param encryptor: encrypts what is stored; None leaves it plain.
    """

    def __init__(
        self, store: LayerStore, *, level: int | None, threads: int, encryptor: Encryptor | None = None
    ) -> None:
        self._store = store
        self._encryptor = encryptor
        self._writer = store._storage.staged(BLOBS_FOLDER)
        self._compressor = layer_compressor(level=level, threads=threads)
        self._sha256 = hashlib.sha256()
        self._ended = False
        self.size_bytes = 0
        self.stored_size_bytes = 0

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of the blob; ends the layer."""
        if not self._ended:
            self._ended = True
            self._encrypt(self._compressor.flush())
            if self._encryptor is not None:
                self._store_bytes(self._encryptor.finish())
        return f"sha256:{self._sha256.hexdigest()}"

    def write(self, chunk: bytes | memoryview) -> None:
        """Append a piece of the uncompressed layer."""
        self.size_bytes += len(chunk)
        self._encrypt(self._compressor.compress(chunk))

    def publish(self, *, diff_id: str) -> LayerBlob:
        """Make the layer durable; see :meth:`LayerStore.publish`."""
        blob = self._store.publish(self, diff_id=diff_id)
        self.close()
        return blob

    def commit(self, digest: str) -> None:
        """Give the blob its name.

        :raises ConflictError: when there is one of that name.
        """
        self._writer.commit(digest.removeprefix("sha256:"))

    def close(self) -> None:
        """Release everything; a layer that was not published leaves nothing behind."""
        if self._encryptor is not None:
            self._encryptor.close()
        self._writer.close()

    def _encrypt(self, data: bytes) -> None:
        self._store_bytes(data if self._encryptor is None or not data else self._encryptor.encrypt(data))

    def _store_bytes(self, data: bytes) -> None:
        if data:
            self._sha256.update(data)
            self.stored_size_bytes += len(data)
            self._writer.write(data)
