# SPDX-License-Identifier: Apache-2.0
"""Archives from which layers were left out because they are held: whole with them, and with nothing else."""

from __future__ import annotations

import gzip
import itertools
import json
import tarfile
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.archive.docker_archive import DockerArchive, DockerArchiveScanner
from airflow_provider_dockerbackup.exceptions import IncompleteError, IntegrityError

from .making import (
    IMAGES,
    Entry,
    blob,
    compact,
    descriptor,
    entries_of,
    golden,
    image_config,
    layer,
    legacy_archive,
    oci_archive,
    oci_documents,
    scan,
    sha256,
    tar_of,
)

LAYERS = [layer("etc/one"), layer("etc/two"), layer("etc/three")]
STORED = [gzip.compress(body, mtime=0) for body in LAYERS]
DIFF_IDS = [f"sha256:{sha256(body)}" for body in LAYERS]
FORMS: dict[str, Callable[[], list[Entry]]] = {
    "legacy": lambda: legacy_archive(LAYERS),
    "graphdriver": lambda: oci_archive(LAYERS),
    "containerd": lambda: oci_archive(LAYERS, stored=STORED),
}


def scan_of(entries: list[Entry], *, held: Mapping[str, str], leave_out: bool = True) -> DockerArchive:
    """Scan an archive without the members that are held."""
    scanner = DockerArchiveScanner(held=held)
    scanner.feed(tar_of(entry for entry in entries if not leave_out or entry.name not in held))
    return scanner.finish()


def members_of(entries: list[Entry]) -> list[str]:
    """Return the names of the layers' members, lowest first."""
    manifest = next(entry.body for entry in entries if entry.name == "manifest.json")
    return list(json.loads(manifest)[0]["Layers"])


@pytest.mark.parametrize("form", FORMS)
def test_any_layers_that_are_held_may_be_left_out(form: str) -> None:
    """The image is the same, and says of each layer whether it was seen."""
    entries = FORMS[form]()
    members = members_of(entries)
    whole = scan(tar_of(entries)).image
    for chosen in itertools.product((False, True), repeat=len(LAYERS)):
        held = {name: diff_id for name, diff_id, one in zip(members, DIFF_IDS, chosen, strict=True) if one}
        image = scan_of(entries, held=held).image
        assert tuple(each.held for each in image.layers) == chosen
        assert [each.member for each in image.layers] == members
        assert [(each.diff_id, each.digest) for each in image.layers] == [
            (each.diff_id, each.digest) for each in whole.layers
        ]
        assert [each for each in image.layers if not each.held] == [
            each for each, one in zip(whole.layers, chosen, strict=True) if not one
        ]
        assert (image.image_ids, image.config, image.notes) == (whole.image_ids, whole.config, whole.notes)


@pytest.mark.parametrize("name", IMAGES)
def test_any_layer_may_be_left_out_of_an_archive_of_a_real_engine(name: str) -> None:
    """In every form that engines write, one layer at a time and all at once."""
    entries = entries_of(golden(name))
    image = scan(golden(name)).image
    diff_ids = {each.member: each.diff_id for each in image.layers}
    for held in (diff_ids, *({member: diff_id} for member, diff_id in diff_ids.items())):
        found = scan_of(entries, held=held).image
        assert {each.member for each in found.layers if each.held} == set(held)
        assert (found.diff_ids, found.image_ids, found.notes) == (image.diff_ids, image.image_ids, image.notes)


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_left_out_that_is_not_held_is_missing(form: str) -> None:
    """Whatever else is held."""
    entries = FORMS[form]()
    first, second, _ = members_of(entries)
    cut = [entry for entry in entries if entry.name != first]
    for held in ({}, {second: DIFF_IDS[1]}, {second: DIFF_IDS[0]}, {f"{'0' * 64}/layer.tar": DIFF_IDS[0]}):
        with pytest.raises(IntegrityError, match=f"{first}.*is missing") as caught:
            scan_of(cut, held=held)
        assert not isinstance(caught.value, IncompleteError)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrong", [DIFF_IDS[1], f"sha256:{'0' * 64}", DIFF_IDS[0][7:], DIFF_IDS[0].upper(), ""])
