# SPDX-License-Identifier: Apache-2.0
"""Images as they grow old: a large base of this system's own files, and a top layer that each generation changes."""

from __future__ import annotations

import random
import sysconfig
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.lab.builder import add_file, add_random, add_system_files, build_layers, has_image, system_files
from tests.lab.daemon import LabDaemon
from tests.lab.images import BASE, build_base
from tests.lab.layers import TIME, directory

_MEGABYTE: Final = 1_000_000
_SYSTEM: Final = "lab/system:1"
# Of the base: an operating system, a language with its libraries, an application's dependencies.
_SHARES: Final = (0.7, 0.2, 0.1)
_CODE: Final = sysconfig.get_paths()["stdlib"]
_DAY: Final = 24 * 3600
_EDITED_FILES: Final = 7
_RANDOM_SHARE: Final = 20
_SMALLEST_BYTES: Final = 300_000
_PATCH_BYTES: Final = 64 * 1024

TopWriter = Callable[[tarfile.TarFile, int, int], None]
"""Writes the top layer of a generation, given its number and the layer's size in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way in which images change.

    :param name: for tables.
    :param about: what each generation changes, in a few words.
    :param share: size of the top layer as a part of the image.
    :param write: writes the top layer.
    """

    name: str
    about: str
    share: float
    write: TopWriter


def generation(daemon: LabDaemon, kind: Kind, number: int, *, size_mb: int) -> str:
    """Give the image of one generation, built if it is not there.

    :param daemon: where to build.
    :param number: from 1 on.
    :param size_mb: size of the image in 10^6 bytes.
    """
    reference = f"lab/{kind.name}:{number}"
    if not has_image(daemon, reference):
        _build_system(daemon, size_bytes=size_mb * _MEGABYTE * 19 // 20)
        size_bytes = max(_SMALLEST_BYTES, int(size_mb * _MEGABYTE * kind.share))
        build_layers(daemon, reference, base=_SYSTEM, layers=[lambda layer: kind.write(layer, number, size_bytes)])
    return reference


def _build_system(daemon: LabDaemon, *, size_bytes: int) -> None:
    if has_image(daemon, _SYSTEM):
        return
    build_base(daemon)
    files = system_files()
    layers = [
        partial(_write_system, number=number, files=files, size_bytes=int(size_bytes * share))
        for number, share in enumerate(_SHARES)
    ]
    build_layers(daemon, _SYSTEM, base=BASE, layers=layers)


def _write_system(layer: tarfile.TarFile, *, number: int, files: Iterator[Path], size_bytes: int) -> None:
    """Random bytes only where this system has too few files."""
    folder = f"system/{number}"
    for name in ("system", folder):
        layer.addfile(directory(name).header())
    written = add_system_files(layer, folder, files=files, size_bytes=size_bytes)
    add_random(layer, f"{folder}/random", size_bytes=size_bytes - written, seed=number)


def _deploy(layer: tarfile.TarFile, number: int, size_bytes: int) -> None:
    """Each file has a new time, a few are edited, one in twenty bytes is new and random."""
    time = TIME + number * _DAY
    layer.addfile(directory("srv").header())
    new = size_bytes // _RANDOM_SHARE
    for index, (path, data) in enumerate(_files(("/usr/share", "/usr/bin"), size_bytes=size_bytes - new)):
        add_file(layer, f"srv{path}", _edited(data, number) if index < _EDITED_FILES else data, time=time)
    add_file(layer, "srv/random", random.Random(number).randbytes(new), time=time)  # noqa: S311 - no secret


def _edit_code(layer: tarfile.TarFile, number: int, size_bytes: int) -> None:
    """Program text: each generation edits a few files that no other one edits; the rest stays, with its time."""
    layer.addfile(directory("srv").header())
    for index, (path, data) in enumerate(_files((_CODE,), size_bytes=size_bytes, suffix=".py")):
        edited_in = index // _EDITED_FILES + 1
        if edited_in <= number:
            add_file(layer, f"srv{path}", _edited(data, edited_in), time=TIME + edited_in * _DAY)
        else:
            add_file(layer, f"srv{path}", data)


def _patch_file(layer: tarfile.TarFile, number: int, size_bytes: int) -> None:
    """One large file, such as a database, in whose middle each generation overwrites another 64 KiB."""
    layer.addfile(directory("srv").header())
    data = bytearray(b"".join(data for _, data in _files(("/usr/bin", "/usr/share"), size_bytes=size_bytes)))
    for patch in range(1, number + 1):
        at = len(data) // 2 + patch * 2 * _PATCH_BYTES
        data[at : at + _PATCH_BYTES] = random.Random(patch).randbytes(_PATCH_BYTES)  # noqa: S311 - no secret
    add_file(layer, "srv/data", bytes(data), time=TIME + number * _DAY)


def _files(roots: tuple[str, ...], *, size_bytes: int, suffix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield path and content of this system's files, until the next one would be too much."""
    left = size_bytes
    for path in system_files(roots=roots):
        if not path.name.endswith(suffix):
            continue
        data = path.read_bytes()
        if len(data) > left:
            return
        left -= len(data)
        yield str(path), data


def _edited(data: bytes, number: int) -> bytes:
    middle = len(data) // 2
    return data[:middle] + f"\n# edited in generation {number}\n".encode() + data[middle:]


DEPLOYED: Final = Kind(
    name="deployed",
    about="a small top layer of which each file has a new time, a few are edited and 5 % of the bytes are new",
    share=1 / 50,
    write=_deploy,
)
CODE: Final = Kind(
    name="code",
    about="a top layer of program text, of which seven files are edited",
    share=1 / 400,
    write=_edit_code,
)
DATABASE: Final = Kind(
    name="database",
    about="a top layer of one large file, of which 64 KiB in the middle are overwritten",
    share=1 / 10,
    write=_patch_file,
)
