# SPDX-License-Identifier: Apache-2.0
"""Every engine pushes over a real sshd: what comes, what does not come again, what stays on the host."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from airflow_provider_dockerbackup.transport.memory import MemoryPushTarget
from tests.contract.archives import digest, docker_archive, layer
from tests.lab.daemon import LabDaemon
from tests.lab.engines import Engine
from tests.lab.images import APP, BASE, COMMITTED, build_app, build_committed
from tests.lab.lab import Lab, LabHost
from tests.operators.engine_matrix import ENGINES
from tests.transport.push_lab import OCI_INDEX, OCI_MANIFEST, OciLayout, directories, names, push
from tests.transport.ssh_lab import session


@pytest.fixture(scope="module", params=ENGINES, ids=str)
def lab_host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """A host of each engine, with an application of nine layers and one more layer on top of it."""
    engine: Engine = request.param
    with Lab.start(tmp_path_factory.mktemp("lab"), engine=engine) as lab:
        build_app(lab.hosts[0].daemon)
        build_committed(lab.hosts[0].daemon)
        yield lab.hosts[0]


@pytest.fixture
def host(lab_host: LabHost) -> Iterator[SshDockerHost]:
    """The host as the port has it; nothing of ours is on it afterwards."""
    opened = SshDockerHost(session(lab_host), name="web-1")
    yield opened
    opened.close()
    assert (names(lab_host.daemon), directories()) == ([], [])


@pytest.fixture
def repository() -> str:
    """A repository of which no engine remembers anything."""
    return f"test-{uuid.uuid4().hex[:12]}"


def diff_ids(target: MemoryPushTarget, manifest: bytes) -> tuple[str, ...]:
    """Decompress what a manifest leads to, see that it is whole, and give the diff_ids."""
    document: dict[str, Any] = json.loads(manifest)
    config = json.loads(target.blobs[document["config"]["digest"]])
    found = tuple(digest(gzip.decompress(target.blobs[each["digest"]])) for each in document["layers"])
    assert list(found) == config["rootfs"]["diff_ids"]
    assert all(len(target.blobs[each["digest"]]) == each["size"] for each in document["layers"])
    return found


def test_only_what_is_new_is_sent(host: SshDockerHost, repository: str) -> None:
    """All of the first image, the new layer of the second, nothing of either again."""
    blobs: dict[str, bytes] = {}
    first = push(host, APP, target := MemoryPushTarget(blobs), repository=repository)
    assert diff_ids(target, first.manifest.data) == host.inspect_image(APP).diff_ids
    assert first.uploaded_blobs == len(blobs)
    other = push(host, COMMITTED, target := MemoryPushTarget(blobs), repository=repository)
    assert diff_ids(target, other.manifest.data) == host.inspect_image(COMMITTED).diff_ids
    new = list(blobs.values())[first.uploaded_blobs :]
    assert (other.uploaded_blobs, other.uploaded_bytes) == (2, sum(len(blob) for blob in new))
    assert other.received_bytes < other.uploaded_bytes + 40_000
    for reference, before in ((APP, first), (COMMITTED, other)):
        again = push(host, reference, MemoryPushTarget(blobs), repository=repository)
        assert (again.uploaded_blobs, again.manifest) == (0, before.manifest)
        assert again.received_bytes < 30_000


def test_two_repositories_do_not_disturb_each_other(host: SshDockerHost, repository: str) -> None:
    """Each gets the image; a third push to the first one sends nothing."""
    stores: tuple[dict[str, bytes], dict[str, bytes]] = ({}, {})
    for number in (0, 1):
        push(host, APP, MemoryPushTarget(stores[number]), repository=f"{repository}{number}")
    assert stores[0] == stores[1]
    assert push(host, APP, MemoryPushTarget(stores[0]), repository=f"{repository}0").uploaded_blobs == 0


@pytest.mark.parametrize("used", [False, True], ids=["unused", "of a container"])
def test_an_image_without_a_name_stays(lab_host: LabHost, host: SshDockerHost, repository: str, used: bool) -> None:
    """Ours is its only name for a while; taking that away must not delete it."""
    daemon = lab_host.daemon
    daemon.docker("load", input=docker_archive([layer(only=repository)], tags=["push/nameless:1"]))
    image = host.inspect_image("push/nameless:1")
    if used:
        daemon.docker("create", "--name", "push-nameless", "--network", "none", image.id, "/a")
    daemon.docker("image", "tag", BASE, "push/nameless:1")  # a tag that moves leaves an image without one
    try:
        assert host.inspect_image(image.id).repo_tags == ()
        before = ids(daemon)
        push(host, image.id, target := MemoryPushTarget(), repository=repository)
        assert ids(daemon) == before
        push(host, image.id, MemoryPushTarget(target.blobs), repository=repository)
        assert (host.inspect_image(image.id).repo_tags, ids(daemon)) == ((), before)
    finally:
        daemon.docker("rm", "push-nameless", check=False)
        daemon.docker("image", "rm", "push/nameless:1", check=False)
        daemon.docker("image", "rm", image.id, check=False)


def ids(daemon: LabDaemon) -> set[bytes]:
    """Give the IDs of all images."""
    return set(daemon.docker("image", "ls", "--all", "--quiet", "--no-trunc").stdout.split())


def test_an_index_comes_with_all_of_its_manifests(lab_host: LabHost, host: SshDockerHost, repository: str) -> None:
    """Platforms and attestations, under the containerd store, which alone keeps them."""
    if not lab_host.daemon.engine.containerd_store:
        pytest.skip("a classic store keeps one platform and no index")
    layout = OciLayout()
    layers = [layer(a=repository), layer(b="two")]
    ours = layout.image(layers)
    foreign = layout.image([layer(c=repository)], architecture="arm64")
    about = layout.attestation(ours)
    index = layout.index(ours, foreign, about)
    lab_host.daemon.docker("load", input=layout.archive(index, tag="push/index:1"))
    pushed = push(host, "push/index:1", target := MemoryPushTarget(), repository=repository)
    assert (pushed.manifest.media_type, pushed.manifest.digest) == (OCI_INDEX, index["digest"])
    for each in (ours, foreign, about):
        assert target.manifests[each["digest"]].media_type == OCI_MANIFEST
    assert diff_ids(target, target.manifests[ours["digest"]].data) == (
        digest(layer(a=repository)),
        digest(layer(b="two")),
    )
    again = push(host, "push/index:1", MemoryPushTarget(target.blobs), repository=repository)
    assert (again.uploaded_blobs, again.manifest) == (0, pushed.manifest)
    lab_host.daemon.docker("image", "rm", "push/index:1")


def test_layers_that_registries_may_not_give_on_come_too(
    lab_host: LabHost, host: SshDockerHost, repository: str
) -> None:
    """As base layers of Windows; a classic store on Linux knows none, and a backup is no publication."""
    if not lab_host.daemon.engine.containerd_store:
        pytest.skip("a classic store on Linux has no such layers")
    layout = OciLayout()
    layers = [layer(a=repository), layer(b="two")]
    lab_host.daemon.docker("load", input=layout.archive(layout.image(layers, foreign=True), tag="push/foreign:1"))
    pushed = push(host, "push/foreign:1", target := MemoryPushTarget(), repository=repository)
    assert diff_ids(target, pushed.manifest.data) == tuple(map(digest, layers))
    lab_host.daemon.docker("image", "rm", "push/foreign:1")
