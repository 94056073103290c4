# SPDX-License-Identifier: Apache-2.0
"""Headers of tar members: reading them strictly, and writing the few that this package writes.

Formats: POSIX.1-2024 ``pax`` (ustar header, extended header records), GNU tar's base-256 numbers and ``L``/``K`` long
names, and the plain header of 7th edition tar. Go's ``archive/tar``, which every engine uses, writes the first two.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

BLOCK_BYTES = 512
ZERO_BLOCK = bytes(BLOCK_BYTES)
XATTR_PREFIX = "SCHILY.xattr."

_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_USTAR = b"ustar\x0000"
_GNU = b"ustar  \0"
_V7 = bytes(8)
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
_BLANK = re.compile(rb"[ \0]*")
_GNU_SPARSE_AREA = slice(386, 495)
_BLANK_CHECKSUM = 8 * ord(" ")
_MAX_INT64 = (1 << 63) - 1
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_PAX_TIME = re.compile(r"(-?)([0-9]{1,19})(?:\.([0-9]{0,64}))?", re.ASCII)
_CHARSETS = ("BINARY", "ISO-IR 10646 2000 UTF-8")
_OCTAL_SIZE_LIMIT = 8**11
LATEST_MTIME = 8**11 - 1


class HeaderError(ValueError):
    """A header breaks a rule; the scanner adds the member and the offset and raises ``IntegrityError``."""


class MemberKind(StrEnum):
    """What a tar member is; the values are the words of messages and of the tree digest."""

    FILE = "file"
    HARDLINK = "hardlink"
    SYMLINK = "symlink"
    CHARACTER_DEVICE = "character-device"
    BLOCK_DEVICE = "block-device"
    DIRECTORY = "directory"
    FIFO = "fifo"


_KINDS = {
    b"0": MemberKind.FILE,
    b"\0": MemberKind.FILE,
    b"1": MemberKind.HARDLINK,
    b"2": MemberKind.SYMLINK,
    b"3": MemberKind.CHARACTER_DEVICE,
    b"4": MemberKind.BLOCK_DEVICE,
    b"5": MemberKind.DIRECTORY,
    b"6": MemberKind.FIFO,
}
_DEVICES = (MemberKind.CHARACTER_DEVICE, MemberKind.BLOCK_DEVICE)
_LINKS = (MemberKind.HARDLINK, MemberKind.SYMLINK)
PAX_LOCAL, PAX_GLOBAL, GNU_NAME, GNU_LINK = b"x", b"g", b"L", b"K"
EXTENSIONS = (PAX_LOCAL, PAX_GLOBAL, GNU_NAME, GNU_LINK)


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """One member of a tar, as its headers describe it; nothing is resolved or followed.

    :param name: name as written, UTF-8 with ``surrogateescape``.
    :param kind: what it is.
    :param size_bytes: size of the body; 0 for everything but files.
    :param mode: permission bits and, where the writer put them there, type bits.
    :param uid: owner.
    :param gid: group.
    :param mtime_ns: modification time, nanoseconds since 1970; may be negative.
    :param link_name: target of a hard or symbolic link, else empty.
    :param device: major and minor number of a device, else None.
    :param xattrs: extended attributes (PAX ``SCHILY.xattr.*``), sorted by name.
    """

    name: str
    kind: MemberKind
    size_bytes: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    link_name: str
    device: tuple[int, int] | None
    xattrs: tuple[tuple[str, bytes], ...]


class Header:
    """One 512-byte header block, its checksum, magic and numbers checked; names not yet joined with extensions.

    :param block: exactly 512 bytes, not all zero.
    :raises HeaderError: when the block breaks a rule.
    """

    __slots__ = ("_fields", "magic", "name", "size_bytes", "typeflag")

    def __init__(self, block: bytes) -> None:
        _check_checksum(block)
        self._fields = _FIELDS.unpack(block)
        self.typeflag: bytes = self._fields[7]
        self.magic: bytes = self._fields[9]
        if self.magic == _V7:
            _check_v7(block)
        elif self.magic == _GNU:
            if block[_GNU_SPARSE_AREA].strip(b"\0"):
                raise HeaderError("sparse members are not accepted")
        elif self.magic != _USTAR:
            raise HeaderError(f"magic {self.magic!r} is neither that of ustar nor that of GNU tar")
        self.name: bytes = _name(self._fields)
        self.size_bytes = _number(self._fields[4], "size")

    def member(self, pax: Mapping[str, bytes], *, long_name: bytes | None, long_link: bytes | None) -> TarMember:
        """Return the member that this header describes together with its extension headers.

        :param pax: PAX records in force, as :func:`pax_records` returns them.
        :param long_name: name from a GNU ``L`` header.
        :param long_link: link target from a GNU ``K`` header.
        :raises HeaderError: when a field breaks a rule.
        """
        fields = self._fields
        name = self.name if long_name is None else long_name
        link = _text(fields[8], "link name") if long_link is None else long_link
        size, uid, gid = self.size_bytes, _number(fields[2], "uid"), _number(fields[3], "gid")
        mtime_ns = _signed(fields[5], "mtime") * 1_000_000_000
        xattrs: tuple[tuple[str, bytes], ...] = ()
        if pax:
            name, link = pax.get("path", name), pax.get("linkpath", link)
            size, uid, gid = (_pax_number(pax, key, was) for key, was in (("size", size), ("uid", uid), ("gid", gid)))
            mtime_ns = _pax_time(pax["mtime"]) if "mtime" in pax else mtime_ns
            xattrs = _xattrs(pax)
        kind = _kind(self.typeflag, name)
        _check_shape(kind, name, link, size)
        return TarMember(
            name=name.decode("utf-8", "surrogateescape"),
            kind=kind,
            size_bytes=size,
            mode=_number(fields[1], "mode"),
            uid=uid,
            gid=gid,
            mtime_ns=mtime_ns,
            link_name=link.decode("utf-8", "surrogateescape") if kind in _LINKS else "",
            device=_device(kind, fields[12], fields[13]),
            xattrs=xattrs,
        )


def _check_checksum(block: bytes) -> None:
    """The checksum is the sum of all bytes, its own field counted as blanks.

    The low half of Adler-32 is that sum, exact for up to 256 bytes, and ten times as fast as adding in Python.
    """
    total = (zlib.adler32(block[:148]) & 0xFFFF) + (zlib.adler32(block[156:334]) & 0xFFFF)
    total += (zlib.adler32(block[334:]) & 0xFFFF) - 3 + _BLANK_CHECKSUM
    field = block[148:156]
    match = _OCTAL.fullmatch(field)
    if match is None or int(match[1], 8) != total:
        raise HeaderError(f"header checksum is {field!r}, the header adds up to {total:o}")


def _check_v7(block: bytes) -> None:
    """A header without magic is taken only where it can be nothing else: old types, and nothing in the newer part."""
    if any(block[257:]):
        raise HeaderError("a header without magic has bytes where 7th edition tar has none")
    if block[156:157] not in (b"\0", b"0", b"1", b"2"):
        raise HeaderError(f"type {block[156:157]!r} in a header without magic")


def _text(field: bytes, what: str) -> bytes:
    """Return a field up to its first NUL, behind which only NULs may follow."""
    text = field.rstrip(b"\0")
    if b"\0" in text:
        raise HeaderError(f"the {what} has bytes behind its NUL")
    return text


def _name(fields: tuple[bytes, ...]) -> bytes:
    name, prefix = _text(fields[0], "name"), b""
    if fields[9] == _USTAR:
        prefix = _text(fields[14], "name prefix")
    return prefix + b"/" + name if prefix else name


@lru_cache(maxsize=4096)
def _number(field: bytes, what: str) -> int:
    """Return a number >= 0: octal digits, blanks and NULs around them, or GNU's base-256 with its top bit set."""
    value = _signed(field, what)
    if value < 0:
        raise HeaderError(f"the {what} is negative: {value}")
    return value


