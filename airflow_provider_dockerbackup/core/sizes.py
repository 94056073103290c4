# SPDX-License-Identifier: Apache-2.0
"""Sizes as people read them."""

from __future__ import annotations

import re

from airflow_provider_dockerbackup.exceptions import ConfigurationError

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_SIZE = re.compile(r"(\d{1,15})(|k|M|G|Ki|Mi|Gi)B?", re.ASCII)


def bytes_in(text: str, *, name: str) -> int:
    """Return the number of bytes that ``20000000``, ``20M`` or ``19Mi`` means.

    :param name: option or field, for the message.
    :raises ConfigurationError: when it is none of these.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"{name}: expected a number of bytes such as 20000000, 20M or 20Mi, got {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def size_text(size_bytes: float) -> str:
    """Return a size with a decimal unit: ``512 B``, ``98 MB``, ``1.2 GB``."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB" if size_bytes < 999.95 else f"{size_bytes / 1000:.1f} TB"
