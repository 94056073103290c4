# SPDX-License-Identifier: Apache-2.0
"""What every test daemon MUST do, tried on real ones with both image stores and on the in-memory twin."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator

import pytest

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


@pytest.fixture(params=[*ENGINES, "memory"])
def daemon(request: pytest.FixtureRequest) -> Iterator[TestDaemon]:
    """An empty test daemon of each kind."""
    if request.param == "memory":
        yield MemoryTestDaemon()
        return
    if os.geteuid() != 0:
        pytest.skip("a daemon of our own needs root")
    engine = ENGINES[request.param]
    config = {"features": {"containerd-snapshotter": True}} if engine.containerd_store else None
    with throwaway_daemon(dockerd=str(provide(engine).dockerd), config=config) as started:
        yield started


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
