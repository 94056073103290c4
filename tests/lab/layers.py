# SPDX-License-Identifier: Apache-2.0
"""Tar archives for layers: odd names and file types, fixed times and owners, so that digests stay the same."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

# 2024-01-01T00:00:00Z
TIME: Final = 1704067200
LONG_NAME: Final = "n" * 120
_DEEP: Final = tuple("/".join(["deep" * 12] * depth) for depth in range(1, 6))
LONG_PATH: Final = f"{_DEEP[-1]}/leaf"
NOT_UTF8: Final = b"odd/not-utf8-\xff\xfe\xe9".decode("utf-8", "surrogateescape")
# Version 2, effective, permitted: cap_net_bind_service.
_CAPABILITY: Final = b"\x01\x00\x00\x02\x00\x04" + bytes(14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of a layer.

    :param name: path without a leading slash.
    :param kind: a type of :mod:`tarfile`.
    :param data: content of a regular file.
    :param link: target of a link.
    :param mode: permission bits; None is 0755 for directories and 0644 for others.
    :param owner: uid and gid.
    :param extended: PAX headers.
    :param time: when it was changed, in seconds since 1970.
    """

    name: str
    kind: bytes = tarfile.REGTYPE
    data: bytes = b""
    link: str = ""
    mode: int | None = None
    owner: tuple[int, int] = (0, 0)
    extended: Mapping[str, str] = field(default_factory=dict)
    time: int = TIME

    def header(self) -> tarfile.TarInfo:
        """Give the member's header."""
        info = tarfile.TarInfo(self.name)
        info.type = self.kind
        info.size = len(self.data)
        info.linkname = self.link
        info.mode = self.mode if self.mode is not None else (0o755 if self.kind == tarfile.DIRTYPE else 0o644)
        info.uid, info.gid = self.owner
        info.mtime = self.time
        info.pax_headers = dict(self.extended)
        return info


def tar_of(entries: Iterable[Entry], *, pax: bool = False) -> bytes:
    """Give a tar archive of the members, in their order.

    :param entries: the members.
    :param pax: write PAX headers, for extended attributes; else GNU's format, which takes any bytes as a name.
    """
    output = io.BytesIO()
    kind = tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=output, mode="w", format=kind, encoding="utf-8", errors="surrogateescape") as tar:
        for entry in entries:
            tar.addfile(entry.header(), io.BytesIO(entry.data))
    return output.getvalue()


def directory(name: str, *, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Entry:
    """Give a directory.

    :param name: its path.
    :param mode: permission bits.
    :param owner: uid and gid.
    """
    return Entry(name=name, kind=tarfile.DIRTYPE, mode=mode, owner=owner)


def symlink(name: str, *, to: str) -> Entry:
    """Give a symbolic link.

    :param name: its path.
    :param to: its target.
    """
    return Entry(name=name, kind=tarfile.SYMTYPE, link=to, mode=0o777)


def base_entries(busybox: bytes) -> list[Entry]:
    """Give a small root filesystem around busybox.

    :param busybox: the statically linked program.
    """
    applets = ["sh", "ls", "cat", "echo", "rm", "mkdir", "touch", "ln", "cp", "mv", "sleep", "true", "false", "id"]
    applets += ["find", "grep", "sed", "stat", "sha256sum", "tar", "dd", "env", "ps", "kill", "wget", "httpd", "test"]
    return [
        directory("bin"),
        Entry(name="bin/busybox", data=busybox, mode=0o755),
        *(symlink(f"bin/{applet}", to="busybox") for applet in sorted(applets)),
        directory("etc"),
        Entry(name="etc/passwd", data=b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/srv/app:/bin/sh\n"),
        Entry(name="etc/group", data=b"root:x:0:\napp:x:1000:\n"),
        Entry(name="etc/shadow", data=b"root:*:19723::::::\n", mode=0o600),
        directory("root", mode=0o700),
        directory("tmp", mode=0o1777),
        directory("var"),
        directory("var/lib"),
    ]


def service_entries() -> list[Entry]:
    """Give the tiny service: a page, and a start script that ends on its stop signal."""
    # As process 1 a shell must trap signals to heed them.
    script = b"#!/bin/sh\ntrap 'exit 0' INT TERM\n\"$@\" &\nwait $!\n"
    app = (1000, 1000)
    return [
        directory("srv"),
        directory("srv/app", owner=app),
        Entry(name="srv/app/start", data=script, mode=0o755),
        directory("srv/www"),
        Entry(name="srv/www/index.html", data=b"<!doctype html><title>lab</title>\n", owner=app),
        Entry(name="srv/www/release.txt", data=b"release 1\n", owner=app),
    ]


def odd_entries() -> list[Entry]:
    """Give what breaks careless tools: links, special bits, strange names, a FIFO, an empty directory."""
    names = ["-dash", "two  spaces ", "new\nline", "quote'\"`$(x)", "back\\slash", "größe-世界-🐳", "*?[a]", LONG_NAME]
    return [
        directory("odd"),
        *(Entry(name=f"odd/{name}", data=f"{number}\n".encode()) for number, name in enumerate(names)),
        Entry(name=NOT_UTF8, data=b"not utf-8\n"),
        *(directory(f"odd/{path}") for path in _DEEP),
        Entry(name=f"odd/{LONG_PATH}", data=b"deep\n"),
        Entry(name="odd/original", data=b"shared by three names\n"),
        Entry(name="odd/hard-1", kind=tarfile.LNKTYPE, link="odd/original"),
        Entry(name="odd/hard-2", kind=tarfile.LNKTYPE, link="odd/original"),
        symlink("odd/relative", to="original"),
        symlink("odd/absolute", to="/etc/passwd"),
        symlink("odd/dangling", to="../no/where"),
        symlink("odd/loop", to="loop"),
        symlink(f"odd/far-{'l' * 90}", to=LONG_NAME),
        Entry(name="odd/setuid", data=b"#!/bin/sh\nid\n", mode=0o4755),
        Entry(name="odd/setgid", data=b"#!/bin/sh\nid\n", mode=0o2755, owner=(0, 1000)),
        directory("odd/sticky", mode=0o1777),
        directory("odd/empty"),
        Entry(name="odd/no-permission", data=b"closed\n", mode=0o000),
        Entry(name="odd/zero-bytes"),
        Entry(name="odd/high-owner", data=b"beyond octal fields\n", owner=(3_000_000, 3_000_000)),
        Entry(name="odd/fifo", kind=tarfile.FIFOTYPE),
    ]


def capability_entries() -> list[Entry]:
    """Give a program with a file capability, the one extended attribute that engines keep; needs PAX headers."""
    attribute = {"SCHILY.xattr.security.capability": _CAPABILITY.decode("latin-1")}
    return [directory("opt"), Entry(name="opt/capable", data=b"#!/bin/sh\n", mode=0o755, extended=attribute)]


def doomed_entries() -> list[Entry]:
    """Give files that a later layer deletes."""
    return [
        directory("doomed"),
        Entry(name="doomed/file", data=b"deleted later\n"),
        directory("doomed/directory"),
        Entry(name="doomed/directory/inner", data=b"deleted with its directory\n"),
        directory("doomed/replaced"),
        Entry(name="doomed/replaced/old", data=b"hidden by an opaque directory\n"),
        Entry(name="doomed/kept", data=b"stays\n"),
    ]


def twin_entries() -> list[Entry]:
    """Give what is added twice, so that two layers are identical."""
    return [directory("twin"), Entry(name="twin/data", data=b"the same layer twice\n" * 100)]
