# SPDX-License-Identifier: Apache-2.0
"""Restores to engine 28 with the containerd store, which is asked for the blobs that it holds."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.archive.blob_question import blob_question
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.layers.documents import HINTS_FOLDER
from airflow_provider_dockerbackup.core.model import EngineInfo
from airflow_provider_dockerbackup.core.reading import load_stream
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.restore import RestoreOutcome, RestoreRequest, restore_backup
from airflow_provider_dockerbackup.exceptions import DockerBackupError
from airflow_provider_dockerbackup.transport import docker_host
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from airflow_provider_dockerbackup.transport.manifests_script import MANIFESTS_OF_LOADED
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.core.world import Notes
from tests.lab.daemon import LabDaemon
from tests.lab.engines import Engine
from tests.lab.images import build_random
from tests.lab.lab import Lab, LabHost
from tests.operators.moving import archived, docker_on, save_from

# Of the later one the lower layer is that of the earlier one.
EARLIER, LATER, BACK = "lab/held:1", "lab/held:2", "lab/held-back:2"
LAYER_BYTES = 3_000_000
CONTENT = Path("containerd/daemon/io.containerd.content.v1.content/blobs/sha256")
ABSENT = "sha256:" + "0f" * 32


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two hosts; on the first are both images."""
    engine = Engine(version="28", containerd_store=True)
    with Lab.start(tmp_path_factory.mktemp("h"), engine=engine, hosts=2) as lab:
        build_random(lab.hosts[0].daemon, EARLIER, size_mb=3, layers=1, seed=31)
        build_random(lab.hosts[0].daemon, LATER, size_mb=6, layers=2, seed=31)
        yield lab


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """One of layout ``layers``."""
    return Repository.open_or_create(storage_from_url(f"file://{tmp_path}/r"), clock=SystemClock(), layout="layers")


@pytest.fixture
def backup(host: LabHost, repository: Repository) -> Backup:
    """One of the later image."""
    return save_from(host, repository, name="source", image=LATER)


def tags(daemon: LabDaemon) -> list[str]:
    """Return all tags."""
    listed = daemon.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.decode().split()
    return [each for each in listed if "<none>" not in each]


def remove(daemon: LabDaemon, *references: str) -> None:
    """Remove images, and those without a tag."""
    if references:
        daemon.docker("image", "rm", *references)
    daemon.docker("image", "prune", "--force")


def blobs(daemon: LabDaemon) -> set[str]:
    """Return the digests of what lies in the store's files."""
    return {f"sha256:{path.name}" for path in (daemon.data_root / CONTENT).iterdir()}


def images(daemon: LabDaemon) -> list[str]:
    """Return the IDs of all images."""
    return sorted(daemon.docker("image", "ls", "--all", "--quiet", "--no-trunc").stdout.decode().split())


def largest(target: LabHost, backup: Backup) -> Path:
    """Return the target's file of the largest layer, as a restore brings it."""
    record = backup.whole().blobs
    assert record is not None
    digest = max(record.layers, key=lambda each: each.stored_size_bytes).digest
    return target.daemon.data_root / CONTENT / digest.removeprefix("sha256:")


def move_earlier(host: LabHost, target: LabHost) -> None:
    """Load the earlier image as the source's engine saves it."""
    saved = host.daemon.docker("save", EARLIER).stdout
    target.daemon.docker("load", input=saved)


def restored(target: LabHost, repository: Repository, backup: Backup, **options: Any) -> tuple[RestoreOutcome, Notes]:
    """Restore the later image."""
    notes = Notes()
    with docker_on(target, name="target") as docker:
        request = RestoreRequest(tags=(BACK,), **options)
        done = restore_backup(backup, request, host=docker, repository=repository, progress=notes)
    return done, notes


def sent_bytes(notes: Notes) -> int:
    """Return how many bytes of layers the one load was given."""
    assert not [note for note in notes.notes if "does not take it so" in note or "did not say" in note]
    (total,) = notes.totals
    assert total is not None
    return total


def require_whole(host: LabHost, target: LabHost) -> None:
    """See that the image needs nothing of other images on the target, and that ``docker save`` gives what it was."""
    remove(target.daemon, *(each for each in tags(target.daemon) if each != BACK))
    here, there = archived(host.daemon, LATER), archived(target.daemon, BACK)
    assert there.config == here.config
    assert there.diff_ids == here.diff_ids
    target.daemon.docker("run", "--rm", "--network", "none", BACK, "/bin/sleep", "0")


