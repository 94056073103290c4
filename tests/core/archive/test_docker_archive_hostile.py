# SPDX-License-Identifier: Apache-2.0
"""Archives that no engine writes, each refused with a message that names the member and the rule."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from airflow_provider_dockerbackup.core.archive.docker_archive import DecompressLimits, DockerArchiveScanner
from airflow_provider_dockerbackup.exceptions import IntegrityError

from .making import (
    Entry,
    blob,
    compact,
    descriptor,
    image_config,
    layer,
    legacy_archive,
    oci_archive,
    oci_documents,
    scan,
    sha256,
    tar_of,
)

LAYERS = [layer("etc/one"), layer("etc/two")]
V1 = "ab" * 32


def gzipped(plain: list[bytes]) -> list[bytes]:
    """Return layers as the containerd store keeps them."""
    return [gzip.compress(body, mtime=0) for body in plain]


def manifest_json(entries: list[Entry], **overrides: Any) -> list[Entry]:
    """Return the members with other values in manifest.json."""
    changed = []
    for entry in entries:
        if entry.name == "manifest.json":
            image = {**json.loads(entry.body)[0], **overrides}
            changed.append(Entry("manifest.json", compact([image])))
        else:
            changed.append(entry)
    return changed


def without(entries: list[Entry], name: str) -> list[Entry]:
    """Return the members but one."""
    return [entry for entry in entries if entry.name != name]


def test_the_archives_these_tests_start_from_are_accepted() -> None:
    """What follows is refused for its own fault."""
    for entries in (legacy_archive(LAYERS), oci_archive(LAYERS), oci_archive(LAYERS, stored=gzipped(LAYERS))):
        archive = scan(tar_of(entries))
        assert len(archive.image.layers) == 2
        assert archive.image.notes == ()


@pytest.mark.parametrize(
    "name",
    [
        "../manifest.json",
        f"blobs/../{V1}.json",
        f"blobs/sha256/../../{V1}",
        "/manifest.json",
        "./manifest.json",
        "etc/passwd",
        f"blobs/sha512/{V1}",
        f"blobs/sha256/{V1.upper()}",
        f"blobs/sha256/{V1[:-1]}",
        f"{V1}/layer.tar/x",
        "Manifest.json",
        "manifest.json\n",
        "manifest.json ",
    ],
)
def test_a_member_with_a_foreign_name_is_refused(name: str) -> None:
    """Traversal, absolute paths and all names but those of engines."""
    with pytest.raises(IntegrityError, match=r"no engine writes such a name") as caught:
        scan(tar_of([*legacy_archive(LAYERS), Entry(name, b"x")]))
    assert ascii(name) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.CHRTYPE, "character-device"),
        (tarfile.BLKTYPE, "block-device"),
        (tarfile.FIFOTYPE, "fifo"),
        (tarfile.LNKTYPE, "hardlink"),
        (tarfile.SYMTYPE, "symlink"),
    ],
)
def test_a_member_of_a_kind_that_engines_do_not_write_is_refused(kind: bytes, word: str) -> None:
    """A device, FIFO or link in place of a blob."""
    link = "manifest.json" if word.endswith("link") else ""
    name = f"blobs/sha256/{V1}"
    with pytest.raises(IntegrityError, match=f"{name}.*must be a file, is a {word}"):
        scan(tar_of([Entry(name, b"", kind, link), *oci_archive(LAYERS)]))


@pytest.mark.parametrize(
    "target",
    ["/etc/shadow", "../../etc/shadow", f"../{V1}/json", f"{V1}/layer.tar", f"../{V1}/layer.tar/../x", "layer.tar"],
)
def test_a_layer_link_that_leads_elsewhere_is_refused(target: str) -> None:
    """Only the legacy form ../<v1 id>/layer.tar is one."""
    link = Entry(f"{'cd' * 32}/layer.tar", b"", tarfile.SYMTYPE, target)
    with pytest.raises(IntegrityError, match=r"not to another layer"):
        scan(tar_of([link, *legacy_archive(LAYERS)]))


def test_a_directory_in_place_of_a_blob_is_refused() -> None:
    """Names of directories are a short list of their own."""
    with pytest.raises(IntegrityError, match=r"no engine writes such a name"):
        scan(tar_of([Entry(f"blobs/sha256/{V1}", b"", tarfile.DIRTYPE), *oci_archive(LAYERS)]))


def test_a_layer_link_to_itself_or_to_nothing_is_refused() -> None:
    """A link must end at a layer of the image."""
    name = f"{V1}/layer.tar"
    with pytest.raises(IntegrityError, match=r"not to another layer"):
        scan(tar_of([Entry(name, b"", tarfile.SYMTYPE, f"../{name}"), *legacy_archive(LAYERS)]))
    with pytest.raises(IntegrityError, match=r"which is no layer of the image"):
        scan(tar_of([Entry(name, b"", tarfile.SYMTYPE, f"../{'cd' * 32}/layer.tar"), *legacy_archive(LAYERS)]))


def test_links_of_links_are_not_followed() -> None:
    """Two links in a row are none of an engine's."""
    first, second = f"{'aa' * 32}/layer.tar", f"{'bb' * 32}/layer.tar"
    entries = manifest_json(legacy_archive([LAYERS[0]]), Layers=[first])
    real = entries[0].name
    links = [Entry(first, b"", tarfile.SYMTYPE, f"../{second}"), Entry(second, b"", tarfile.SYMTYPE, f"../{real}")]
    with pytest.raises(IntegrityError, match=r"is missing"):
        scan(tar_of([*links, *entries]))


