# SPDX-License-Identifier: Apache-2.0
"""Whatever Python's tarfile writes, the scanner reads as tarfile does; and no bytes make it fail in another way."""

from __future__ import annotations

import io
import tarfile
from typing import Literal

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from airflow_provider_dockerbackup.core.archive.tar import MemberKind, TarMember, TarScanner
from airflow_provider_dockerbackup.exceptions import IntegrityError

from .making import Entry, tar_of
from .test_tar import Collector, collect

KINDS = {
    tarfile.REGTYPE: MemberKind.FILE,
    tarfile.LNKTYPE: MemberKind.HARDLINK,
    tarfile.SYMTYPE: MemberKind.SYMLINK,
    tarfile.CHRTYPE: MemberKind.CHARACTER_DEVICE,
    tarfile.BLKTYPE: MemberKind.BLOCK_DEVICE,
    tarfile.DIRTYPE: MemberKind.DIRECTORY,
    tarfile.FIFOTYPE: MemberKind.FIFO,
}
FORMATS: list[Literal[0, 1, 2]] = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
UNDECODABLE = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
LETTERS = st.one_of(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), UNDECODABLE, st.sampled_from("/. =")
)
NAMES = st.text(LETTERS, min_size=1, max_size=300).filter(lambda name: not name.endswith("/"))
NUMBERS = st.integers(0, 2**31)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Draw a member that a tar can hold."""
    kind = draw(st.sampled_from(list(KINDS)))
    extra = {
        "mode": draw(st.integers(0, 0o7777)),
        "uid": draw(NUMBERS),
        "gid": draw(NUMBERS),
        "mtime": draw(st.integers(-(2**40), 2**40)),
    }
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        extra |= {"devmajor": draw(st.integers(0, 8**7 - 1)), "devminor": draw(st.integers(0, 8**7 - 1))}
    body = draw(st.binary(max_size=2000)) if kind == tarfile.REGTYPE else b""
    link = draw(NAMES) if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
    return Entry(draw(NAMES), body, kind, link, extra)


def feed_in_pieces(data: bytes, cuts: list[int]) -> Collector:
    """Scan a tar cut at odd places."""
    collector = Collector()
    scanner = TarScanner(collector)
    position = index = 0
    while position < len(data):
        step = cuts[index % len(cuts)]
        scanner.feed(data[position : position + step])
        position, index = position + step, index + 1
    scanner.finish()
    return collector


def same(found: TarMember, info: tarfile.TarInfo) -> bool:
    """Compare with what tarfile makes of the same bytes."""
    device = (info.devmajor, info.devminor) if info.isdev() and not info.isfifo() else None
    return (
        found.name.removesuffix("/") if info.isdir() else found.name,
        found.kind,
        found.size_bytes,
        found.mode,
        found.uid,
        found.gid,
        found.mtime_ns,
        found.link_name,
        found.device,
    ) == (
        info.name,
        KINDS[info.type],
        info.size,
        info.mode,
        info.uid,
        info.gid,
        int(info.mtime) * 1_000_000_000,
        info.linkname,
        device,
    )


@given(
    members=st.lists(entries(), max_size=8),
    tar_format=st.sampled_from(FORMATS),
    cuts=st.lists(st.integers(1, 1500), min_size=1, max_size=8),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_tar_by_tarfile_scans_to_the_members_that_tarfile_reads(
    members: list[Entry], tar_format: Literal[0, 1, 2], cuts: list[int]
) -> None:
    """All kinds, all formats, odd names, any pieces."""
    try:
        data = tar_of(members, tar_format=tar_format)
    except ValueError:  # ustar cannot hold it
        assume(False)
        raise
    found = feed_in_pieces(data, cuts)
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape", encoding="utf-8") as tar:
        infos = list(tar)
        assert len(infos) == len(found.members)
        for member, body, info in zip(found.members, found.bodies, infos, strict=True):
            assert same(member, info)
            stream = tar.extractfile(info) if info.isreg() else None
            assert body == (stream.read() if stream else b"")


@given(st.binary(max_size=3000))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_are_refused_and_nothing_else_is_raised(data: bytes) -> None:
    """No input but a tar passes."""
    try:
        collect(data)
    except IntegrityError:
        return
    assert data.startswith(bytes(1024))


@given(
    members=st.lists(entries(), min_size=1, max_size=4),
    tar_format=st.sampled_from(FORMATS),
    position=st.integers(0),
    value=st.integers(1, 255),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_tar_is_refused_or_still_a_tar(
    members: list[Entry], tar_format: Literal[0, 1, 2], position: int, value: int
) -> None:
    """One wrong byte raises IntegrityError or lies in a body or an extension; nothing else is raised."""
    try:
        data = bytearray(tar_of(members, tar_format=tar_format))
    except ValueError:
        assume(False)
        raise
    data[position % len(data)] ^= value
    try:
        collect(bytes(data))
    except IntegrityError as err:
        assert str(err)  # noqa: PT017
