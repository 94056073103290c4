# SPDX-License-Identifier: Apache-2.0
"""Values of parameters that a template may have rendered to text."""

from __future__ import annotations

import math
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


def whole_number(name: str, value: float | str) -> int:
    """Return a whole number; 3.0 is one, 3.5 is not cut to one.

    :raises ConfigurationError: names the parameter.
    """
    expected = "a whole number"
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError as err:
            raise _unexpected(name, value, expected) from err
    found = number(name, value, expected=expected)
    if not found.is_integer():
        raise _unexpected(name, value, expected)
    return int(value)


def share(name: str, value: float | str) -> float:
    """Return a number from 0 to 1; the range is the caller's to check.

    :raises ConfigurationError: names the parameter.
    """
    return number(name, value, expected="a number from 0 to 1")


def number(name: str, value: float | str, *, expected: str = "a number") -> float:
    """Return a number; neither infinite nor one that is less and more than nothing.

    :param expected: what messages ask for.
    :raises ConfigurationError: names the parameter.
    """
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError) as err:
        raise _unexpected(name, value, expected) from err
    if not math.isfinite(found):
        raise _unexpected(name, value, expected)
    return found


def _unexpected(name: str, value: object, expected: str) -> ConfigurationError:
    return ConfigurationError(f"{name}: expected {expected}, got {value!r}")


def columns(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table for a task's log."""
    cells = [list(names), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
