# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.archive.compression import zstd_frame
from airflow_provider_dockerbackup.core.archive.hybrid import image_archive
from airflow_provider_dockerbackup.core.archive.tar_header import padding
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.ports import DockerHost
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from tests.core.layers.framed import framed_layer
from tests.lab.engines import Engine
from tests.lab.images import APP, BASE, build_app, build_base, build_random
from tests.lab.lab import Lab, LabHost
from tests.transport.ssh_lab import session

# The installed engine, and with LAB_ENGINES=all also others, which are fetched once.
ENGINES = [Engine()]
if os.environ.get("LAB_ENGINES") == "all":
    ENGINES += [Engine(version="26"), Engine(version="28"), Engine(version="28", containerd_store=True)]


@pytest.fixture(scope="module", params=ENGINES, ids=str)
def lab_host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """A host with a real sshd and dockerd, with two images."""
    engine: Engine = request.param
    with Lab.start(tmp_path_factory.mktemp("lab"), engine=engine) as lab:
        build_base(lab.hosts[0].daemon)
        build_app(lab.hosts[0].daemon)
        yield lab.hosts[0]


@pytest.fixture
def host(lab_host: LabHost) -> Iterator[SshDockerHost]:
    """The host as the port has it."""
    opened = SshDockerHost(session(lab_host), name="web-1", access={"host_key_verified": "true"})
    yield opened
    opened.close()


@pytest.fixture
def container(lab_host: LabHost) -> Iterator[Callable[..., str]]:
    """Start containers of the base image, which are removed afterwards."""
    names: list[str] = []

    def start(name: str, script: str = "sleep 1000", *options: str) -> str:
        run = ("run", "--detach", "--network", "none", "--name", name, *options, BASE, "/bin/sh", "-c", script)
        lab_host.daemon.docker(*run)
        names.append(name)
        return name

    yield start
    for name in names:
        lab_host.daemon.docker("rm", "--force", "--volumes", name, check=False)


def with_data(size_bytes: int) -> str:
    """Give what a container runs that writes this many bytes, and then sleeps."""
    return f"head -c {size_bytes} /dev/urandom > /data; : > /whole; sleep 1000"


def wait_for_data(lab_host: LabHost, name: str) -> None:
    """Return when the container has written all of it, however busy the machine is."""
    lab_host.daemon.docker("exec", name, "/bin/sh", "-c", "until test -e /whole; do sleep 1; done")


def status(lab_host: LabHost, name: str) -> str:
    """Give the state of a container."""
    return lab_host.daemon.docker("inspect", "--format", "{{.State.Status}}", name).stdout.decode().strip()


def with_command(lab_host: LabHost, text: str, *, socket: str | None = None) -> SshDockerHost:
    """Give the host with another docker command."""
    return SshDockerHost(session(lab_host), name="web-1", command=DockerCommand.parse(text, socket=socket))


