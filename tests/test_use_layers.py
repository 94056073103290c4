# SPDX-License-Identifier: Apache-2.0
"""What the how-to on layout ``layers`` shows is run, from top to bottom."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.pages import console_lines
from tests.test_readme import Machine, remove_images

PAGE = Path(__file__).parent.parent / "docs/how-to/use-layers.md"


@pytest.fixture
def machine(lab: Lab, tmp_path: Path) -> Iterator[Machine]:
    """A machine whose host ``web1`` has the image ``app:1``."""
    daemon = lab.hosts[0].daemon
    daemon.docker("build", "--quiet", "--tag", "app:1", "-", input=b"FROM lab/app:1\nLABEL layers=1\n")
    made = Machine(tmp_path, lab)
    made.replace("/tmp/app", f"{tmp_path}/app")
    yield made
    shutil.rmtree(tmp_path / "dockerbackup", ignore_errors=True)
    daemon.docker("image", "rm", "app:1")
    remove_images(lab.hosts[1])


def test_what_the_page_shows_works_and_the_copy_is_the_image(machine: Machine, lab: Lab, tmp_path: Path) -> None:
    """Saved, shown, read in place and copied; what comes out loads as the very image."""
    outputs = {line: machine.run(line) for line in console_lines(PAGE)}
    assert len(outputs) == 8
    (shown,) = [output for line, output in outputs.items() if line.startswith("dockerbackup show")]
    (inspected,) = [output for line, output in outputs.items() if line.startswith("skopeo inspect")]
    facts = dict(re.findall(r"^(\w[\w ]*): +(\S+)$", shown, re.MULTILINE))
    assert json.loads(inspected)["Digest"] == facts["manifest"]
    assert (machine.repository / facts["OCI layout"] / "index.json").is_file()
    source, target = (host.daemon for host in lab.hosts)
    target.docker("load", input=(tmp_path / "app.tar").read_bytes())
    ids = [each.docker("image", "inspect", "--format", "{{.Id}}", "app:1").stdout for each in (source, target)]
    assert ids[0] == ids[1]
