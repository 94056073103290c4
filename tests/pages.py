# SPDX-License-Identifier: Apache-2.0
"""The documentation's pages, as tests read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "airflow_provider_dockerbackup"
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


def page_id(page: Path) -> str:
    """Return a page's path for the name of a test."""
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    """Return a page."""
    return page.read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """Return the text of a second-level section of a reference page."""
    found = re.search(
        rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text_of(REFERENCE / page), re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"{page} has no section {heading!r}"
    return found[1]


def cells_of(text: str) -> list[list[str]]:
    """Return the cells of all rows of a text's tables, heads and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = {number for number, row in enumerate(rows) if set("".join(row)) == {"-"}}
    return [row for number, row in enumerate(rows) if number not in rules and number + 1 not in rules]


def names_in(text: str) -> list[str]:
    """Return what a text has in backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def names_in_tables(text: str) -> set[str]:
    """Return every name in backticks in the first cell of a table's rows."""
    return {name for row in cells_of(text) for name in names_in(row[0])}


def shown(default: Any) -> str:
    """Return how a page shows a default."""
    if isinstance(default, str):
        return default or '""'
    return repr(default).replace("'", '"')


def fences(page: Path, language: str) -> list[str]:
    """Return the bodies of a page's fences in one language."""
    parts = re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [str(part) for part in parts]


def console_lines(page: Path) -> list[str]:
    """Return the commands of a page's console blocks, continuation lines joined, comments left out."""
    joined = "\n".join(fences(page, "console")).replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s+#\s.*", "", line) for line in lines]