@pytest.mark.parametrize("make", [legacy_archive, oci_archive])
def test_a_second_member_of_the_same_name_is_refused(make: Callable[[list[bytes]], list[Entry]]) -> None:
    """An engine would let the second, evil one win."""
    entries = make(LAYERS)
    for entry in entries:
        evil = Entry(entry.name, entry.body.replace(b"one", b"two"))
        with pytest.raises(IntegrityError, match=r"the name comes twice|not its name") as caught:
            scan(tar_of([*entries, evil]))
        assert entry.name in str(caught.value)


def test_an_equal_directory_may_come_twice_but_not_a_different_one() -> None:
    """Directories are the one thing that can be said again."""
    again = Entry("blobs/", b"", tarfile.DIRTYPE, extra={"mode": 0o755})
    other = Entry("blobs/", b"", tarfile.DIRTYPE, extra={"mode": 0o777})
    scan(tar_of([again, again, *oci_archive(LAYERS)]))
    with pytest.raises(IntegrityError, match=r"directory comes twice and differs"):
        scan(tar_of([again, other, *oci_archive(LAYERS)]))


def test_a_blob_whose_name_is_not_its_digest_is_refused() -> None:
    """A daemon loads an edited configuration under its old name; this gate does not let it pass."""
    config = Entry(f"{V1}.json", compact(image_config(LAYERS)))
    for bad in (config, Entry(f"blobs/sha256/{V1}", b"x"), Entry(f"{V1}.tar", b"x")):
        with pytest.raises(IntegrityError, match=r"not its name"):
            scan(tar_of([bad, *legacy_archive(LAYERS)]))


@pytest.mark.parametrize(
    "value", [b"[]", b"{}", b"null", b"", b"[1]", b"[{}]", b"\xff", b"[" * 100_000, b'[{"a":NaN}]']
)
def test_a_manifest_that_describes_no_image_is_refused(value: bytes) -> None:
    """A daemon loads an empty list with success."""
    entries = [*without(legacy_archive(LAYERS), "manifest.json"), Entry("manifest.json", value)]
    with pytest.raises(IntegrityError, match=r"manifest.json"):
        scan(tar_of(entries))


def test_two_images_are_refused() -> None:
    """If the second is bad, a daemon keeps the first."""
    entries = legacy_archive(LAYERS)
    image = entries[-1].body[1:-1]
    entries[-1] = Entry("manifest.json", b"[" + image + b"," + image + b"]")
    with pytest.raises(IntegrityError, match=r"exactly one image, it describes 2"):
        scan(tar_of(entries))


def test_keys_that_engines_would_read_differently_are_refused() -> None:
    """Go matches keys without regard to case and lets the last win."""
    for twist in (b'"layers":[]', b'"Layers":[]', b'"LAYERS":[]', '"Layer\u017f":[]'.encode()):
        entries = legacy_archive(LAYERS)
        entries[-1] = Entry("manifest.json", entries[-1].body.replace(b"}]", b"," + twist + b"}]"))
        with pytest.raises(IntegrityError, match=r"another spelling|same key twice"):
            scan(tar_of(entries))


