# SPDX-License-Identifier: Apache-2.0
"""Several hosts save at once into one repository, on a real disk and a real S3 server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.capture import BackupOutcome, Tuning
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.layers.choice import Way
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.save import SaveRequest, save_image
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.world import IMAGE, Notes, World, app_archive, assert_all_whole, docker_host, paths
from tests.lab.s3 import LabS3

AT_ONCE = 4


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Storage]:
    """A repository's storage, opened anew by each host."""
    if request.param == "local":
        return lambda: LocalStorage(tmp_path / "repository")
    server: LabS3 = request.getfixturevalue("s3")
    url = f"s3://{server.new_bucket()}/docker"
    return lambda: storage_from_url(url, **server.storage_options)


def _at_once(
    world: World, storage: Callable[[], Storage], *, capture: Way, levels: tuple[int, ...], same_work: bool
) -> list[BackupOutcome]:
    """Save the same image from several hosts, or in several tries of one work, at the same moment."""
    barrier = threading.Barrier(len(levels))

    def save(number: int) -> BackupOutcome:
        name = "ship-1" if same_work else f"ship-{number}"
        host: MemoryDockerHost = docker_host(name)
        host.add_archive(app_archive("one"))
        source = Source(host=name, kind=SourceKind.IMAGE, name=IMAGE.name)
        tuning = replace(Tuning(), level=levels[number])
        request = SaveRequest(key=world.key(1, source), capture=capture, tuning=tuning, force=True)
        repository = world.on(storage())
        barrier.wait(30)
        return save_image(request, host=host, repository=repository, progress=Notes())

    with ThreadPoolExecutor(len(levels)) as pool:
        return list(pool.map(save, range(len(levels))))


def _layer_blobs(world: World) -> set[str]:
    sizes = {digest for backup in world.repository.catalog.backups() for digest in backup.whole().blob_sizes}
    for path in paths(world.storage, prefix="blobs"):
        assert path.endswith(sha256_of(world.storage.read(path))[7:])
    return {path.rpartition("/")[2] for path in paths(world.storage, prefix="blobs")} - {each[7:] for each in sizes}


@pytest.mark.parametrize("capture", ["push", "save"])
def test_hosts_that_save_the_same_new_layers_at_once_store_them_once(
    capture: Way, storage: Callable[[], Storage]
) -> None:
    """Each has its record, and all name the same blobs."""
    world = World(storage=storage(), layout="layers")
    outcomes = _at_once(world, storage, capture=capture, levels=(3,) * AT_ONCE, same_work=False)
    assert [each.status for each in outcomes] == ["committed"] * AT_ONCE
    assert len(assert_all_whole(world.repository)) == AT_ONCE
    assert len(paths(world.storage, prefix="layers/sha256")) == 2
    assert len(paths(world.storage, prefix="blobs")) == 4
    assert paths(world.storage, prefix="pins") == set()


@pytest.mark.parametrize("capture", ["push", "save"])
def test_hosts_that_compress_the_same_new_layers_differently_agree_on_one_map(
    capture: Way, storage: Callable[[], Storage]
) -> None:
    """The first decides; a blob of the others is named by no record, or was needed by who stored it."""
    world = World(storage=storage(), layout="layers")
    outcomes = _at_once(world, storage, capture=capture, levels=(1, 3, 9, 15), same_work=False)
    assert [each.status for each in outcomes] == ["committed"] * AT_ONCE
    assert len(assert_all_whole(world.repository)) == AT_ONCE
    assert len(paths(world.storage, prefix="layers/sha256")) == 2
    records = [backup.whole().blobs for backup in world.repository.catalog.backups()]
    assert len({blobs.layers for blobs in records if blobs is not None}) == 1
    assert len(_layer_blobs(world)) <= 2 * (AT_ONCE - 1)


@pytest.mark.parametrize("capture", ["push", "save"])
def test_the_same_work_at_once_is_one_record_and_the_losers_files_are_withdrawn(
    capture: Way, storage: Callable[[], Storage]
) -> None:
    """All are told of the same backup."""
    world = World(storage=storage(), layout="layers")
    outcomes = _at_once(world, storage, capture=capture, levels=(3,) * AT_ONCE, same_work=True)
    assert sorted(each.status for each in outcomes) == ["already"] * (AT_ONCE - 1) + ["committed"]
    assert len({each.backup.whole().attempt for each in outcomes}) == 1
    (backup,) = assert_all_whole(world.repository)
    assert set(backup.sizes) == {"backup.json", *backup.whole().files}
    assert _layer_blobs(world) == set()
