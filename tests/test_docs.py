# SPDX-License-Identifier: Apache-2.0
"""All pages: links lead somewhere, commands and code are right, lists are whole. Of the reference: tests/reference."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from tests.pages import PAGES, REFERENCE, ROOT, console_lines, fences, page_id, text_of
from tests.reference.public import VERBS

PROGRAMS = {
    *("airflow", "dockerbackup", "docker", "make", "pip"),
    *(
        "age-keygen",
        "cd",
        "cp",
        "export",
        "ls",
        "sha256sum",
        "skopeo",
        "ssh",
        "ssh-keygen",
        "ssh-keyscan",
        "tar",
        "zstd",
    ),
}

_FENCE = re.compile(r"^```(.*)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def heading_anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", text_of(page)), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere_and_fences_are_closed(page: Path) -> None:
    """Relative links name files, and headings where they have an anchor; every fence has its end and a language."""
    text = text_of(page)
    marks = _FENCE.findall(text)
    assert len(marks) % 2 == 0, "a fence is not closed"
    assert all(marks[0::2]), "a fence has no language"
    assert not any(marks[1::2]), "a fence is not closed before the next one"
    for link in _LINK.findall(_CODE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in heading_anchors(target), link


def test_the_readme_leads_to_every_page_of_the_reference() -> None:
    """Its list of reference pages has each one, once."""
    (listed,) = re.findall(r"^\*\*Reference\*\* (.*?)\n\n", text_of(ROOT / "README.md"), re.MULTILINE | re.DOTALL)
    links = [link for link in _LINK.findall(listed) if link.startswith("docs/reference/")]
    assert sorted(links) == sorted(f"docs/reference/{page.name}" for page in REFERENCE.glob("*.md"))


@pytest.mark.parametrize("page", [page for page in PAGES if fences(page, "console")], ids=page_id)
def test_console_blocks_use_verbs_and_options_that_exist(page: Path) -> None:
    """Each command is a known program; a verb of ours exists and has each option that is used."""
    for line in console_lines(page):
        for command in re.split(r"\s\|\s", line):
            words = shlex.split(command)
            assert words[0] in PROGRAMS, line
            if words[0] == "dockerbackup":
                verb = VERBS[words[1]]
                if isinstance(verb, click.Group):
                    verb = verb.commands[words[2]]
                known = {option for parameter in verb.params for option in parameter.opts}
                assert {word for word in words if word.startswith("-")} <= known, line


def test_python_blocks_run_as_they_stand() -> None:
    """Each Python block is a DAG file or a script that can be loaded: imports, names and parameters exist."""
    count = 0
    for page in PAGES:
        for block in fences(page, "python"):
            exec(compile(block, page_id(page), "exec"), {"__name__": "shown"})  # noqa: S102 - our own pages
            count += 1
    assert count >= 10


def test_the_design_says_what_there_is_and_keeps_all_guarantees() -> None:
    """Its first section names every verb; there are twelve guarantees."""
    design = text_of(ROOT / "docs/design.md")
    stands = design.partition("## 0. What there is")[2].partition("## 1. ")[0]
    verbs = next(line for line in stands.splitlines() if line.startswith("| command line |"))
    assert set(re.findall(r"`([a-z-]+)`", verbs)) == set(VERBS)
    guarantees = design.partition("## 6. Guarantees")[2].partition("## 7. ")[0]
    assert re.findall(r"^(\d+)\. ", guarantees, re.MULTILINE) == [str(number) for number in range(1, 13)]


def test_every_decision_is_listed_and_has_its_three_parts() -> None:
    """The list of decisions has each file once, numbered without gaps."""
    pages = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    listed = re.findall(r"\| \[\d{4}\]\(([^)]+)\)", text_of(ROOT / "docs/adr/README.md"))
    assert listed == [page.name for page in pages]
    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for page in pages:
        assert re.findall(r"^## (.+)$", text_of(page), re.MULTILINE) == ["Context", "Decision", "Consequences"]
