# SPDX-License-Identifier: Apache-2.0
"""The plugin as Airflow finds it, and what it costs processes that serve no pages."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from airflow_provider_dockerbackup.get_provider_info import get_provider_info

BIN = Path(sys.executable).parent


def test_airflow_finds_the_plugin_by_its_entry_point_alone() -> None:
    """Named in the provider's information as well it would be there twice."""
    (entry,) = distribution("airflow-provider-dockerbackup").entry_points.select(group="airflow.plugins")
    plugin = entry.load()
    assert plugin.name == entry.name == "dockerbackup"
    assert "plugins" not in get_provider_info()
    done = subprocess.run([BIN / "airflow", "plugins", "-o", "json"], capture_output=True, text=True, check=True)
    (found,) = [each for each in json.loads(done.stdout[done.stdout.index("[") :]) if each["name"] == "dockerbackup"]
    assert "Image backups" in str(found)


def test_a_process_that_serves_no_pages_imports_neither_fastapi_nor_templates() -> None:
    """Every worker loads plugins and links."""
    code = (
        "import sys; from airflow.plugins_manager import AirflowPlugin; before = set(sys.modules)\n"
        "from airflow_provider_dockerbackup.plugins.dockerbackup import DockerBackupPlugin\n"
        "plugin = DockerBackupPlugin(); plugin.external_views\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "sys.exit(sorted(new - {'airflow_provider_dockerbackup'}) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
