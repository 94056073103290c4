# SPDX-License-Identifier: Apache-2.0
"""Exported filesystems, and the image of one layer they restore as."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tarfile
from typing import Any, Literal

import pytest

from airflow_provider_dockerbackup.core.archive.load_form import retagged
from airflow_provider_dockerbackup.core.archive.rootfs import Rootfs, RootfsScanner, image_config_from, one_layer_image
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError

from .making import EXPORTS, Entry, drained, golden, pieces, scan, sha256, tar_of

FILE = Entry("etc/conf", b"x=1\n", extra={"mode": 0o640, "uid": 1, "gid": 2, "mtime": 3})
TREE = [
    Entry("etc/", b"", tarfile.DIRTYPE, extra={"mode": 0o755}),
    FILE,
    Entry("etc/link", b"", tarfile.SYMTYPE, "conf"),
    Entry("etc/hard", b"", tarfile.LNKTYPE, "etc/conf"),
    Entry("dev/null", b"", tarfile.CHRTYPE, extra={"devmajor": 1, "devminor": 3}),
    Entry("pipe", b"", tarfile.FIFOTYPE),
    Entry("etc/odd-\udcff", b"odd"),
]
CONFIG: dict[str, Any] = {
    "Hostname": "abc",
    "Cmd": ["/one"],
    "Entrypoint": None,
    "Env": ["A=1\n2"],
    "ExposedPorts": {"80/tcp": {}},
    "User": "7:8",
    "WorkingDir": "/w",
    "Labels": {"a": "<&>"},
    "Volumes": {"/data": {}},
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30_000_000_000},
    "StopSignal": "SIGUSR1",
    "Shell": ["/bin/bash", "-c"],
    "OnBuild": ["RUN x"],
    "Image": "lab/app:1",
    "Tty": True,
}


def scan_rootfs(data: bytes, *, piece_bytes: int = 1 << 20, **limits: int) -> Rootfs:
    """Scan a whole export."""
    scanner = RootfsScanner(**limits)
    for piece in pieces(data, piece_bytes):
        scanner.feed(piece)
    return scanner.finish()


def tree_digest(entries: list[Entry], *, tar_format: Literal[0, 1, 2] = tarfile.PAX_FORMAT) -> str:
    """Return the digest of a tree."""
    return scan_rootfs(tar_of(entries, tar_format=tar_format)).tree_digest


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_of_a_real_engine_is_read(name: str) -> None:
    """Its diff_id is the sha256 of the stream; a container of scratch has the engine's own directories beside ours."""
    data = golden(name)
    rootfs = scan_rootfs(data, piece_bytes=700)
    assert rootfs.diff_id == f"sha256:{sha256(data)}"
    assert (rootfs.size_bytes, rootfs.members, rootfs.files_bytes) == (len(data), 15, 13)


def test_the_same_tree_has_the_same_digest_whichever_engine_exported_it() -> None:
    """The streams differ in the times of the engine's own files only where these differ."""
    assert len({scan_rootfs(golden(name)).tree_digest for name in EXPORTS}) == 1


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_cut_at_any_byte_of_its_last_blocks_or_at_any_block_is_rejected(name: str) -> None:
    """An engine may end an export early with exit status 0."""
    data = golden(name)
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    for length in [*range(0, end, 512), *range(end, end + 1024)]:
        with pytest.raises(IntegrityError):
            scan_rootfs(data[:length])