def test_what_came_as_the_source_saves_it_is_not_sent(
    host: LabHost, target: LabHost, repository: Repository, backup: Backup
) -> None:
    """By the names of the source's own blobs, which the backup learned."""
    move_earlier(host, target)
    done, notes = restored(target, repository, backup)
    assert sent_bytes(notes) < LAYER_BYTES * 1.5
    assert done.identical
    assert done.notes == ()  # told by its ID
    assert done.image_id not in backup.whole().image_ids  # named by blobs of both
    require_whole(host, target)


def test_it_is_restored_over_itself_whatever_it_was_named_by(
    host: LabHost, target: LabHost, repository: Repository, backup: Backup
) -> None:
    """Its ID is another one then, and its tag needs no leave."""
    move_earlier(host, target)
    first, _ = restored(target, repository, backup)
    second, notes = restored(target, repository, backup, all_layers=True)
    assert first.image_id != second.image_id
    assert second.identical
    assert second.kept == {}
    assert sent_bytes(notes) > LAYER_BYTES * 1.5
    third, _ = restored(target, repository, backup)
    assert third.kept == {}
    require_whole(host, target)


def test_what_a_restore_brought_is_not_sent_again(
    host: LabHost, target: LabHost, repository: Repository, backup: Backup
) -> None:
    """By the names of the repository's blobs: it is the recorded image to the letter."""
    restored(target, repository, save_from(host, repository, name="source", image=EARLIER))
    target.daemon.docker("tag", BACK, EARLIER)
    done, notes = restored(target, repository, backup, replace_tags=True)
    assert sent_bytes(notes) < LAYER_BYTES * 1.5
    assert backup.whole().blobs is not None
    assert done.image_id == backup.whole().blobs.manifest.digest  # type: ignore[union-attr]
    require_whole(host, target)


def test_what_came_plain_is_not_sent(host: LabHost, target: LabHost, repository: Repository, backup: Backup) -> None:
    """As a rollback or another program brings it."""
    earlier = save_from(host, repository, name="source", image=EARLIER)
    with docker_on(target, name="target") as docker, load_stream(repository, earlier, tags=(EARLIER,)) as chunks:
        docker.load_image(chunks)
    done, notes = restored(target, repository, backup)
    assert sent_bytes(notes) < LAYER_BYTES * 1.5
    assert done.identical
    require_whole(host, target)


def test_of_an_image_that_is_there_no_layer_is_sent(host: LabHost, repository: Repository, backup: Backup) -> None:
    """Restored to where it came from, under another name."""
    try:
        done, notes = restored(host, repository, backup)
        assert sent_bytes(notes) < LAYER_BYTES * 0.5
        assert done.identical
    finally:
        host.daemon.docker("rmi", BACK, check=False)


def test_a_layer_that_is_there_by_a_name_nobody_knows_is_sent(
    host: LabHost, target: LabHost, repository: Repository, backup: Backup
) -> None:
    """Though the engine has it unpacked and would take the image without the blob."""
    for info in list(repository.storage.list(HINTS_FOLDER)):
        repository.storage.delete(info.path)
    move_earlier(host, target)
    done, notes = restored(target, repository, backup)
    assert sent_bytes(notes) > LAYER_BYTES * 1.5
    assert done.identical
    require_whole(host, target)


