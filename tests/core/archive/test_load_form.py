# SPDX-License-Identifier: Apache-2.0
"""The same archive under other tags."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.archive.load_form import retagged
from airflow_provider_dockerbackup.core.archive.rootfs import image_config_from, one_layer_image
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError

from .making import IMAGES, Entry, drained, entries_of, golden, pieces, scan, sha256, tar_of

TAGS: list[list[str]] = [[], ["app:1"], ["lab/app:verify-1", "registry.example:5000/team/app:2"]]
REWRITTEN = {"manifest.json", "index.json"}


def load_form(data: bytes, tags: list[str], *, piece_bytes: int = 1000) -> bytes:
    """Return the whole load form."""
    return b"".join(retagged(pieces(data, piece_bytes), tags=tags))


def document(data: bytes, name: str) -> Any:
    """Return a JSON document, read by other code than ours."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return json.load(tar.extractfile(name) or io.BytesIO())


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("tags", TAGS)
def test_the_load_form_holds_the_same_image_under_the_given_tags(name: str, tags: list[str]) -> None:
    """Identity, layers and configuration are those of the original; the tags are those asked for and no others."""
    before, after = scan(golden(name)).image, scan(load_form(golden(name), tags)).image
    assert after.repo_tags == tuple(tags)
    assert (after.config, after.layers, after.image_ids) == (before.config, before.layers, before.image_ids)
    assert document(load_form(golden(name), tags), "manifest.json")[0]["RepoTags"] == (tags or None)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("tags", TAGS)
def test_every_other_member_is_unchanged(name: str, tags: list[str]) -> None:
    """Layers and configuration are byte-identical, `repositories` is gone, the order stays."""
    before = [entry for entry in entries_of(golden(name)) if entry.name != "repositories"]
    after = entries_of(load_form(golden(name), tags))
    assert [entry.name for entry in after] == [entry.name for entry in before]
    for old, new in zip(before, after, strict=True):
        assert old.extra == new.extra
        assert old.name in REWRITTEN or old == new


@pytest.mark.parametrize("name", [name for name in IMAGES if "engine-28" in name])
def test_an_untagged_load_form_names_nothing_anywhere(name: str) -> None:
    """The containerd store takes names from annotations, and takes them over silently."""
    data = load_form(golden(name), [])
    manifests = document(data, "index.json")["manifests"]
    assert len(manifests) == 1
    assert "annotations" not in manifests[0]
    assert b"docker.io/lab" not in data


@pytest.mark.parametrize(
    ("tag", "image_name"),
    [
        ("app:1", "docker.io/library/app:1"),
        ("lab/app:1", "docker.io/lab/app:1"),
        ("localhost/app:1", "localhost/app:1"),
        ("registry:5000/a/b:1", "registry:5000/a/b:1"),
        ("example.org/app:1", "example.org/app:1"),
        ("docker.io/library/app:1", "docker.io/library/app:1"),
        ("index.docker.io/lab/app:1", "docker.io/lab/app:1"),
    ],
)
def test_a_tag_is_written_out_in_the_index_as_docker_does(tag: str, image_name: str) -> None:
    """The full name and the bare tag."""
    index = document(load_form(golden("engine-28-containerd.tar"), [tag]), "index.json")
    assert [manifest["annotations"] for manifest in index["manifests"]] == [
        {"io.containerd.image.name": image_name, "org.opencontainers.image.ref.name": "1"}
    ]


def test_several_tags_give_several_entries_in_the_index() -> None:
    """As engines write it."""
    index = document(load_form(golden("engine-28-graphdriver.tar"), ["a/b:1", "c/d:2"]), "index.json")
    names = [manifest["annotations"]["io.containerd.image.name"] for manifest in index["manifests"]]
    assert names == ["docker.io/a/b:1", "docker.io/c/d:2"]
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"


@pytest.mark.parametrize("name", IMAGES)
def test_retagging_twice_is_retagging_once(name: str) -> None:
    """The form does not depend on the tags before, nor on the size of the pieces."""
    once = load_form(golden(name), ["a/b:1"], piece_bytes=1)
    assert load_form(load_form(golden(name), ["c/d:2"]), ["a/b:1"], piece_bytes=1 << 20) == once


@pytest.mark.parametrize("tag", ["app@sha256:" + "0" * 64, "sha256:" + "0" * 64, "-rm", "App:1", "a b", ""])
def test_a_tag_that_is_none_is_refused_before_anything_is_read(tag: str) -> None:
    """A digest or an ID cannot be given to an image."""
    with pytest.raises(ConfigurationError):
        retagged(iter(()), tags=[tag])


def test_the_end_of_the_tar_is_withheld_until_the_input_proved_to_be_whole() -> None:
    """A cut archive gives no load form that ends as a tar must."""
    data = golden("engine-28-graphdriver.tar")
    for length in range(0, len(data.rstrip(b"\0")), 512):
        out, error = drained(retagged([data[:length]], tags=[]))
        assert "the stream ends after" in error
        assert len(out) < len(data) - 1024


@pytest.mark.parametrize("mtime", [-5, 8**11, 2**60])
def test_a_time_that_ustar_cannot_hold_is_brought_into_range(mtime: int) -> None:
    """Only for the members that are written anew."""
    entries = entries_of(golden("engine-28-graphdriver.tar"))
    for entry in entries:
        entry.extra["mtime"] = mtime
    data = tar_of(entries, tar_format=tarfile.PAX_FORMAT)
    assert scan(load_form(data, ["a/b:1"])).image.repo_tags == ("a/b:1",)


def test_an_archive_without_an_image_or_with_two_is_refused() -> None:
    """Only what the completeness gate accepts has a load form."""
    for body in (b"[]", b"[{},{}]", b"{}", b"x", b"[1]"):
        with pytest.raises(IntegrityError, match=r"manifest\.json"):
            load_form(tar_of([Entry("manifest.json", body)]), [])
    with pytest.raises(IntegrityError, match=r"manifest\.json is missing"):
        load_form(tar_of([]), [])


def test_memory_stays_flat_for_a_large_layer() -> None:
    """Nothing but the two documents is held."""
    piece, count = bytes(1 << 20), 100
    diff_id = f"sha256:{sha256(piece * count)}"
    config = image_config_from(
        {}, architecture="amd64", os="linux", variant="", created="2026-01-01T00:00:00Z", diff_id=diff_id, comment=""
    )

    def layer_chunks() -> Iterator[bytes]:
        for _ in range(count):
            yield piece

    image = one_layer_image(
        config=config, layer_chunks=layer_chunks(), layer_size_bytes=count << 20, diff_id=diff_id, tags=["a/b:1"]
    )
    tracemalloc.start()
    total = sum(len(part) for part in retagged(image, tags=[]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total > count << 20
    assert peak < 8 << 20