def test_the_tree_digest_depends_neither_on_order_nor_on_format() -> None:
    """Nor on a leading ./ in names."""
    expected = tree_digest(TREE)
    shuffled = [*TREE[4:], *TREE[3::-1]]
    dotted = [dataclasses.replace(entry, name="./" + entry.name) for entry in TREE]
    assert tree_digest(shuffled) == expected
    assert tree_digest(dotted) == expected
    assert tree_digest(TREE, tar_format=tarfile.GNU_FORMAT) == expected
    assert tree_digest(TREE, tar_format=tarfile.USTAR_FORMAT) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"body": b"x=2\n"},
        {"body": b"x=1\n\0"},
        {"name": "etc/conf2"},
        {"kind": tarfile.FIFOTYPE, "body": b""},
        {"extra": {**FILE.extra, "mode": 0o641}},
        {"extra": {**FILE.extra, "mode": 0o4640}},
        {"extra": {**FILE.extra, "uid": 2}},
        {"extra": {**FILE.extra, "gid": 1}},
        {"extra": {**FILE.extra, "mtime": 4}},
        {"extra": {**FILE.extra, "pax_headers": {"mtime": "3.5"}}},
        {"extra": {**FILE.extra, "pax_headers": {"SCHILY.xattr.security.capability": "v"}}},
    ],
)
def test_the_tree_digest_changes_with_every_attribute(change: dict[str, Any]) -> None:
    """Content, name, kind, mode, owner, time, extended attributes."""
    changed = [dataclasses.replace(entry, **change) if entry is FILE else entry for entry in TREE]
    assert tree_digest(changed) != tree_digest(TREE)


def test_the_tree_digest_changes_with_links_and_devices() -> None:
    """Where a link leads and which device it is."""
    digests = {tree_digest(TREE)}
    for index, change in ((2, {"link": "other"}), (3, {"link": "etc/link"}), (4, {"extra": {"devmajor": 1}})):
        changed = list(TREE)
        changed[index] = dataclasses.replace(TREE[index], **change)
        digests.add(tree_digest(changed))
    assert len(digests) == 4


def test_the_tree_digest_is_what_its_definition_says() -> None:
    """Worked out by hand for two members."""
    pax = {"pax_headers": {"SCHILY.xattr.user.a": "v", "mtime": "3.25"}}
    entries = [Entry("b", b"", tarfile.SYMTYPE, "a", {"mode": 0o777}), Entry("a", b"hi", extra={"mode": 0o644, **pax})]
    records = [
        b"\0".join(
            [b"a", b"file", b"644", b"0", b"0", b"2", b"3250000000", b"", b"", sha256(b"hi").encode(), b"user.a", b"76"]
        ),
        b"\0".join([b"b", b"symlink", b"777", b"0", b"0", b"0", b"0", b"a", b"", b""]),
    ]
    whole = b"".join(len(record).to_bytes(8, "big") + record for record in records)
    assert tree_digest(entries) == f"sha256:{hashlib.sha256(whole).hexdigest()}"


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "..", "a/..", "./../x", "././a"])
def test_a_path_that_could_lie_outside_or_be_written_another_way_is_refused(name: str) -> None:
    """The message shows the path."""
    with pytest.raises(IntegrityError, match=r"the path is absolute, or has") as caught:
        tree_digest([Entry(name, b"x")])
    assert ascii(name) in str(caught.value)


@pytest.mark.parametrize("name", ["...", "..a", "a..", ".a", "a/...", "a/.b", "a/..b/c", "a b", "a\nb"])
def test_names_with_dots_that_mean_nothing_are_accepted(name: str) -> None:
    """Only whole components count."""
    assert tree_digest([Entry(name, b"x")])


def test_a_path_that_comes_twice_is_refused() -> None:
    """A directory too; docker export writes each path once."""
    for entry in (FILE, TREE[0]):
        with pytest.raises(IntegrityError, match=r"'etc.*the path comes twice"):
            tree_digest([*TREE, entry])


def test_an_empty_filesystem_is_refused() -> None:
    """Even a container of scratch exports /etc and /dev."""
    with pytest.raises(IntegrityError, match=r"is empty"):
        tree_digest([])


def test_limits_of_length_and_members_are_kept() -> None:
    """The record says how long an export is."""
    data = tar_of(TREE)
    assert scan_rootfs(data, max_total_bytes=len(data), max_members=len(TREE)).members == len(TREE)
    with pytest.raises(IntegrityError, match=r"longer than"):
        scan_rootfs(data, max_total_bytes=len(data) - 1)
    with pytest.raises(IntegrityError, match=r"more than 6 members"):
        scan_rootfs(data, max_members=len(TREE) - 1)


