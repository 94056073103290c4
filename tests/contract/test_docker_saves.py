# SPDX-License-Identifier: Apache-2.0
"""What every Docker host must do when layers are left out of a save: all engines over SSH, and the twin."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.archive.docker_archive import (
    DockerArchive,
    DockerArchiveScanner,
    require_image,
)
from airflow_provider_dockerbackup.core.archive.layer_reader import DecompressLimits
from airflow_provider_dockerbackup.core.archive.member_names import member_names
from airflow_provider_dockerbackup.core.attempt import BackupKey
from airflow_provider_dockerbackup.core.layers.arrival import Arrival
from airflow_provider_dockerbackup.core.model import EngineInfo, ImageInspect, SourceKind
from airflow_provider_dockerbackup.core.ports import DockerHost
from airflow_provider_dockerbackup.core.record import BlobSet
from airflow_provider_dockerbackup.core.record import Source as SourceName
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.save import SaveRequest, save_image
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IncompleteError, NotFoundError
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost, MemoryStorage
from tests.contract.archives import layer
from tests.core.archive.making import image_config, legacy_archive, oci_archive, sha256, tar_of
from tests.core.world import Notes
from tests.lab.engines import Engine
from tests.lab.images import APP, build_app
from tests.lab.lab import Lab
from tests.operators.engine_matrix import ENGINES, name_of
from tests.transport.ssh_lab import session

_KIB = 1024
# Text that Go writes into JSON otherwise than Python does.
ODD = "<b> & \u2028 \b\f\n\t\x1f\x7f \\b \\\\f ü \U0001f600 \"q\" '$(id)'"


@dataclass
class Source:
    """A host that has the image ``lab/app:1``, and what is known of both."""

    host: DockerHost
    engine: EngineInfo
    image: ImageInspect
    whole: DockerArchive
    lab: Lab | None

    @property
    def hints(self) -> Mapping[str, frozenset[str]]:
        """By diff_id, the digests by which the engine calls layers."""
        return {each.diff_id: frozenset({each.digest}) for each in self.whole.image.layers}

    def names(self, *held: str) -> dict[str, str]:
        """Return the names foreseen for layers that are held."""
        return member_names(self.image, engine=self.engine, held=held, hints=self.hints)

    def saved(self, held: Mapping[str, str], *, expect: Mapping[str, str] | None = None) -> DockerArchive:
        """Save without members, and pass the gate.

        :param expect: what the gate is told; the same as the host when None.
        """
        stream = self.host.save_image(self.image.id, without=tuple(held))
        assert stream.filtered_by is None
        scanner = DockerArchiveScanner(held=held if expect is None else expect)
        arrival = Arrival(scanner.feed, DecompressLimits())
        for piece in stream:
            arrival.feed(piece)
        arrival.finish()
        assert stream.filtered_by == ("sh" if held else None)
        archive = scanner.finish()
        require_image(archive, image_id=self.image.id, diff_ids=self.image.diff_ids)
        return archive


@pytest.fixture(scope="module", params=[None, *ENGINES], ids=lambda each: name_of(each) if each else "memory")
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    """Each engine with an application image of several layers, two of them the same."""
    if request.param is None:
        twin = MemoryDockerHost("web-1")
        twin.add_archive(tar_of(oci_archive([layer(a="one"), layer(b="two"), layer(c="three")])))
        yield source_of(twin, lab=None)
        return
    engine: Engine = request.param
    with Lab.start(tmp_path_factory.mktemp("saves"), engine=engine) as lab:
        build_app(lab.hosts[0].daemon)
        host = SshDockerHost(session(lab.hosts[0]), name="web-1")
        yield source_of(host, lab=lab)
        host.close()


def source_of(host: DockerHost, *, lab: Lab | None) -> Source:
    """Return what there is to know of a host's image after one whole save."""
    image = host.inspect_image(APP)
    scanner = DockerArchiveScanner()
    stream = host.save_image(image.id)
    for piece in stream:
        scanner.feed(piece)
    assert stream.filtered_by is None
    return Source(host, host.engine(), image, scanner.finish(), lab)


def test_what_is_held_does_not_come_and_the_image_is_whole_all_the_same(source: Source) -> None:
    """Every layer alone, some, all: the wire has the others and less than 64 KiB besides."""
    diff_ids = tuple(dict.fromkeys(source.image.diff_ids))
    whole = source.whole.image
    for held in (*((each,) for each in diff_ids), diff_ids[::2], diff_ids[1:], diff_ids[:-1], diff_ids):
        archive = source.saved(source.names(*held))
        image = archive.image
        assert {each.diff_id for each in image.layers if each.held} == set(held)
        assert [each.digest for each in image.layers] == [each.digest for each in whole.layers]
        assert (image.config, image.history, image.image_ids) == (whole.config, whole.history, whole.image_ids)
        came = {each.member: each.stored_size_bytes for each in image.layers if not each.held}
        assert archive.size_bytes < 64 * _KIB + sum(came.values())


def test_names_that_are_not_in_the_archive_do_no_harm(source: Source) -> None:
    """The whole comes."""
    strange = {f"blobs/sha256/{'0' * 64}": source.image.diff_ids[0], f"{'0' * 64}/layer.tar": source.image.diff_ids[0]}
    archive = source.saved(strange)
    assert not any(each.held for each in archive.image.layers)
    assert archive.image.layers == source.whole.image.layers


