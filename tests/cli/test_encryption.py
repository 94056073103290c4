# SPDX-License-Identifier: Apache-2.0
"""Encrypted repositories by the command alone, and without it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_making import host_of
from tests.cli.test_verbs import run
from tests.core.encryption.keys import age_pair, ssh_ed25519_pair
from tests.lab.lab import LabHost

ANN, BEN, EVE = age_pair(), ssh_ed25519_pair(), age_pair()


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    """The private keys of two recipients and of somebody else, each in a file of its own."""
    files = {}
    for name, pair in (("ann", ANN), ("ben", BEN), ("eve", EVE)):
        files[name] = tmp_path / name
        files[name].write_bytes(pair.private)
        files[name].chmod(0o600)
    return files


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """An encrypted repository, just made."""
    url = f"file://{tmp_path}/repository"
    made = run("init", url, "--compression", "zstd", "--recipient", f"ann={ANN.public}", "--recipient", BEN.public)
    for pair, name in ((ANN, b"ann"), (BEN, b"ann@example")):
        assert name in made.stdout
        assert pair.recipient.fingerprint.encode() in made.stdout
    return url


def backups(repository: str, host: LabHost) -> tuple[str, str]:
    """Save an image and export a container, and return the backups' ids."""
    image = run("save", "lab/app:1", "-r", repository, *host_of(host), "--json")
    container = run("export", "lab-app", "-r", repository, *host_of(host), "--json")
    return json.loads(image.stdout)["backup_id"], json.loads(container.stdout)["backup_id"]


def test_init_says_what_it_made_and_changes_nothing_that_is_there(tmp_path: Path) -> None:
    """Exit code 6 for what is there, 2 for wrong recipients, and nothing is made then."""
    url = f"file://{tmp_path}/plain"
    made = json.loads(run("init", url, "--json").stdout)
    assert (made["url"], made["layout"], made["compression"], made["recipients"]) == (url, "archive", "none", [])
    document = (tmp_path / "plain" / "repository.json").read_bytes()
    both = ("--recipient", ANN.public, "--recipient", BEN.public)
    assert run("init", url, *both, check=False).returncode == 6
    assert (tmp_path / "plain" / "repository.json").read_bytes() == document
    for wrong in (both[:2], (*both, *both[:2]), ("--recipient", "age1no", *both), ("--layout", "flat")):
        assert run("init", f"file://{tmp_path}/none", *wrong, check=False).returncode == 2
    assert not (tmp_path / "none").exists()
    assert run("init", f"file://{tmp_path}/one", *both[:2], "--allow-single-recipient").returncode == 0


def test_backups_are_made_without_a_private_key_and_read_with_either(
    repository: str, keys: dict[str, Path], host: LabHost, target: LabHost
) -> None:
    """Verified in a test daemon, restored, looked into; the key comes from an option or from the environment."""
    image, container = backups(repository, host)
    shown = run("show", image, "-r", repository).stdout.decode()
    assert f"ann {ANN.recipient.fingerprint[:23]}" in shown
    assert f"ann@example {BEN.recipient.fingerprint[:23]}" in shown
    environment = {"DOCKERBACKUP_IDENTITY": str(keys["ben"])}
    verified = run("verify", "--newest", "-r", repository, environment=environment)
    assert verified.stdout.count(b"passed level load") == 2
    key = ("--age-identity", str(keys["ann"]))
    restored = run("restore", image, "-r", repository, *host_of(target), *key, "--tag", "lab/decrypted:1")
    assert b"equal to the recorded ones" in restored.stdout
    assert b"CREATED BY" in run("history", image, "-r", repository, *key).stdout
    assert b"/etc" in run("files", container, "/etc", "-r", repository, *key).stdout
    assert b"manifest.json" in run("cat", image, "-r", repository, *key).stdout


@pytest.mark.parametrize("key", ["eve", None])
def test_without_the_right_key_nothing_is_read(
    key: str | None, repository: str, keys: dict[str, Path], host: LabHost, tmp_path: Path
) -> None:
    """Exit code 2 at once, with the recipients' fingerprints; listing needs no key."""
    image, container = backups(repository, host)
    option = ("--age-identity", str(keys[key])) if key else ()
    destination = tmp_path / "out"
    for words in (
        ("verify", image),
        ("verify", "--newest", "--level", "digests"),
        ("restore", image, *host_of(host), "--recorded-tags", "--replace-tags"),
        ("restore-container", container, *host_of(host), "--replace"),
        ("rollback", "lab/app:1", image, *host_of(host)),
        ("history", image),
        ("files", container, "/", "--extract", str(destination)),
        ("cat", image),
    ):
        refused = run(*words, "-r", repository, *option, check=False)
        assert (refused.returncode, refused.stdout) == (2, b""), words
        assert ANN.recipient.fingerprint[:23].encode() in refused.stderr
    assert not destination.exists()
    assert image.encode() in run("list", "-r", repository).stdout
    assert run("check", "-r", repository).returncode == 0


def test_a_new_layer_is_all_that_is_stored_and_garbage_goes_and_comes_back_without_a_key(
    keys: dict[str, Path], host: LabHost, tmp_path: Path
) -> None:
    """Layout layers: what is held is found with public keys alone, by writers and by garbage collection."""
    url = f"file://{tmp_path}/layers"
    run("init", url, "--layout", "layers", "--recipient", ANN.public, "--recipient", BEN.public)
    base = json.loads(run("save", "lab/base:1", "-r", url, *host_of(host), "--json").stdout)
    known = set((tmp_path / "layers" / "layers" / "sha256").iterdir())
    image = json.loads(run("save", "lab/app:1", "-r", url, *host_of(host), "--json").stdout)
    new = set((tmp_path / "layers" / "layers" / "sha256").iterdir()) - known
    layers = json.loads(run("show", image["backup_id"], "-r", url, "--json").stdout)["record"]["image"]["diff_ids"]
    assert known
    assert len(known) + len(new) == len(set(layers))
    run("forget", "host-1", "image", "lab/base:1", "-r", url, "--reason", "no longer there")
    blobs = len(list((tmp_path / "layers" / "blobs" / "sha256").iterdir()))
    run("gc", "-r", url, "--grace-hours", "0")
    assert len(list((tmp_path / "layers" / "blobs" / "sha256").iterdir())) == blobs - 2, (
        "its configuration and manifest"
    )
    run("undelete", base["backup_id"], "-r", url)
    key = ("--age-identity", str(keys["ben"]))
    verified = run("verify", "--newest", "--level", "digests", "-r", url, *key)
    assert verified.stdout.count(b"passed level digests") == 2


def test_age_and_docker_load_restore_without_this_package(
    repository: str, keys: dict[str, Path], host: LabHost, target: LabHost, tmp_path: Path
) -> None:
    """The escape hatch, exactly as the how-to gives it."""
    image, _ = backups(repository, host)
    folder = next((tmp_path / "repository").rglob(f"{image}/backup.json")).parent
    page = (Path(__file__).parents[2] / "docs/how-to/encrypt-a-repository.md").read_text(encoding="utf-8")
    command = next(line for line in page.splitlines() if line.startswith("age -d ") and line.endswith("docker load"))
    keys["ann"].rename(folder / "ann.key")
    environment = {**os.environ, "DOCKER_HOST": target.daemon.docker_host}
    loading = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(loading, cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    loaded = done.stdout.decode().strip().removeprefix("Loaded image ID: ")
    assert loaded == host.daemon.docker("image", "inspect", "-f", "{{.Id}}", "lab/app:1").stdout.decode().strip()
    assert target.daemon.docker("image", "inspect", loaded).returncode == 0