@lru_cache(maxsize=4096)
def _signed(field: bytes, what: str) -> int:
    match = _OCTAL.fullmatch(field)
    if match is not None:
        return int(match[1], 8)
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if abs(value) > _MAX_INT64:
            raise HeaderError(f"the {what} does not fit 64 bits: {field!r}")
        return value
    if _BLANK.fullmatch(field) is not None and what != "size":
        return 0
    raise HeaderError(f"the {what} is not a number: {field!r}")


def _kind(typeflag: bytes, name: bytes) -> MemberKind:
    kind = _KINDS.get(typeflag)
    if kind is None:
        raise HeaderError(f"member type {typeflag!r} is not accepted")
    if kind is MemberKind.FILE and name.endswith(b"/"):
        if typeflag == b"0":
            raise HeaderError("the name of a file ends in a slash")
        return MemberKind.DIRECTORY
    return kind


def _check_shape(kind: MemberKind, name: bytes, link: bytes, size: int) -> None:
    if not name:
        raise HeaderError("the name is empty")
    if b"\0" in name or b"\0" in link:
        raise HeaderError("a name holds a NUL")
    if size and kind is not MemberKind.FILE:
        raise HeaderError(f"a {kind} has a body of {size} bytes")
    if not link and kind in _LINKS:
        raise HeaderError(f"a {kind} has no target")


def _device(kind: MemberKind, major: bytes, minor: bytes) -> tuple[int, int] | None:
    if kind not in _DEVICES:
        return None
    return _number(major, "device major"), _number(minor, "device minor")


