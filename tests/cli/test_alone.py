# SPDX-License-Identifier: Apache-2.0
"""The command where there is no Airflow at all, inside Airflow, and in a shell."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from airflow_provider_dockerbackup import __version__
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.world import World

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one backup."""
    World(storage=LocalStorage(tmp_path / "repository")).backup(1)
    return tmp_path / "repository"


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in one file."""
    output = tmp_path_factory.mktemp("pyz") / "dockerbackup.pyz"
    subprocess.run([ROOT / "tests/build-pyz", BIN, output], check=True)
    return output


def alone(pyz: Path, home: Path, *arguments: str) -> bytes:
    """Run it with the Python that the environment was made of, which has none of our libraries."""
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "SHIV_ROOT": str(home / "shiv")}
    done = subprocess.run(
        [python, "-I", pyz, *arguments], env=environment, capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_the_one_file_lists_and_writes_out_backups_with_python_alone(
    pyz: Path, repository: Path, tmp_path: Path
) -> None:
    """For the day when only Python and the repository are left."""
    assert __version__.encode() in alone(pyz, tmp_path, "--version")
    listed = alone(pyz, tmp_path, "list", "-r", str(repository))
    backup_id = next(word for word in listed.decode().split() if "Z-" in word)
    archive = alone(pyz, tmp_path, "cat", backup_id, "-r", str(repository))
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        assert "manifest.json" in tar.getnames()
    assert b"intact" in alone(pyz, tmp_path, "audit", "verify", "-r", str(repository))
    assert b"<!doctype html>" in alone(pyz, tmp_path, "audit", "report", "-r", str(repository), "--format", "html")
    names = zipfile.ZipFile(pyz).namelist()
    assert any("s3fs" in name for name in names)
    assert not any(name.startswith(("site-packages/airflow/", "site-packages/apache_airflow")) for name in names)


def test_another_python_is_told_which_one_the_file_needs(pyz: Path, tmp_path: Path) -> None:
    """A sentence, before anything compiled fails to load."""
    code = (
        "import sys, runpy; sys.version_info = (3, 99, 0); sys.argv = [sys.argv[1], '--version']; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, pyz], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"built for Python 3.{sys.version_info.minor} on " in done.stderr
    assert "this is Python 3.99 on " in done.stderr
    assert "Traceback" not in done.stderr


def test_two_builds_of_the_file_are_equal(pyz: Path, tmp_path: Path) -> None:
    """Its digest tells whether it is the one that was built, also by a user with another umask."""
    again = tmp_path / "again.pyz"
    subprocess.run([ROOT / "tests/build-pyz", BIN, again], check=True, umask=0o077)
    assert again.read_bytes() == pyz.read_bytes()


def test_airflow_has_it_as_a_command(repository: Path) -> None:
    """The same words, output and exit codes; Airflow's own help goes on working."""
    environment = {**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
    words = [str(BIN / "airflow"), "dockerbackup"]
    listed = subprocess.run([*words, "list", "-r", str(repository)], env=environment, capture_output=True, check=False)
    assert b"lab/app:1" in listed.stdout, listed.stderr
    missing = subprocess.run(
        [*words, "show", "x", "-r", str(repository)], env=environment, capture_output=True, check=False
    )
    assert missing.returncode == 3
    help_ = subprocess.run([BIN / "airflow", "--help"], env=environment, capture_output=True, check=True)
    assert b"dockerbackup" in help_.stdout