def script(path: Path, text: str) -> str:
    """Write a program that plays docker."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_engine_is_described(host: SshDockerHost, lab_host: LabHost) -> None:
    """Version, API, store, driver, platform, identifier and data directory, as the daemon has them."""
    engine = host.engine()
    asked = json.loads(lab_host.daemon.docker("info", "--format", "{{json .}}").stdout)
    assert engine.version == asked["ServerVersion"]
    assert re.fullmatch(r"1\.\d\d", engine.api_version)
    assert engine.store == ("containerd" if lab_host.daemon.engine.containerd_store else "graphdriver")
    assert engine.storage_driver == asked["Driver"]
    assert (engine.os, engine.engine_id, engine.data_root) == ("linux", asked["ID"], asked["DockerRootDir"])
    assert engine.architecture in {"amd64", "arm64"}


def test_connection_test_says_engine_and_host(host: SshDockerHost) -> None:
    """One line."""
    assert re.fullmatch(r"Docker Engine [0-9]+\.[0-9.]+\S* \((graphdriver|containerd)/\w+\) on web-1", host.test())


def test_access_says_how_the_host_was_reached(host: DockerHost, lab_host: LabHost) -> None:
    """Facts of the connection and those of the caller."""
    access = host.access
    assert access["user"] == lab_host.user
    assert access["host_key"].startswith("SHA256:")
    assert access["host_key_verified"] == "true"


def test_time_is_the_hosts_own(host: SshDockerHost) -> None:
    """Aware UTC, whatever the time zone."""
    assert abs(host.now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_images_are_listed_by_tag_and_label(host: SshDockerHost, lab_host: LabHost) -> None:
    """One item a tag; labels must all be there."""
    lab_host.daemon.docker("tag", BASE, "lab/second:name")
    try:
        listed = {one.reference: one for one in host.list_images()}
        assert {BASE, APP, "lab/second:name"} <= set(listed)
        assert listed[BASE].id == listed["lab/second:name"].id
        assert listed[APP].labels["backup.enable"] == "true"
        assert [one.reference for one in host.list_images(labels=["backup.enable=true"])] == [APP]
        assert [one.reference for one in host.list_images(labels=["backup.enable", "lab.odd"])] == [APP]
        assert host.list_images(labels=["backup.enable=false"]) == ()
        assert host.list_images(labels=["no.such.label"]) == ()
    finally:
        lab_host.daemon.docker("rmi", "lab/second:name")


def test_untagged_image_is_listed_by_its_id(host: SshDockerHost, lab_host: LabHost) -> None:
    """Once, never as ``<none>``."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("untagged"))
    untagged = lab_host.daemon.docker("import", "-", input=tar.getvalue()).stdout.decode().strip()
    try:
        assert [one.reference for one in host.list_images() if one.id == untagged] == [untagged]
    finally:
        lab_host.daemon.docker("rmi", untagged)


def test_containers_are_listed_in_any_state(host: SshDockerHost, container: Callable[..., str]) -> None:
    """With labels, by label."""
    container("lists-running", "sleep 1000", "--label", "team=a b")
    container("lists-ended", "true", "--label", "team=c")
    listed = {one.name: one for one in host.list_containers()}
    assert listed["lists-running"].state == "running"
    assert listed["lists-running"].image == BASE
    assert {"lists-running", "lists-ended"} <= set(listed)
    assert [one.name for one in host.list_containers(labels=["team=a b"])] == ["lists-running"]
    assert host.list_containers(labels=["team=d"]) == ()


def test_image_is_inspected_by_name_and_id(host: SshDockerHost, lab_host: LabHost) -> None:
    """The whole document, and what is read from it."""
    image = host.inspect_image(APP)
    asked = json.loads(lab_host.daemon.docker("image", "inspect", APP).stdout)[0]
    assert image.document == asked
    assert image.diff_ids == tuple(asked["RootFS"]["Layers"])
    assert image.repo_tags == (APP,)
    assert image.config["StopSignal"] == "SIGINT"
    assert host.inspect_image(image.id).id == image.id


def test_image_of_a_containers_name_is_not_found(host: SshDockerHost, container: Callable[..., str]) -> None:
    """And the other way round: kinds are never mixed up."""
    container("only-a-container")
    with pytest.raises(NotFoundError, match=r"only-a-container.*web-1"):
        host.inspect_image("only-a-container:latest")
    with pytest.raises(NotFoundError):
        host.inspect_image("only-a-container")
    with pytest.raises(NotFoundError, match=r"web-1"):
        host.inspect_container("base")


def test_container_is_inspected_by_name_and_id(host: SshDockerHost, container: Callable[..., str]) -> None:
    """State, image, configuration and mounts."""
    container("looked-at", "sleep 1000", "--env", "SECRET=x\ny", "--volume", "/data")
    found = host.inspect_container("looked-at")
    assert (found.name, found.status, found.image_reference) == ("looked-at", "running", BASE)
    assert found.image_id == host.inspect_image(BASE).id
    assert "SECRET=x\ny" in found.config["Env"]
    assert [mount["Destination"] for mount in found.mounts] == ["/data"]
    assert host.inspect_container(found.id).id == found.id


