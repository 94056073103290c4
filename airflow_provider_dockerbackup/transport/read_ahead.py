# SPDX-License-Identifier: Apache-2.0
"""A stream read in a thread of its own, so that hashing and sending go on at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PIECES = 8


@dataclass(frozen=True, slots=True)
class _End:
    """What the reading thread says last."""

    error: BaseException | None = None


@contextmanager
def read_ahead(chunks: Iterable[bytes], *, pieces: int = PIECES) -> Iterator[Iterator[bytes]]:
    """Give ``chunks`` as they are, read up to ``pieces`` ahead; what they raise is raised here, in its place.

    When it is left early, nothing more is read than the piece that is being read; the thread has ended then.
    """
    held: queue.Queue[bytes | _End] = queue.Queue(maxsize=pieces)
    stopped = threading.Event()

    def read() -> None:
        error: BaseException | None = None
        try:
            for chunk in chunks:
                held.put(chunk)
                if stopped.is_set():
                    return
        except BaseException as err:  # noqa: BLE001 - whatever it is, the reader of the stream gets it
            error = err
        held.put(_End(error))

    thread = threading.Thread(target=read, name="dockerbackup-read-ahead", daemon=True)
    thread.start()
    try:
        yield _taken(held)
    finally:
        stopped.set()
        while thread.is_alive():
            while not held.empty():
                held.get_nowait()
            thread.join(0.01)


def _taken(held: queue.Queue[bytes | _End]) -> Iterator[bytes]:
    while not isinstance(each := held.get(), _End):
        yield each
    if each.error is not None:
        raise each.error
