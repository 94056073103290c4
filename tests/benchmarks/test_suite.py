# SPDX-License-Identifier: Apache-2.0
"""The whole suite runs, on images far too small to mean anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.comparisons import COMPARISONS
from tests.lab.install import is_root

_TINY = {"rounds": 1, "warm-up": 0, "size-mb": 20, "large-mb": 20}
_TINY |= {"generations": 2, "blobs": 500, "sources": 2, "patience": 0}
_ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(not is_root(), reason="the suite starts daemons of its own")
@pytest.mark.timeout(1800)
def test_each_comparison_measures_and_is_reported(tmp_path: Path) -> None:
    """Whatever the figures are: all that was asked for is in the table, in the JSON and in the charts."""
    options = [f"--{name}={value}" for name, value in _TINY.items()]
    command = [sys.executable, "-m", "benchmarks", *options, f"--results={tmp_path}", "--name=smoke"]
    done = subprocess.run(command, cwd=_ROOT, check=False, capture_output=True, text=True)
    # A figure of so small an image may well miss its goal.
    assert done.returncode in {0, 1}, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    document = json.loads((tmp_path / "smoke.json").read_text(encoding="utf-8"))
    table = (tmp_path / "smoke.md").read_text(encoding="utf-8")
    names = [measure["name"] for measure in document["measures"]]
    for comparison in COMPARISONS:
        stem = comparison.name.replace("_", " ")
        assert any(name.replace("_", " ").startswith(stem) for name in names), comparison.name
    assert all(f"| {name} " in table for name in names)
    for chart in ("time", "stored", "wire", "growth"):
        assert f"smoke-{chart}.svg" in table
        ElementTree.parse(tmp_path / f"smoke-{chart}.svg")  # noqa: S314 - our own
    wire = {name: runs[-1]["details"]["wire_bytes"] for name, runs in document["series"][0]["runs"].items()}
    assert wire["push"] < wire["by hand"] < wire["restic"]
    assert wire["docker save"] == 0
