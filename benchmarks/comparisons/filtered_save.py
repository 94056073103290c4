# SPDX-License-Identifier: Apache-2.0
"""An image whose top layer changed, by filtered save, against ``docker save IMAGE > /dev/null`` on the host itself."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.figures import Goal, Measure, ratio_of
from benchmarks.generations import DEPLOYED
from benchmarks.series import series_of


class FilteredSave:
    """See the module."""

    name = "filtered_save"
    about = "an image whose top layer changed, by filtered save, against `docker save X > /dev/null` on the host"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the ratio of wall times, Python's start included."""
        rounds = series_of(bench, DEPLOYED).rounds("filtered save", "docker save")
        note = "theirs is the engine's own work alone: nothing is sent or kept"
        return (ratio_of(self.name, rounds, goal=Goal(target=1 / 1.2, floor=1 / 1.2), note=note),)