def test_history_is_given_oldest_first(host: SshDockerHost) -> None:
    """As many steps have a layer as the image has layers; times are RFC 3339 in UTC."""
    history = host.image_history(APP)
    assert sum(not line.empty_layer for line in history) == len(host.inspect_image(APP).diff_ids)
    assert history[0].comment == "lab base"
    assert "start" in history[-1].created_by or "CMD" in history[-1].created_by
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|\+00:00)", line.created) for line in history)
    by_step = {line.created_by: line.empty_layer for line in history}
    assert any("USER" in step and empty for step, empty in by_step.items())
    with pytest.raises(NotFoundError):
        host.image_history("lab/none:1")


def test_saved_image_can_be_loaded_again(host: SshDockerHost, lab_host: LabHost) -> None:
    """Save, remove, load: the same layers and configuration under the same tag."""
    build_random(lab_host.daemon, "lab/roundtrip:1", size_mb=20, layers=3)
    image = host.inspect_image("lab/roundtrip:1")
    by_id = b"".join(host.save_image(image.id))
    by_tag = b"".join(host.save_image("lab/roundtrip:1"))
    assert len(by_id) > 20_000_000
    host.remove_image("lab/roundtrip:1")
    with pytest.raises(NotFoundError):
        host.inspect_image("lab/roundtrip:1")
    loaded = host.load_image(by_tag[start : start + 100_000] for start in range(0, len(by_tag), 100_000))
    assert loaded.names == ("lab/roundtrip:1",)
    assert host.inspect_image("lab/roundtrip:1").diff_ids == image.diff_ids
    host.remove_image("lab/roundtrip:1")
    loaded = host.load_image([by_id])
    assert len(loaded.names) == 1
    assert host.inspect_image(loaded.names[0]).diff_ids == image.diff_ids
    host.tag_image(loaded.names[0], reference="lab/tagged:2")
    assert host.inspect_image("lab/tagged:2").diff_ids == image.diff_ids
    host.remove_image("lab/tagged:2")


def test_container_is_committed_exported_and_imported(
    host: SshDockerHost, lab_host: LabHost, container: Callable[..., str]
) -> None:
    """The way of a snapshot export, and a flat image of it; all temporary things are removed again."""
    container("worker", "echo kept > /kept; sleep 1000")
    time.sleep(0.5)
    committed = host.commit_container(
        "worker", reference="lab/snapshot:1", message='it\'s\na "snapshot"', author="A <a@b>", changes=["ENV X=it\\'s"]
    )
    assert host.inspect_image("lab/snapshot:1").id == committed
    assert host.inspect_image("lab/snapshot:1").document["Author"] == "A <a@b>"
    assert "X=it's" in host.inspect_image("lab/snapshot:1").config["Env"]
    assert host.image_history("lab/snapshot:1")[-1].comment == 'it\'s\na "snapshot"'
    created = host.create_container("lab/snapshot:1", name="snapshot-1")
    assert host.inspect_container("snapshot-1").status == "created"
    assert host.inspect_container("snapshot-1").id == created
    assert host.inspect_container("snapshot-1").document["HostConfig"]["NetworkMode"] == "none"
    exported = b"".join(host.export_container("snapshot-1"))
    with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
        kept = tar.extractfile("kept")
        assert kept is not None
        assert kept.read() == b"kept\n"
    imported = host.import_filesystem([exported], reference="lab/flat:1", changes=['CMD ["/bin/sh"]', "ENV A=b"])
    flat = host.inspect_image("lab/flat:1")
    assert flat.id == imported
    assert flat.config["Cmd"] == ["/bin/sh"]
    assert flat.diff_ids == ("sha256:" + hashlib.sha256(exported).hexdigest(),)
    for _ in range(2):
        host.remove_container("snapshot-1")
        host.remove_image("lab/snapshot:1")
        host.remove_image("lab/flat:1")
    assert status(lab_host, "worker") == "running"


@pytest.mark.parametrize("pause", [True, False])
def test_commit_runs_whether_paused_or_not(host: SshDockerHost, container: Callable[..., str], pause: bool) -> None:
    """Both ways give an image."""
    container(f"committed-{pause}".lower())
    made = host.commit_container(f"committed-{pause}".lower(), reference="lab/commit:1", pause=pause)
    assert made.startswith("sha256:")
    host.remove_image("lab/commit:1")


