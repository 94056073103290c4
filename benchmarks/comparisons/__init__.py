# SPDX-License-Identifier: Apache-2.0
"""The comparisons, one file each, in the order in which they run."""

from __future__ import annotations

from benchmarks.comparisons.filtered_save import FilteredSave
from benchmarks.comparisons.first import First
from benchmarks.comparisons.fleet import Fleet
from benchmarks.comparisons.gc import Gc
from benchmarks.comparisons.memory import Memory
from benchmarks.comparisons.push import Push
from benchmarks.comparisons.restore import Restore
from benchmarks.comparisons.save import Save
from benchmarks.comparisons.stored import Stored
from benchmarks.comparisons.stream import Stream
from benchmarks.comparisons.unchanged import Unchanged
from benchmarks.comparisons.verify_load import VerifyLoad
from benchmarks.comparisons.wire import Wire
from benchmarks.comparisons.worker import Worker
from benchmarks.comparisons.zstd import Zstd
from benchmarks.runner import Comparison

COMPARISONS: tuple[Comparison, ...] = (
    Stream(),
    Save(),
    Zstd(),
    First(),
    VerifyLoad(),
    Restore(),
    Unchanged(),
    Push(),
    FilteredSave(),
    Wire(),
    Stored(),
    Gc(),
    Memory(),
    Fleet(),
    Worker(),
)
