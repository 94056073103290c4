# SPDX-License-Identifier: Apache-2.0
"""The comparisons, one file each, in the order in which they run."""

from __future__ import annotations

from benchmarks.comparisons.memory import Memory
from benchmarks.comparisons.save import Save
from benchmarks.comparisons.stream import Stream
from benchmarks.comparisons.unchanged import Unchanged
from benchmarks.comparisons.verify_load import VerifyLoad
from benchmarks.comparisons.zstd import Zstd
from benchmarks.runner import Comparison

COMPARISONS: tuple[Comparison, ...] = (
    Stream(),
    Save(),
    Zstd(),
    VerifyLoad(),
    Unchanged(),
    Memory(),
)