def test_container_is_paused_while_it_is_exported(
    host: SshDockerHost, lab_host: LabHost, container: Callable[..., str]
) -> None:
    """And runs again when the stream ends."""
    wait_for_data(lab_host, container("paused-export", with_data(50_000_000)))
    states = set()
    size = 0
    for piece in host.export_paused("paused-export", limit_seconds=60):
        if size == 0:
            states.add(status(lab_host, "paused-export"))
        size += len(piece)
    assert states == {"paused"}
    assert size > 50_000_000
    assert status(lab_host, "paused-export") == "running"


@pytest.mark.parametrize("fault", ["cut", "close"])
def test_container_runs_again_when_its_export_is_broken_off(
    host: SshDockerHost, lab_host: LabHost, container: Callable[..., str], fault: str
) -> None:
    """A cut link and a reader that stops alike."""
    name = container(f"broken-export-{fault}", with_data(100_000_000))
    wait_for_data(lab_host, name)
    stream = host.export_paused(name, limit_seconds=60)
    pieces = iter(stream)
    next(pieces)
    assert status(lab_host, name) == "paused"
    if fault == "cut":
        lab_host.kill_sessions()
        with pytest.raises(TransientError):
            for _ in pieces:
                pass
    else:
        stream.close()
    end = time.monotonic() + 10
    while status(lab_host, name) != "running":
        assert time.monotonic() < end
        time.sleep(0.1)


def test_container_runs_again_at_the_limit_when_nobody_reads(
    host: SshDockerHost, lab_host: LabHost, container: Callable[..., str]
) -> None:
    """A reader that hangs cannot hold the container; the export is then refused."""
    name = container("stuck-export", with_data(100_000_000))
    wait_for_data(lab_host, name)
    with pytest.raises(TransientError, match="was unpaused before its export ended"):  # noqa: PT012
        for number, _ in enumerate(host.export_paused(name, limit_seconds=2)):
            if number == 0:
                time.sleep(4)
                assert status(lab_host, name) == "running"


@pytest.mark.parametrize("fault", ["none", "cut", "close"])
def test_temporary_container_is_removed_by_its_host(
    host: SshDockerHost, lab_host: LabHost, container: Callable[..., str], fault: str
) -> None:
    """With its image, also when the link is cut or the reader stops."""
    name = container(f"temporary-source-{fault}", with_data(60_000_000))
    wait_for_data(lab_host, name)
    image = host.commit_container(name, reference="lab/temporary:1")
    host.create_container("lab/temporary:1", name="temporary-1")
    stream = host.export_temporary("temporary-1", image="lab/temporary:1")
    pieces = iter(stream)
    size = len(next(pieces))
    if fault == "cut":
        lab_host.kill_sessions()
        with pytest.raises(TransientError):
            size += sum(map(len, pieces))
    elif fault == "close":
        stream.close()
    else:
        assert size + sum(map(len, pieces)) > 60_000_000
    end = time.monotonic() + 10
    while any(one.name == "temporary-1" for one in host.list_containers()) or any(
        one.id == image for one in host.list_images()
    ):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_container_that_was_paused_before_stays_paused(
    host: SshDockerHost, lab_host: LabHost, container: Callable[..., str]
) -> None:
    """Its pause is not ours."""
    name = container("held")
    lab_host.daemon.docker("pause", name)
    assert len(b"".join(host.export_paused(name, limit_seconds=60))) > 0
    assert status(lab_host, name) == "paused"
    lab_host.daemon.docker("unpause", name)


def test_sources_that_are_not_there_are_not_found(host: SshDockerHost) -> None:
    """Whatever is done with them; the message names host and source."""
    missing = "sha256:" + "0" * 64
    with pytest.raises(NotFoundError, match=rf"docker save {missing} on web-1"):
        list(host.save_image(missing))
    with pytest.raises(NotFoundError, match="gone"):
        list(host.export_container("gone"))
    with pytest.raises(NotFoundError, match="gone"):
        list(host.export_paused("gone", limit_seconds=5))
    with pytest.raises(NotFoundError):
        host.commit_container("gone", reference="lab/x:1")
    with pytest.raises(NotFoundError):
        host.create_container(missing, name="never")
    with pytest.raises(NotFoundError):
        host.create_container("lab/never-pulled:1", name="never")
    with pytest.raises(NotFoundError):
        host.tag_image(missing, reference="lab/x:1")
    host.remove_container("gone")
    host.remove_image("lab/none:1")
    host.remove_image(missing)


