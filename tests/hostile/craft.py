# SPDX-License-Identifier: Apache-2.0
"""Hostile and broken archives, each wrong in one way, made from one good image in both forms that engines write."""

from __future__ import annotations

import gzip
import json
import tarfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import zstandard

from tests.core.archive.making import (
    BLOCK,
    Entry,
    blob,
    compact,
    descriptor,
    image_config,
    layer,
    legacy_archive,
    oci_archive,
    oci_documents,
    sha256,
    tar_of,
)

TAG: Final = "lab/hostile:1"
VICTIM: Final = "lab/victim:1"
LAYERS: Final = [layer("bin/sh", "etc/passwd"), layer("app/one")]
CONFIG: Final = compact(image_config(LAYERS))
CONFIG_NAME: Final = f"{sha256(CONFIG)}.json"
IMAGE_ID: Final = f"sha256:{sha256(CONFIG)}"
DIFF_IDS: Final = tuple(f"sha256:{sha256(each)}" for each in LAYERS)
BOMB_BYTES: Final = 512 << 20
_LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
_LARGE: Final = 6 << 20
_OTHER_LAYER: Final = f"{'ab' * 32}/layer.tar"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One archive.

    :param rule: what it breaks.
    :param make: gives its bytes.
    :param named: what the refusal must name: the member, or the place in the stream.
    :param accepted: it is odd, but it is exactly the recorded image.
    """

    name: str
    rule: str
    make: Callable[[], bytes]
    named: str = ""
    accepted: bool = False


def good() -> list[Entry]:
    """Return the members of the good image as 20.10 writes it."""
    return legacy_archive(LAYERS, tags=[TAG])


def good_oci() -> list[Entry]:
    """Return the members of the good image as 28 writes it."""
    return oci_archive(LAYERS)


def _with(*extra: Entry) -> bytes:
    return tar_of([*extra, *good()])


def _changed(name: str, **fields: Any) -> bytes:
    """Return the good archive with other fields in the header of one member."""
    return tar_of(replace(each, extra={**each.extra, **fields}) if each.name == name else each for each in good())


def _body(name: str, body: bytes) -> bytes:
    return tar_of(replace(each, body=body) if each.name == name else each for each in good())


def _without(name: str, entries: Iterable[Entry]) -> bytes:
    return tar_of(each for each in entries if each.name != name)


def _manifest(**fields: Any) -> bytes:
    value = json.loads(next(each.body for each in good() if each.name == "manifest.json"))
    return _body("manifest.json", compact([{**value[0], **fields}]))


def _configured(**fields: Any) -> bytes:
    """Return a whole archive of a configuration that is not the recorded one."""
    return tar_of(legacy_archive(LAYERS, config={**image_config(LAYERS), **fields}, tags=[TAG]))


def _layers(*plain: bytes, config_of: list[bytes] | None = None) -> bytes:
    """Return an archive of other layers than its configuration says."""
    return tar_of(legacy_archive(list(plain), config=image_config(config_of or LAYERS), tags=[TAG]))


def _link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> Entry:
    return Entry(name, kind=kind, link=to)


def _layer_name(number: int) -> str:
    return good()[number].name


def _linked(kind: bytes, to: str) -> bytes:
    """Return the good archive with a link in place of its first layer."""
    return tar_of([_link(_layer_name(0), to, kind), *good()[1:]])


def _raw_header(name: str, size_field: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a header with a size as it is given, and the checksum that belongs to it."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT)[:BLOCK])
    block[124:136] = size_field.ljust(12, b"\0")[:12]
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def _sized(size_field: bytes) -> bytes:
    return _raw_header(_OTHER_LAYER, size_field) + tar_of(good())


def _pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Return the good archive behind an extended header with these records."""
    header = tarfile.TarInfo("PaxHeaders/x")
    header.type, header.size = kind, len(records)
    padded = records + bytes(-len(records) % BLOCK)
    return header.tobuf(tarfile.USTAR_FORMAT) + padded + tar_of(good())


def _record(key: str, value: bytes) -> bytes:
    """Return one record of an extended header: its length, key and value."""
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body) + 1
    while length != len(str(length)) + len(body):
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def _gnu_long(kind: bytes, body: bytes) -> bytes:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, len(body)
    return header.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % BLOCK) + tar_of(good())


