# SPDX-License-Identifier: Apache-2.0
"""What the how-to for auditors shows is run, from top to bottom, for the month that a backup is of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.pages import console_lines
from tests.test_readme import Machine

PAGE = Path(__file__).parent.parent / "docs/how-to/prove-it-to-an-auditor.md"


@pytest.fixture
def machine(lab: Lab, tmp_path: Path) -> Iterator[Machine]:
    """A machine whose trail is signed and anchored, with a backup of an image of ``web1``."""
    daemon = lab.hosts[0].daemon
    daemon.docker("build", "--quiet", "--tag", "app:1", "-", input=b"FROM lab/app:1\nLABEL proven=1\n")
    today = datetime.now(UTC).date()
    made = Machine(tmp_path, lab)
    for name in ("audit.key", "anchors.txt", "report.html"):
        made.replace(f" {name}", f" {tmp_path}/{name}")
    made.replace("2026-10-01", f"{today - timedelta(days=1)}")
    made.replace("2026-11-01", f"{today + timedelta(days=2)}")
    made.run("dockerbackup audit keygen audit.key")
    made.run(f"export DOCKERBACKUP_SIGNING_KEY={tmp_path}/audit.key")
    made.run("dockerbackup save app:1 --host web1 --repository file:///srv/dockerbackup")
    made.run("dockerbackup audit checkpoint -r file:///srv/dockerbackup >> anchors.txt")
    yield made
    shutil.rmtree(tmp_path / "dockerbackup", ignore_errors=True)
    daemon.docker("image", "rm", "app:1")


def test_what_the_page_shows_proves_that_the_months_backups_restore(machine: Machine, tmp_path: Path) -> None:
    """Each is verified by loading it; the report says so, and that the trail is sound, with keys and anchors or not."""
    report, listed, verified, checkpoint, again, sound = console_lines(PAGE)
    machine.run(report)
    assert "app:1" in (tmp_path / "report.html").read_text("utf-8")
    rows = machine.run(listed).splitlines()[1:]
    assert [row.split()[:3] for row in rows] == [["web1", "image", "app:1"]]
    assert "not verified" in rows[0]
    assert "load" in machine.run(verified)
    assert "not verified" not in machine.run(listed)
    machine.run(f"{checkpoint} >> anchors.txt")
    machine.run(again)
    page = _words(tmp_path / "report.html")
    assert "signatures not checked" in page
    assert "Restore drills" in page
    keys = " --public-key audit.key.pub --anchors anchors.txt"
    for line in (sound, sound + keys, again + keys):
        machine.run(line)
    assert "signatures not checked" not in _words(tmp_path / "report.html")


def _words(page: Path) -> str:
    return " ".join(page.read_text("utf-8").split())
