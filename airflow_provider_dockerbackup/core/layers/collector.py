# SPDX-License-Identifier: Apache-2.0
"""The layers of one ``docker save`` stream, stored while they come."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType
from typing import Self

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.layers.store import LayerStore, LayerWriter
from airflow_provider_dockerbackup.core.record import LayerBlob


class LayerCollector:
    """A :class:`~airflow_provider_dockerbackup.core.archive.layer_reader.LayerConsumer` that stores what is wanted.

    :param store: where to.
    :param wanted: diff_ids of the layers that are not there yet.
    :param known: names of members that hold none of them, as far as can be told; they are not compressed.
    """

    def __init__(self, store: LayerStore, *, wanted: Collection[str], known: Collection[str] = ()) -> None:
        self.stored: dict[str, LayerBlob] = {}
        self._store = store
        self._wanted = frozenset(wanted)
        self._known = frozenset(known)
        self._writer: LayerWriter | None = None

    def __enter__(self) -> Self:
        """Return the collector."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up the layer under way."""
        self._drop()

    def begin(self, member: str) -> None:
        """Begin to store a member, unless none is wanted any more or it is known to be another one."""
        self._drop()
        if member not in self._known and self._wanted - self.stored.keys():
            self._writer = self._store.layer()

    def plain(self, piece: memoryview | bytes) -> None:
        """Store a piece."""
        if self._writer is not None:
            self._writer.write(piece)

    def end(self, *, diff_id: str | None, digest: str, size_bytes: int, compression: Compression) -> None:
        """Keep the member if it turned out to be a layer that is wanted."""
        del digest, size_bytes, compression
        writer = self._writer
        if writer is not None and diff_id in self._wanted and diff_id not in self.stored:
            self.stored[diff_id] = writer.publish(diff_id=diff_id)
        self._drop()

    def _drop(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