def test_a_blob_that_is_said_to_be_held_and_is_not_is_sent_after_all(
    host: LabHost, target: LabHost, repository: Repository, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it goes after the answer: the engine takes the image, and does not say that it has all of it."""
    move_earlier(host, target)

    def all_of_them(_: SshDockerHost, sizes: Mapping[str, int], *, engine: EngineInfo) -> frozenset[str]:
        del engine
        return frozenset(sizes) & set(backup.whole().diff_ids[:2])  # plain, and they are there in gzip

    monkeypatch.setattr(SshDockerHost, "held_blobs", all_of_them)
    done, notes = restored(target, repository, backup)
    assert any("does not say that it has all of image" in note for note in notes.notes)
    assert done.identical
    require_whole(host, target)


def test_all_layers_bring_back_what_the_store_lost(
    host: LabHost, target: LabHost, repository: Repository, backup: Backup
) -> None:
    """A blob whose file is gone from the disk counts as held by the engine's books."""
    restored(target, repository, backup)
    largest(target, backup).unlink()
    _, notes = restored(target, repository, backup)
    assert sent_bytes(notes) < LAYER_BYTES * 0.5
    _, notes = restored(target, repository, backup, all_layers=True)
    assert sent_bytes(notes) > LAYER_BYTES * 1.5
    require_whole(host, target)


def test_what_is_damaged_in_the_store_is_sent_anew_when_its_images_are_gone(
    host: LabHost, target: LabHost, repository: Repository, backup: Backup
) -> None:
    """The engine writes no file over one that is there."""
    restored(target, repository, backup)
    damaged = largest(target, backup)
    os.truncate(damaged, 1_000)
    restored(target, repository, backup, all_layers=True)
    assert damaged.stat().st_size == 1_000
    remove(target.daemon, *tags(target.daemon))
    restored(target, repository, backup)
    require_whole(host, target)


def test_a_question_is_answered_blob_by_blob_and_leaves_nothing(host: LabHost) -> None:
    """Also one that a dead host left behind, when it is asked once more."""
    listed = images(host.daemon)
    before = blobs(host.daemon)
    there = {each: (1 if each == min(before) else 2) for each in before}
    sizes = there | {ABSENT: 5}
    question = blob_question(sizes)
    with docker_on(host, name="source") as docker:
        engine = docker.engine()
        assert docker.held_blobs(sizes, engine=engine) == before
        assert blobs(host.daemon) == before
        host.daemon.docker("load", input=question.archive)
        assert blobs(host.daemon) > before
        assert docker.held_blobs(sizes, engine=engine) == before
    assert blobs(host.daemon) == before
    assert images(host.daemon) == listed


def test_a_question_that_was_left_behind_is_taken_away_by_a_prune(host: LabHost) -> None:
    """It has no tag."""
    before = blobs(host.daemon)
    host.daemon.docker("load", input=blob_question({ABSENT: 5}).archive)
    host.daemon.docker("image", "prune", "--force")
    assert blobs(host.daemon) <= before


def test_a_question_whose_asker_is_gone_leaves_nothing(host: LabHost) -> None:
    """Whatever the shell writes then is a broken pipe."""
    before = blobs(host.daemon)
    question = blob_question({ABSENT: 5})
    script = ["sh", "-c", MANIFESTS_OF_LOADED, "dockerbackup", question.image_id, str(host.daemon.files.docker)]
    asked = subprocess.Popen(
        script, stdin=subprocess.PIPE, stdout=(pipe := os.pipe())[1], stderr=pipe[1], env=host.daemon.environment()
    )
    os.close(pipe[1])
    os.close(pipe[0])
    asked.communicate(question.archive, timeout=60)
    assert asked.returncode is not None
    assert blobs(host.daemon) == before


def test_a_question_that_the_engine_does_not_take_leaves_nothing_and_is_told(
    host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The restore sends all then."""
    before = blobs(host.daemon)
    asked = replace(blob_question({ABSENT: 5}), archive=blob_question({ABSENT: 5}).archive[:2_000])
    monkeypatch.setattr(docker_host, "blob_question", lambda _: asked)
    with docker_on(host, name="source") as docker, pytest.raises(DockerBackupError, match="docker load of a question"):
        docker.held_blobs({ABSENT: 5}, engine=docker.engine())
    monkeypatch.undo()
    with docker_on(host, name="source") as docker:  # the engine collects what a failed load left when it next can
        assert docker.held_blobs({ABSENT: 5}, engine=docker.engine()) == frozenset()
    assert blobs(host.daemon) == before


@pytest.mark.parametrize(
    "engine", [Engine(version="26", containerd_store=True), Engine(version="28")], ids=["26 containerd", "28 classic"]
)
def test_an_engine_that_cannot_say_is_not_asked(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> None:
    """And holds nothing that is known."""
    with Lab.start(tmp_path_factory.mktemp("n"), engine=engine) as lab:
        daemon = lab.hosts[0].daemon
        build_random(daemon, EARLIER, size_mb=1, seed=31)
        with docker_on(lab.hosts[0], name="other") as docker:
            layers = docker.inspect_image(EARLIER).diff_ids
            assert docker.held_blobs(dict.fromkeys(layers, 1), engine=docker.engine()) == frozenset()
        loads = daemon.docker("events", "--filter", "event=load", "--since", "10m", "--until", str(time.time()))
        assert loads.stdout == b""
