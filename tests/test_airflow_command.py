# SPDX-License-Identifier: Apache-2.0
"""``airflow dockerbackup …``, run as Airflow's own program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.providers_manager import ProvidersManager

from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.cli.test_verbs import run as run_dockerbackup
from tests.core.world import World
from tests.lab.lab import LabHost

AIRFLOW = Path(sys.executable).parent / "airflow"

pytestmark = pytest.mark.skipif(
    not hasattr(ProvidersManager, "cli_command_functions"),
    reason="Airflow takes no commands from providers before 3.2",
)


def run(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``airflow dockerbackup`` with its output captured."""
    return subprocess.run([AIRFLOW, "dockerbackup", *words], capture_output=True, check=False, timeout=120)


def test_json_of_a_host_has_no_log_lines_before_it(host: LabHost, tmp_path: Path) -> None:
    """The SSH library logs that it connected, which Airflow would print."""
    done = run("sources", "--host", host.name, "--ssh-config", str(host.ssh_config_path), "--json")
    assert done.returncode == 0, done.stderr.decode()
    assert [each["name"] for each in json.loads(done.stdout)["containers"]] == ["lab-app"]


def test_archives_and_help_are_those_of_the_command(tmp_path: Path) -> None:
    """Byte for byte; words that begin with a dash reach the verb."""
    backup_id = World(storage=LocalStorage(tmp_path)).backup(1).backup.backup_id
    for words in (("cat", backup_id, "-r", str(tmp_path), "--tag", "a:1"), ("list", "--help")):
        done = run(*words)
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout == run_dockerbackup(*words).stdout
