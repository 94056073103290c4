# SPDX-License-Identifier: Apache-2.0
"""What every Docker host must do when its engine pushes an image to us: a real one over SSH, and the twin."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator

import pytest

from airflow_provider_dockerbackup.core.ports import DockerHost
from airflow_provider_dockerbackup.core.push import PushResult
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError, NotFoundError, TransientError
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from airflow_provider_dockerbackup.transport.memory import MemoryBlobUpload, MemoryDockerHost, MemoryPushTarget
from tests.contract.archives import digest, docker_archive, layer
from tests.lab.lab import LabHost
from tests.transport.ssh_lab import session

BASE = layer(base="x" * 5000)
TAGS = ("contract/push:1", "contract/push:2")
UNKNOWN = f"sha256:{'0' * 64}"


@pytest.fixture(params=["memory", "ssh"])
def host(request: pytest.FixtureRequest) -> Iterator[DockerHost]:
    """A host with two images that share a layer."""
    archives = [docker_archive((BASE, layer(top=tag)), tags=[tag]) for tag in TAGS]
    if request.param == "memory":
        twin = MemoryDockerHost("web-1")
        for archive in archives:
            twin.add_archive(archive)
        yield twin
        return
    lab_host: LabHost = request.getfixturevalue("lab").hosts[0]
    for archive in archives:
        lab_host.daemon.docker("load", input=archive)
    opened = SshDockerHost(session(lab_host), name="web-1")
    yield opened
    opened.close()
    for tag in TAGS:
        lab_host.daemon.docker("image", "rm", tag, check=False)


@pytest.fixture
def repository() -> str:
    """A repository of which no engine remembers anything."""
    return f"contract-{uuid.uuid4().hex[:12]}"


def push(host: DockerHost, tag: str, target: MemoryPushTarget, *, repository: str) -> PushResult:
    """Push one image, as another attempt each time."""
    image = host.inspect_image(tag)
    return host.push_image(image.id, target=target, repository=repository, attempt=uuid.uuid4().hex[:12])


def test_an_image_arrives_whole(host: DockerHost, repository: str) -> None:
    """Its configuration and its layers are those that the engine has, and the manifest leads to them."""
    target = MemoryPushTarget()
    pushed = push(host, TAGS[0], target, repository=repository)
    manifest = json.loads(pushed.manifest.data)
    config = json.loads(target.blobs[manifest["config"]["digest"]])
    layers = [gzip.decompress(target.blobs[each["digest"]]) for each in manifest["layers"]]
    image = host.inspect_image(TAGS[0])
    assert tuple(digest(each) for each in layers) == image.diff_ids == tuple(config["rootfs"]["diff_ids"])
    assert layers[0] == BASE
    assert [each["size"] for each in manifest["layers"]] == [len(target.blobs[e["digest"]]) for e in manifest["layers"]]
    assert target.manifests[pushed.manifest.digest] == pushed.manifest
    assert (pushed.uploaded_blobs, pushed.uploaded_bytes) == (3, sum(len(each) for each in target.blobs.values()))
    assert pushed.received_bytes >= pushed.uploaded_bytes + len(pushed.manifest.data)
    assert {upload.state for upload in target.uploads} == {"finished"}


def test_only_what_is_new_is_sent(host: DockerHost, repository: str) -> None:
    """The same image: nothing. Another top layer: that, and the configuration."""
    blobs: dict[str, bytes] = {}
    push(host, TAGS[0], MemoryPushTarget(blobs), repository=repository)
    again = push(host, TAGS[0], MemoryPushTarget(blobs), repository=repository)
    assert (again.uploaded_blobs, again.uploaded_bytes) == (0, 0)
    other = push(host, TAGS[1], MemoryPushTarget(blobs), repository=repository)
    assert other.uploaded_blobs == 2
    assert other.uploaded_bytes == sum(len(blob) for blob in list(blobs.values())[3:])


def test_what_is_lost_here_is_sent_again(host: DockerHost, repository: str) -> None:
    """What the engine remembers is what it asks for, no more."""
    blobs: dict[str, bytes] = {}
    push(host, TAGS[0], MemoryPushTarget(blobs), repository=repository)
    before = dict(blobs)
    blobs.clear()
    assert push(host, TAGS[0], MemoryPushTarget(blobs), repository=repository).uploaded_blobs == 3
    assert blobs == before


def test_nothing_stays_on_the_image(host: DockerHost, repository: str) -> None:
    """Neither names nor digests, after a success and after a failure."""
    before = host.inspect_image(TAGS[0])
    push(host, TAGS[0], MemoryPushTarget(), repository=repository)
    with pytest.raises(TransientError):
        push(host, TAGS[0], FullTarget(), repository=repository)
    after = host.inspect_image(TAGS[0])
    assert (after.repo_tags, after.document.get("RepoDigests")) == ((TAGS[0],), before.document.get("RepoDigests"))


class FullTarget(MemoryPushTarget):
    """A target on a full disk."""

    def upload(self) -> MemoryBlobUpload:
        """Refuse."""
        raise TransientError("no space left")


class DoubtingTarget(MemoryPushTarget):
    """A target that takes no manifest."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def manifest(self, reference: str, *, media_type: str, data: bytes) -> None:
        """Refuse."""
        raise self.error


def test_what_the_target_raises_is_passed_on(host: DockerHost, repository: str) -> None:
    """The same exception, not what the engine made of it."""
    with pytest.raises(TransientError, match="no space left"):
        push(host, TAGS[0], FullTarget(), repository=repository)
    for error in (IntegrityError("not what it should be"), NotFoundError("a blob is gone"), ValueError("a bug")):
        target = DoubtingTarget(error)
        with pytest.raises(type(error)) as raised:
            push(host, TAGS[0], target, repository=repository)
        assert raised.value is error


def test_an_image_that_is_not_there_is_told(host: DockerHost, repository: str) -> None:
    """As everywhere."""
    with pytest.raises(NotFoundError):
        host.push_image(UNKNOWN, target=MemoryPushTarget(), repository=repository, attempt="a1")


@pytest.mark.parametrize(
    ("image", "repository", "attempt"),
    [
        ("contract/push:1", "ok", "a1"),
        (UNKNOWN, "a/b", "a1"),
        (UNKNOWN, "-x", "a1"),
        (UNKNOWN, "A", "a1"),
        (UNKNOWN, "ok", "a_1"),
        (UNKNOWN, "ok", ""),
        (UNKNOWN, "ok", "a;b"),
    ],
)
def test_names_are_checked(host: DockerHost, image: str, repository: str, attempt: str) -> None:
    """Before anything reaches the host."""
    with pytest.raises(ConfigurationError):
        host.push_image(image, target=MemoryPushTarget(), repository=repository, attempt=attempt)