def test_what_is_in_use_is_a_conflict(host: SshDockerHost, container: Callable[..., str]) -> None:
    """Running containers, taken names and used images stay."""
    container("in-use")
    with pytest.raises(ConflictError):
        host.remove_container("in-use")
    with pytest.raises(ConflictError):
        host.create_container(BASE, name="in-use")
    host.tag_image(host.inspect_image(BASE).id, reference="lab/in-use:1")
    host.remove_image("lab/in-use:1")
    with pytest.raises(ConflictError):
        host.remove_image(host.inspect_image(BASE).id)
    assert host.inspect_container("in-use").status == "running"


def damaged(archive: bytes, how: str) -> bytes:
    """Damage an archive in a way of which an engine must not make an image."""
    if how == "half":
        return archive[: len(archive) // 2]
    if how == "garbage":
        return b"\xff" * 10240
    if how == "empty":
        return b""
    at = archive.index(b"random") if b"random" in archive else len(archive) // 3
    return archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :]


@pytest.mark.parametrize("how", ["half", "garbage", "empty"])
def test_damaged_archive_is_not_loaded(host: SshDockerHost, lab_host: LabHost, how: str) -> None:
    """An error, and nothing under its tag; an archive that is cut may look like a daemon that went away."""
    build_random(lab_host.daemon, f"lab/damaged-{how}:1", size_mb=3, seed=7)
    archive = b"".join(host.save_image(f"lab/damaged-{how}:1"))
    host.remove_image(f"lab/damaged-{how}:1")
    expected = (IntegrityError, TransientError) if how == "half" else IntegrityError
    with pytest.raises(expected, match="docker load on web-1"):
        host.load_image([damaged(archive, how)])
    with pytest.raises(NotFoundError):
        host.inspect_image(f"lab/damaged-{how}:1")


def members_end(archive: bytes) -> int:
    """Give the offset at which the last member of a tar ends."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        last = tar.getmembers()[-1]
    return last.offset_data + (last.size + 511) // 512 * 512


def test_archive_whose_chunks_raise_is_not_loaded(host: SshDockerHost, lab_host: LabHost) -> None:
    """Not even when all members were sent: docker takes a tar without its end marks, so it is spoilt."""
    reference = "lab/aborted:1"
    build_random(lab_host.daemon, reference, size_mb=2, seed=8)
    archive = b"".join(host.save_image(reference))
    host.remove_image(reference)
    whole = members_end(archive)

    def chunks() -> Iterator[bytes]:
        yield archive[:whole]
        time.sleep(0.5)
        raise IntegrityError("the digest of the whole differs")

    with pytest.raises(IntegrityError, match="the digest of the whole differs"):
        host.load_image(chunks())
    time.sleep(2)
    with pytest.raises(NotFoundError):
        host.inspect_image(reference)


def tar_layer(name: str, data: bytes) -> bytes:
    """Return a layer of one file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def frames_of(archive: bytes) -> list[bytes]:
    """Compress an archive in a series of frames, cut anywhere."""
    return [zstd_frame(archive[at : at + 700_001]) for at in range(0, len(archive), 700_001)]


def test_archive_in_zstd_frames_is_loaded(host: SshDockerHost, lab_host: LabHost) -> None:
    """The same image, through the host's own zstd."""
    reference = "lab/packed:1"
    build_random(lab_host.daemon, reference, size_mb=3, seed=10)
    before = host.inspect_image(reference).id
    archive = b"".join(host.save_image(reference))
    host.remove_image(reference)
    assert host.packing(host.engine()) == "frames"
    assert host.load_image(frames_of(archive)).names == (reference,)
    assert host.inspect_image(reference).id == before


