# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.cli.quick_start import quick_imports

_IMPORTED = """
import gc, json, os, pathlib, sys
from airflow_provider_dockerbackup.cli.main import cli
cli.get_command(None, "restore")
from airflow_provider_dockerbackup.cli.options import HostOptions
host = HostOptions(target="web", name=None, identity=None, ssh_config=pathlib.Path(os.devnull),
                   docker_command="docker", docker_socket=None)
with host.connected():
    pass
known = ("paramiko", "unittest.mock", "asyncio", "invoke.tasks")
print(json.dumps({"modules": [each for each in known if each in sys.modules], "collects": gc.isenabled(),
                  "plugins": os.environ["PYDANTIC_DISABLE_PLUGINS"], "frozen": gc.get_freeze_count() > 10_000}))
"""


@pytest.mark.parametrize("wanted", [None, "logfire"])
def test_a_command_starts_without_what_it_does_not_need(wanted: str | None) -> None:
    """Memory is still collected, and what a user wants of pydantic stands."""
    environment = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}
    if wanted is not None:
        environment["PYDANTIC_DISABLE_PLUGINS"] = wanted
    run = subprocess.run([sys.executable, "-c", _IMPORTED], env=environment, capture_output=True, check=True)
    assert json.loads(run.stdout) == {
        "modules": ["paramiko"],
        "collects": True,
        "plugins": wanted or "__all__",
        "frozen": True,
    }


def test_a_condition_of_an_ssh_configuration_still_runs_its_program(tmp_path: Path) -> None:
    """``Match exec`` takes what is imported only when it is used."""
    config = tmp_path / "config"
    ran = tmp_path / "ran"
    config.write_text(f'Match exec "touch {ran}"\n  HostName 127.0.0.1\n  Port 1\n', encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "airflow_provider_dockerbackup.cli.main", "sources", "--host", "web", "-F", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.exists(), run.stderr


def test_what_is_used_while_importing_is_the_module_itself() -> None:
    """Then and afterwards."""
    body = "    import invoke\n    run = invoke.run\nimport invoke\nassert invoke.run is run and invoke.__file__"
    code = f"from airflow_provider_dockerbackup.cli.quick_start import quick_imports\nwith quick_imports():\n{body}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_garbage_is_collected_again_afterwards_unless_it_was_not_before() -> None:
    """What was there is frozen only where something was imported: the rest may be garbage one day."""
    frozen = gc.get_freeze_count()
    with quick_imports():
        assert not gc.isenabled()
        with quick_imports():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