def _flipped_header() -> bytes:
    data = bytearray(tar_of(good()))
    data[3] ^= 1
    return bytes(data)


def _oci_index(*descriptors: dict[str, Any], extra: Iterable[bytes] = ()) -> bytes:
    index = {"schemaVersion": 2, "manifests": list(descriptors)}
    return tar_of([*(blob(each) for each in extra), *oci_archive(LAYERS, documents={"index.json": index})])


def _oci_manifest(*extra: bytes, **overrides: Any) -> bytes:
    """Return the good archive with other values in its manifest, and more blobs."""
    entries = oci_archive(LAYERS, documents=oci_documents(CONFIG, LAYERS, **overrides))
    return tar_of([*(blob(each) for each in extra), *entries])


def _stored(*stored: bytes) -> bytes:
    return tar_of(oci_archive(LAYERS, stored=list(stored)))


def _gzip_layers() -> bytes:
    stored = [gzip.compress(each, mtime=0) for each in LAYERS]
    named = [{**descriptor(each, "layer"), "mediaType": f"{_LAYER_TYPE}+gzip"} for each in stored]
    return tar_of(oci_archive(LAYERS, stored=stored, documents=oci_documents(CONFIG, stored, layers=named)))


def _nested_indexes(depth: int) -> bytes:
    body, bodies = oci_documents(CONFIG, LAYERS)["manifest"], []
    for number in range(depth):
        kind = "manifest" if number == 0 else "index"
        body = compact({"schemaVersion": 2, "manifests": [descriptor(body, kind)]})
        bodies.append(body)
    return _oci_index(descriptor(body, "index"), extra=bodies)


def _cycle() -> bytes:
    """Return two indexes each of which names the other: no digests can be right then."""
    names = [f"sha256:{sha256(b'one')}", f"sha256:{sha256(b'two')}"]
    bodies = [
        compact({"schemaVersion": 2, "manifests": [{**descriptor(b"", "index"), "digest": name}]}) for name in names
    ]
    entries = [Entry(f"blobs/sha256/{names[1 - number][7:]}", body) for number, body in enumerate(bodies)]
    index = {"schemaVersion": 2, "manifests": [{**descriptor(bodies[1], "index"), "digest": names[0]}]}
    return tar_of([*entries, *oci_archive(LAYERS, documents={"index.json": index})])


def _bomb(compress: Callable[[], bytes]) -> bytes:
    return _stored(LAYERS[0], compress())


def _gzip_bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    return b"".join(packer.compress(zeros) for _ in range(BOMB_BYTES >> 20)) + packer.flush()


def _zstd_bomb() -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    zeros = bytes(1 << 20)
    return b"".join(packer.compress(zeros) for _ in range(BOMB_BYTES >> 20)) + packer.flush()


def _second_image() -> bytes:
    entries = good()
    value = json.loads(entries[-1].body)
    return tar_of([*entries[:-1], Entry("manifest.json", compact([value[0], {**value[0], "RepoTags": [VICTIM]}]))])


def _duplicate_key() -> bytes:
    text = next(each.body for each in good() if each.name == "manifest.json").decode()
    return _body("manifest.json", text.replace('"Config":', '"Config":"other.json","Config":', 1).encode())


def _other_case() -> bytes:
    text = next(each.body for each in good() if each.name == "manifest.json").decode()
    return _body("manifest.json", text.replace('"Config":', '"config":"other.json","Config":', 1).encode())


def _names() -> Iterable[Case]:
    foreign = "a name that no engine writes"
    for name, shown in (
        ("../../etc/cron.d/x", "etc/cron.d/x"),
        ("blobs/sha256/../../../x", "blobs/sha256/.."),
        ("/etc/passwd", "/etc/passwd"),
        ("./manifest.json", "./manifest.json"),
        ("manifest.json/", "at byte 0"),
        ("manifest\n.json", "manifest"),
        ("\x1b[2J.json", ".json"),
        ("..\\..\\x", "x"),
        ("C:\\x", "C:"),
        ("\udcff\udcfe.json", ".json"),
        (f"{'a' * 5000}.json", "aaaa"),
        (f"{'AB' * 32}.json", "ABAB"),
        ("repositories/x", "repositories/x"),
    ):
        pax = tarfile.GNU_FORMAT if len(name) > 200 else tarfile.USTAR_FORMAT
        make = partial(lambda name, pax: tar_of([Entry(name, b"x"), *good()], tar_format=pax), name, pax)
        label = ascii(name if len(name) < 60 else name[:8] + "…")[1:-1].replace("|", "\\|")
        yield Case(name=f"member {label}", rule=foreign, make=make, named=shown)
    yield Case(
        name="pax path leads outside",
        rule="a name that no engine writes, given by an extended header",
        make=lambda: _pax(_record("path", b"../../x")),
        named="../../x",
    )
    yield Case(
        name="pax path with a NUL",
        rule="no name has one",
        make=lambda: _pax(_record("path", b"a\0b")),
        named="at byte 0",
    )
    yield Case(
        name="GNU long name leads outside",
        rule="a name that no engine writes, given by a long-name header",
        make=lambda: _gnu_long(tarfile.GNUTYPE_LONGNAME, b"../../x\0"),
        named="../../x",
    )


def _kinds() -> Iterable[Case]:
    name = _layer_name(0)
    for kind, word in (
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.FIFOTYPE, "fifo"),
        (tarfile.CONTTYPE, "contiguous file"),
        (tarfile.GNUTYPE_SPARSE, "sparse file"),
        (b"Z", "unknown kind"),
        (tarfile.DIRTYPE, "directory"),
    ):
        entry = Entry(name, kind=kind, extra={"devmajor": 1, "devminor": 5})
        make = partial(lambda entry: tar_of([entry, *good()[1:]]), entry)
        named = name[:16] if kind == tarfile.DIRTYPE else ""
        yield Case(name=f"layer is a {word}", rule="a layer is a file", make=make, named=named)
    for title, kind, to in (
        ("symbolic link to /etc/shadow", tarfile.SYMTYPE, "/etc/shadow"),
        ("symbolic link outside", tarfile.SYMTYPE, "../../../../etc/shadow"),
        ("hard link to /etc/shadow", tarfile.LNKTYPE, "/etc/shadow"),
        ("hard link to another layer", tarfile.LNKTYPE, _layer_name(1)),
        ("symbolic link to itself", tarfile.SYMTYPE, f"../{name}"),
        ("symbolic link to nothing", tarfile.SYMTYPE, f"../{_OTHER_LAYER}"),
    ):
        make = partial(_linked, kind, to)
        yield Case(name=f"layer is a {title}", rule="a layer is a file of its own", make=make, named=name[:16])
    chain = [_link(name, f"../{_OTHER_LAYER}"), _link(_OTHER_LAYER, f"../{_layer_name(1)}"), *good()[1:]]
    yield Case(name="chain of links", rule="a link leads to a file", make=lambda: tar_of(chain), named="link")
    yield Case(
        name="manifest.json is a symbolic link",
        rule="a document is a file",
        make=lambda: tar_of([*good()[:-1], _link("manifest.json", "/etc/shadow")]),
        named="manifest.json",
    )


def _sizes() -> Iterable[Case]:
    for title, field in (
        ("negative", b"\xff" * 12),
        ("of 2^80 bytes", b"\x80\0\x01" + bytes(9)),
        ("beyond the end", b"77777777777\0"),
        ("that is no number", b"12x45678901\0"),
        ("with a sign", b"-0000000001\0"),
    ):
        yield Case(name=f"size {title}", rule="a size is a number that fits", make=partial(_sized, field))
    yield Case(
        name="pax size against the header",
        rule="two sizes for one member",
        make=lambda: _pax(_record("size", b"1")),
    )
    yield Case(name="pax size negative", rule="a size is a number that fits", make=lambda: _pax(_record("size", b"-1")))
    yield Case(
        name="extended header of 6 MiB",
        rule="extended headers are small",
        make=lambda: _pax(_record("comment", b"x" * _LARGE)),
    )
    yield Case(
        name="long name of 6 MiB",
        rule="names are short",
        make=lambda: _gnu_long(tarfile.GNUTYPE_LONGNAME, b"x" * _LARGE),
    )
    yield Case(
        name="pax record with a wrong length", rule="a record is as long as it says", make=lambda: _pax(b"99 a=b\n")
    )
    yield Case(
        name="global extended header",
        rule="it would change every member after it",
        make=lambda: _pax(_record("path", b"x"), tarfile.XGLTYPE),
    )
    yield Case(
        name="header with a wrong checksum", rule="headers carry a checksum", make=_flipped_header, named="at byte 0"
    )
    for name, pack in (("gzip", _gzip_bomb), ("zstd", _zstd_bomb)):
        yield Case(
            name=f"{name} layer that grows to 512 MiB",
            rule="a layer is that of its diff_id; growth is bounded",
            make=partial(_bomb, pack),
            named="blobs/sha256/",
        )


