# SPDX-License-Identifier: Apache-2.0
"""Another tool than ours reads every backup of layout ``layers``: skopeo, as Debian has it."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.reading import config_digest_of
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.lab.daemon import temporary_daemon
from tests.lab.install import require_program
from tests.lab.lab import Lab
from tests.operators.moving import exported, save_from

LAYER = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture(scope="module")
def folder(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with images, by each way, and an export."""
    folder = tmp_path_factory.mktemp("oci") / "repository"
    repository = Repository.open_or_create(storage_from_url(f"file://{folder}"), clock=SystemClock(), layout="layers")
    host = lab.hosts[0]
    save_from(host, repository, name="web1", image="lab/app:1", capture="push")
    save_from(host, repository, name="web1", image="lab/committed:1", capture="save")
    exported(host, repository, name="web1", targets={})
    return folder


def repository_in(folder: Path) -> Repository:
    """Return the repository."""
    return Repository.open(storage_from_url(f"file://{folder}"), clock=SystemClock())


def layouts(folder: Path) -> Iterator[tuple[Backup, str]]:
    """Yield each backup with the name by which skopeo finds it."""
    for backup in repository_in(folder).catalog.backups():
        blobs = backup.whole().blobs
        assert blobs is not None
        yield backup, f"oci:{folder / backup.path / blobs.folder}"


def skopeo(*words: str) -> bytes:
    """Run skopeo."""
    done = subprocess.run([str(require_program("skopeo")), *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def manifest_in(layout: Path) -> dict[str, Any]:
    """Return the manifest of the one image of an OCI image layout."""
    (named,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest: dict[str, Any] = json.loads((layout / "blobs/sha256" / named["digest"][7:]).read_bytes())
    return manifest


def test_skopeo_inspects_every_backup(folder: Path) -> None:
    """What it shows is what the record says: blobs, configuration, platform."""
    found = 0
    for backup, layout in layouts(folder):
        record, blobs = backup.whole(), backup.whole().blobs
        assert blobs is not None
        shared = ("--shared-blob-dir", str(folder / "blobs"))
        shown = json.loads(skopeo("inspect", *shared, layout))
        assert (shown["Digest"], shown["Os"]) == (blobs.manifest.digest, "linux")
        assert shown["Layers"] == [each.digest for each in blobs.layers]
        config = skopeo("inspect", "--config", "--raw", *shared, layout)
        assert sha256_of(config) == config_digest_of(repository_in(folder), backup)
        assert tuple(json.loads(config)["rootfs"]["diff_ids"]) == record.diff_ids
        found += 1
    assert found == 3


def test_skopeo_copies_every_backup_and_the_copy_is_the_image(folder: Path, tmp_path: Path) -> None:
    """Out of the repository alone, byte for byte; the media type of zstd layers is one that it knows."""
    for number, (backup, layout) in enumerate(layouts(folder)):
        copy = tmp_path / f"copy-{number}"
        skopeo("copy", "--src-shared-blob-dir", str(folder / "blobs"), layout, f"oci:{copy}:copy")
        manifest, blobs = manifest_in(copy), backup.whole().blobs
        assert blobs is not None
        assert manifest["config"]["digest"] == blobs.config.digest
        assert [(each["digest"], each["mediaType"]) for each in manifest["layers"]] == [
            (each.digest, f"{LAYER}+zstd") for each in blobs.layers
        ]
        for digest, size_bytes in blobs.sizes.items():
            if digest != blobs.manifest.digest:
                assert (copy / "blobs/sha256" / digest[7:]).stat().st_size == size_bytes


def test_what_skopeo_makes_a_docker_archive_of_is_the_image(folder: Path, tmp_path: Path) -> None:
    """In two steps, for Docker's own formats have no zstd: configuration and diff_ids stay, and an engine loads it."""
    with temporary_daemon(tmp_path) as daemon:
        for number, (backup, layout) in enumerate(layouts(folder)):
            copy, archive = tmp_path / f"copy-{number}", tmp_path / f"{number}.tar"
            gzip = ("--dest-compress-format", "gzip")
            shared = ("--src-shared-blob-dir", str(folder / "blobs"))
            skopeo("copy", *gzip, *shared, layout, f"oci:{copy}:copy")
            skopeo("copy", f"oci:{copy}:copy", f"docker-archive:{archive}:lab/copied:{number}")
            config = config_of(archive.read_bytes())
            assert sha256_of(config) == config_digest_of(repository_in(folder), backup)
            daemon.docker("load", input=archive.read_bytes())
            shown = json.loads(daemon.docker("image", "inspect", f"lab/copied:{number}").stdout)[0]
            assert tuple(shown["RootFS"]["Layers"]) == backup.whole().diff_ids
            assert shown["Id"] == sha256_of(config)


def config_of(archive: bytes) -> bytes:
    """Return the configuration in a docker-archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = tar.extractfile("manifest.json")
        assert member is not None
        found = tar.extractfile(json.load(member)[0]["Config"])
        assert found is not None
        return found.read()
