# SPDX-License-Identifier: Apache-2.0
"""Sizes as people read them."""

from __future__ import annotations


def size_text(size_bytes: float) -> str:
    """Return a size with a decimal unit: ``512 B``, ``98 MB``, ``1.2 GB``."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB" if size_bytes < 999.95 else f"{size_bytes / 1000:.1f} TB"
