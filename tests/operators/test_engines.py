# SPDX-License-Identifier: Apache-2.0
"""The main job from and to other engines than the installed one: newer ones, and the containerd image store."""

from __future__ import annotations

import io
import json
import random
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.core.archive.compression import zstd_frame
from airflow_provider_dockerbackup.core.archive.hybrid import stored_archive
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.layers.reading import Sending
from airflow_provider_dockerbackup.core.reading import load_stream
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.restore import RestoreRequest, restore_backup
from airflow_provider_dockerbackup.exceptions import DockerBackupError, IntegrityError, NotFoundError, TransientError
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.remove import DockerRemoveOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.core.layers.framed import framed_layer
from tests.core.world import Notes
from tests.lab.engines import Engine
from tests.lab.images import build_app, build_random, run_app_container
from tests.lab.lab import Lab, LabHost
from tests.operators.context import context
from tests.operators.engine_matrix import PAGE, measure, measured_in, tables, without_versions
from tests.operators.layers_matrix import NOT_MEASURED, differing_cells
from tests.operators.moving import docker_on, save_from

ENGINES = [Engine(version="26"), Engine(version="28"), Engine(version="28", containerd_store=True)]


@pytest.fixture(scope="module", params=ENGINES, ids=str)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """A Docker host with another engine, an image and a running container."""
    with Lab.start(tmp_path_factory.mktemp("other"), engine=request.param) as lab:
        build_app(lab.hosts[0].daemon)
        run_app_container(lab.hosts[0].daemon)
        yield lab.hosts[0]


@pytest.fixture
def both(connections: None, other: LabHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to the lab's hosts, and ``other`` to the other engine's."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", other.airflow_connection())


def execute(operator: Any) -> Any:
    """Run an operator as a task instance of its own."""
    return operator.execute(context(task_id=operator.task_id))


def inspected(host: LabHost, reference: str) -> dict[str, Any]:
    """Return what an engine says of an image."""
    document: dict[str, Any] = json.loads(host.daemon.docker("image", "inspect", reference).stdout)[0]
    return document


@pytest.mark.timeout(900)
def test_every_image_is_the_same_on_every_engine_and_every_export_comes_back_whole() -> None:
    """In both layouts: the page says what is measured now, and it says that all is equal.

    Of the restores from layout ``layers`` one of each backup is measured here; the page's command measures all.
    """
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as directory:  # a short name: sockets live below it
        found = tables(measure(Path(directory)))
    page = measured_in(PAGE.read_text(encoding="utf-8"))
    assert "**" not in found
    assert differing_cells(without_versions(found), without_versions(page)) == []
    assert "**" not in page
    assert NOT_MEASURED not in page


@pytest.mark.usefixtures("both")
def test_a_container_of_another_engine_is_exported_and_verified(other: LabHost, repository_url: str) -> None:
    """The snapshot of a running container works on every engine and leaves nothing behind."""
    export = DockerExportOperator(
        task_id="export", dockerbackup_conn_id="other", container="lab-app", repository=repository_url
    )
    backup_id = execute(export)["backup_id"]
    verify = DockerBackupVerifyOperator(task_id="verify", backup_id=backup_id, repository=repository_url)
    assert execute(verify)["trust"] == "verified"
    listed = other.daemon.docker("ps", "-a", "--format", "{{.Names}}").stdout + other.daemon.docker("images").stdout
    assert b"dockerbackup-" not in listed


@pytest.mark.usefixtures("both")
def test_an_image_and_a_stopped_container_of_another_engine_are_removed_when_verified(
    other: LabHost, repository_url: str
) -> None:
    """Each engine refuses to remove by ID what is in use or has two tags, and takes the one tag with the image."""
    docker = other.daemon.docker
    docker("create", "--name", "lab-gone", "--volume", "/cache", "lab/app:1", "true")
    docker("commit", "lab-gone", "lab/gone:1")
    docker("tag", "lab/gone:1", "lab/gone:2")
    docker("create", "--name", "lab-user", "lab/gone:1", "true")
    image_id = inspected(other, "lab/gone:1")["Id"]

    def remove(**options: Any) -> dict[str, Any]:
        operator = DockerRemoveOperator(
            task_id="remove", dockerbackup_conn_id="other", repository=repository_url, **options
        )
        done: dict[str, Any] = execute(operator)
        return done

    for taken in (
        DockerSaveOperator(task_id="save", dockerbackup_conn_id="other", image="lab/gone:1", repository=repository_url),
        DockerExportOperator(
            task_id="export", dockerbackup_conn_id="other", container="lab-gone", repository=repository_url
        ),
    ):
        backup_id = execute(taken)["backup_id"]
        execute(DockerBackupVerifyOperator(task_id="verify", backup_id=backup_id, repository=repository_url))
    with pytest.raises(AirflowFailException, match="several tags"):
        remove(image=image_id)
    assert docker("image", "rm", image_id, check=False).returncode != 0
    assert remove(image="lab/gone:2")["status"] == "untagged"
    with pytest.raises(AirflowFailException, match="is used by container lab-user"):
        remove(image="lab/gone:1")
    assert docker("image", "rm", image_id, check=False).returncode != 0
    docker("rm", "lab-user")
    assert remove(image="lab/gone:1")["status"] == "removed"
    assert docker("image", "inspect", image_id, check=False).returncode != 0
    volumes = remove(container="lab-gone")["volumes_left"]
    assert docker("container", "inspect", "lab-gone", check=False).returncode != 0
    assert len(volumes) == 3  # of the image, and its own
    docker("volume", "rm", *volumes)


