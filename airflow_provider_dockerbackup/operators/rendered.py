# SPDX-License-Identifier: Apache-2.0
"""Values of parameters that a template may have rendered to text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from airflow_provider_dockerbackup.exceptions import ConfigurationError


def flag(name: str, value: bool | str) -> bool:
    """Return a flag.

    :raises ConfigurationError: names the parameter.
    """
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"true", "false"}:
        return text == "true"
    raise ConfigurationError(f"{name}: expected true or false, got {value!r}")


def whole_number(name: str, value: int | str) -> int:
    """Return a whole number.

    :raises ConfigurationError: names the parameter.
    """
    if not isinstance(value, bool):
        try:
            return int(value)
        except (TypeError, ValueError):
            pass
    raise ConfigurationError(f"{name}: expected a whole number, got {value!r}")


def share(name: str, value: float | str) -> float:
    """Return a number from 0 to 1; the range is the caller's to check.

    :raises ConfigurationError: names the parameter.
    """
    return number(name, value, expected="a number from 0 to 1")


def number(name: str, value: float | str, *, expected: str = "a number") -> float:
    """Return a number.

    :param expected: what messages ask for.
    :raises ConfigurationError: names the parameter.
    """
    if not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    raise ConfigurationError(f"{name}: expected {expected}, got {value!r}")


def columns(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table for a task's log."""
    cells = [list(names), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