def test_a_layer_held_under_another_diff_id_does_not_count(form: str, wrong: str) -> None:
    """Only exactly the diff_id that the configuration names at that place does."""
    entries = FORMS[form]()
    with pytest.raises(IncompleteError, match=f"was left out as that of diff_id {wrong}, which is held"):
        scan_of(entries, held={members_of(entries)[0]: wrong})


@pytest.mark.parametrize("form", FORMS)
def test_held_layers_in_each_others_places_do_not_count(form: str) -> None:
    """Each is there, but not where it must be."""
    entries = FORMS[form]()
    first, second, _ = members_of(entries)
    with pytest.raises(IncompleteError, match="was left out"):
        scan_of(entries, held={first: DIFF_IDS[1], second: DIFF_IDS[0]})


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_that_came_all_the_same_is_looked_at_like_any_other(form: str) -> None:
    """Being held is no excuse for a body that is wrong, and a good one counts as seen."""
    entries = FORMS[form]()
    member = members_of(entries)[0]
    held = {member: DIFF_IDS[0]}
    assert not any(each.held for each in scan_of(entries, held=held, leave_out=False).image.layers)
    wrong_guess = {member: DIFF_IDS[1]}
    assert not any(each.held for each in scan_of(entries, held=wrong_guess, leave_out=False).image.layers)
    changed = [Entry(entry.name, layer("other")) if entry.name == member else entry for entry in entries]
    with pytest.raises(IntegrityError, match=r"is not that of diff_id|not its name") as caught:
        scan_of(changed, held=held, leave_out=False)
    assert not isinstance(caught.value, IncompleteError)


def with_link(*, target_first: bool) -> tuple[list[Entry], str, str]:
    """Return a legacy archive of layers A, B, A, in which the second A is a link to the first, and both names."""
    entries = legacy_archive([LAYERS[0], LAYERS[1], LAYERS[0]])
    first, other = members_of(entries)[0], f"{'0' * 64}/layer.tar"
    link = Entry(other, kind=tarfile.SYMTYPE, link=f"../{first}")
    config = next(entry for entry in entries if len(entry.name) == 69)
    manifest = [{"Config": config.name, "RepoTags": None, "Layers": [first, members_of(entries)[1], other]}]
    files = {entry.name: entry for entry in entries}
    pair = [files[first], link] if target_first else [link, files[first]]
    rest = [files[members_of(entries)[1]], config, Entry("manifest.json", compact(manifest))]
    return [*pair, *rest], first, other


@pytest.mark.parametrize("target_first", [True, False])
def test_a_layer_that_occurs_twice_may_be_left_out_by_either_name_or_both(target_first: bool) -> None:
    """A link without its target is as good as the target, and a target without its link is there by itself."""
    entries, first, other = with_link(target_first=target_first)
    for held in ({first: DIFF_IDS[0]}, {first: DIFF_IDS[0], other: DIFF_IDS[0]}):
        assert [each.held for each in scan_of(entries, held=held).image.layers] == [True, False, True]
    assert [each.held for each in scan_of(entries, held={other: DIFF_IDS[0]}).image.layers] == [False, False, True]
    assert not any(each.held for each in scan_of(entries, held={}).image.layers)


def test_a_link_to_a_layer_held_as_another_one_does_not_count() -> None:
    """The link's own place in the configuration decides."""
    entries, first, other = with_link(target_first=True)
    with pytest.raises(IncompleteError, match="was left out"):
        scan_of(entries, held={first: DIFF_IDS[1]})
    with pytest.raises(IncompleteError, match="was left out"):
        scan_of(entries, held={other: DIFF_IDS[1]})
    moved = [Entry(other, kind=tarfile.SYMTYPE, link=f"../{members_of(entries)[1]}"), *entries]
    moved = [entry for at, entry in enumerate(moved) if entry.name != other or at == 0]
    with pytest.raises(IncompleteError, match=f"as that of diff_id {DIFF_IDS[1]}"):
        scan_of(moved, held={members_of(entries)[1]: DIFF_IDS[1]})


def test_a_link_to_a_held_layer_that_is_not_the_images_is_refused() -> None:
    """Names that are held are no licence for strangers."""
    stray = f"{'1' * 64}/layer.tar"
    link = Entry(f"{'2' * 64}/layer.tar", kind=tarfile.SYMTYPE, link=f"../{stray}")
    with pytest.raises(IntegrityError, match="which is no layer of the image"):
        scan_of([link, *legacy_archive(LAYERS)], held={stray: DIFF_IDS[0]})


