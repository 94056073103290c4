# SPDX-License-Identifier: Apache-2.0
"""What every test daemon MUST do, tried on real ones with both image stores and on the in-memory twin."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_dockerbackup.core.model import Confinement
from airflow_provider_dockerbackup.core.ports import TestDaemon
from airflow_provider_dockerbackup.exceptions import IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport.memory import MemoryTestDaemon
from airflow_provider_dockerbackup.transport.throwaway_daemon import throwaway_daemon
from tests.contract.archives import digest, docker_archive, layer
from tests.lab.engines import Engine, provide

LAYERS = (layer(a="one"), layer(b="two" * 1000))
DIFF_IDS = tuple(digest(data) for data in LAYERS)
ENGINES = {
    "installed": Engine(),
    "28": Engine(version="28"),
    "28 containerd": Engine(version="28", containerd_store=True),
}


@contextmanager
def started(name: str) -> Iterator[TestDaemon]:
    """Start an empty daemon of one of :data:`ENGINES`."""
    if os.geteuid() != 0:
        pytest.skip("a daemon of our own needs root")
    engine = ENGINES[name]
    config = {"features": {"containerd-snapshotter": True}} if engine.containerd_store else None
    with throwaway_daemon(dockerd=str(provide(engine).dockerd), config=config) as daemon:
        yield daemon


@pytest.fixture(params=[*ENGINES, "memory"])
def daemon(request: pytest.FixtureRequest) -> Iterator[TestDaemon]:
    """An empty test daemon of each kind."""
    if request.param == "memory":
        yield MemoryTestDaemon()
        return
    with started(request.param) as real:
        yield real


@pytest.fixture(params=list(ENGINES))
def real_daemon(request: pytest.FixtureRequest) -> Iterator[TestDaemon]:
    """The same without the twin, which runs no programs."""
    with started(request.param) as real:
        yield real


def busybox_layer() -> bytes:
    """Return a layer with one static program and the folders a container needs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "tmp", "run"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        tar.add("/bin/busybox", arcname="bin/busybox")
    return buffer.getvalue()


def pieces(data: bytes, size: int = 4096) -> Iterator[bytes]:
    """Give ``data`` as a stream, with an empty piece in it."""
    yield b""
    for at in range(0, len(data), size):
        yield data[at : at + size]


def test_daemon_starts_empty_and_names_itself(daemon: TestDaemon) -> None:
    """A verification can say which engine it was, and that nothing was known before."""
    engine = daemon.engine()
    assert daemon.disposable
    assert daemon.image_ids() == frozenset()
    assert daemon.layer_diff_ids() == frozenset()
    assert "" not in {engine.version, engine.api_version, engine.engine_id, engine.storage_driver}
    assert daemon.engine().engine_id == engine.engine_id


def test_loaded_image_is_what_the_archive_holds(daemon: TestDaemon) -> None:
    """Tags, layers and configuration of a loaded image are the archive's."""
    loaded = daemon.load(pieces(docker_archive(LAYERS, tags=["drill/a:1"])))
    image = daemon.inspect_image("drill/a:1")
    assert loaded.names == ("drill/a:1",)
    assert image.diff_ids == DIFF_IDS
    assert image.repo_tags == ("drill/a:1",)
    assert image.config["Labels"] == {"tier": "web"}
    assert image.id in daemon.image_ids()
    assert daemon.layer_diff_ids() == frozenset(DIFF_IDS)


def test_loaded_image_can_be_saved_again(daemon: TestDaemon) -> None:
    """The configuration that came in goes out byte for byte, which proves it where ``.Id`` is something else."""
    daemon.load(pieces(docker_archive(LAYERS, tags=["drill/a:1"])))
    with daemon.saved_image("drill/a:1") as stream:
        archive = b"".join(stream)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        configs = [tar.extractfile(name) for name in tar.getnames() if name.endswith(".json") or "blobs/" in name]
        contents = {digest(file.read()) for file in configs if file is not None}
    with tarfile.open(fileobj=io.BytesIO(docker_archive(LAYERS))) as tar:
        (config, *_) = tar.getnames()
    assert f"sha256:{config.rpartition('/')[2]}" in contents


def test_image_without_tags_is_named_by_its_id(daemon: TestDaemon) -> None:
    """An untagged load reports what to remove afterwards."""
    loaded = daemon.load(pieces(docker_archive(LAYERS)))
    (name,) = loaded.names
    assert name.startswith("sha256:")
    assert daemon.inspect_image(name).diff_ids == DIFF_IDS


