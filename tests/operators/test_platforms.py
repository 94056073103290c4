# SPDX-License-Identifier: Apache-2.0
"""BuildKit's images for several platforms, and with attestations, on engines with the containerd store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from airflow_provider_dockerbackup.cli.main import cli
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.record import Image
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import PushUnavailableError
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.lab.buildkit import build_with_buildkit, without_platforms
from tests.lab.engines import Engine
from tests.lab.install import require_program
from tests.lab.lab import Lab, LabHost
from tests.operators.moving import archived, moved, save_from

ATTESTED, BOTH = "lab/attested:1", "lab/both:1"
OWN_BYTES, OTHER_BYTES = 100_000, 300_000
# The platform's own file is larger for the other one, so that it shows when that crosses the wire.
DOCKERFILE = b"""\
FROM scratch
ARG TARGETARCH
COPY busybox /bin/busybox
COPY $TARGETARCH /platform
CMD ["/bin/busybox", "true"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Where the images are.

    :param whole: engine 28, has all that was built.
    :param partial: engine 28, has of the image for two platforms its own alone.
    :param older: engine 26, likewise.
    """

    whole: LabHost
    partial: LabHost
    older: LabHost


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Docker hosts with the containerd store."""
    newest, older = (Engine(version=version, containerd_store=True) for version in ("28", "26"))
    with (
        Lab.start(tmp_path_factory.mktemp("p28"), engine=newest, hosts=2) as lab,
        Lab.start(tmp_path_factory.mktemp("p26"), engine=older) as other,
    ):
        built = Hosts(whole=lab.hosts[0], partial=lab.hosts[1], older=other.hosts[0])
        files = {
            "Dockerfile": DOCKERFILE,
            "busybox": require_program("busybox").read_bytes(),
            "amd64": bytes(OWN_BYTES),
            "arm64": Path("/dev/urandom").open("rb").read(OTHER_BYTES),  # noqa: SIM115 - a device
        }
        daemon = built.whole.daemon
        build_with_buildkit(daemon, ATTESTED, files, options=["--provenance=mode=max"])
        platforms = "--platform=linux/arm64,linux/amd64"
        build_with_buildkit(daemon, BOTH, files, options=[platforms, "--provenance=mode=min"])
        part = without_platforms(daemon.docker("save", BOTH).stdout, lambda each: each["architecture"] == "arm64")
        for host in (built.partial, built.older):
            host.daemon.docker("load", input=part)
        yield built


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty repository of layout layers."""
    return Repository.open_or_create(storage_from_url(f"file://{tmp_path}/r"), clock=SystemClock(), layout="layers")


def image_of(backup: Backup) -> Image:
    """Return what the record says of the image."""
    image = backup.whole().image
    assert image is not None
    return image


@pytest.mark.parametrize(
    ("place", "reference", "others"),
    [
        ("whole", ATTESTED, [("attestation", "", True)]),
        ("whole", BOTH, [("platform", "linux/arm64", True), ("attestation", "", True), ("attestation", "", True)]),
        ("partial", BOTH, [("platform", "linux/arm64", False), ("attestation", "", True), ("attestation", "", True)]),
    ],
    ids=["attested", "two platforms", "one of two"],
)
def test_push_and_save_keep_the_hosts_platform_and_record_the_rest_alike(
    hosts: Hosts, repository: Repository, place: str, reference: str, others: list[tuple[str, str, bool]]
) -> None:
    """The image is whole, on another engine too; what is not in the backup is named, for people as well."""
    host: LabHost = getattr(hosts, place)
    pushed = save_from(host, repository, name="web", image=reference, capture="push")
    saved = save_from(host, repository, name="web", image=reference, capture="save")
    assert (pushed.whole().capture, saved.whole().capture) == ("push", "save")
    assert image_of(pushed) == image_of(saved)
    assert (pushed.whole().notes, pushed.whole().fidelity) == (saved.whole().notes, saved.whole().fidelity)
    assert [(each.kind, each.platform, each.whole) for each in image_of(pushed).others] == others
    assert not any(each.kept for each in image_of(pushed).others)
    assert (image_of(pushed).os, image_of(pushed).architecture) == ("linux", "amd64")
    original = archived(host.daemon, reference)
    assert image_of(pushed).config_digest == original.config_digest
    assert moved(host, hosts.older, repository, pushed, original, image=reference, run=True).differs == ()
    shown = CliRunner().invoke(cli, ["show", pushed.backup_id, "--repository", repository.storage.url]).output
    for each in image_of(pushed).others:
        assert each.digest in shown


def test_the_other_platform_is_not_pushed(hosts: Hosts, repository: Repository) -> None:
    """Its layers, which cannot be compressed, would show in what came."""
    first = save_from(hosts.whole, repository, name="web", image=ATTESTED, capture="push").whole().blobs
    second = save_from(hosts.whole, repository, name="web", image=BOTH, capture="push").whole().blobs
    assert first is not None
    assert second is not None
    assert second.layers == first.layers
    assert second.received_bytes < 64 * 1024 < OTHER_BYTES


def test_an_older_engine_that_has_one_platform_of_two_saves_instead(hosts: Hosts, repository: Repository) -> None:
    """It pushes all or nothing, and says so; what it saves is the image as the newer one has it."""
    with pytest.raises(PushUnavailableError, match="back up by save instead"):
        save_from(hosts.older, repository, name="web", image=BOTH, capture="push")
    backup = save_from(hosts.older, repository, name="web", image=BOTH)
    newer = save_from(hosts.partial, repository, name="web", image=BOTH, capture="push")
    assert backup.whole().capture == "save"
    assert image_of(backup).others == image_of(newer).others
    assert backup.whole().content_digest == newer.whole().content_digest