def test_a_layer_taken_for_another_one_is_noticed(source: Source) -> None:
    """A guess that is wrong never becomes a backup."""
    first, *_, last = source.image.diff_ids
    for name, diff_id in source.names(first).items():
        if name in {each.member for each in source.whole.image.layers}:
            with pytest.raises(IncompleteError, match="was left out"):
                source.saved({name: diff_id}, expect={name: last})
    if source.whole.image.layers[0].member.startswith("blobs/"):
        configuration = {f"blobs/sha256/{source.whole.image.config_digest[7:]}": first}
        with pytest.raises(IncompleteError, match="was left out"):
            source.saved(configuration)


def test_an_image_that_is_not_there_is_missed_as_without_a_filter(source: Source) -> None:
    """The client's failure is the stream's, never a short archive."""
    missing = f"sha256:{'0' * 64}"
    with pytest.raises(NotFoundError):
        list(source.host.save_image(missing, without=[f"blobs/sha256/{'1' * 64}"]))


def test_only_names_of_layers_are_taken(source: Source) -> None:
    """Nothing else of an archive can be left out."""
    with pytest.raises(ConfigurationError, match="is not the name of a layer"):
        source.host.save_image(source.image.id, without=["manifest.json"])


def test_the_top_layer_of_an_image_with_odd_values_is_foreseen(source: Source) -> None:
    """Its name in a legacy archive is made of all of the configuration, as Go writes it."""
    if source.lab is None:
        pytest.skip("the twin gives back what it was given")
    plain = [layer(odd="one"), layer(odd="two")]
    config = {
        **image_config(plain),
        "created": "2026-01-02T03:04:05.678+05:30",
        "author": ODD,
        "comment": "",
        "config": {"Env": [f"ODD={ODD}"], "Labels": {"z": ODD, "a": ODD}, "Cmd": ["/a"], "Volumes": {"/v": {}}},
        "history": [{"created_by": "one"}, {"created_by": "two", "comment": "of the step alone"}],
    }
    source.lab.hosts[0].daemon.docker("load", input=tar_of(legacy_archive(plain, config=config, tags=["lab/odd:1"])))
    image = source.host.inspect_image("lab/odd:1")
    names = member_names(image, engine=source.engine, held=image.diff_ids)
    pieces: list[bytes] = []
    arrival = Arrival(pieces.append, DecompressLimits())
    for piece in source.host.save_image(image.id, without=tuple(names)):
        arrival.feed(piece)
    arrival.finish()
    with tarfile.open(fileobj=BytesIO(b"".join(pieces))) as tar:
        digests = {sha256((tar.extractfile(member) or BytesIO()).read()) for member in tar if member.isreg()}
    assert not digests & {each[7:] for each in image.diff_ids}


def test_a_changed_image_costs_its_new_layer_alone(source: Source) -> None:
    """Backed up into a repository of layout ``layers``: what one backup learned of the engine serves the next."""
    if source.lab is None:
        pytest.skip("a twin has no containers to change")
    docker = source.lab.hosts[0].daemon.docker
    repository = Repository.open_or_create(MemoryStorage(), clock=SystemClock(), layout="layers")

    def saved(reference: str) -> tuple[BlobSet, list[str]]:
        key = BackupKey.of(
            SourceName(host="web-1", kind=SourceKind.IMAGE, name=reference),
            run_time=datetime.now(UTC),
            work=(reference,),
        )
        told = Notes()
        request = SaveRequest(key=key, capture="save")
        blobs = save_image(request, host=source.host, repository=repository, progress=told).backup.whole().blobs
        assert blobs is not None
        return blobs, told.notes

    first, _ = saved(APP)
    docker("create", "--name", "changed", APP, "/bin/true")
    docker("cp", "-", "changed:/tmp", input=layer(new="x" * 100_000))
    docker("commit", "changed", "lab/changed:1")
    docker("rm", "--volumes", "changed")
    second, notes = saved("lab/changed:1")
    assert second.layers[:-1] == first.layers
    assert second.received_bytes < 64 * _KIB + second.layers[-1].size_bytes
    assert [note for note in notes if "layers that are held" in note] == [
        "layers that are held were left out of docker save on the host"
    ]


def test_the_names_of_an_engine_in_another_time_zone_are_foreseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines before 25.0 put the time 0 into names as their host writes it."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    with Lab.start(tmp_path / "lab", engine=Engine(version="20.10")) as lab:
        build_app(lab.hosts[0].daemon)
        host = SshDockerHost(session(lab.hosts[0]), name="web-1")
        abroad = source_of(host, lab=lab)
        assert abroad.engine.epoch == "1970-01-01T05:30:00+05:30"
        assert all(each.held for each in abroad.saved(abroad.names(*abroad.image.diff_ids)).image.layers)
        host.close()


def test_only_a_store_that_holds_blobs_says_which_and_it_leaves_nothing(source: Source) -> None:
    """Engines before 28 do not say, classic stores hold layers."""
    absent = "sha256:" + "0f" * 32
    sizes = {each.digest: each.stored_size_bytes for each in source.whole.image.layers} | {absent: 1}
    before = source.host.list_images()
    says = source.engine.store == "containerd" and not source.engine.version.startswith("26.")
    held = source.host.held_blobs(sizes, engine=source.engine)
    assert held == (set(sizes) - {absent} if says else frozenset())
    assert source.host.list_images() == before
