# SPDX-License-Identifier: Apache-2.0
"""A strict tar scanner: bytes are pushed in, members and their bodies come out, in flat memory.

It reads what engines write (POSIX pax, ustar, GNU long names) and refuses the rest: whatever two readers could read
differently, whatever announces more than the limits allow, and any stream that does not end as a tar must. Links are
not followed and nothing is written anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

from airflow_provider_dockerbackup.core.archive.tar_header import (
    BLOCK_BYTES,
    EXTENSIONS,
    GNU_NAME,
    PAX_GLOBAL,
    PAX_LOCAL,
    ZERO_BLOCK,
    Header,
    HeaderError,
    MemberKind,
    TarMember,
    pax_records,
)
from airflow_provider_dockerbackup.exceptions import IntegrityError

__all__ = ["MemberHandler", "MemberKind", "TarLimits", "TarMember", "TarScanner", "shown_name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TarLimits:
    """How much a tar may hold before it is refused.

    :param members: number of members.
    :param name_bytes: length of a name or link target.
    :param extension_bytes: length of one extended header's payload; all of it is held in memory.
    :param total_bytes: length of the whole stream; None for any.
    """

    members: int = 100_000
    name_bytes: int = 4096
    extension_bytes: int = 1 << 20
    total_bytes: int | None = None


class MemberHandler(Protocol):
    """What is told about each member, in the order of the tar. What a method raises ends the scan."""

    def begin(self, member: TarMember) -> None:
        """Take the headers of the next member, checked."""

    def data(self, chunk: memoryview) -> None:
        """Take the next piece of the member's body; the view is valid only during the call."""

    def end(self) -> None:
        """Take note that the member is over, its padding checked to be zero."""


def shown_name(name: str) -> str:
    """Return a member's name quoted for a message: one line, ASCII, at most 120 characters."""
    return ascii(name if len(name) <= 120 else name[:117] + "...")


class _Extensions:
    """What the extended headers before one member say of it."""

    __slots__ = ("long_link", "long_name", "pax", "seen")

    def __init__(self) -> None:
        self.seen = b""
        self.pax: dict[str, bytes] = {}
        self.long_name: bytes | None = None
        self.long_link: bytes | None = None

    def take(self, typeflag: bytes, payload: bytes) -> None:
        """Enter one extended header; two readers could weigh repeated or mixed ones differently."""
        if typeflag in self.seen or (self.seen and PAX_LOCAL in self.seen + typeflag):
            raise HeaderError("several extended headers for one member contradict or repeat each other")
        self.seen += typeflag
        if typeflag == PAX_LOCAL:
            self.pax = pax_records(payload, is_global=False)
        elif typeflag == GNU_NAME:
            self.long_name = _gnu_text(payload)
        else:
            self.long_link = _gnu_text(payload)