def test_documents_that_were_left_out_are_not_there() -> None:
    """A guess may name the configuration or a manifest by mistake; what it names cannot be held as a layer."""
    entries = oci_archive(LAYERS)
    parts = oci_documents(compact(image_config(LAYERS)), LAYERS)
    manifest, config = blob(parts["manifest"]).name, blob(compact(image_config(LAYERS))).name
    for name in (manifest, config):
        with pytest.raises(IncompleteError, match="was left out as a layer that is held"):
            scan_of(entries, held={name: DIFF_IDS[0]})
    for name in ("manifest.json", "index.json", "oci-layout"):
        with pytest.raises(IntegrityError):
            scan_of(entries, held={name: DIFF_IDS[0]})


def test_descriptors_must_agree_on_the_size_of_a_held_layer() -> None:
    """It cannot be compared with a body, but one blob has one size."""
    config = compact(image_config(LAYERS))
    held = {blob(LAYERS[0]).name: DIFF_IDS[0]}
    layers = [descriptor(body, "layer") for body in LAYERS]
    other = {"schemaVersion": 2, "config": descriptor(config, "config"), "layers": [{**layers[0], "size": 7}, *layers]}
    parts = oci_documents(config, LAYERS)

    def with_manifests(*manifests: bytes) -> list[Entry]:
        index: dict[str, Any] = {"schemaVersion": 2, "manifests": [descriptor(body) for body in manifests]}
        return [*oci_archive(LAYERS, documents={"index.json": index}), *(blob(body) for body in manifests[1:])]

    assert scan_of(with_manifests(parts["manifest"]), held=held).image.layers[0].held
    with pytest.raises(IntegrityError, match="bytes by one descriptor and 7 by another"):
        scan_of(with_manifests(parts["manifest"], compact(other)), held=held)


def test_an_index_that_names_a_held_layer_as_a_manifest_is_refused() -> None:
    """A blob that is not there cannot be followed."""
    index = {"schemaVersion": 2, "manifests": [descriptor(LAYERS[0])]}
    with pytest.raises(IntegrityError, match="is named as a manifest, and is none"):
        scan_of(
            oci_archive(LAYERS, documents={"index.json": index}),
            held={blob(LAYERS[0]).name: DIFF_IDS[0]},
        )


def test_a_manifest_of_another_platform_may_share_held_layers_but_not_lack_others_that_were_left_out() -> None:
    """That it is not whole would be our own doing, and is not said."""
    foreign_config = compact({**image_config(LAYERS), "architecture": "arm64"})

    def archive(*bodies: bytes) -> list[Entry]:
        foreign = compact(
            {
                "schemaVersion": 2,
                "config": descriptor(foreign_config, "config"),
                "layers": [descriptor(body, "layer") for body in bodies],
            }
        )
        parts = oci_documents(compact(image_config(LAYERS)), LAYERS)
        inner = compact({"schemaVersion": 2, "manifests": [descriptor(parts["manifest"]), descriptor(foreign)]})
        index = {"schemaVersion": 2, "manifests": [descriptor(inner, "index")]}
        added = (blob(body) for body in (inner, foreign, foreign_config))
        return [*oci_archive(LAYERS, documents={"index.json": index}), *added]

    held = {blob(LAYERS[0]).name: DIFF_IDS[0]}
    assert [each.whole for each in scan_of(archive(LAYERS[0]), held=held).image.others] == [True]
    stray = layer("of the other platform")
    with pytest.raises(IncompleteError, match="is none of the image's layers"):
        scan_of([*archive(LAYERS[0], stray), blob(stray)], held={**held, blob(stray).name: f"sha256:{sha256(stray)}"})


def test_layers_of_no_image_are_refused_however_much_is_held() -> None:
    """The stream must still hold nothing but the image."""
    stranger = layer("stranger")
    with pytest.raises(IntegrityError, match="belongs to no image"):
        scan_of(
            [blob(stranger), *oci_archive(LAYERS)],
            held={blob(stranger).name: f"sha256:{sha256(stranger)}"},
            leave_out=False,
        )
