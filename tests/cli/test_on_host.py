# SPDX-License-Identifier: Apache-2.0
"""Archives on a real Docker host, made, read, converted and removed by the command alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_making import host_of
from tests.cli.test_verbs import run
from tests.lab.lab import LabHost


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that is not there yet."""
    monkeypatch.setenv("DOCKERBACKUP_REPOSITORY", f"file://{tmp_path}/repository")
    return tmp_path / "repository"


def test_a_container_is_exported_on_its_host(repository: Path, host: LabHost, tmp_path: Path) -> None:
    """By the command alone, which waits for it."""
    folder = tmp_path / "archives"
    host.daemon.docker("create", "--name", "by-hand", "lab/app:1")
    try:
        location = ("--archive-location", f"host:{folder}", "--json")
        made = json.loads(run("export", "by-hand", *host_of(host), *location).stdout)
        assert (made["status"], made["kind"]) == ("committed", "container")
        (archive,) = folder.iterdir()
        assert archive.name.startswith(f"{made['backup_id']}-rootfs-")
        refused = run("export", "by-hand", *host_of(host), *location, "--consistency", "pause", check=False)
        assert refused.returncode == 2
        assert b"use 'snapshot'" in refused.stderr
        elsewhere = ("--repository", str(tmp_path / "another"))
        for verb in (
            ("export", "by-hand", "--layout", "layers"),
            ("export", "by-hand", "--consistency", "pause"),
            ("save", "lab/app:1", "--layout", "layers"),
        ):
            assert run(*verb, *elsewhere, *host_of(host), *location, check=False).returncode == 2
        assert not (tmp_path / "another").exists()
    finally:
        host.daemon.docker("rm", "by-hand")


def test_an_archive_on_a_host_is_saved_read_restored_converted_and_removed(
    repository: Path, host: LabHost, target: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host is reached by its name in the SSH configuration, or by what the option says."""
    folder = tmp_path / "archives"
    location = ("--archive-location", f"host:{folder}", "--compression", "gzip", "--force", "--json")
    first, second = (
        json.loads(run("save", "lab/app:1", *host_of(host), *location).stdout)["backup_id"] for _ in range(2)
    )
    shown = run("show", first).stdout.decode()
    assert "unscanned" in shown
    assert f"on {host.name}: {folder}" in shown.replace("\n", "")
    unreached = run(
        "verify", first, "--level", "digests", "--archive-host", f"{host.name}=nobody@127.0.0.2:9", check=False
    )
    assert unreached.returncode not in {0, 5}
    monkeypatch.setenv("DOCKERBACKUP_SSH_CONFIG", str(host.ssh_config_path))
    run("verify", first, second, "--level", "digests")
    assert "it was not asked" in run("check").stdout.decode()
    assert run("check", "--archive-host", host.name).stdout == b"nothing is odd\n"
    archive, aside = next(folder.glob(f"{first}-*")), tmp_path / "aside"
    archive.rename(aside)
    damaged = run("check", "--archive-host", f"{host.name}={host.name}", "--json", check=False)
    assert damaged.returncode == 5
    assert [(each["problem"], each["detail"]) for each in json.loads(damaged.stdout)] == [
        ("incomplete", f"{host.name}:{archive} is not there")
    ]
    aside.rename(archive)
    away = run("check", "--archive-host", f"{host.name}=nobody@127.0.0.2:9", check=False)
    assert away.returncode == 1
    assert b"unknown" in away.stdout
    assert run("history", first, "--no-trunc").stdout.count(b"\n") > 1
    assert len(run("cat", first).stdout) > 10_000
    run("restore", first, *host_of(target), "--archive-host", f"{host.name}={host.name}")
    converted = f"file://{tmp_path}/converted"
    run("convert", f"file://{repository}", converted, "--layout", "layers")
    assert len(json.loads(run("list", "-r", converted, "--json").stdout)) == 2
    monkeypatch.setenv("DOCKERBACKUP_SSH_CONFIG", "/dev/null")
    policy = ("rotate", "--keep-last", "1", "--json")
    assert json.loads(run(*policy).stdout)["removed"] == [first]
    assert len(list(folder.iterdir())) == 2
    assert "interrupted" in run("check", check=False).stdout.decode()
    monkeypatch.setenv("DOCKERBACKUP_SSH_CONFIG", str(host.ssh_config_path))
    assert json.loads(run(*policy).stdout)["freed_bytes"] > 0
    assert [path.name[: len(second)] for path in folder.iterdir()] == [second]
    assert run("check", "--archive-host", host.name).returncode == 0