@pytest.mark.parametrize("broken", [0, 1])
def test_layer_with_one_changed_bit_is_refused(daemon: TestDaemon, broken: int) -> None:
    """Whatever exit status the engine gives, a layer that is not what its diff_id says does not pass."""
    with pytest.raises(IntegrityError):
        daemon.load(pieces(docker_archive(LAYERS, tags=["drill/a:1"], broken=broken)))


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.6])
def test_archive_cut_short_is_refused(daemon: TestDaemon, kept: float) -> None:
    """Half an archive is no archive, none is neither."""
    archive = docker_archive(LAYERS, tags=["drill/a:1"])
    with pytest.raises(IntegrityError):
        daemon.load(pieces(archive[: int(len(archive) * kept)]))


def test_error_of_the_source_is_passed_on(daemon: TestDaemon) -> None:
    """A load is aborted when the stream fails, and the stream's own error is seen."""

    class SourceError(OSError):
        """An error that HTTP libraries take for one of their own."""

    def failing() -> Iterator[bytes]:
        yield docker_archive(LAYERS, tags=["drill/a:1"])[:5000]
        raise SourceError

    with pytest.raises(SourceError):
        daemon.load(failing())
    assert daemon.image_ids() == frozenset()


def test_container_is_created_from_a_loaded_image_and_removed(daemon: TestDaemon) -> None:
    """Creating forces the engine to unpack; removing twice is no error."""
    daemon.load(pieces(docker_archive(LAYERS, tags=["drill/a:1"])))
    by_id = daemon.create_container("drill/a:1", name="drill-1")
    daemon.create_container("drill/a:1", name="drill-2")
    daemon.remove_container(by_id)
    daemon.remove_container("drill-2")
    daemon.remove_container("drill-2")
    daemon.remove_image("drill/a:1")
    daemon.remove_image("drill/a:1")
    assert daemon.image_ids() == frozenset()


def test_image_that_is_not_there_is_not_found(daemon: TestDaemon) -> None:
    """Nothing is ever pulled to make up for it."""
    with pytest.raises(NotFoundError):
        daemon.inspect_image("drill/none:1")
    with pytest.raises(NotFoundError):
        daemon.create_container("drill/none:1", name="drill-1")
    with pytest.raises(NotFoundError), daemon.saved_image("drill/none:1") as stream:
        list(stream)


CONFINED = Confinement(read_only=True, memory_bytes=64 << 20, pids=32, nano_cpus=500_000_000)


def test_a_container_that_cannot_be_started_is_the_images_fault(real_daemon: TestDaemon) -> None:
    """Its command is not there; what was created goes with its name."""
    real_daemon.load(pieces(docker_archive(LAYERS, tags=["drill/a:1"])))
    with pytest.raises(IntegrityError, match="not-there"):
        real_daemon.start_container("drill/a:1", name="drill-1", command=("/not-there",), confinement=CONFINED)
    real_daemon.remove_container("drill-1")
    with pytest.raises(NotFoundError):
        real_daemon.start_container("drill/none:1", name="drill-x", confinement=CONFINED)
    real_daemon.remove_image("drill/a:1")
    assert real_daemon.image_ids() == frozenset()


def test_a_started_container_is_confined_and_watched(real_daemon: TestDaemon) -> None:
    """It has no network, no capability and a read-only filesystem; commands in it give their exit status."""
    real_daemon.load(pieces(docker_archive([busybox_layer()], tags=["drill/b:1"])))
    sh = "/bin/busybox"
    container = real_daemon.start_container(
        "drill/b:1", name="drill-1", command=(sh, "sleep", "60"), confinement=CONFINED
    )
    assert real_daemon.running_container(container).running

    def script(text: str, seconds: float = 20) -> int | None:
        return real_daemon.run_in_container(container, (sh, "sh", "-c", text), timeout_seconds=seconds)

    assert script("exit 0") == 0
    assert script("exit 7") == 7
    assert script("busybox touch /written") != 0
    assert script("/bin/busybox touch /tmp/written") == 0
    assert script('[ "$(/bin/busybox ls /sys/class/net)" = lo ]') == 0
    assert script("/bin/busybox grep -q 'CapEff:.0000000000000000' /proc/self/status") == 0
    assert script("/bin/busybox grep -q 'NoNewPrivs:.1' /proc/self/status") == 0
    assert script("/bin/busybox sleep 30", seconds=0.5) is None
    real_daemon.remove_container("drill-1")
    assert script("exit 0") is None
    with pytest.raises(NotFoundError):
        real_daemon.running_container(container)


def test_a_container_that_ends_shows_its_exit_status(real_daemon: TestDaemon) -> None:
    """That is how a drill knows that it did not stay up."""
    real_daemon.load(pieces(docker_archive([busybox_layer()], tags=["drill/b:1"])))
    container = real_daemon.start_container(
        "drill/b:1", name="drill-1", command=("/bin/busybox", "sh", "-c", "exit 5"), confinement=CONFINED
    )
    deadline = time.monotonic() + 30
    while (state := real_daemon.running_container(container)).running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (state.running, state.exit_status, state.health) == (False, 5, None)
    real_daemon.remove_container(container)