def test_text_that_has_no_bytes_is_refused_but_any_other_is_accepted() -> None:
    """Half of a surrogate pair could not be written again; a whole one can."""
    entries = legacy_archive(LAYERS)
    for escape, is_text in ((rb"\ud83d\ude00", True), (rb"\ud83d", False), (rb"\udc80", False), (rb"\\ud83d", True)):
        odd = entries[-1].body.replace(b"null", b'["' + escape + b'"]')
        data = tar_of([*entries[:-1], Entry("manifest.json", odd)])
        if is_text:
            assert scan(data).image.repo_tags == (json.loads(odd)[0]["RepoTags"][0],)
        else:
            with pytest.raises(IntegrityError, match=r"manifest\.json is not JSON"):
                scan(data)


def test_missing_and_surplus_layers_are_refused() -> None:
    """Number and order of layers must be those of the diff_ids."""
    entries = legacy_archive(LAYERS)
    names = [entries[0].name, entries[1].name]
    cases = [
        (entries[1:], "is missing"),
        (manifest_json(entries, Layers=names[:1]), "1 layers, the configuration 2 diff_ids"),
        (manifest_json(entries, Layers=[*names, names[0]]), "3 layers, the configuration 2 diff_ids"),
        (manifest_json(entries, Layers=None), "0 layers, the configuration 2 diff_ids"),
        (manifest_json(entries, Layers=names[::-1]), "is not that of diff_id"),
        (manifest_json(entries, Layers=[names[0], "../../etc/passwd"]), "is missing"),
    ]
    for bad, message in cases:
        with pytest.raises(IntegrityError, match=message):
            scan(tar_of(bad))


def test_layers_and_configurations_of_no_image_are_refused() -> None:
    """Nothing may hide in an archive, to be loaded by an engine that reads it another way."""
    other = layer("evil")
    cases = [
        [*legacy_archive(LAYERS), Entry(f"{sha256(other)}.tar", other)],
        [*oci_archive(LAYERS), blob(other)],
        [*legacy_archive(LAYERS), Entry(f"{sha256(b'{}')}.json", b"{}")],
    ]
    for entries in cases:
        with pytest.raises(IntegrityError, match=r"belongs to no image|of no image"):
            scan(tar_of(entries))


def test_a_legacy_layer_that_no_image_lists_is_refused() -> None:
    """Such a layer has no digest in its name, so it needs its own rule."""
    with pytest.raises(IntegrityError, match=f"{V1}/layer.tar.*belongs to no image"):
        scan(tar_of([*legacy_archive(LAYERS), Entry(f"{V1}/layer.tar", layer("evil"))]))


def test_a_missing_configuration_is_refused() -> None:
    """And one that manifest.json names by a path of its own."""
    entries = legacy_archive(LAYERS)
    with pytest.raises(IntegrityError, match=r"configuration .* is missing"):
        scan(tar_of(without(entries, entries[2].name)))
    for name in ("config.json", "manifest.json", "../x.json", f"{V1}/json"):
        with pytest.raises(IntegrityError, match=r"missing|not named by a digest"):
            scan(tar_of(manifest_json(entries, Config=name)))


def test_a_history_that_does_not_fit_the_layers_is_refused() -> None:
    """An absent one is accepted, and one that leaves steps out, as some builders do, is noted."""
    config = image_config(LAYERS)
    assert scan(tar_of(legacy_archive(LAYERS, config={**config, "history": None}))).image.notes == ()
    short = scan(tar_of(legacy_archive(LAYERS, config={**config, "history": [{}, {"empty_layer": True}]})))
    assert "history has 1 steps with a layer, but there are 2 diff_ids" in short.image.notes[0]
    with pytest.raises(IntegrityError, match=r"history has 3 steps with a layer, but there are 2"):
        scan(tar_of(legacy_archive(LAYERS, config={**config, "history": [{}, {}, {}]})))


@pytest.mark.parametrize("diff_id", ["", "sha256:00", "sha512:" + "0" * 128, "sha256:" + "0" * 64 + "\n", None, 7])
def test_a_diff_id_that_is_none_is_refused(diff_id: Any) -> None:
    """The message names document and field."""
    config = {**image_config(LAYERS), "rootfs": {"type": "layers", "diff_ids": [diff_id]}, "history": None}
    with pytest.raises(IntegrityError, match=r"\.json.*rootfs\.diff_ids\.0"):
        scan(tar_of(legacy_archive(LAYERS, config=config)))


