# SPDX-License-Identifier: Apache-2.0
"""Backups made and proven by the command alone, on real Docker hosts."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.test_verbs import run
from tests.lab.lab import LabHost


def host_of(host: LabHost) -> tuple[str, ...]:
    """Return the options that reach a host."""
    return ("--host", host.name, "--ssh-config", str(host.ssh_config_path))


def test_an_image_is_saved_confirmed_and_verified_without_airflow(host: LabHost, tmp_path: Path) -> None:
    """A new repository; the second save confirms, the third is forced; the newest of each source is verified."""
    repository = ("-r", f"file://{tmp_path}/repository")
    saved = run("save", "lab/app:1", *repository, *host_of(host), "--compression", "zstd")
    assert b"committed as backup" in saved.stdout
    assert b"not in this backup: volume at /var/lib/app\n" in saved.stdout
    assert saved.stderr == b"", "no bar where there is no terminal"
    again = json.loads(run("save", "lab/app:1", *repository, *host_of(host), "--json").stdout)
    assert again["status"] == "unchanged"
    forced = json.loads(run("save", "lab/app:1", *repository, *host_of(host), "--force", "--json").stdout)
    assert (forced["status"], forced["backup_id"] != again["backup_id"]) == ("committed", True)
    verified = json.loads(run("verify", "--newest", *repository, "--json").stdout)
    assert [(each["backup_id"], each["verification"]) for each in verified] == [(forced["backup_id"], "passed")]
    archive = next((tmp_path / "repository").rglob(f"{again['backup_id']}/image-*.tar.zst"))
    archive.chmod(0o600)
    archive.write_bytes(archive.read_bytes()[:-100])
    both = (again["backup_id"], forced["backup_id"])
    failed = run("verify", *both, *repository, "--level", "digests", check=False)
    assert failed.returncode == 5
    assert failed.stdout.count(b"passed level digests") == 1
    assert failed.stdout.count(b"failed level digests") == 1
    assert run("verify", *repository, check=False).returncode == 2


def test_a_container_is_exported_and_committed_without_airflow(host: LabHost, tmp_path: Path) -> None:
    """A command runs in it first; the commit is in the audit trail of the repository that it was told."""
    repository = ("-r", f"file://{tmp_path}/repository")
    words = ("export", "lab-app", *repository, *host_of(host), "--pre-command", "true")
    exported = json.loads(run(*words[:-1], 'sh -c "echo flushed > /tmp/flushed"', "--json").stdout)
    assert exported["kind"] == "container"
    assert run("files", exported["backup_id"], *repository, "/tmp/flushed").stdout.count(b"flushed") == 1
    unclosed = run(*words[:-1], "sh -c 'oh", check=False)
    assert unclosed.returncode == 2
    assert b"--pre-command" in unclosed.stderr
    reference = "lab/by-command:1"
    try:
        made = run("commit", "lab-app", reference, *repository, *host_of(host), "-m", "by hand", "--json")
        image_id = json.loads(made.stdout)["image_id"]
        assert host.daemon.docker("inspect", "-f", "{{.Id}} {{.Comment}}", reference).stdout.decode().split() == [
            *(image_id, "by", "hand")
        ]
    finally:
        host.daemon.docker("rmi", reference)
        host.daemon.docker("exec", "lab-app", "/bin/busybox", "rm", "/tmp/flushed")
    told = json.loads(run("audit", "log", *repository, "--type", "commit.", "--json").stdout)
    assert [each["type"] for each in told] == ["commit.started", "commit.done"]
    assert told[1]["object"]["image_id"] == image_id
