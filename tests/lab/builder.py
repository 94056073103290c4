# SPDX-License-Identifier: Apache-2.0
"""Docker's classic builder, fed a context that is written while it is read."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from tests.lab.daemon import LabDaemon
from tests.lab.errors import LabError
from tests.lab.layers import TIME, Entry

LayerWriter = Callable[[tarfile.TarFile], None]
"""Adds the members of one layer."""

_MEGABYTE: Final = 1_000_000
_LARGEST_FILE_BYTES: Final = 20 * _MEGABYTE
_RANDOM_FILE_BYTES: Final = 8 * _MEGABYTE
_BUILD: Final = ("build", "--network", "none", "--quiet", "--tag")


def has_image(daemon: LabDaemon, reference: str) -> bool:
    """Tell whether the daemon has an image.

    :param daemon: which.
    :param reference: the image's name and tag, or its id.
    """
    return daemon.docker("image", "inspect", reference, check=False).returncode == 0


def build_image(daemon: LabDaemon, reference: str, write: Callable[[IO[bytes]], None]) -> None:
    """Build an image; nothing is spooled on our side.

    :param daemon: where to build.
    :param reference: its name and tag.
    :param write: writes the context, a tar with a ``Dockerfile``.
    :raises LabError: with what the builder said.
    """
    process = subprocess.Popen(
        [str(daemon.files.docker), *_BUILD, reference, "-"],
        env={**daemon.environment(), "DOCKER_BUILDKIT": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        if process.stdin is None or process.stdout is None:
            raise LabError("no pipes to docker build")
        broken: BrokenPipeError | None = None
        try:
            write(process.stdin)
            process.stdin.close()
        except BrokenPipeError as error:
            broken = error
        said = process.stdout.read().decode("utf-8", "replace")
    if process.returncode != 0 or broken is not None:
        raise LabError(f"building {reference} on {daemon.name} failed with {process.returncode}: {said[-2000:]}")


def build_layers(daemon: LabDaemon, reference: str, *, base: str, layers: Sequence[LayerWriter]) -> None:
    """Build an image of some layers on another image; ADD keeps the members' times, so diff_ids stay the same.

    :param daemon: where to build.
    :param reference: its name and tag.
    :param base: the image below.
    :param layers: from the lowest on.
    """
    additions = "".join(f"ADD {number}.tar /\n" for number in range(len(layers)))
    dockerfile = f'FROM {base}\n{additions}CMD ["/bin/sleep", "1000000"]\n'

    def write(pipe: IO[bytes]) -> None:
        with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 20) as context:
            add_file(context, "Dockerfile", dockerfile.encode())
            for number, layer in enumerate(layers):
                _add_layer(context, f"{number}.tar", layer)

    build_image(daemon, reference, write)


def add_file(tar: tarfile.TarFile, name: str, data: bytes, *, time: int = TIME) -> None:
    """Add a regular file.

    :param time: when it was changed, in seconds since 1970.
    """
    tar.addfile(Entry(name=name, data=data, time=time).header(), io.BytesIO(data))


def add_random(layer: tarfile.TarFile, stem: str, *, size_bytes: int, seed: int) -> None:
    """Add files of random bytes, the same for the same seed.

    :param stem: path of the files, to which a number is added.
    :param size_bytes: of all files together.
    """
    source = random.Random(seed)  # noqa: S311 - it shall be the same each time
    for part, start in enumerate(range(0, size_bytes, _RANDOM_FILE_BYTES)):
        add_file(layer, f"{stem}-{part:03}", source.randbytes(min(_RANDOM_FILE_BYTES, size_bytes - start)))


def add_system_files(layer: tarfile.TarFile, folder: str, *, files: Iterator[Path], size_bytes: int) -> int:
    """Add files until one no longer fits, and give how many bytes they have.

    :param folder: below which they go, with their own paths.
    """
    written = 0
    for path in files:
        try:
            data = path.read_bytes()
        except OSError:
            continue
        if written + len(data) > size_bytes:
            break
        add_file(layer, f"{folder}{path}", data)
        written += len(data)
    return written


def system_files(*, roots: Sequence[str] = ("/usr/lib", "/usr/share", "/usr/bin")) -> Iterator[Path]:
    """Give files of this system that are not too large, always in the same order.

    :param roots: folders to look in.
    """
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink() and path.stat().st_size <= _LARGEST_FILE_BYTES:
                    yield path


def _add_layer(context: tarfile.TarFile, name: str, write: LayerWriter) -> None:
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as layer:
            write(layer)
        header = Entry(name=name).header()
        header.size = file.tell()
        file.seek(0)
        context.addfile(header, file)
