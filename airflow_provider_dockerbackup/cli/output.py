# SPDX-License-Identifier: Apache-2.0
"""Tables for people, JSON for programs, and progress bars on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON."""
    click.echo(json.dumps(value, indent=2, sort_keys=True))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print rows as a table; nothing is cut off when the output is no terminal.

    :param right: names of the columns that are aligned to the right.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _print_aligned(columns, cells, right)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def _print_aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    """Print a table for a pipe or a file: two blanks apart, and fast for many rows."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        padded = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        )
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def print_columns(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns as Docker's own listings do: three blanks apart, nothing folded or cut off."""
    cells = [list(columns), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(10, 3 + max(map(len, column))) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        click.echo("".join([*padded, row[-1]]))


def plain(text: str) -> str:
    """Return ``text`` without control characters: names come from hosts and must not steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


class BarProgress:
    """A bar on standard error when that is a terminal, nothing otherwise; notes always."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def start(self, what: str, total_bytes: int | None) -> None:
        """Show a new bar."""
        if not self._console.is_terminal:
            return
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(plain(what), total=total_bytes)
        self._bar.start()

    def advance(self, done_bytes: int) -> None:
        """Move the bar."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, done_bytes)

    def note(self, message: str) -> None:
        """Print one line."""
        click.echo(plain(f"dockerbackup: {message}"), err=True)

    def finish(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
