# SPDX-License-Identifier: Apache-2.0
"""The package as Airflow and pip see it."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow.providers.common.compat.sdk import BaseNotifier

from airflow_provider_dockerbackup import __version__
from airflow_provider_dockerbackup.get_provider_info import get_provider_info
from tests.conftest import LONGEST, TESTS

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


# Of the operators' folder, what holds no operator.
_SHARED = {
    "__init__",
    "asset_events",
    "base",
    "earlier",
    "fleet",
    "lineage",
    "metrics",
    "on_host",
    "past_runs",
    "progress",
    "reading",
    "rendered",
    "summary",
}


def _class_at(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_provider_info_fits_airflows_schema_and_names_the_package_as_pip_does() -> None:
    """A wrong package name would make every airflow command fail."""
    airflow = importlib.import_module("airflow")
    schema = json.loads((Path(str(airflow.__file__)).parent / "provider_info.schema.json").read_bytes())
    info = get_provider_info()
    jsonschema.validate(info, schema)
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert info["package-name"] == setup["metadata"]["name"]
    assert info["versions"] == [__version__]


def test_the_decision_on_dependencies_has_a_row_for_each_of_them_and_no_other() -> None:
    """What pip installs, with the extras for users, is what ADR 0010 gives a reason for."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    asked = "\n".join([setup["options"]["install_requires"], extras["s3"], extras["openlineage"]])
    required = {re.split("[><=~!]", line)[0] for line in asked.split()}
    page = (ROOT / "docs/adr/0010-dependencies.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`.+?) \|", page, re.MULTILINE)
    assert sorted(name for cell in cells for name in _packages(cell)) == sorted(required)


def _packages(cell: str) -> list[str]:
    """Return the packages that a cell names; `…` stands for the first one's name, and an extra of ours is none."""
    names = re.findall(r"`([^`]+)`", cell.partition(", as the extra")[0])
    return [name.replace("…", names[0]) for name in names]


def test_every_module_that_provider_info_names_can_be_imported() -> None:
    """Hooks, operators and the connection's hook class are where the provider info says."""
    info = get_provider_info()
    for group in ("hooks", "operators", "sensors", "triggers"):
        for item in info[group]:
            for module in item["python-modules"]:
                importlib.import_module(module)
    listed = {module.rsplit(".", 1)[1] for module in info["operators"][0]["python-modules"]}
    there = {path.stem for path in (ROOT / "airflow_provider_dockerbackup" / "operators").glob("*.py")}
    assert listed == there - _SHARED
    for notifier in info["notifications"]:
        assert issubclass(_class_at(notifier), BaseNotifier)
    for connection in info["connection-types"]:
        hook = _class_at(connection["hook-class-name"])
        assert hook.conn_type == connection["connection-type"]
        assert hook.hook_name == connection["hook-name"]


def test_importing_the_package_imports_neither_airflow_nor_paramiko() -> None:
    """Airflow imports providers in every command; that must cost nothing."""
    code = (
        "import sys, airflow_provider_dockerbackup, airflow_provider_dockerbackup.get_provider_info as info; "
        "info.get_provider_info(); "
        "sys.exit(sorted({'airflow', 'paramiko', 'docker', 'pydantic'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_workers_process_imports_nothing_of_ours_but_the_providers_description_and_its_plugin() -> None:
    """Not the hook, not the page: each of a worker's processes finds all providers and plugins before its task."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker_start", "with"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["installed"]
    name = "airflow_provider_dockerbackup"
    plugin = [f"{name}.plugins", f"{name}.plugins.dockerbackup"]
    assert found["modules"] == [name, f"{name}.get_provider_info", *plugin]


@pytest.mark.parametrize("command", [["providers", "list"], ["providers", "hooks"], ["version"], ["providers", "get"]])
def test_airflow_commands_work_with_the_provider_installed(command: list[str]) -> None:
    """Airflow lists the provider and its hook, and no command minds it."""
    arguments = [*command, "airflow-provider-dockerbackup"] if command[-1] == "get" else command
    done = subprocess.run([BIN / "airflow", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if command[0] == "providers":
        assert "dockerbackup" in done.stdout


def test_a_built_wheel_holds_every_module_and_the_typing_marker(tmp_path: Path) -> None:
    """What pip installs is the whole package: nothing only works from a checkout."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "airflow_provider_dockerbackup", source / "airflow_provider_dockerbackup")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(pip, check=True, capture_output=True)
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(next(tmp_path.glob("*.whl")))], check=True, capture_output=True
    ).stdout.decode()
    for path in (ROOT / "airflow_provider_dockerbackup").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in listed
    for shown in (
        "plugins/static/page.css",
        *(f"plugins/templates/{name}.html" for name in ("base", "fleet", "source")),
    ):
        assert f"airflow_provider_dockerbackup/{shown}" in listed
    assert "airflow_provider_dockerbackup/py.typed" in listed


def test_the_modules_that_begin_first_are_there() -> None:
    """One that was renamed would again run last, while the other worker has nothing left to do."""
    assert [name for name in LONGEST if not (TESTS / name).is_file()] == []
