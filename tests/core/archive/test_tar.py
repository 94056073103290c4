# SPDX-License-Identifier: Apache-2.0
"""The tar scanner: what it reads, and what it refuses with member, offset and rule."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from dataclasses import dataclass, field

import pytest

from airflow_provider_dockerbackup.core.archive.tar import MemberKind, TarLimits, TarMember, TarScanner
from airflow_provider_dockerbackup.core.archive.tar_header import file_header, padding
from airflow_provider_dockerbackup.exceptions import IntegrityError

from .making import BLOCK, Entry, pieces, tar_of

END = bytes(2 * BLOCK)


@dataclass
class Collector:
    """Keeps what a scanner tells."""

    members: list[TarMember] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    framing: bytearray = field(default_factory=bytearray)
    ended: int = 0

    def begin(self, member: TarMember) -> None:
        """Keep the member."""
        assert self.ended == len(self.members)
        self.members.append(member)
        self.bodies.append(b"")

    def data(self, chunk: memoryview) -> None:
        """Keep the bytes."""
        self.bodies[-1] += bytes(chunk)

    def end(self) -> None:
        """Count."""
        self.ended += 1


def collect(data: bytes, *, piece_bytes: int = 1 << 20, limits: TarLimits | None = None) -> Collector:
    """Scan a whole tar."""
    collector = Collector()
    scanner = TarScanner(collector, limits=limits, framing=collector.framing.extend)
    for piece in pieces(data, piece_bytes):
        scanner.feed(piece)
    scanner.finish()
    assert collector.ended == len(collector.members)
    return collector


def with_field(block: bytes, start: int, value: bytes) -> bytes:
    """Return a header block with other bytes at ``start`` and the right checksum."""
    changed = bytearray(block)
    changed[start : start + len(value)] = value
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


def extended(payload: bytes, *, typeflag: bytes = b"x", size: int | None = None) -> bytes:
    """Return an extended header."""
    header = with_field(file_header("x", len(payload) if size is None else size), 156, typeflag)
    return header + payload + padding(len(payload))


def pax(*records: str) -> bytes:
    """Return a PAX payload."""
    payload = b""
    for record in records:
        text = record.encode("utf-8", "surrogateescape")
        length = len(text) + 3
        while len(str(length)) + len(text) + 2 != length:
            length = len(str(length)) + len(text) + 2
        payload += b"%d %b\n" % (length, text)
    return payload


PLAIN = file_header("etc/plain", 0)


def test_every_kind_of_member_is_told_with_its_attributes() -> None:
    """Files, links, devices, directories and FIFOs."""
    data = tar_of(
        [
            Entry("f", b"body", extra={"mode": 0o4755, "uid": 7, "gid": 8, "mtime": 9}),
            Entry("h", b"", tarfile.LNKTYPE, "f"),
            Entry("s", b"", tarfile.SYMTYPE, "/no/where"),
            Entry("c", b"", tarfile.CHRTYPE, extra={"devmajor": 1, "devminor": 3}),
            Entry("b", b"", tarfile.BLKTYPE, extra={"devmajor": 8, "devminor": 0}),
            Entry("d", b"", tarfile.DIRTYPE),
            Entry("p", b"", tarfile.FIFOTYPE),
        ]
    )
    found = collect(data)
    assert [member.kind for member in found.members] == list(MemberKind)
    assert [member.name for member in found.members] == ["f", "h", "s", "c", "b", "d/", "p"]
    assert [member.link_name for member in found.members] == ["", "f", "/no/where", "", "", "", ""]
    assert [member.device for member in found.members[3:5]] == [(1, 3), (8, 0)]
    first = found.members[0]
    assert (first.size_bytes, first.mode, first.uid, first.gid) == (4, 0o4755, 7, 8)
    assert first.mtime_ns == 9_000_000_000
    assert found.bodies[0] == b"body"


def test_framing_is_every_byte_that_is_neither_body_nor_padding() -> None:
    """Headers, extensions and the end, in order."""
    header, extension = file_header("a", 3), extended(pax("mtime=1.5"))
    found = collect(extension + header + b"abc" + bytes(509) + END + bytes(BLOCK), piece_bytes=100)
    assert bytes(found.framing) == extension + header + END + bytes(BLOCK)


def test_pax_records_replace_the_fields_of_the_header() -> None:
    """Names, sizes, owners, fractions of seconds and extended attributes."""
    records = pax(
        "path=ä/" + "n" * 300, "uid=4294967294", "gid=5", "mtime=-1.25", "size=3", "SCHILY.xattr.user.a=\udcff="
    )
    member = collect(extended(records) + file_header("short", 0) + b"abc" + bytes(509) + END).members[0]
    assert member.name == "ä/" + "n" * 300
    assert (member.uid, member.gid, member.size_bytes) == (4294967294, 5, 3)
    assert member.mtime_ns == -1_250_000_000
    assert member.xattrs == (("user.a", b"\xff="),)


def test_a_global_header_holds_until_a_member_says_otherwise() -> None:
    """An empty value takes a record out of force (POSIX pax)."""
    data = extended(pax("uid=5", "comment=x"), typeflag=b"g") + PLAIN + extended(pax("uid=6")) + PLAIN
    data += PLAIN + extended(pax("uid=")) + PLAIN + END
    assert [member.uid for member in collect(data).members] == [5, 6, 5, 0]


def test_a_member_of_8_gib_is_announced_by_pax_or_base_256() -> None:
    """Both ways say the same; the body is not needed to see it."""
    size = 9 << 30
    base_256 = with_field(PLAIN, 124, b"\x80" + size.to_bytes(11, "big"))
    for header in (file_header("etc/plain", size), base_256):
        collector = Collector()
        TarScanner(collector).feed(header)
        assert collector.members[0].size_bytes == size


def test_old_tars_without_magic_are_read() -> None:
    """A name with a slash at its end is a directory there."""
    blocks = [with_field(file_header(name, 0), 257, bytes(8)) for name in ("file", "folder/")]
    v7 = b"".join(with_field(block, 156, b"\0") for block in blocks)
    assert [member.kind for member in collect(v7 + END).members] == [MemberKind.FILE, MemberKind.DIRECTORY]


BAD_HEADERS = {
    "checksum": (PLAIN[:148] + b"000000\0 " + PLAIN[156:], "checksum"),
    "one bit": (bytes([PLAIN[0] ^ 1]) + PLAIN[1:], "checksum"),
    "magic": (with_field(PLAIN, 257, b"ustar\x0001"), "magic"),
    "magic text": (with_field(PLAIN, 257, b"HELLO WO"), "magic"),
    "v7 with more": (with_field(with_field(PLAIN, 257, bytes(8)), 300, b"x"), "without magic"),
    "v7 directory type": (with_field(with_field(PLAIN, 257, bytes(8)), 156, b"5"), "without magic"),
    "negative size": (with_field(PLAIN, 124, b"\xff" * 12), "the size is negative"),
    "huge size": (with_field(PLAIN, 124, b"\x80\xff" + bytes(10)), "does not fit 64 bits"),
    "blank size": (with_field(PLAIN, 124, b" " * 12), "size is not a number"),
    "signed size": (with_field(PLAIN, 124, b"-0000000001\0"), "size is not a number"),
    "underscored size": (with_field(PLAIN, 124, b"0000_000001\0"), "size is not a number"),
    "decimal size": (with_field(PLAIN, 124, b"00000000009\0"), "size is not a number"),
    "text behind size": (with_field(PLAIN, 124, b"0000000001\0x"), "size is not a number"),
    "negative uid": (with_field(PLAIN, 108, b"\xff" * 8), "uid is negative"),
    "empty name": (with_field(PLAIN, 0, bytes(100)), "name is empty"),
    "text behind name": (with_field(PLAIN, 0, b"a\0b"), "behind its NUL"),
    "text behind prefix": (with_field(PLAIN, 345, b"a\0b"), "behind its NUL"),
    "slash behind a file": (file_header("etc/", 0), "ends in a slash"),
    "link with a body": (with_field(with_field(file_header("l", 5), 156, b"2"), 157, b"t"), "has a body of 5 bytes"),
    "hard link with a body": (with_field(with_field(file_header("l", 5), 156, b"1"), 157, b"t"), "has a body of 5"),
    "link without target": (with_field(PLAIN, 156, b"2"), "has no target"),
    "directory with a body": (with_field(file_header("d/", 5), 156, b"5"), "has a body of 5 bytes"),
    "sparse": (with_field(PLAIN, 156, b"S"), "type b'S' is not accepted"),
    "GNU sparse map": (with_field(with_field(PLAIN, 257, b"ustar  \0"), 386, b"00000000001\0"), "sparse"),
    "contiguous": (with_field(PLAIN, 156, b"7"), "type b'7' is not accepted"),
    "multi-volume": (with_field(PLAIN, 156, b"M"), "type b'M' is not accepted"),
    "Solaris extension": (with_field(PLAIN, 156, b"X"), "type b'X' is not accepted"),
    "giant PAX": (extended(b"x", size=1 << 30), "extended header of 1073741824 bytes"),
    "giant GNU name": (extended(b"x", typeflag=b"L", size=(1 << 20) + 1), "extended header of 1048577 bytes"),
    "empty PAX": (extended(b""), "extended header of 0 bytes"),
    "PAX path with NUL": (extended(pax("path=a\0b")) + PLAIN, "holds a NUL"),
    "PAX negative size": (extended(pax("size=-1")) + PLAIN, "PAX size is not a number"),
    "PAX octal size": (extended(pax("size=010")) + PLAIN, "PAX size is not a number"),
    "PAX Unicode digits": (extended(pax("size=\u0661")) + PLAIN, "PAX size is not a number"),
    "PAX huge size": (extended(pax("size=9999999999999999999")) + PLAIN, "PAX size is not a number"),
    "PAX mtime": (extended(pax("mtime=1e9")) + PLAIN, "PAX mtime is not a time"),
    "PAX sparse": (extended(pax("GNU.sparse.major=1")) + PLAIN, "sparse"),
    "PAX charset": (extended(pax("hdrcharset=KOI8-R")) + PLAIN, "hdrcharset"),
    "PAX twice the same": (extended(pax("path=a", "path=b")) + PLAIN, "comes twice"),
    "PAX length short": (extended(b"5 path=a\n") + PLAIN, "length of a PAX record is wrong"),
    "PAX length long": (extended(b"99 path=a\n") + PLAIN, "length of a PAX record is wrong"),
    "PAX length zero": (extended(b"0 path=a\n") + PLAIN, "begin with its length"),
    "PAX length negative": (extended(b"-9 path=a\n") + PLAIN, "begin with its length"),
    "PAX length endless": (extended(b"1" * 30) + PLAIN, "begin with its length"),
    "PAX without equals": (extended(b"8 path\n\n") + PLAIN, "keyword=value"),
    "PAX without keyword": (extended(b"5 =a\n") + PLAIN, "keyword=value"),
    "global path": (extended(pax("path=evil"), typeflag=b"g") + PLAIN, "global PAX header sets path"),
    "two PAX headers": (extended(pax("uid=1")) + extended(pax("gid=1")) + PLAIN, "repeat each other"),
    "PAX after GNU": (extended(b"a\0", typeflag=b"L") + extended(pax("path=b")) + PLAIN, "repeat each other"),
    "two GNU names": (2 * extended(b"a\0", typeflag=b"L") + PLAIN, "repeat each other"),
    "GNU name with NUL": (extended(b"a\0b\0", typeflag=b"L") + PLAIN, "empty or holds a NUL"),
    "GNU name empty": (extended(b"\0", typeflag=b"L") + PLAIN, "empty or holds a NUL"),
    "padding of PAX": (extended(pax("uid=1"))[:-1] + b"x" + PLAIN, "padding of an extended header"),
    "extension without member": (extended(pax("uid=1")), "between an extended header and its member"),
    "padding of a body": (file_header("p", 1) + b"b" + bytes(510) + b"x", "'p' at byte 0: the padding"),
    "one zero block": (bytes(BLOCK) + PLAIN, "not followed by a second"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_a_member_that_breaks_a_rule_is_refused_with_offset_and_rule(case: str) -> None:
    """Whatever the size of the pieces; and the good member before it is not blamed."""
    data, rule = BAD_HEADERS[case]
    for piece_bytes in (1 << 20, 100):
        with pytest.raises(IntegrityError) as caught:
            collect(file_header("good", 0) + data + END, piece_bytes=piece_bytes)
        assert rule.replace("'p' at byte 0", "'p' at byte 512") in str(caught.value)
        assert " at byte " in str(caught.value)


def test_the_message_about_a_body_cut_short_names_the_member() -> None:
    """Where the stream ended, and in what."""
    with pytest.raises(IntegrityError, match=r"tar member 'big' at byte 0: the stream ends after 612 bytes"):
        collect(file_header("big", 1000) + bytes(100))


@pytest.mark.parametrize("where", ["name", "link"])
def test_a_name_above_the_limit_is_refused(where: str) -> None:
    """Counted in bytes, not characters."""
    key = "path" if where == "name" else "linkpath"
    header = with_field(file_header("s", 0), 156, b"2")
    header = with_field(header, 157, b"t")
    assert collect(extended(pax(f"{key}={'ä' * 2048}")) + header + END).members
    with pytest.raises(IntegrityError, match=r"a name of 4098 bytes"):
        collect(extended(pax(f"{key}={'ä' * 2049}")) + header + END)


def test_more_members_than_the_limit_are_refused() -> None:
    """The limit itself is accepted."""
    limits = TarLimits(members=3)
    assert len(collect(3 * PLAIN + END, limits=limits).members) == 3
    with pytest.raises(IntegrityError, match=r"'etc/plain' at byte|more than 3 members"):
        collect(4 * PLAIN + END, limits=limits)


def test_global_records_do_not_pile_up() -> None:
    """Many global headers hold no more than one may."""
    data = b"".join(extended(pax(f"key{i}={'v' * 1000}"), typeflag=b"g") for i in range(2000))
    with pytest.raises(IntegrityError, match=r"global PAX records of"):
        collect(data)


def test_memory_stays_flat_whatever_a_tar_holds() -> None:
    """Bodies pass through as views of what was fed."""
    piece = bytes(1 << 20)
    scanner = TarScanner(_Nothing())
    tracemalloc.start()
    scanner.feed(file_header("big", 200 << 20))
    for _ in range(200):
        scanner.feed(piece)
    scanner.feed(END)
    scanner.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 16


class _Nothing:
    def begin(self, member: TarMember) -> None:
        """Nothing."""

    def data(self, chunk: memoryview) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


@pytest.mark.parametrize("size", [0, 1, 8**11 - 1, 8**11, 1 << 40])
def test_a_written_header_is_read_by_other_code(size: int) -> None:
    """With and without the PAX header for large sizes."""
    data = file_header("blobs/sha256/" + "0" * 64, size, mode=0o444, mtime=17)
    info = next(iter(tarfile.open(fileobj=io.BytesIO(data + END))))  # noqa: SIM115
    assert (info.name, info.size, info.mode, info.mtime) == ("blobs/sha256/" + "0" * 64, size, 0o444, 17)
