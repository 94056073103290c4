# SPDX-License-Identifier: Apache-2.0
"""What the lab raises."""

from __future__ import annotations

from pathlib import Path


class LabError(Exception):
    """The lab could not do what was asked; the message says why and what to do next."""


def log_tail(path: Path, *, lines: int = 20) -> str:
    """Give the last lines of a log, ready to be appended to a message.

    :param path: the log file; may be missing.
    :param lines: how many lines at most.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return f"\n(no log at {path})"
    return f"\n--- end of {path} ---\n" + "\n".join(text.splitlines()[-lines:])
