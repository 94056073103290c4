# SPDX-License-Identifier: Apache-2.0
"""Ages as people read them."""

from __future__ import annotations


def age_text(seconds: float) -> str:
    """Return an age in the unit that fits: ``40 s``, ``12 min``, ``5 h``, ``3 d``."""
    seconds = max(0, int(seconds))
    for limit, unit, divisor in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds // divisor} {unit}"
    return f"{seconds // 86400} d"