def test_an_index_that_leads_to_another_image_is_refused() -> None:
    """The containerd store loads what index.json says, the others what manifest.json says."""
    other = [layer("evil")]
    config = compact(image_config(other))
    manifest = oci_documents(config, other)["manifest"]
    entries = oci_archive(LAYERS, documents={"index.json": {"manifests": [descriptor(manifest)]}})
    with pytest.raises(IntegrityError, match=r"not the image in manifest.json"):
        scan(tar_of([blob(config), blob(other[0]), blob(manifest), *entries]))


def test_an_index_with_missing_or_wrong_parts_is_refused() -> None:
    """Each descriptor on the way to the image is followed."""
    documents = oci_documents(compact(image_config(LAYERS)), LAYERS)
    good = descriptor(documents["manifest"])
    cases: list[tuple[Any, str]] = [
        ({"manifests": [{**good, "digest": "sha256:" + "0" * 64}]}, "which is missing"),
        ({"manifests": [{**good, "size": good["size"] + 1}]}, "its descriptor says"),
        ({"manifests": [{**good, "size": -1}]}, "size"),
        ({"manifests": [{**good, "digest": "sha256:../../x"}]}, "digest"),
        ({"manifests": [{**good, "mediaType": "application/vnd.oci.image.index.v1+json"}]}, "something else"),
        ({"manifests": [good], "Manifests": []}, "another spelling"),
        ([], "index.json"),
    ]
    for index, message in cases:
        with pytest.raises(IntegrityError, match=message):
            scan(tar_of(oci_archive(LAYERS, documents={"index.json": index})))


def test_a_document_that_is_index_and_manifest_at_once_is_refused() -> None:
    """Two readers would follow it two ways (CVE-2021-41190)."""
    config = compact(image_config(LAYERS))
    documents = oci_documents(config, LAYERS, manifests=[])
    with pytest.raises(IntegrityError, match=r"or both"):
        scan(tar_of(oci_archive(LAYERS, documents=documents)))


def test_an_oci_manifest_with_other_layers_is_refused_but_that_of_25_0_0_is_a_note() -> None:
    """25.0.0 wrote none of the layers, or in another order (moby 47065, 47150)."""
    config = compact(image_config(LAYERS))
    for layers in ([], [descriptor(body, "layer") for body in LAYERS[::-1]]):
        archive = scan(tar_of(oci_archive(LAYERS, documents=oci_documents(config, LAYERS, layers=layers))))
        assert "25.0.0" in archive.image.notes[0]
    evil = layer("evil")
    documents = oci_documents(config, LAYERS, layers=[descriptor(evil, "layer")])
    with pytest.raises(IntegrityError, match=r"other layers than manifest.json"):
        scan(tar_of([blob(evil), *oci_archive(LAYERS, documents=documents)]))


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_an_oci_form_without_its_documents_is_refused(name: str) -> None:
    """The containerd store of 28 ends a damaged save before it writes them."""
    with pytest.raises(IntegrityError, match=f"{name} is missing"):
        scan(tar_of(without(oci_archive(LAYERS), name)))


def test_nested_indexes_are_followed_but_not_for_ever() -> None:
    """Four levels are accepted, more than engines write."""
    config = compact(image_config(LAYERS))
    manifest = oci_documents(config, LAYERS)["manifest"]
    inner, blobs = descriptor(manifest), [blob(manifest)]
    for _ in range(3):
        index = compact({"schemaVersion": 2, "manifests": [inner]})
        inner = descriptor(index, "index")
        blobs.append(blob(index))
    entries = [*blobs[1:], *oci_archive(LAYERS, documents={"index.json": {"manifests": [inner]}})]
    assert len(scan(tar_of(entries)).image.image_ids) == 5
    index = compact({"schemaVersion": 2, "manifests": [inner]})
    documents = {"index.json": {"manifests": [descriptor(index, "index")]}}
    with pytest.raises(IntegrityError, match=r"deeper"):
        scan(tar_of([*blobs[1:], blob(index), *oci_archive(LAYERS, documents=documents)]))


