# SPDX-License-Identifier: Apache-2.0
"""The layers of one ``docker save`` stream, stored while they come."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.layers.store import LayerStore, LayerWriter
from airflow_provider_dockerbackup.core.record import LayerBlob


@dataclass(slots=True)
class _Frame:
    """The zstd frame that came last.

    :param offset: where in the archive it begins.
    :param untouched: whether none of it was handed on.
    :param size_bytes: how many bytes of the archive it held; None before its end.
    """

    offset: int
    untouched: bool = True
    size_bytes: int | None = None

    def begins(self, offset: int) -> bool:
        """Tell whether it will be handed on from there."""
        return self.untouched and self.size_bytes is None and self.offset == offset


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
        self._frame: _Frame | None = None
        self._ended: tuple[str, int] | None = None

    def __enter__(self) -> Self:
        """Return the collector."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up the layer under way."""
        self._drop()

    def begin(self, member: str, *, offset: int) -> None:
        """Begin to store a member, unless none is wanted any more or it is known to be another one.

        It is stored as it comes if a frame began exactly where its body does, and none of the frame has gone by.
        """
        self._drop()
        if member not in self._known and self._wanted - self.stored.keys():
            as_it_comes = self._frame is not None and self._frame.begins(offset)
            self._writer = self._store.packed_layer() if as_it_comes else self._store.layer()

    def plain(self, piece: memoryview | bytes) -> None:
        """Store a piece."""
        if self._writer is not None:
            self._writer.write(piece)

    def end(self, *, diff_id: str | None, digest: str, size_bytes: int, compression: Compression) -> None:
        """Keep the member if it turned out to be a layer that is wanted; of one that comes packed, with its frame."""
        del digest
        writer = self._writer
        if writer is None or diff_id is None or diff_id not in self._wanted or diff_id in self.stored:
            self._drop()
        elif not writer.packed:
            self._publish(writer, diff_id)
        elif compression is Compression.NONE:
            self._ended = diff_id, size_bytes
            self._publish_packed()
        else:  # the frame holds the layer compressed once more
            self._drop()

    def begin_packed(self, *, offset: int) -> None:
        """Take note that a frame begins."""
        self._drop()
        self._frame = _Frame(offset)

    def packed(self, piece: bytes | memoryview) -> None:
        """Store a piece of the frame."""
        if self._frame is not None:
            self._frame.untouched = False
        if self._writer is not None and self._writer.packed:
            self._writer.write_packed(piece)

    def end_packed(self, *, size_bytes: int) -> None:
        """Take note that the frame is whole."""
        if self._frame is not None:
            self._frame.size_bytes = size_bytes
        self._publish_packed()

    def _publish_packed(self) -> None:
        """Keep a packed layer once both the frame and the member are whole, if both are the same bytes."""
        frame, writer = self._frame, self._writer
        if frame is None or frame.size_bytes is None or writer is None or not writer.packed or self._ended is None:
            return
        diff_id, size_bytes = self._ended
        if frame.size_bytes == size_bytes:
            self._publish(writer, diff_id)
        else:
            self._drop()

    def _publish(self, writer: LayerWriter, diff_id: str) -> None:
        self.stored[diff_id] = writer.publish(diff_id=diff_id)
        self._drop()

    def _drop(self) -> None:
        writer, self._writer, self._ended = self._writer, None, None
        if writer is not None:
            writer.close()
