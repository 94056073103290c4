# SPDX-License-Identifier: Apache-2.0
"""How much of a repository is read at once for its index, and who is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

BATCH: Final = 256
"""As many are one transaction: what was read until a refresh died stays."""

Told = Callable[[str, int, int], None]
"""Is told what is being read, how many are done, and of how many."""


def batches(items: Sequence[str]) -> Iterator[list[str]]:
    """Yield these in parts of :data:`BATCH`."""
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch
