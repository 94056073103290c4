# SPDX-License-Identifier: Apache-2.0
"""The names under which engines will write layers, foreseen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.archive.legacy_names import chain_ids, legacy_names
from airflow_provider_dockerbackup.core.archive.member_names import archive_forms, member_names
from airflow_provider_dockerbackup.core.model import EPOCH, EngineInfo, ImageInspect, Store
from airflow_provider_dockerbackup.transport import docker_output
from airflow_provider_dockerbackup.transport.memory_images import memory_engine

from .making import IMAGES, golden, scan, sha256

BERLIN = "1970-01-01T01:00:00+01:00"
A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


def engine(version: str, store: Store = "graphdriver") -> EngineInfo:
    """Return what a daemon says of itself."""
    return replace(memory_engine("test"), version=version, store=store)


def inspected(document: dict[str, Any]) -> ImageInspect:
    """Return an image from its configuration, as an engine would show it."""
    shown = {
        "Id": "sha256:" + "0" * 64,
        "RootFS": {"Type": "layers", "Layers": document["rootfs"]["diff_ids"]},
        "Comment": document.get("comment") or (document.get("history") or [{}])[-1].get("comment") or "",
        "Created": document.get("created"),
        "Container": document.get("container") or "",
        "ContainerConfig": document.get("container_config"),
        "DockerVersion": document.get("docker_version") or "",
        "Author": document.get("author") or "",
        "Config": document.get("config"),
        "Architecture": document.get("architecture"),
        "Os": document.get("os"),
    }
    return docker_output.image(shown)


def bare(*diff_ids: str) -> ImageInspect:
    """Return an image of which only the layers matter."""
    return inspected({"rootfs": {"diff_ids": list(diff_ids)}})


@pytest.mark.parametrize("name", [name for name in IMAGES if name.startswith("engine-")])
def test_the_names_in_an_archive_of_a_real_engine_are_foreseen(name: str) -> None:
    """All of them, with nothing but what was known before."""
    image = scan(golden(name)).image
    store: Store = "containerd" if "containerd" in name else "graphdriver"
    hints = {layer.diff_id: frozenset({layer.digest}) for layer in image.layers}
    foreseen = member_names(
        inspected(json.loads(image.config)),
        engine=engine(name.split("-")[1], store),
        held=image.diff_ids,
        hints=hints if store == "containerd" else {},
    )
    assert {layer.member: layer.diff_id for layer in image.layers}.items() <= foreseen.items()


def test_only_layers_of_the_image_that_are_held_are_named() -> None:
    """Others of the image must come, and others that are held do not concern it."""
    assert member_names(bare(A, B), engine=engine("28.5.2"), held=[B, C]) == {f"blobs/sha256/{'b' * 64}": B}
    assert member_names(bare(A, B), engine=engine("28.5.2"), held=[]) == {}
    assert member_names(bare(), engine=engine("20.10.24"), held=[A]) == {}


def test_a_layer_that_comes_twice_has_all_its_names() -> None:
    """In a legacy archive each place has a name of its own; one is a link to the other."""
    names = member_names(bare(A, B, A, C), engine=engine("20.10.24"), held=[A])
    assert list(names.values()) == [A, A]
    assert member_names(bare(A, B, A), engine=engine("28.5.2"), held=[A]) == {f"blobs/sha256/{'a' * 64}": A}


def test_the_containerd_store_names_layers_by_what_was_seen_of_it_and_by_their_diff_id() -> None:
    """It keeps those uncompressed that were loaded uncompressed."""
    hints = {A: frozenset({"sha256:" + "1" * 64, "sha256:" + "2" * 64}), C: frozenset({"sha256:" + "3" * 64})}
    assert member_names(bare(A, B), engine=engine("28.5.2", "containerd"), held=[A, B, C], hints=hints) == {
        f"blobs/sha256/{'a' * 64}": A,
        f"blobs/sha256/{'b' * 64}": B,
        f"blobs/sha256/{'1' * 64}": A,
        f"blobs/sha256/{'2' * 64}": A,
    }
    assert "blobs/sha256/" + "1" * 64 not in member_names(bare(A), engine=engine("28.5.2"), held=[A], hints=hints)


def test_a_name_that_would_stand_for_two_layers_is_not_listed() -> None:
    """Hints are documents that may be wrong."""
    hints = {A: frozenset({C, "sha256:$(id)", ""}), B: frozenset({C})}
    names = member_names(bare(A, B), engine=engine("28.5.2", "containerd"), held=[A, B], hints=hints)
    assert names == {f"blobs/sha256/{'a' * 64}": A, f"blobs/sha256/{'b' * 64}": B}


@pytest.mark.parametrize(
    ("version", "store", "forms"),
    [
        ("20.10.24+dfsg1", "graphdriver", ("legacy",)),
        ("24.0.9", "graphdriver", ("legacy",)),
        ("v23.0.1", "graphdriver", ("legacy",)),
        ("24.0.9", "containerd", ("oci",)),
        ("25.0.0", "graphdriver", ("oci",)),
        ("28.5.2", "containerd", ("oci",)),
        ("dev", "graphdriver", ("legacy", "oci")),
        ("", "graphdriver", ("legacy", "oci")),
    ],
)
def test_the_form_of_the_archive_follows_from_version_and_store(
    version: str, store: Store, forms: tuple[str, ...]
) -> None:
    """Blobs came with 25.0; of what is unknown all is expected."""
    assert archive_forms(engine(version, store)) == forms
    assert len(member_names(bare(A), engine=engine(version, store), held=[A])) == len(forms)


def test_names_of_legacy_archives_depend_on_the_time_zone_of_the_daemon() -> None:
    """Each name holds how the daemon writes the time 0; it may be in a container, which is in UTC."""
    names = {epoch: dict(legacy_names({}, [A, B], epoch=epoch)) for epoch in (EPOCH, BERLIN)}
    assert not set(names[EPOCH]) & set(names[BERLIN])
    abroad = replace(engine("20.10.24"), epoch=BERLIN)
    assert member_names(bare(A, B), engine=abroad, held=[A, B]) == {**names[BERLIN], **names[EPOCH]}


def test_the_top_layer_is_foreseen_with_and_without_the_comment_of_the_last_step() -> None:
    """Docker shows the last step's comment where the image has none, and only the image's is in the name."""
    image = bare(A, B)
    shown = replace(image, document={**image.document, "Comment": "buildkit.dockerfile.v0"})
    plain = member_names(image, engine=engine("20.10.24"), held=[B])
    assert list(plain.values()) == [B]
    assert plain.items() < member_names(shown, engine=engine("20.10.24"), held=[B]).items()


def test_chain_ids_are_those_of_the_specification() -> None:
    """The lowest is its diff_id, each other the digest of the chain below and its own."""
    assert chain_ids([]) == ()
    two = f"sha256:{sha256(f'{A} {B}'.encode())}"
    assert chain_ids([A, B, C]) == (A, two, f"sha256:{sha256(f'{two} {C}'.encode())}")
