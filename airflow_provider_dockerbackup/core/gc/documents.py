# SPDX-License-Identifier: Apache-2.0
"""What writers and sweepers tell each other, and where it stands; all of it comes and goes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from airflow_provider_dockerbackup.core.document import Document, UtcTime

PINS: Final = "pins"
LEASES: Final = "gc/lease"
CONDEMNED: Final = "gc/condemned"
TRASH: Final = "trash"
MOST_DIGESTS: Final = 1000  # in one document
PIN_PATH: Final = re.compile(rf"{PINS}/(?P<attempt>[^/]+)/(?P<number>\d{{4,}})\.json")
CONDEMNED_PATH: Final = re.compile(rf"{CONDEMNED}/(?P<gc>[^/]+)/(?P<number>\d{{4,}})\.json")
TRASH_PATH: Final = re.compile(rf"{TRASH}/(?P<gc>[^/]+)/(?P<path>(?:blobs/sha256|layers/sha256|backups)/.+)")
CLOSED_PATH: Final = re.compile(rf"{TRASH}/(?P<gc>[^/]+)/closed\.json")
LEASE_PATH: Final = re.compile(rf"{LEASES}/(?P<number>\d{{8,}})(?P<released>-released)?\.json")


class PinDocument(Document):
    """``pins/<attempt>/<n>.json``: a writer relies on these blobs; its writer stays open as long as that holds.

    :param digests: ``sha256:<hex>``.
    """

    attempt: str
    pinned_at: UtcTime
    digests: tuple[str, ...]


class LeaseDocument(Document):
    """``gc/lease/<n>.json``: somebody collects garbage; ``<n>-released.json`` beside it: no longer.

    :param gc: name of the collection.
    """

    gc: str
    taken_at: UtcTime
    actor: dict[str, str]


class CondemnedDocument(Document):
    """``gc/condemned/<gc>/<n>.json``: these blobs go unless somebody pins them now.

    :param lease: number of the lease under which they go; without it the mark means nothing.
    :param digests: ``sha256:<hex>``.
    """

    gc: str
    lease: int
    digests: tuple[str, ...]


class ReleaseDocument(Document):
    """``gc/lease/<n>-released.json``: the holder of this lease takes nothing away any more."""

    lease: int
    released_at: UtcTime


class ClosedDocument(Document):
    """``trash/<gc>/closed.json``: nothing comes to this trash any more; its time is when the trash begins to age."""

    gc: str
    closed_at: UtcTime


def pin_path(attempt: str, number: int) -> str:
    """Return where a try's pins of this number stand."""
    return f"{PINS}/{attempt}/{number:04d}.json"


def lease_path(number: int) -> str:
    """Return where the lease of this number stands."""
    return f"{LEASES}/{number:08d}.json"


def release_path(number: int) -> str:
    """Return where the release of a lease stands."""
    return f"{LEASES}/{number:08d}-released.json"


def condemned_path(gc: str, number: int) -> str:
    """Return where a collection's condemnations of this number stand."""
    return f"{CONDEMNED}/{gc}/{number:04d}.json"


def trash_path(gc: str, path: str) -> str:
    """Return where a collection's trash keeps the object ``path``."""
    return f"{TRASH}/{gc}/{path}"


def closed_path(gc: str) -> str:
    """Return where it stands that a collection's trash is closed."""
    return f"{TRASH}/{gc}/closed.json"


def batched(digests: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Yield ``digests`` in batches that fit one document."""
    left = iter(digests)
    while batch := tuple(islice(left, MOST_DIGESTS)):
        yield batch