def plain_image(layer: bytes, text: str) -> bytes:
    """Return the configuration of an image of one layer."""
    rootfs = {"type": "layers", "diff_ids": [sha256_of(layer)]}
    config = {"Env": [f"TEXT={text}"]}
    return json.dumps({"architecture": "amd64", "os": "linux", "config": config, "rootfs": rootfs}).encode()


def test_a_blob_that_holds_more_than_its_layer_brings_no_image_of_its_own(host: SshDockerHost) -> None:
    """What follows its layer would be members of the archive, and take over any tag on the host."""
    layer, victim = tar_layer("file", b"x" * 700), "lab/victim:1"

    def archive(text: str, tag: str, blob: bytes, *, packed: bool) -> Iterator[bytes]:
        piece = framed_layer(layer, zstd_frame(blob))
        return image_archive(config=plain_image(layer, text), layers=[piece], tags=[tag], packed=packed)

    host.load_image(archive("good", victim, layer, packed=False))
    good = host.inspect_image(victim).id
    evil = b"".join(archive("evil", victim, layer, packed=False))
    with suppress(DockerBackupError):
        host.load_image(archive("mine", "lab/mine:1", layer + padding(len(layer)) + evil, packed=True))
    assert host.inspect_image(victim).id == good
    host.remove_image(victim)


def test_frames_that_hold_another_layer_of_that_length_are_refused_by_the_engine(host: SshDockerHost) -> None:
    """A classic store alone is left to compare it: it does so for every layer that it keeps."""
    layer, swapped = tar_layer("file", b"x" * 700), tar_layer("file", b"y" * 700)
    piece = framed_layer(layer, zstd_frame(swapped))
    config = plain_image(layer, "swapped")
    with pytest.raises(IntegrityError, match="invalid diffID"):
        host.load_image(image_archive(config=config, layers=[piece], tags=["lab/swapped:1"], packed=True, prove=False))
    with pytest.raises(NotFoundError):
        host.inspect_image("lab/swapped:1")


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_damaged_zstd_frames_are_not_loaded(host: SshDockerHost, lab_host: LabHost, at: float) -> None:
    """An error, and no image."""
    reference = "lab/packed-damaged:1"
    build_random(lab_host.daemon, reference, size_mb=3, seed=11)
    frames = b"".join(frames_of(b"".join(host.save_image(reference))))
    host.remove_image(reference)
    position = int(len(frames) * at)
    damaged_frames = frames[:position] + bytes([frames[position] ^ 1]) + frames[position + 1 :]
    with pytest.raises((IntegrityError, TransientError)):
        host.load_image([damaged_frames])
    with pytest.raises(NotFoundError):
        host.inspect_image(reference)


