# SPDX-License-Identifier: Apache-2.0
"""Several requests at once: a store on a network answers each after its own time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def several(action: Callable[[_T], _R], items: Iterable[_T], *, threads: int) -> Iterator[_R]:
    """Yield ``action`` of each item, in order; a few are ahead of what was taken, and none is begun after an error.

    :param threads: how many at once; with 1 everything happens in the caller's thread.
    """
    if threads == 1:
        yield from map(action, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="dockerbackup-gc")
    pending: deque[Future[_R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(action, item))
            if len(pending) >= 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