@pytest.fixture
def without_zstd(other: LabHost) -> Iterator[LabHost]:
    """The other host, with a zstd that its sessions find and that does not work."""
    shadow = other.daemon.directory / "client" / "bin"
    start_up = shadow.parent / ".bashrc"
    shadow.mkdir(exist_ok=True)
    (shadow / "zstd").write_text("#!/bin/sh\nexit 127\n", encoding="ascii")
    (shadow / "zstd").chmod(0o755)
    start_up.write_text(f"PATH={shadow}:$PATH\n", encoding="utf-8")
    yield other
    start_up.unlink()


def test_an_engine_decompresses_what_is_restored_where_the_host_has_no_zstd(
    without_zstd: LabHost, tmp_path: Path
) -> None:
    """Layers go to it as they are stored, in many frames; damage is found by it as well."""
    reference, back = "lab/frames:1", "lab/frames-back:1"
    build_random(without_zstd.daemon, reference, size_mb=3, seed=12)
    repository = Repository.open_or_create(storage_from_url(f"file://{tmp_path}"), clock=SystemClock(), layout="layers")
    backup = save_from(without_zstd, repository, name="other", image=reference, capture="save")
    without_zstd.daemon.docker("rmi", reference)
    with load_stream(repository, backup, tags=(back,), sending=Sending(packing="frames")) as frames:
        stream = b"".join(frames)
    with docker_on(without_zstd, name="other") as host:
        assert without_zstd.ssh("zstd", "--version").returncode == 127
        assert host.packing(host.engine()) == "blobs"
        with pytest.raises((IntegrityError, TransientError)):
            host.load_image([stream[: len(stream) // 2], b"\0\1\2", stream[len(stream) // 2 + 3 :]])
        assert host.load_image([stream]).names == (back,)
        assert host.inspect_image(back).diff_ids == backup.whole().diff_ids
        host.create_container(back, name="frames")
        host.remove_container("frames")


def test_layers_are_restored_in_the_blobs_that_hold_them(other: LabHost, tmp_path: Path) -> None:
    """A containerd store names the image by the repository's own manifest; saved again, it brings no new layer."""
    reference, back = "lab/blobs:1", "lab/blobs-back:1"
    build_random(other.daemon, reference, size_mb=3, seed=13)
    repository = Repository.open_or_create(storage_from_url(f"file://{tmp_path}"), clock=SystemClock(), layout="layers")
    backup = save_from(other, repository, name="other", image=reference, capture="save")
    record = backup.whole()
    other.daemon.docker("rmi", reference)
    notes = Notes()
    with docker_on(other, name="other") as host:
        request = RestoreRequest(tags=(back,), all_layers=True)  # its base is there by other names
        done = restore_backup(backup, request, host=host, repository=repository, progress=notes)
        assert host.inspect_image(back).diff_ids == record.diff_ids
        host.create_container(back, name="blobs")
        host.remove_container("blobs")
        store = host.engine().store
    assert done.identical
    assert done.notes == ()  # told by its ID, not value by value
    assert not [note for note in notes.notes if "does not take it so" in note]
    assert record.blobs is not None
    assert done.image_id == (record.blobs.config if store == "graphdriver" else record.blobs.manifest).digest
    again = save_from(other, repository, name="other", image=back).whole().blobs
    assert again is not None
    assert again.layers == record.blobs.layers
    assert again.new_bytes == 0
    other.daemon.docker("rmi", back)


def test_a_restore_over_the_same_image_loaded_plain_needs_no_leave(other: LabHost, tmp_path: Path) -> None:
    """As a rollback leaves it: a containerd store gives it another ID then."""
    reference, back = "lab/plain:1", "lab/plain-back:1"
    build_random(other.daemon, reference, size_mb=3, seed=14)
    repository = Repository.open_or_create(storage_from_url(f"file://{tmp_path}"), clock=SystemClock(), layout="layers")
    backup = save_from(other, repository, name="other", image=reference, capture="save")
    other.daemon.docker("rmi", reference)
    with docker_on(other, name="other") as host:
        with load_stream(repository, backup, tags=(back,)) as chunks:
            host.load_image(chunks)
        before = host.inspect_image(back).id
        request = RestoreRequest(tags=(back,), all_layers=True)
        done = restore_backup(backup, request, host=host, repository=repository, progress=Notes())
        assert done.identical
        assert done.kept == {}
        assert host.inspect_image(back).id == done.image_id
        assert {before, done.image_id} <= backup.whole().image_ids
        assert (before == done.image_id) is (host.engine().store == "graphdriver")
    other.daemon.docker("rmi", back, before, check=False)


def test_an_engine_refuses_a_blob_that_holds_another_layer(other: LabHost) -> None:
    """A classic store alone is trusted with that: it leaves nothing, and a containerd store leaves what cannot run."""
    layer, swapped = random_layer(21), random_layer(22)
    document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [sha256_of(layer)]}}
    config = json.dumps(document).encode()
    piece = framed_layer(layer, zstd_frame(swapped))
    stream = stored_archive(config=config, layers=[piece], tags=["lab/swapped:1"], prove=False)
    with docker_on(other, name="other") as host:
        with pytest.raises(IntegrityError, match=r"(?i)diff ?id"):
            host.load_image(stream)
        if host.engine().store == "graphdriver":
            with pytest.raises(NotFoundError):
                host.inspect_image("lab/swapped:1")
        with pytest.raises(DockerBackupError):
            host.create_container("lab/swapped:1", name="swapped")
    other.daemon.docker("rmi", "lab/swapped:1", check=False)


def random_layer(seed: int) -> bytes:
    """Return a tar with one file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = 100_000
        tar.addfile(member, io.BytesIO(random.Random(seed).randbytes(member.size)))  # noqa: S311 - same data each time
    return file.getvalue()


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_an_archive_on_the_host_of_another_engine_is_read_and_loaded(
    compression: str, tmp_path: Path, repository_url: str
) -> None:
    """The configuration's digest comes from the archive: under a containerd store the image's ID is another one."""

    def save(run: str) -> tuple[str, str]:
        operator = DockerSaveOperator(
            task_id=run,
            dockerbackup_conn_id="other",
            image="lab/app:1",
            repository=repository_url,
            archive_location=f"host:{tmp_path}/archives",
            compression=compression,
        )
        summary = execute(operator)
        return summary["status"], summary["backup_id"]

    status, backup_id = save("first")
    verify = DockerBackupVerifyOperator(
        task_id="verify", backup_id=backup_id, repository=repository_url, archive_host_conn_ids=["other"]
    )
    assert status == "committed"
    assert execute(verify)["trust"] == "verified"
    assert save("second") == ("unchanged", backup_id)


@pytest.mark.usefixtures("both")
def test_a_container_of_another_engine_is_exported_on_its_host_and_verified(
    other: LabHost, tmp_path: Path, repository_url: str
) -> None:
    """A running one by a snapshot, a stopped one as it is; nothing of either stays in Docker."""
    docker = other.daemon.docker
    docker("create", "--name", "lab-stopped", "lab/app:1", "true")
    for container, compression, capture in (("lab-app", "gzip", "snapshot"), ("lab-stopped", "none", "stopped")):
        export = DockerExportOperator(
            task_id=container,
            dockerbackup_conn_id="other",
            container=container,
            repository=repository_url,
            archive_location=f"host:{tmp_path}/archives",
            compression=compression,
        )
        backup_id = execute(export)["backup_id"]
        verify = DockerBackupVerifyOperator(
            task_id="verify", backup_id=backup_id, repository=repository_url, archive_host_conn_ids=["other"]
        )
        assert execute(verify)["trust"] == "verified"
        record = Repository.open(storage_from_url(repository_url), clock=SystemClock()).catalog.find(backup_id).whole()
        assert record.capture == capture
        assert Path(record.path_on_host or "").stat().st_size == record.stored_size_bytes
    docker("rm", "lab-stopped")
    listed = docker("ps", "-a", "--format", "{{.Names}}").stdout + docker("images").stdout
    assert b"dockerbackup-" not in listed
    assert len(list((tmp_path / "archives").iterdir())) == 2