def test_a_foreign_platform_or_attestation_may_be_incomplete_but_not_wrong() -> None:
    """What is there of it must have the announced size."""
    config = compact(image_config(LAYERS))
    manifest = oci_documents(config, LAYERS)["manifest"]
    foreign = compact({"schemaVersion": 2, "config": descriptor(b"{}", "config"), "layers": []})
    note: dict[str, Any] = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}

    def archive(described: dict[str, Any]) -> bytes:
        index = compact({"schemaVersion": 2, "manifests": [descriptor(manifest), described]})
        documents = {"index.json": {"manifests": [descriptor(index, "index")]}}
        return tar_of([blob(foreign), blob(index), *oci_archive(LAYERS, documents=documents)])

    image = scan(archive(descriptor(foreign, **note))).image
    assert [(each.digest, each.kind, each.whole) for each in image.others] == [
        (f"sha256:{sha256(foreign)}", "attestation", False)
    ]
    with pytest.raises(IntegrityError, match=r"its descriptor says"):
        scan(archive({**descriptor(foreign), "size": 1}))


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_compressed_layer_is_compared_with_its_diff_id(compress: Callable[[bytes], bytes]) -> None:
    """Damaged, cut, extended and exchanged layers are refused although their blob has its own digest as name."""
    good = compress(LAYERS[0])
    assert scan(tar_of(oci_archive([LAYERS[0]], stored=[good]))).image.layers[0].size_bytes == len(LAYERS[0])
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 4
    for bad in (good[:-1], good[:-9], good + b"x", bytes(flipped), compress(LAYERS[1]), b""):
        with pytest.raises(IntegrityError, match=r"is not that of diff_id"):
            scan(tar_of(oci_archive([LAYERS[0]], stored=[bad])))


def test_an_uncompressed_layer_may_begin_like_a_compressed_one() -> None:
    """A graphdriver engine stores it plain whatever its first bytes say."""
    for start in (b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd"):
        plain = start + layer("one")
        assert scan(tar_of(legacy_archive([plain]))).image.layers[0].compression == "none"


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_layer_that_grows_beyond_the_limits_is_refused(compress: Callable[[bytes], bytes]) -> None:
    """A decompression bomb costs neither memory nor much time."""
    bomb = compress(bytes(64 << 20))
    scanner = DockerArchiveScanner(decompress_limits=DecompressLimits(ratio=10, free_bytes=1 << 20))
    with pytest.raises(IntegrityError, match=r"blobs/sha256/.*grow to more than 10 times"):
        scanner.feed(tar_of(oci_archive([bytes(64 << 20)], stored=[bomb])))


def test_documents_above_the_limits_are_refused() -> None:
    """Documents are held in memory, so they are counted."""
    large = b" " * ((4 << 20) + 1)
    with pytest.raises(IntegrityError, match=r"manifest.json: a document of 4194305 bytes"):
        scan(tar_of([Entry("manifest.json", large)]))
    many = [b'{"schemaVersion"' + bytes([65 + i]) * ((4 << 20) - 20) for i in range(7)]
    scan_of_many = tar_of([*(blob(body) for body in many), *oci_archive(LAYERS)])
    with pytest.raises(IntegrityError, match=r"more than|too many|too large"):
        scan(scan_of_many)


def test_a_stream_longer_than_announced_is_refused() -> None:
    """The record says how long an archive is."""
    data = tar_of(legacy_archive(LAYERS))
    scanner = DockerArchiveScanner(max_total_bytes=len(data))
    scanner.feed(data)
    with pytest.raises(IntegrityError, match=f"longer than the {len(data)} bytes"):
        scanner.feed(b"\0")


@pytest.mark.parametrize("banner", [b"Last login: today\n", b"\0", b"x" * 512, b"\0" * 512])
def test_text_before_the_tar_is_refused(banner: bytes) -> None:
    """A shell's banner must not pass for an archive."""
    with pytest.raises(IntegrityError, match=r"at byte 0"):
        scan(banner + tar_of(legacy_archive(LAYERS)))


@pytest.mark.parametrize("tail", [b"x", b"\0", b"\0" * 511 + b"x", b"Connection closed.\n"])
def test_anything_but_whole_zero_blocks_behind_the_tar_is_refused(tail: bytes) -> None:
    """Padding is zero and comes in blocks."""
    with pytest.raises(IntegrityError, match=r"behind the end|not on a block"):
        scan(tar_of(legacy_archive(LAYERS)) + tail)


@pytest.mark.parametrize("data", [b"", bytes(512), bytes(1024), b"x"])
def test_an_empty_stream_or_tar_is_refused(data: bytes) -> None:
    """A docker save that fails writes nothing."""
    with pytest.raises(IntegrityError):
        scan(data)