def config_for(data: bytes, **container: Any) -> bytes:
    """Return an image configuration for an export."""
    return image_config_from(
        {**CONFIG, **container},
        architecture="arm",
        os="linux",
        variant="v7",
        created="2026-11-23T21:04:00.000000Z",
        diff_id=f"sha256:{sha256(data)}",
        comment="exported from container web",
    )


def image_of(data: bytes, *, chunks: list[bytes] | None = None, tags: list[str] | None = None) -> list[bytes]:
    """Return the pieces of the one-layer image of an export."""
    return list(
        one_layer_image(
            config=config_for(data),
            layer_chunks=list(pieces(data, 1000)) if chunks is None else chunks,
            layer_size_bytes=len(data),
            diff_id=f"sha256:{sha256(data)}",
            tags=tags or [],
        )
    )


def test_the_configuration_carries_what_the_container_ran_with_and_nothing_of_its_own() -> None:
    """All twelve keys, one step of history, the layer."""
    data = golden(EXPORTS[0])
    image = json.loads(config_for(data))
    assert image.pop("config") == {
        key: value for key, value in CONFIG.items() if value and key not in ("Hostname", "Image", "Tty")
    }
    assert image == {
        "architecture": "arm",
        "created": "2026-11-23T21:04:00.000000Z",
        "history": [{"comment": "exported from container web", "created": "2026-11-23T21:04:00.000000Z"}],
        "os": "linux",
        "rootfs": {"diff_ids": [f"sha256:{sha256(data)}"], "type": "layers"},
        "variant": "v7",
    }


def test_the_same_container_gives_the_same_configuration_bytes() -> None:
    """Whatever the order of keys in inspect's answer."""
    data = golden(EXPORTS[0])
    assert config_for(data) == config_for(data, **dict(reversed(CONFIG.items())))


@pytest.mark.parametrize("tags", [[], ["lab/app:1"], ["a:1", "b:2"]])
def test_the_one_layer_image_passes_the_gate(tags: list[str]) -> None:
    """It holds the export as its layer, byte for byte, under the tags given."""
    data = golden(EXPORTS[0])
    archive = scan(b"".join(image_of(data, tags=tags)))
    assert archive.image.diff_ids == (f"sha256:{sha256(data)}",)
    assert archive.image.repo_tags == tuple(tags)
    assert archive.image.config == config_for(data)
    assert archive.image.notes == ()
    assert archive.image.layers[0].size_bytes == len(data)


def test_the_one_layer_image_is_deterministic_and_can_be_retagged() -> None:
    """Retagged, it is the image made with those tags."""
    data = golden(EXPORTS[0])
    plain = b"".join(image_of(data))
    assert plain == b"".join(image_of(data, chunks=[data]))
    assert b"".join(retagged([plain], tags=["a/b:1"])) == b"".join(image_of(data, tags=["a/b:1"]))


def test_a_layer_that_is_not_the_announced_one_never_becomes_a_loadable_image() -> None:
    """Too short, too long, or of another digest: manifest.json, index.json and the end are withheld."""
    data = golden(EXPORTS[0])
    for bad in (data[:-512], data + bytes(512), data[:-1] + b"x", b""):
        image = one_layer_image(
            config=config_for(data),
            layer_chunks=[bad],
            layer_size_bytes=len(data),
            diff_id=f"sha256:{sha256(data)}",
            tags=[],
        )
        out, error = drained(image)
        assert "the record says" in error or "longer than" in error
        assert b"manifest.json" not in out
        assert b"index.json" not in out


def test_bad_arguments_are_named_before_anything_is_read() -> None:
    """A digest and tags of Docker's grammar."""
    for diff_id, tags in (("sha256:00", []), ("sha256:" + "0" * 64, ["No:1"])):
        with pytest.raises(ConfigurationError):
            one_layer_image(config=b"{}", layer_chunks=[], layer_size_bytes=0, diff_id=diff_id, tags=tags)
