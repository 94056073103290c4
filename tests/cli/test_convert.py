# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup convert``, run as a program; also with real Docker hosts, and killed on its way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.cli.test_completion import offered
from tests.cli.test_verbs import PROGRAM, ids, repository, run
from tests.core.world import CONTAINER, World, app_archive, assert_all_whole, bury
from tests.lab.lab import LabHost

__all__ = ["repository"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images and a container on disk."""
    world = World(storage=LocalStorage(tmp_path / "source"))
    world.clock = SystemClock()  # type: ignore[assignment]
    world.backup(1)
    world.host.add_archive(app_archive("two"))
    world.backup(2)
    world.backup(3, CONTAINER)
    return tmp_path / "source"


def opened(folder: Path) -> Repository:
    """Return a repository on disk."""
    return Repository.open(LocalStorage(folder), clock=SystemClock())


def test_a_repository_is_converted_after_a_dry_run_and_once(source: Path, tmp_path: Path) -> None:
    """The dry run makes nothing; a second run finds all of it there."""
    target = tmp_path / "target"
    words = ("convert", str(source), str(target), "--layout", "layers")
    shown = run(*words, "--dry-run").stdout.decode()
    assert shown.count("would be converted  ship-1") == 3
    assert shown.endswith("3 would be converted, 0 would be finished, 0 there already, 0 skipped, 0 failed\n")
    assert not target.exists()
    done = json.loads(run(*words, "--json").stdout)
    assert {each["state"] for each in done["backups"]} == {"converted"}
    assert (done["target"]["repository_id"], done["dry_run"]) == (opened(target).document.repository_id, False)
    assert done["new_bytes"] > 0
    assert len(assert_all_whole(opened(target))) == 3
    again = run(*words).stdout.decode()
    assert again == "0 converted, 0 finished, 3 there already, 0 skipped, 0 failed\n"


def test_a_damaged_backup_is_named_and_the_others_are_converted(source: Path, tmp_path: Path) -> None:
    """Exit code 5, in a dry run too; once it is in quarantine, 0."""
    damaged = next(source.glob("backups/*/image-*/*/backup.json"))
    damaged.write_bytes(b"{")
    words = ("convert", str(source), str(tmp_path / "target"), "--layout", "layers")
    assert run(*words, "--dry-run", check=False).returncode == 5
    done = run(*words, check=False)
    assert done.returncode == 5
    assert f"1 of 3 backups fail: {damaged.parent.name}" in done.stderr.decode()
    assert "2 converted, 0 finished, 0 there already, 0 skipped, 1 failed" in done.stdout.decode()
    run("quarantine", damaged.parent.name, "-r", str(source), "--reason", "lost")
    assert "it is in quarantine in the source" in run(*words).stdout.decode()


def test_what_makes_no_sense_is_refused(source: Path, tmp_path: Path) -> None:
    """Exit code 2: the same layout, a target in the source, also by way of a link; 3: no source."""
    (tmp_path / "link").symlink_to(source)
    for into, layout in (
        (tmp_path / "target", "archive"),
        (source, "layers"),
        (source / "inner", "layers"),
        (tmp_path / "link" / "inner", "layers"),
        (tmp_path, "layers"),
    ):
        done = run("convert", str(source), str(into), "--layout", layout, check=False)
        assert done.returncode == 2, into
    assert run("convert", str(tmp_path / "none"), str(source), "--layout", "layers", check=False).returncode == 3
    assert not (source / "inner").exists()
    assert run("convert", str(source), str(tmp_path / "x"), check=False).returncode == 2


def test_layouts_are_offered() -> None:
    """By the shell's completion."""
    assert offered("dockerbackup conv") == ["convert"]
    assert offered("dockerbackup convert /a /b --layout l") == ["layers"]


def test_a_conversion_that_is_killed_again_and_again_comes_to_its_end(tmp_path: Path) -> None:
    """With kill -9 at any moment: what is seen is whole, and the next run goes on."""
    world = World(storage=LocalStorage(tmp_path / "source"))
    world.clock = SystemClock()  # type: ignore[assignment]
    for number in range(12):
        world.host.add_archive(app_archive(f"v{number}", config={"Env": [f"FILL={'x' * 200_000}"]}))
        world.backup(number, compression=Compression.ZSTD)
    target = tmp_path / "target"
    words = [str(PROGRAM), "convert", str(tmp_path / "source"), str(target), "--layout", "layers"]
    seen, killed = 0, 0
    for _ in range(40):
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            before = _records(target)
            while process.poll() is None and _records(target) < before + 2:
                time.sleep(0.01)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
        bury()
        whole = len(assert_all_whole(opened(target))) if (target / "repository.json").exists() else 0
        assert whole >= seen
        seen = whole
        if process.returncode == 0:
            break
    assert killed >= 3
    assert seen == 12
    assert {each.trust for each in opened(target).catalog.backups()} == {"checked"}


def _records(folder: Path) -> int:
    return sum(1 for _ in folder.glob("backups/*/*/*/backup.json"))


def test_what_real_engines_wrote_goes_there_and_back_and_loads(
    repository: str, target: LabHost, tmp_path: Path
) -> None:
    """A saved image and an exported container: the image has the same ID, layers and history, the files are equal."""
    layers, back = f"file://{tmp_path}/layers", f"file://{tmp_path}/back"
    run("convert", repository, layers, "--layout", "layers")
    run("convert", layers, back, "--layout", "archive", "--compression", "zstd")
    shutil.rmtree(repository.removeprefix("file://"))
    options = ("--host", target.name, "-F", str(target.ssh_config_path), "--recorded-tags")
    image, container = ids(back)["lab/app:1"], ids(back)["lab-app"]
    found: list[object] = []
    for where in (layers, back):
        assert b"equal to the recorded ones" in run("restore", image, "-r", where, *options).stdout
        inspected = json.loads(target.daemon.docker("image", "inspect", "lab/app:1").stdout)[0]
        history = target.daemon.docker("history", "--no-trunc", "--quiet=false", "lab/app:1").stdout.count(b"\n")
        found.append((inspected["Id"], inspected["RootFS"], inspected["Config"], history))
        target.daemon.docker("rmi", "lab/app:1")
        run("restore", container, "-r", where, *options[:-1])
        found.append(run("cat", container, "-r", where, "--filesystem").stdout)
    assert found[:2] == found[2:]
    assert {each["trust"] for each in json.loads(run("list", "-r", back, "--json").stdout)} == {"checked"}
    run("verify", "--newest", "-r", back)
    assert {each["trust"] for each in json.loads(run("list", "-r", back, "--json").stdout)} == {"verified"}
