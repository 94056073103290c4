# SPDX-License-Identifier: Apache-2.0
"""The in-memory twins behave as what they stand for."""

from __future__ import annotations

import gc
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_dockerbackup.core.ports import Clock, DockerHost, RemoteStream, Storage, TestDaemon
from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError, IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport.memory import (
    FixedClock,
    MemoryDockerHost,
    MemoryStorage,
    MemoryStream,
    MemoryTestDaemon,
)
from tests.contract.archives import digest, docker_archive, layer

LAYERS = (layer(a="one"), layer(b="two"))
ARCHIVE = docker_archive(LAYERS, tags=["app:1", "app:latest"])


@pytest.fixture
def host() -> MemoryDockerHost:
    """A host with one image of two tags and a running container."""
    host = MemoryDockerHost("web-1", clock=FixedClock())
    host.add_archive(ARCHIVE)
    host.add_container("app", image="app:1", filesystem=LAYERS[0], config={"Env": ["A=1"]})
    return host


def test_twins_are_what_the_ports_ask_for(host: MemoryDockerHost) -> None:
    """The type checker holds each twin against its port."""
    ports: tuple[Clock, Storage, DockerHost, TestDaemon, RemoteStream] = (
        FixedClock(),
        MemoryStorage(),
        host,
        MemoryTestDaemon(),
        MemoryStream(b""),
    )
    assert len(ports) == 5


def test_clock_stands_still_until_it_is_moved() -> None:
    """Tests decide what time it is."""
    clock = FixedClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    clock.advance(timedelta(minutes=1))
    assert clock.now() == datetime(2026, 3, 1, 12, 1, tzinfo=UTC)
    assert clock.monotonic() == 60
    with pytest.raises(ValueError, match=">= 0"):
        clock.advance(timedelta(seconds=-1))


def test_dropped_writer_counts_as_dead() -> None:
    """A test can leave what a killed process would leave, and see it reaped."""
    storage = MemoryStorage()
    writer = storage.writer("a/archive")
    writer.write(b"x")
    assert storage.reap("", older_than_seconds=0) == ()
    del writer
    gc.collect()
    assert storage.reap("b", older_than_seconds=0) == ()
    assert storage.reap("a", older_than_seconds=3600) == ("a/archive",)
    assert storage.reap("", older_than_seconds=0) == ()


def test_objects_carry_the_given_clocks_time() -> None:
    """Retention can be tested without waiting."""
    clock = FixedClock()
    storage = MemoryStorage(clock=clock)
    clock.advance(timedelta(days=3))
    storage.create("a", b"x")
    assert storage.stat("a").modified == clock.now()


def test_saved_image_is_the_archive_it_came_in(host: MemoryDockerHost) -> None:
    """What was put on the host by an archive comes back as it, by whatever name."""
    image = host.inspect_image("app")
    assert b"".join(host.save_image(image.id)) == ARCHIVE
    assert image.diff_ids == tuple(map(digest, LAYERS))
    assert image.repo_tags == ("app:1", "app:latest")
    assert [line.created_by for line in host.image_history("app:1")] == ["step 0", "step 1"]
    with pytest.raises(NotFoundError):
        host.save_image("app:2")


def test_listings_keep_to_labels(host: MemoryDockerHost) -> None:
    """Labels select by key and by key and value, one item a tag."""
    assert [each.reference for each in host.list_images(labels=["tier=web"])] == ["app:1", "app:latest"]
    assert host.list_images(labels=["tier=db"]) == ()
    assert [each.name for each in host.list_containers(labels=["tier"])] == ["app"]
    assert host.list_containers(labels=["none"]) == ()


def test_export_through_a_snapshot_leaves_nothing(host: MemoryDockerHost) -> None:
    """Commit, create, export: the stream is the container's filesystem, and both helpers are gone after it."""
    image = host.commit_container("app", reference="snapshot:1", message="m", author="a")
    host.create_container(image, name="snapshot")
    assert b"".join(host.export_temporary("snapshot", image="snapshot:1")) == LAYERS[0]
    with pytest.raises(NotFoundError):
        host.inspect_container("snapshot")
    with pytest.raises(NotFoundError):
        host.inspect_image("snapshot:1")
    assert host.inspect_container("app").status == "running"


def test_committed_image_can_be_saved_and_loaded(host: MemoryDockerHost) -> None:
    """A commit keeps configuration, message and author in an archive that a daemon takes."""
    image_id = host.commit_container("app", reference="committed:1", message="m", author="a")
    daemon = MemoryTestDaemon()
    daemon.load(host.save_image(image_id))
    image = daemon.inspect_image(image_id)
    assert image.diff_ids == (digest(LAYERS[0]),)
    assert image.config["Env"] == ["A=1"]
    assert [(line.comment, line.author) for line in host.image_history("committed:1")] == [("m", "a")]


def test_paused_export_resumes_when_its_stream_is_closed(host: MemoryDockerHost) -> None:
    """Whether the stream is read or given up, the container runs again."""
    stream = host.export_paused("app", limit_seconds=5)
    assert host.inspect_container("app").status == "paused"
    other = host.export_paused("app", limit_seconds=5)
    other.close()
    assert other.pause_seconds is None
    assert host.inspect_container("app").status == "paused"
    stream.close()
    stream.close()
    assert host.inspect_container("app").status == "running"


def test_running_container_and_tagged_image_are_not_removed(host: MemoryDockerHost) -> None:
    """Removal is as careful as the engine's."""
    with pytest.raises(ConflictError, match="stop it first"):
        host.remove_container("app")
    with pytest.raises(ConflictError, match="several tags"):
        host.remove_image(host.inspect_image("app:1").id)
    host.remove_image("app:1")
    assert host.inspect_image("app:latest").repo_tags == ("app:latest",)
    with pytest.raises(ConflictError, match="container app uses it"):
        host.remove_image("app")
    host.stop_container("app", timeout_seconds=1)
    host.remove_container("app")
    host.remove_image("app")
    host.remove_image("app")
    host.remove_container("none")
    assert host.list_images() == ()


def test_loading_steals_tags_as_the_engine_does(host: MemoryDockerHost) -> None:
    """A tag points to what was loaded last; the older image stays without it."""
    before = host.inspect_image("app:1").id
    host.load_image([docker_archive([layer(c="new")], tags=["app:1"])])
    assert host.inspect_image("app:1").id != before
    host.tag_image(before, reference="app:1")
    assert host.inspect_image("app:1").id == before


def test_imported_filesystem_is_one_layer(host: MemoryDockerHost) -> None:
    """An import has the stream's digest as its only diff_id."""
    host.import_filesystem([LAYERS[1]], reference="imported:1")
    assert host.inspect_image("imported:1").diff_ids == (digest(LAYERS[1]),)


def test_filesystem_nobody_gave_is_not_made_up(host: MemoryDockerHost) -> None:
    """The twin does not flatten layers, and says so."""
    host.create_container("app:1", name="flat")
    with pytest.raises(DockerBackupError, match="knows no filesystem"):
        host.export_container("flat")


def test_known_layers_are_not_read_again() -> None:
    """As the engine, a daemon that has a layer overlooks damage to it; an empty one does not."""
    damaged = docker_archive(LAYERS, broken=1)
    daemon = MemoryTestDaemon(disposable=False)
    with pytest.raises(IntegrityError, match="invalid diffID for layer 1"):
        daemon.load([damaged])
    daemon.load([ARCHIVE])
    daemon.load([damaged])