class TarScanner:
    """Reads one tar. Use: ``feed`` any pieces, then ``finish``; after an exception it is of no more use.

    :param handler: is told about each member.
    :param limits: when to refuse.
    :param framing: is given, in order, every byte that belongs to no body: header blocks with their extensions before
        the member's ``begin``, and the zero blocks at the end. Padding is left out: it is zero and its length follows
        from the size.
    """

    def __init__(
        self,
        handler: MemberHandler,
        *,
        limits: TarLimits | None = None,
        framing: Callable[[bytes], None] | None = None,
    ) -> None:
        self._handler = handler
        self._limits = limits or TarLimits()
        self._framing = framing
        self._step: Callable[[memoryview], int] = self._header
        self._partial = bytearray()
        self._total_bytes = 0
        self._consumed = 0
        self._member_offset = 0
        self._member: TarMember | None = None
        self._members = 0
        self._body_left = 0
        self._padding_left = 0
        self._extension = b""
        self._extension_size = 0
        self._global_pax: dict[str, bytes] = {}
        self._pending = _Extensions()

    @property
    def total_bytes(self) -> int:
        """How many bytes were fed."""
        return self._total_bytes

    def feed(self, data: bytes | memoryview) -> None:
        """Scan the next piece of the stream, of any length.

        :raises IntegrityError: when a rule is broken; the message names the member, its offset and the rule.
        """
        view = memoryview(data)
        length = len(view)
        self._total_bytes += length
        limit = self._limits.total_bytes
        if limit is not None and self._total_bytes > limit:
            self._refuse(f"the stream is longer than the {limit} bytes expected")
        position = 0
        while position < length:
            taken = self._step(view[position:] if position else view)
            position += taken
            self._consumed += taken

    def finish(self) -> None:
        """Declare the stream over.

        :raises IntegrityError: when it did not end with two zero blocks, on a block boundary.
        """
        if self._step != self._trailer:
            self._refuse(f"the stream ends after {self._total_bytes} bytes without the two zero blocks that end a tar")
        if self._total_bytes % BLOCK_BYTES:
            self._refuse(f"the stream ends after {self._total_bytes} bytes, not on a block of {BLOCK_BYTES}")

    def _refuse(self, rule: str) -> NoReturn:
        where = f"tar header at byte {self._member_offset}"
        if self._member is not None:
            where = f"tar member {shown_name(self._member.name)} at byte {self._member_offset}"
        raise IntegrityError(f"{where}: {rule}")

    def _whole(self, view: memoryview, size: int) -> tuple[bytes | None, int]:
        """Collect ``size`` bytes across pieces; return them once complete, and how many were taken now."""
        if not self._partial and len(view) >= size:
            return bytes(view[:size]), size
        taken = min(size - len(self._partial), len(view))
        self._partial += view[:taken]
        if len(self._partial) < size:
            return None, taken
        whole = bytes(self._partial)
        self._partial.clear()
        return whole, taken

    def _header(self, view: memoryview) -> int:
        if not self._partial and not self._pending.seen:
            self._member, self._member_offset = None, self._consumed
        block, taken = self._whole(view, BLOCK_BYTES)
        if block is None:
            return taken
        if self._framing is not None:
            self._framing(block)
        if block == ZERO_BLOCK:
            if self._pending.seen:
                self._refuse("the tar ends between an extended header and its member")
            self._step = self._second_zero_block
            return taken
        try:
            header = Header(block)
            if header.typeflag in EXTENSIONS:
                self._begin_extension(header)
            else:
                self._begin_member(header)
        except HeaderError as err:
            self._refuse(str(err))
        return taken

    def _begin_extension(self, header: Header) -> None:
        size = header.size_bytes
        if not 0 < size <= self._limits.extension_bytes:
            raise HeaderError(f"an extended header of {size} bytes, allowed are 1 to {self._limits.extension_bytes}")
        self._extension, self._extension_size = header.typeflag, size
        self._step = self._extension_payload

    def _extension_payload(self, view: memoryview) -> int:
        payload, taken = self._whole(view, self._extension_size + -self._extension_size % BLOCK_BYTES)
        if payload is None:
            return taken
        if self._framing is not None:
            self._framing(payload)
        try:
            self._take_extension(payload)
        except HeaderError as err:
            self._refuse(str(err))
        self._step = self._header
        return taken

    def _take_extension(self, padded: bytes) -> None:
        payload = padded[: self._extension_size]
        if any(padded[self._extension_size :]):
            raise HeaderError("the padding of an extended header is not zero")
        if self._extension != PAX_GLOBAL:
            self._pending.take(self._extension, payload)
            return
        if self._pending.seen:
            raise HeaderError("a global PAX header between an extended header and its member")
        self._global_pax.update(pax_records(payload, is_global=True))
        held = sum(len(key) + len(value) for key, value in self._global_pax.items())
        if held > self._limits.extension_bytes:
            raise HeaderError(f"global PAX records of {held} bytes, allowed are {self._limits.extension_bytes}")

    def _begin_member(self, header: Header) -> None:
        pending = self._pending
        pax = pending.pax
        if self._global_pax or pax:
            pax = {key: value for key, value in {**self._global_pax, **pax}.items() if value}
        member = header.member(pax, long_name=pending.long_name, long_link=pending.long_link)
        self._member = member
        self._members += 1
        if self._members > self._limits.members:
            raise HeaderError(f"more than {self._limits.members} members")
        if max(len(member.name), len(member.link_name)) * 4 > self._limits.name_bytes:
            self._check_name_bytes(member)
        if pending.seen:
            self._pending = _Extensions()
        self._handler.begin(member)
        if member.size_bytes:
            self._body_left = member.size_bytes
            self._step = self._body
        else:
            self._step = self._header
            self._handler.end()

    def _check_name_bytes(self, member: TarMember) -> None:
        for name in (member.name, member.link_name):
            length = len(name.encode("utf-8", "surrogateescape"))
            if length > self._limits.name_bytes:
                raise HeaderError(f"a name of {length} bytes, allowed are {self._limits.name_bytes}")

    def _body(self, view: memoryview) -> int:
        left = self._body_left
        if len(view) < left:
            self._handler.data(view)
            self._body_left = left - len(view)
            return len(view)
        self._handler.data(view[:left])
        padding = -(self._consumed + left) % BLOCK_BYTES
        if padding and len(view) >= left + padding:
            self._check_padding(view[left : left + padding])
            left += padding
            padding = 0
        self._padding_left = padding
        self._step = self._padding
        if not padding:
            self._end_member()
        return left

    def _padding(self, view: memoryview) -> int:
        taken = min(self._padding_left, len(view))
        self._check_padding(view[:taken])
        self._padding_left -= taken
        if not self._padding_left:
            self._end_member()
        return taken

    def _check_padding(self, view: memoryview) -> None:
        if view != ZERO_BLOCK[: len(view)]:
            self._refuse("the padding behind the body is not zero")

    def _end_member(self) -> None:
        self._step = self._header
        self._handler.end()

    def _second_zero_block(self, view: memoryview) -> int:
        block, taken = self._whole(view, BLOCK_BYTES)
        if block is None:
            return taken
        if block != ZERO_BLOCK:
            self._refuse("a zero block is not followed by a second one")
        if self._framing is not None:
            self._framing(block)
        self._step = self._trailer
        return taken

    def _trailer(self, view: memoryview) -> int:
        rest = bytes(view)
        if rest.count(0) != len(rest):
            self._refuse("there are bytes other than zero behind the end of the tar")
        if self._framing is not None:
            self._framing(rest)
        return len(rest)


def _gnu_text(payload: bytes) -> bytes:
    """Return the name in a GNU ``L`` or ``K`` header, which ends with one NUL."""
    text = payload.removesuffix(b"\0")
    if not text or b"\0" in text:
        raise HeaderError("a GNU long name is empty or holds a NUL")
    return text