def pax_records(payload: bytes, *, is_global: bool) -> dict[str, bytes]:
    r"""Return the records of a PAX extended header; one with an empty value takes the keyword out of force.

    :param payload: ``"%d %s=%s\n"`` records, the number counting the whole record (POSIX pax, "pax Extended
        Header").
    :param is_global: True for type ``g``, which must not name paths or sizes: those belong to one member.
    :raises HeaderError: when a record breaks the syntax, comes twice, or announces a sparse file.
    """
    records: dict[str, bytes] = {}
    position = 0
    while position < len(payload):
        keyword, value, position = _pax_record(payload, position)
        if keyword in records:
            raise HeaderError(f"PAX record {_shown(keyword)} comes twice")
        if keyword.startswith("GNU.sparse."):
            raise HeaderError("sparse members are not accepted")
        if is_global and keyword in ("path", "linkpath", "size"):
            raise HeaderError(f"a global PAX header sets {keyword}")
        if keyword == "hdrcharset" and value.decode("latin-1") not in _CHARSETS:
            raise HeaderError(f"PAX hdrcharset {value[:40]!r} is not UTF-8")
        records[keyword] = value
    return records


def _pax_record(payload: bytes, position: int) -> tuple[str, bytes, int]:
    blank = payload.find(b" ", position, position + 11)
    length = payload[position:blank] if blank > position else b""
    if not length.isdigit() or length.startswith(b"0"):
        raise HeaderError("a PAX record does not begin with its length")
    end = position + int(length)
    record = payload[blank + 1 : end]
    if end > len(payload) or not record.endswith(b"\n"):
        raise HeaderError("the length of a PAX record is wrong")
    keyword, equals, value = record[:-1].partition(b"=")
    if not keyword or not equals or b"\0" in keyword:
        raise HeaderError("a PAX record is not keyword=value")
    return keyword.decode("utf-8", "surrogateescape"), value, end


def _pax_number(pax: Mapping[str, bytes], keyword: str, default: int) -> int:
    if keyword not in pax:
        return default
    text = pax[keyword].decode("latin-1")
    if _DECIMAL.fullmatch(text) is None or int(text) > _MAX_INT64:
        raise HeaderError(f"PAX {keyword} is not a number >= 0 of 64 bits: {_shown(text)}")
    return int(text)


def _pax_time(value: bytes) -> int:
    """Return nanoseconds; further digits are cut off, as Go does."""
    match = _PAX_TIME.fullmatch(value.decode("latin-1"))
    if match is None:
        raise HeaderError(f"PAX mtime is not a time: {value[:40]!r}")
    magnitude = int(match[2]) * 1_000_000_000 + int((match[3] or "").ljust(9, "0")[:9])
    return -magnitude if match[1] else magnitude


def _xattrs(pax: Mapping[str, bytes]) -> tuple[tuple[str, bytes], ...]:
    prefix = len(XATTR_PREFIX)
    return tuple(sorted((key[prefix:], value) for key, value in pax.items() if key.startswith(XATTR_PREFIX)))


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")


def file_header(name: str, size_bytes: int, *, mode: int = 0o644, mtime: int = 0) -> bytes:
    """Return the header of a regular file owned by root, in ustar format.

    From 8 GiB on a PAX header with the size precedes it, as Go's ``archive/tar`` writes it.

    :param name: at most 100 ASCII characters.
    :param size_bytes: size of the body.
    :param mtime: seconds since 1970, 0 to :data:`LATEST_MTIME`.
    """
    if size_bytes < _OCTAL_SIZE_LIMIT:
        return _block(name, size_bytes, b"0", mode, mtime)
    body = f"size={size_bytes}\n"
    length = len(body) + 3
    record = f"{length} {body}".encode()
    extended = _block("PaxHeaders.0/size", len(record), PAX_LOCAL, 0o644, 0)
    return extended + record + padding(len(record)) + _block(name, 0, b"0", mode, mtime)


def whole_file(name: str, body: bytes) -> bytes:
    """Return a regular file as a tar holds it: header, body and padding."""
    return file_header(name, len(body)) + body + padding(len(body))


def _block(name: str, size: int, typeflag: bytes, mode: int, mtime: int) -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, 0, 0, size, mtime)
    start = name.encode("ascii").ljust(100, b"\0") + numbers
    rest = (typeflag + bytes(100) + _USTAR).ljust(BLOCK_BYTES - 156, b"\0")
    checksum = sum(start) + sum(rest) + _BLANK_CHECKSUM
    return start + b"%06o\0 " % checksum + rest


def padding(size_bytes: int) -> bytes:
    """Return the zero bytes that fill a body up to a whole block."""
    return bytes(-size_bytes % BLOCK_BYTES)