def _shape() -> Iterable[Case]:
    whole = partial(tar_of, good())
    for title, make in (
        ("empty", lambda: b""),
        ("nothing but zeros", lambda: bytes(20 * BLOCK)),
        ("cut at a member's end", lambda: whole()[: -2 * BLOCK]),
        ("cut in the middle", lambda: whole()[: len(whole()) // 2]),
        ("one zero block at the end", lambda: whole()[:-BLOCK]),
        ("text before it", lambda: b"Last login: today\n" + whole()),
        ("text behind it", lambda: whole() + b"Connection closed.\n"),
        ("another archive behind it", lambda: whole() + whole()),
        ("zero block between members", lambda: whole()[: -2 * BLOCK] + bytes(BLOCK) + whole()),
        ("gzip of a good archive", lambda: gzip.compress(whole())),
    ):
        yield Case(name=f"stream: {title}", rule="a tar, whole, and nothing else", make=make)
    for name in ("manifest.json", CONFIG_NAME, _layer_name(0)):
        short = "layer" if "/" in name else "manifest.json" if name == "manifest.json" else "configuration"
        make = partial(lambda name: tar_of([*good(), Entry(name, b"{}")]), name)
        yield Case(name=f"{short} comes twice", rule="which one counts?", make=make, named=name[:16])
    yield Case(
        name="surplus layer",
        rule="it belongs to no image",
        make=lambda: _with(Entry(_OTHER_LAYER, layer("x"))),
        named="abab",
    )
    yield Case(
        name="surplus configuration",
        rule="it belongs to no image",
        make=lambda: _with(Entry(f"{sha256(b'{}')}.json", b"{}")),
        named=sha256(b"{}")[:16],
    )


def _documents() -> Iterable[Case]:
    for title, body in (
        ("no JSON", b"{"),
        ("an object", b"{}"),
        ("empty", b""),
        ("an empty list", b"[]"),
        ("nested 100,000 deep", b"[" * 100_000 + b"]" * 100_000),
        ("UTF-16", b"\xff\xfe[\0]\0"),
        ("not UTF-8", b'[{"Config":"\xff"}]'),
        ("of 6 MiB", b" " * _LARGE),
        ("a number without end", b"[" + b"9" * 100_000 + b"]"),
    ):
        yield Case(
            name=f"manifest.json is {title}",
            rule="a list with one image",
            make=partial(_body, "manifest.json", body),
            named="manifest.json",
        )
    for title, make in (
        ("two images", _second_image),
        ("a key twice", _duplicate_key),
        ("a key in another case", _other_case),
        ("a configuration outside", lambda: _manifest(Config="../../etc/passwd")),
        ("layers outside", lambda: _manifest(Layers=["/etc/passwd", _layer_name(1)])),
        ("a layer that is not there", lambda: _manifest(Layers=[_layer_name(0), _OTHER_LAYER])),
        ("a layer more", lambda: _manifest(Layers=[_layer_name(0), _layer_name(1), _layer_name(1)])),
        ("a layer less", lambda: _manifest(Layers=[_layer_name(0)])),
        ("layers in another order", lambda: _manifest(Layers=[_layer_name(1), _layer_name(0)])),
        ("a tag that is an option", lambda: _manifest(RepoTags="--help")),
    ):
        yield Case(name=f"manifest.json has {title}", rule="manifest, configuration and layers agree", make=make)
    yield Case(
        name="configuration under another name",
        rule="its name is its digest",
        make=lambda: tar_of(
            replace(each, name=f"{'0' * 64}.json") if each.name == CONFIG_NAME else each for each in good()
        ),
        named="0000",
    )
    yield Case(
        name="configuration is missing",
        rule="it is there",
        make=lambda: _without(CONFIG_NAME, good()),
        named=CONFIG_NAME[:16],
    )
    for title, fields in (
        ("no rootfs", {"rootfs": None}),
        ("diff_ids that are none", {"rootfs": {"type": "layers", "diff_ids": ["sha256:x", "sha256:y"]}}),
        ("more history than layers", {"history": [{"created_by": "x"}] * 5}),
        ("another command", {"config": {"Cmd": ["/evil"]}}),
    ):
        yield Case(
            name=f"configuration with {title}",
            rule="it is the one that was announced, and whole",
            make=partial(_configured, **fields),
        )
    yield Case(
        name="layer with other content",
        rule="a layer is that of its diff_id",
        make=lambda: _layers(LAYERS[0], layer("app/evil")),
        named="layer.tar",
    )
    yield Case(
        name="layers and configuration of another image",
        rule="it is the image that was announced",
        make=lambda: _layers(layer("a"), layer("b"), config_of=[layer("a"), layer("b")]),
        named=IMAGE_ID[:16],
    )


def _oci_form() -> Iterable[Case]:
    manifest = oci_documents(CONFIG, LAYERS)["manifest"]
    other = oci_documents(compact(image_config([LAYERS[0]])), [LAYERS[0]])["manifest"]
    lost, evil = compact({"lost": 1}), layer("evil")
    for title, make in (
        ("index with a wrong digest", lambda: _oci_index({**descriptor(manifest), "digest": f"sha256:{'0' * 64}"})),
        ("index with a wrong size", lambda: _oci_index({**descriptor(manifest), "size": 7})),
        ("index to a manifest that is not there", lambda: _oci_index(descriptor(lost))),
        ("index to another image", lambda: _oci_index(descriptor(other), extra=[other])),
        ("indexes that name each other", _cycle),
        ("indexes 100 deep", lambda: _nested_indexes(100)),
        ("manifest with another layer", lambda: _oci_manifest(evil, layers=[descriptor(evil, "layer")])),
        ("no index.json", lambda: _without("index.json", good_oci())),
        ("no manifest.json", lambda: _without("manifest.json", good_oci())),
        ("a layer that is not there", lambda: _without(blob(LAYERS[1]).name, good_oci())),
        ("gzip layer cut short", lambda: _stored(LAYERS[0], gzip.compress(LAYERS[1])[:-9])),
        ("gzip layer with text behind it", lambda: _stored(LAYERS[0], gzip.compress(LAYERS[1]) + b"x")),
        ("gzip layer of another layer", lambda: _stored(LAYERS[0], gzip.compress(layer("evil")))),
        ("zstd layer cut short", lambda: _stored(LAYERS[0], zstandard.compress(LAYERS[1])[:-3])),
    ):
        yield Case(name=f"OCI: {title}", rule="every descriptor leads to its blob, and all to one image", make=make)
    yield Case(
        name="OCI: blob under another name",
        rule="its name is its digest",
        make=lambda: tar_of([Entry(f"blobs/sha256/{'0' * 64}", b"x"), *good_oci()]),
        named="0000",
    )


def _odd() -> Iterable[Case]:
    yield Case(name="nothing wrong", rule="as 20.10 writes it", make=lambda: tar_of(good()), accepted=True)
    yield Case(name="OCI: nothing wrong", rule="as 28 writes it", make=lambda: tar_of(good_oci()), accepted=True)
    yield Case(
        name="tags of another image",
        rule="loaded under our own name; no tag is taken",
        make=lambda: _manifest(RepoTags=[VICTIM]),
        accepted=True,
    )
    yield Case(name="no tags", rule="none are needed", make=lambda: _manifest(RepoTags=None), accepted=True)
    yield Case(
        name="OCI: index that is empty",
        rule="engine 25.0 wrote it; manifest.json decides, and a note is in the record",
        make=_oci_index,
        accepted=True,
    )
    yield Case(
        name="OCI: layers in another order",
        rule="engine 25.0.0 wrote it; manifest.json decides, and a note is in the record",
        make=lambda: _oci_manifest(layers=[descriptor(each, "layer") for each in reversed(LAYERS)]),
        accepted=True,
    )
    yield Case(
        name="OCI: gzip layers",
        rule="as a containerd store keeps them",
        make=_gzip_layers,
        accepted=True,
    )
    yield Case(
        name="many zero blocks at the end",
        rule="as tar pads to records",
        make=lambda: tar_of(good()) + bytes(18 * BLOCK),
        accepted=True,
    )


CASES: Final = (*_names(), *_kinds(), *_sizes(), *_shape(), *_documents(), *_oci_form(), *_odd())
