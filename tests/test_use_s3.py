# SPDX-License-Identifier: Apache-2.0
"""What the how-to on S3 shows is run, from top to bottom, against a real S3 server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.s3 import LabS3
from tests.pages import console_lines, fences
from tests.test_readme import Machine, commands, shape

PAGE = Path(__file__).parent.parent / "docs/how-to/use-s3.md"
INSTALL = "pip install 'airflow-provider-dockerbackup[s3]'"  # installed already, as what is tested


@pytest.fixture
def machine(lab: Lab, s3: LabS3, tmp_path: Path) -> Iterator[Machine]:
    """A machine as the README leaves it, its DAG apart, and a bucket."""
    made = Machine(tmp_path, lab)
    made.replace("s3://backups/", f"s3://{s3.bucket}/")
    made.replace("https://s3.example.com", s3.endpoint_url)
    made.replace("=…", "=test")
    made.run("airflow db migrate")
    (connection,) = [each.line for each in commands() if each.line.startswith("airflow connections add")]
    made.run(connection)
    yield made
    shutil.rmtree(tmp_path)


def test_what_the_page_shows_backs_all_images_of_a_host_up_to_s3(machine: Machine) -> None:
    """Every image of the host is saved and verified by the DAG, listed by hand, and the store is found fit."""
    _, machine_dag = fences(PAGE, "python")
    machine.write_dag(machine_dag)
    lines = console_lines(PAGE)
    assert lines[0] == INSTALL
    outputs = {line: machine.run(line) for line in lines[1:]}
    rows = [row.split() for row in outputs["dockerbackup list"].splitlines()[1:]]
    images = [row[2] for row in rows]
    assert {"lab/app:1", "lab/base:1", "lab/committed:1"} <= set(images)
    assert all(row[:2] == ["web1", "image"] and row[-3] == "verified" for row in rows)
    (probe,) = [line for line in lines if line.startswith("dockerbackup probe")]
    (shown,) = [block for block in fences(PAGE, "console") if probe in block]
    checks = [row.split(" ok ")[0] for row in shape(shown.partition("\n")[2]).splitlines()[1:]]
    assert [row.split(" ok ")[0] for row in shape(outputs[probe]).splitlines()[1:]] == checks