def test_filesystem_whose_chunks_raise_is_not_imported(host: SshDockerHost) -> None:
    """An import takes any sequence of whole members for a filesystem, so it is spoilt as well."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo("member")
        member.size = 3000
        tar.addfile(member, io.BytesIO(b"x" * 3000))
    for sent in (512, 1000, 3000, 3584):

        def chunks(sent: int = sent) -> Iterator[bytes]:
            yield file.getvalue()[:sent]
            time.sleep(0.3)
            raise KeyError("gone")

        with pytest.raises(KeyError):
            host.import_filesystem(chunks(), reference="lab/broken-import:1")
        time.sleep(1)
        # The containerd store keeps an image record of what it could not unpack.
        with pytest.raises(DockerBackupError):
            host.create_container("lab/broken-import:1", name="broken-import")
        host.remove_image("lab/broken-import:1")


def test_damaged_layer_is_not_loaded(host: SshDockerHost, lab_host: LabHost) -> None:
    """Also where the engine exits with 0 after it failed to unpack the layer."""
    reference = "lab/flipped:1"
    build_random(lab_host.daemon, reference, size_mb=3, seed=9)
    archive = b"".join(host.save_image(reference))
    host.remove_image(reference)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        largest = max(tar.getmembers(), key=lambda member: member.size)
    at = largest.offset_data + largest.size // 2
    with pytest.raises(IntegrityError):
        host.load_image([archive[:at], bytes([archive[at] ^ 1]), archive[at + 1 :]])
    lab_host.daemon.docker("rmi", "--force", reference, check=False)


def test_stream_fails_when_the_daemon_is_killed(lab_host: LabHost) -> None:
    """Transient: the daemon may be back in a minute."""
    build_random(lab_host.daemon, "lab/killed:1", size_mb=150)
    host = SshDockerHost(session(lab_host), name="web-1")
    image = host.inspect_image("lab/killed:1").id
    try:
        with pytest.raises(TransientError):  # noqa: PT012
            for number, _ in enumerate(host.save_image(image)):
                if number == 1:
                    lab_host.daemon.kill()
        with pytest.raises(TransientError, match="systemctl status docker"):
            host.test()
    finally:
        host.close()
        lab_host.daemon.start()


def test_missing_client_is_a_matter_of_configuration(lab_host: LabHost) -> None:
    """The message says to install it or to give its path."""
    for text in ("no-such-docker", "/opt/no/docker"):
        with pytest.raises(ConfigurationError, match="full path"):
            with_command(lab_host, text).test()
    with pytest.raises(ConfigurationError, match="full path"):
        list(with_command(lab_host, "no-such-docker").export_paused("web", limit_seconds=5))


def test_missing_daemon_is_transient(lab_host: LabHost, tmp_path: Path) -> None:
    """Nothing listens on the socket."""
    with pytest.raises(TransientError, match="systemctl status docker"):
        with_command(lab_host, "docker", socket=f"unix://{tmp_path}/none.sock").test()


def test_lack_of_rights_is_a_matter_of_configuration(lab_host: LabHost, tmp_path: Path) -> None:
    """A user who may not open the socket reads how to change that."""
    socket = lab_host.daemon.docker_host
    docker = script(
        tmp_path / "docker", f'chmod 600 {socket[7:]}\nexec setpriv --reuid=65534 --clear-groups docker "$@"'
    )
    with pytest.raises(ConfigurationError, match=r"group 'docker'.*sudo -n docker"):
        with_command(lab_host, docker, socket=socket).test()


def test_sudo_that_asks_is_a_matter_of_configuration(lab_host: LabHost, tmp_path: Path) -> None:
    """The message says what sudoers needs."""
    docker = script(tmp_path / "docker", "echo 'sudo: a password is required' >&2; exit 1")
    with pytest.raises(ConfigurationError, match="NOPASSWD"):
        with_command(lab_host, docker).test()


def test_banner_before_the_output_does_no_harm(lab_host: LabHost, tmp_path: Path) -> None:
    """Shells that greet on every command are common; lists, inspection and IDs are read behind it."""
    docker = script(tmp_path / "docker", 'echo "Welcome to [web-1]"; exec docker "$@"')
    host = with_command(lab_host, docker)
    assert host.engine().version
    assert APP in {one.reference for one in host.list_images()}
    image = host.inspect_image(APP)
    assert host.image_history(APP)
    host.tag_image(image.id, reference="lab/greeted:1")
    assert host.inspect_image("lab/greeted:1").id == image.id
    host.remove_image("lab/greeted:1")
    host.close()


def test_banner_in_place_of_the_output_is_named(lab_host: LabHost, tmp_path: Path) -> None:
    """The message says what to look for."""
    docker = script(tmp_path / "docker", 'echo "Your password will expire"')
    with pytest.raises(ConfigurationError, match=r"docker info on web-1.*remote shell prints text.*expire"):
        with_command(lab_host, docker).test()


def test_secret_values_are_in_no_error(host: SshDockerHost, container: Callable[..., str]) -> None:
    """A change that docker refuses is not repeated in the message."""
    container("secret-holder")
    with pytest.raises(DockerBackupError) as caught:
        host.commit_container("secret-holder", reference="lab/x:1", changes=["PASSWORD hunter2 hunter2"])
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.__cause__)


def test_calls_from_several_threads_do_not_disturb_each_other(host: SshDockerHost) -> None:
    """They share one connection."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(3):
                assert host.inspect_image(BASE).repo_tags == (BASE,)
        except BaseException as err:  # noqa: BLE001 - carried to the test's own thread
            failures.append(err)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
