# SPDX-License-Identifier: Apache-2.0
"""The lease of which one sweeper at most holds one, without a lock server.

Leases have numbers and are create-only, so of several that want the next number one gets it. Numbers are never used
again: the highest stays when it is over. The holder keeps its lease open with a storage writer; a lease is over when it
is released, when its writer is gone, or, where there are no locks, when it is old by the storage's own clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from airflow_provider_dockerbackup.core.gc.documents import LEASE_PATH, LEASES, lease_path, release_path
from airflow_provider_dockerbackup.core.storage import Storage
from airflow_provider_dockerbackup.exceptions import NotFoundError

# A sweeper takes nothing away any more when its lease is older than LEASE - MARGIN, by its own clocks; nobody takes it
# for dead before LEASE + MARGIN, by the storage's clock. A step may hang for twice the margin without harm.
LEASE_SECONDS: Final = 900.0
MARGIN_SECONDS: Final = 120.0


def lease_numbers(storage: Storage) -> tuple[dict[int, bool], tuple[str, ...]]:
    """Return each lease's number and whether it was released, and the paths of objects there that are no leases."""
    taken: set[int] = set()
    released: set[int] = set()
    others = []
    for info in storage.list(LEASES):
        match = LEASE_PATH.fullmatch(info.path)
        if match is None:
            others.append(info.path)
        else:
            (released if match["released"] else taken).add(int(match["number"]))
    return {number: number in released for number in sorted(taken | released)}, tuple(others)


def is_live(storage: Storage, number: int) -> bool:
    """Tell whether the holder of this lease may still take blobs away."""
    path = lease_path(number)
    try:
        if storage.is_abandoned(path, older_than_seconds=LEASE_SECONDS + MARGIN_SECONDS):
            return False
    except NotFoundError:
        return False  # somebody with a later lease cleared it away
    try:
        storage.stat(release_path(number))
    except NotFoundError:
        return True
    return False


def live_leases(storage: Storage, numbers: Iterable[int]) -> tuple[int, ...]:
    """Return which of the leases are live."""
    return tuple(number for number in numbers if is_live(storage, number))
