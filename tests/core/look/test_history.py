# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_dockerbackup.cli.history import docker_duration, docker_size
from airflow_provider_dockerbackup.core.archive.image_steps import ImageStepsScanner
from airflow_provider_dockerbackup.core.look.history import MISSING, history_steps, image_history
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.core.archive.making import (
    IMAGES,
    Entry,
    compact,
    golden,
    image_config,
    layer,
    legacy_archive,
    pieces,
    scan,
    sha256,
    tar_of,
)
from tests.core.world import CONTAINER, HOST, World, spoil

LAYERS = [layer("bin/sh", "etc/passwd"), layer("app/one")]
HISTORY: list[dict[str, Any]] = [
    {"created": "2026-01-01T00:00:00Z", "created_by": "ADD base"},
    {"created": "2026-01-02T00:00:00Z", "created_by": "ENV TOKEN=secret", "empty_layer": True},
    {"created_by": "/bin/sh -c make", "comment": "by hand", "author": "me"},
]


def world_with(history: list[dict[str, Any]]) -> World:
    """Return a world whose image has this history."""
    host = MemoryDockerHost(HOST)
    config = {**image_config(LAYERS), "history": history}
    host.add_archive(tar_of(legacy_archive(LAYERS, config=config, tags=["lab/app:1"])))
    return World(host=host)


def test_the_history_is_that_of_the_archive_with_sizes_of_files() -> None:
    """Newest first, commands whole, sizes of files and not of tars, only the newest line names the image."""
    world = world_with(HISTORY)
    backup = world.backup(1).backup
    newest, middle, oldest = image_history(world.repository, backup, progress=world.progress)
    assert (newest.created_by, newest.comment, newest.author) == ("/bin/sh -c make", "by hand", "me")
    assert (newest.size_bytes, middle.size_bytes, oldest.size_bytes) == (7, 0, 16)
    assert (middle.created_by, middle.diff_id) == ("ENV TOKEN=secret", None)
    assert oldest.diff_id == f"sha256:{sha256(LAYERS[0])}"
    image = backup.whole().image
    assert image is not None
    assert [newest.image, middle.image, oldest.image] == [image.id, MISSING, MISSING]
    assert world.progress.open == 0


def test_a_containers_backup_has_no_history() -> None:
    """It is refused before anything is read."""
    world = World()
    backup = world.backup(1, CONTAINER).backup
    with pytest.raises(ConfigurationError, match="keeps no history"):
        image_history(world.repository, backup, progress=world.progress)


def test_a_damaged_archive_gives_no_history() -> None:
    """One flipped bit, and the digests are not those of the record."""
    world = world_with(HISTORY)
    backup = world.backup(1).backup
    spoil(world.storage, backup.path + backup.whole().archive_file.name)
    with pytest.raises(IntegrityError):
        image_history(world.repository, backup, progress=world.progress)


def test_a_history_with_more_layers_than_the_image_is_refused() -> None:
    """Docker refuses such an image as well."""
    image = world_with(HISTORY).backup(1).backup.whole().image
    assert image is not None
    config = compact({**image_config(LAYERS), "history": [{}, {}, {}]})
    with pytest.raises(IntegrityError, match="more steps"):
        history_steps(config, image, layer_sizes=[1, 2])


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("piece_bytes", [1, 1 << 20])
def test_every_engines_archive_gives_its_configuration_and_the_size_of_each_layer(name: str, piece_bytes: int) -> None:
    """Compressed layers and those of every form are measured, however the stream is cut."""
    image = scan(golden(name)).image
    scanner = ImageStepsScanner(config_digest=image.config_digest, layer_members=[each.member for each in image.layers])
    for piece in pieces(golden(name), piece_bytes):
        scanner.feed(piece)
    config, sizes = scanner.finish()
    assert config == image.config
    for each in image.layers:
        size = sizes[each.member]
        assert size is not None
        assert 0 <= size < each.size_bytes


def test_a_layer_that_is_no_tar_has_an_unknown_size() -> None:
    """The image is still whole; only this size is not known."""
    layers = [b"no tar at all " * 100]
    scanned = scan(tar_of(legacy_archive(layers))).image
    scanner = ImageStepsScanner(config_digest=scanned.config_digest, layer_members=[scanned.layers[0].member])
    scanner.feed(tar_of(legacy_archive(layers)))
    assert scanner.finish()[1] == {scanned.layers[0].member: None}


def test_links_count_as_docker_counts_them() -> None:
    """A symbolic link is as long as its target, a hard link nothing."""
    links = [Entry("s", kind=b"2", link="target"), Entry("f", b"12345"), Entry("h", kind=b"1", link="f")]
    data = tar_of(legacy_archive([tar_of(links)]))
    image = scan(data).image
    scanner = ImageStepsScanner(config_digest=image.config_digest, layer_members=[image.layers[0].member])
    scanner.feed(data)
    assert scanner.finish()[1] == {image.layers[0].member: 11}


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0B"), (999, "999B"), (1234, "1.23kB"), (98_100_000, "98.1MB"), (5_000_000_000, "5GB"), (None, "?")],
)
def test_sizes_are_those_of_docker(size_bytes: int | None, text: str) -> None:
    """Three digits, decimal units, no blank."""
    assert docker_size(size_bytes) == text


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(seconds=0), "Less than a second"),
        (timedelta(seconds=1), "1 second"),
        (timedelta(seconds=59), "59 seconds"),
        (timedelta(seconds=119), "About a minute"),
        (timedelta(minutes=59), "59 minutes"),
        (timedelta(minutes=89), "About an hour"),
        (timedelta(minutes=90), "2 hours"),
        (timedelta(hours=48), "2 days"),
        (timedelta(days=14), "2 weeks"),
        (timedelta(days=60), "2 months"),
        (timedelta(days=729), "24 months"),
        (timedelta(days=730), "2 years"),
    ],
)
def test_durations_are_those_of_docker(duration: timedelta, text: str) -> None:
    """The words of go-units' HumanDuration."""
    assert docker_duration(int(duration.total_seconds())) == text
