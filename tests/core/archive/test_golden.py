# SPDX-License-Identifier: Apache-2.0
"""Archives that real engines wrote."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.docker_archive import require_image
from airflow_provider_dockerbackup.exceptions import IntegrityError

from .making import BLOCK, IMAGES, entries_of, golden, scan, sha256, tar_of

APP = [name for name in IMAGES if "attested" not in name and "platforms" not in name]
FLIPPED = ["engine-20.10-graphdriver.tar", "engine-28-graphdriver.tar", "engine-28-containerd.tar", "podman-4.3.tar"]


def documents_of(data: bytes) -> dict[str, Any]:
    """Return manifest.json and the configuration, read by other code than ours."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())[0]
        config = (tar.extractfile(manifest["Config"]) or io.BytesIO()).read()
    return {"manifest": manifest, "config": config}


@pytest.mark.parametrize("name", IMAGES)
def test_an_archive_of_a_real_engine_scans_to_the_image_in_it(name: str) -> None:
    """Configuration, layers, tags and history are those that other code finds."""
    data = golden(name)
    expected = documents_of(data)
    archive = scan(data)
    image = archive.image
    assert archive.size_bytes == len(data)
    assert image.config == expected["config"]
    assert image.config_digest == f"sha256:{sha256(expected['config'])}"
    assert list(image.diff_ids) == json.loads(expected["config"])["rootfs"]["diff_ids"]
    assert tuple(layer.diff_id for layer in image.layers) == image.diff_ids
    assert list(image.repo_tags) == (expected["manifest"]["RepoTags"] or [])
    assert len(image.history) == len(json.loads(expected["config"])["history"])
    assert image.notes == ()


@pytest.mark.parametrize("name", IMAGES)
def test_layers_of_a_real_engine_have_their_true_sizes_and_compression(name: str) -> None:
    """What is said of each layer holds for the member it names."""
    data = golden(name)
    bodies = {entry.name: entry.body for entry in entries_of(data)}
    for layer in scan(data).image.layers:
        stored = bodies[layer.member]
        plain = gzip.decompress(stored) if layer.compression is Compression.GZIP else stored
        assert (layer.compression is Compression.GZIP) == ("containerd" in name)
        assert layer.digest == f"sha256:{sha256(stored)}"
        assert (layer.stored_size_bytes, layer.size_bytes) == (len(stored), len(plain))
        assert layer.diff_id == f"sha256:{sha256(plain)}"


def test_the_linked_layer_of_20_10_is_the_layer_it_links_to() -> None:
    """A layer that comes twice is a symlink to the first, and counts twice."""
    layers = scan(golden("engine-20.10-graphdriver.tar")).image.layers
    assert len(layers) == 4
    assert layers[1] == layers[3]


def test_the_same_image_of_20_10_and_podman_has_the_same_identity() -> None:
    """Configuration digest and diff_ids do not depend on who wrote the archive."""
    docker = scan(golden("engine-20.10-graphdriver.tar")).image
    podman = scan(golden("podman-4.3.tar")).image
    assert (docker.config_digest, docker.diff_ids) == (podman.config_digest, podman.diff_ids)
    assert (docker.format, podman.format) == ("docker", "docker")


def test_a_containerd_store_may_mean_index_or_manifest_by_id() -> None:
    """The index of an attested image, its manifest and its configuration are all IDs of it; the attestation is not."""
    image = scan(golden("engine-28-containerd-attested.tar")).image
    assert "sha256:90865b5fd1f93a7925c47fec77ef3c07476823d72401e129275e039e648229c6" in image.image_ids
    assert len(image.image_ids) == 3
    assert image.format == "oci"
    assert [(each.kind, each.platform, each.whole) for each in image.others] == [("attestation", "", True)]


def test_a_missing_manifest_of_another_platform_is_no_defect() -> None:
    """The containerd store leaves out platforms it does not have (moby 49473)."""
    entries = entries_of(golden("engine-28-containerd-two-platforms.tar"))
    arm64 = "7b811a1aa314c1d7bcd9c56b57cdc1ffeb2d3512b66d1b26eede0b7bbc3a83fb"
    image = scan(tar_of(entry for entry in entries if arm64 not in entry.name)).image
    (absent,) = image.others
    assert (absent.digest, absent.platform, absent.whole) == (f"sha256:{arm64}", "linux/arm64", False)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("piece_bytes", [1, 511, 512, 1000])
def test_the_size_of_the_pieces_makes_no_difference(name: str, piece_bytes: int) -> None:
    """Members, links and documents may be cut anywhere between two pieces."""
    assert scan(golden(name), piece_bytes=piece_bytes) == scan(golden(name))


@pytest.mark.parametrize("name", IMAGES)
def test_an_archive_cut_at_any_block_is_rejected(name: str) -> None:
    """A lost connection never passes for a short archive."""
    data = golden(name)
    end = len(data.rstrip(b"\0")) // BLOCK * BLOCK + 3 * BLOCK  # from here on only the second zero block and padding
    for length in range(0, min(end, len(data)), BLOCK):
        with pytest.raises(IntegrityError):
            scan(data[:length])


@pytest.mark.parametrize("name", FLIPPED)
def test_a_flipped_bit_in_metadata_is_rejected_or_seen_by_the_content_digest(name: str) -> None:
    """Whatever still scans is the same image under another content digest."""
    data = golden(name)
    whole = scan(data)
    for position in metadata_positions(data):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        try:
            found = scan(bytes(damaged))
        except IntegrityError:
            continue
        assert found.content_digest != whole.content_digest, position
        assert found.image.config_digest == whole.image.config_digest, position
        assert found.image.layers == whole.image.layers, position


def metadata_positions(data: bytes) -> list[int]:
    """Return every byte that is not within a layer; of layers each 61st."""
    layers = {layer.member for layer in scan(data).image.layers}
    positions: list[int] = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            positions += range(info.offset, info.offset_data)
            body_end = info.offset_data + (info.size if info.isreg() else 0)
            positions += range(info.offset_data, body_end, 61 if info.name in layers else 1)
            positions += range(body_end, body_end + -body_end % BLOCK, 17)
    return [*positions, *range(max(positions) + 1, len(data), 97)]


@pytest.mark.parametrize("name", APP)
def test_the_gate_accepts_the_announced_image_only(name: str) -> None:
    """Another ID or other layers than inspect announced are refused."""
    archive = scan(golden(name))
    for image_id in archive.image.image_ids:
        require_image(archive, image_id=image_id, diff_ids=archive.image.diff_ids)
    with pytest.raises(IntegrityError, match=r"asked for"):
        require_image(archive, image_id="sha256:" + "0" * 64, diff_ids=archive.image.diff_ids)
    with pytest.raises(IntegrityError, match=r"announced"):
        require_image(archive, image_id=archive.image.config_digest, diff_ids=archive.image.diff_ids[:-1])
    with pytest.raises(IntegrityError, match=r"announced"):
        require_image(archive, image_id=archive.image.config_digest, diff_ids=archive.image.diff_ids[::-1][1:])


def test_the_content_digest_is_what_its_definition_says() -> None:
    """Headers as they are, bodies replaced by their digests, padding left out, the end as it is."""
    data = golden("engine-20.10-graphdriver.tar")
    content = b""
    position = 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            content += data[info.offset : info.offset_data]
            position = info.offset_data
            if info.isreg():
                content += bytes.fromhex(sha256(data[position : position + info.size]))
                position += info.size + -info.size % BLOCK
    assert scan(data).content_digest == f"sha256:{sha256(content + data[position:])}"
