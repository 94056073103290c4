# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup copy``, run as a program; also with real Docker hosts, and killed on its way."""

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
LAYOUTS = pytest.mark.parametrize("layout", ["archive", "layers"])


def world_on(folder: Path, *, layout: str = "archive") -> World:
    """Return a world whose repository is on disk, and whose clock is the machine's."""
    world = World(storage=LocalStorage(folder), layout=layout)
    world.clock = SystemClock()  # type: ignore[assignment]
    return world


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images and a container on disk."""
    world = world_on(tmp_path / "source")
    world.backup(1)
    world.host.add_archive(app_archive("two"))
    world.backup(2)
    world.backup(3, CONTAINER)
    return tmp_path / "source"


def opened(folder: Path) -> Repository:
    """Return a repository on disk."""
    return Repository.open(LocalStorage(folder), clock=SystemClock())


def test_a_repository_is_copied_after_a_dry_run_and_once(source: Path, tmp_path: Path) -> None:
    """The dry run makes nothing; a second run finds all of it there."""
    target = tmp_path / "target"
    words = ("copy", "--from", str(source), "--to", str(target))
    shown = run(*words, "--dry-run").stdout.decode()
    assert shown.count("would be copied  ship-1") == 3
    assert shown.endswith("3 would be copied, 0 would be finished, 0 there already, 0 skipped, 0 failed\n")
    assert not target.exists()
    done = json.loads(run(*words, "--json").stdout)
    assert {each["state"] for each in done["backups"]} == {"copied"}
    assert (done["target"]["repository_id"], done["dry_run"]) == (opened(target).document.repository_id, False)
    assert done["new_bytes"] > 0
    assert len(assert_all_whole(opened(target))) == 3
    assert run(*words).stdout.decode() == "0 copied, 0 finished, 3 there already, 0 skipped, 0 failed\n"


def test_chosen_backups_are_copied(source: Path, tmp_path: Path) -> None:
    """By id, by source, and the newest of each; the repository's URL may come from the environment."""
    target = tmp_path / "target"
    backups = opened(source).catalog.backups()
    run("copy", backups[-1].backup_id[:20], "--from", str(source), "--to", str(target))
    assert [each.backup_id for each in opened(target).catalog.backups()] == [backups[-1].backup_id]
    run("copy", "--to", str(target), "--source", "web", environment={"DOCKERBACKUP_REPOSITORY": str(source)})
    assert {each.source.name for each in opened(target).catalog.backups()} == {"lab/app:1", "web"}
    said = run("copy", "--from", str(source), "--to", str(target), "--newest", "1", "--since", "2000y").stdout.decode()
    assert said.endswith("1 copied, 0 finished, 1 there already, 0 skipped, 0 failed\n")


def test_a_damaged_backup_is_named_and_the_others_are_copied(source: Path, tmp_path: Path) -> None:
    """Exit code 5, with its reason."""
    damaged = next(source.glob("backups/*/image-*/*/image-*.tar"))
    damaged.chmod(0o600)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    done = run("copy", "--from", str(source), "--to", str(tmp_path / "target"), check=False)
    assert done.returncode == 5
    assert f"1 of 3 backups fail: {damaged.parent.name}" in done.stderr.decode()
    assert "2 copied, 0 finished, 0 there already, 0 skipped, 1 failed" in done.stdout.decode()


def test_what_makes_no_sense_is_refused(source: Path, tmp_path: Path) -> None:
    """Exit code 2: a target in the source, also by way of a link, ids with patterns, a wrong duration; 3: no source."""
    (tmp_path / "link").symlink_to(source)
    target = str(tmp_path / "target")
    for words in (
        ("--to", str(source)),
        ("--to", str(source / "inner")),
        ("--to", str(tmp_path / "link" / "inner")),
        ("--to", str(tmp_path)),
        ("--to", target, "2026", "--host", "ship-1"),
        ("--to", target, "--since", "soon"),
        ("--to", target, "--newest", "0"),
        (),
    ):
        assert run("copy", "--from", str(source), *words, check=False).returncode == 2, words
    assert run("copy", "--from", str(tmp_path / "none"), "--to", target, check=False).returncode == 3
    assert run("copy", "--from", str(source), "--to", target, "--host", "nowhere", check=False).returncode == 3
    assert not (source / "inner").exists()


def test_ids_and_layouts_are_offered(source: Path) -> None:
    """By the shell's completion."""
    assert offered("dockerbackup cop") == ["copy"]
    assert offered("dockerbackup copy --to /b --layout l") == ["layers"]
    backup_id = opened(source).catalog.backups()[0].backup_id
    assert offered(f"dockerbackup copy --from {source} {backup_id[:12]}") == [backup_id]


@LAYOUTS
def test_a_copy_that_is_killed_again_and_again_comes_to_its_end(layout: str, tmp_path: Path) -> None:
    """With kill -9 at any moment: what is seen is whole, and the next run goes on."""
    world = world_on(tmp_path / "source", layout=layout)
    for number in range(12):
        world.host.add_archive(app_archive(f"v{number}", config={"Env": [f"FILL={'x' * 200_000}"]}))
        world.backup(number, compression=Compression.ZSTD)
    target = tmp_path / "target"
    words = [str(PROGRAM), "copy", "--from", str(tmp_path / "source"), "--to", str(target)]
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


def _records(folder: Path) -> int:
    return sum(1 for _ in folder.glob("backups/*/*/*/backup.json"))


@LAYOUTS
def test_what_real_engines_wrote_is_restored_from_the_second_site_when_the_first_is_gone(
    layout: str, repository: str, target: LabHost, tmp_path: Path
) -> None:
    """A saved image and an exported container, verified there, loaded onto another host from there."""
    second = f"file://{tmp_path}/second"
    run("copy", "--from", repository, "--to", second, "--layout", layout)
    shutil.rmtree(repository.removeprefix("file://"))
    run("verify", "--newest", "-r", second)
    assert {each["trust"] for each in json.loads(run("list", "-r", second, "--json").stdout)} == {"verified"}
    options = ("--host", target.name, "-F", str(target.ssh_config_path))
    image, container = ids(second)["lab/app:1"], ids(second)["lab-app"]
    assert b"equal to the recorded ones" in run("restore", image, "-r", second, *options, "--recorded-tags").stdout
    assert target.daemon.docker("image", "inspect", "lab/app:1").stdout
    run("restore", container, "-r", second, *options)
