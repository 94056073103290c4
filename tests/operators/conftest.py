# SPDX-License-Identifier: Apache-2.0
"""A folder for archives on the Docker host, and a docker there that waits until it is let go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import LabHost


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the host keeps archives; its name needs quoting."""
    return tmp_path / 'it\'s an "archive" $(folder)'


@pytest.fixture
def slow(host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let docker on the host hold a save or an export back for as long as the file is there."""
    gate, docker = tmp_path / "gate", tmp_path / "slow-docker"
    docker.write_text(
        f'#!/bin/sh\ncase "$2" in save | export) while [ -e "{gate}" ]; do sleep 0.05; done ;; esac\nexec docker "$@"\n'
    )
    docker.chmod(0o755)
    connection = json.loads(host.airflow_connection())
    connection["extra"]["docker_command"] = str(docker)
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_HOST_1", json.dumps(connection))
    gate.touch()
    yield gate
    gate.unlink(missing_ok=True)
