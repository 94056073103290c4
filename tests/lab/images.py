# SPDX-License-Identifier: Apache-2.0
"""Real images and containers, built without a registry and without a network; what is there already stays."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from tests.lab.daemon import LabDaemon
from tests.lab.errors import LabError
from tests.lab.install import require_program
from tests.lab.layers import (
    TIME,
    Entry,
    base_entries,
    capability_entries,
    directory,
    doomed_entries,
    odd_entries,
    service_entries,
    tar_of,
    twin_entries,
)
from tests.lab.processes import wait_until

BASE: Final = "lab/base:1"
APP: Final = "lab/app:1"
COMMITTED: Final = "lab/committed:1"
LARGE: Final = "lab/large:1"
APP_CONTAINER: Final = "lab-app"
GREETING: Final = 'a "quoted" $HOME it\'s\\n — grüße 世界'
_MEGABYTE: Final = 1_000_000
_LARGEST_FILE_BYTES: Final = 20 * _MEGABYTE
_BUILD: Final = ("build", "--network", "none", "--quiet", "--tag")

_APP_DOCKERFILE: Final = rf"""
FROM {BASE}
LABEL org.opencontainers.image.title="lab app" lab.odd="sp ace \"q\" = 'x' ü"
LABEL backup.enable=true
ENV GREETING="a \"quoted\" \$HOME it's\\n — grüße 世界"
ENV EMPTY="" PLAIN=1 LIST=a,b;c
ADD service.tar /
ADD odd.tar /
ADD capability.tar /
ADD doomed.tar /
ADD twin.tar /
ADD twin.tar /
RUN rm -r /doomed/file /doomed/directory /doomed/replaced && mkdir /doomed/replaced \
 && touch -d @{TIME} /doomed/replaced /doomed
RUN true
RUN true
COPY release.txt /srv/www/release.txt
WORKDIR /srv/app
VOLUME ["/var/lib/app", "/var/cache/with space"]
EXPOSE 8080/tcp 5353/udp
SHELL ["/bin/sh", "-eu", "-c"]
HEALTHCHECK --interval=1s --timeout=3s --retries=3 CMD wget -q -O /dev/null http://127.0.0.1:8080/index.html
STOPSIGNAL SIGINT
ONBUILD RUN echo built upon
USER app:app
ENTRYPOINT ["/srv/app/start"]
CMD ["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/srv/www"]
"""


def build_base(daemon: LabDaemon) -> str:
    """Give ``lab/base:1``: busybox alone, one layer, made by ``docker import``.

    :param daemon: where to build.
    """
    if not has_image(daemon, BASE):
        busybox = require_program("busybox").read_bytes()
        daemon.docker("import", "--message", "lab base", "-", BASE, input=tar_of(base_entries(busybox)))
    return BASE


def build_app(daemon: LabDaemon) -> str:
    """Give ``lab/app:1``: an application image with every configuration key and many kinds of layers and files.

    Its layers have the same diff_ids each time, but for the two whose times the builder sets: deletions and COPY.

    :param daemon: where to build.
    """
    if has_image(daemon, APP):
        return APP
    build_base(daemon)
    context = tar_of(
        [
            Entry(name="Dockerfile", data=_APP_DOCKERFILE.encode()),
            Entry(name="service.tar", data=tar_of(service_entries())),
            Entry(name="odd.tar", data=tar_of(odd_entries())),
            Entry(name="capability.tar", data=tar_of(capability_entries(), pax=True)),
            Entry(name="doomed.tar", data=tar_of(doomed_entries())),
            Entry(name="twin.tar", data=tar_of(twin_entries())),
            Entry(name="release.txt", data=b"release 2\n"),
        ]
    )
    _build(daemon, APP, lambda pipe: _write(pipe, context))
    return APP


def build_committed(daemon: LabDaemon) -> str:
    """Give ``lab/committed:1``: a container of the application, changed, then committed with message and author.

    :param daemon: where to build.
    """
    if has_image(daemon, COMMITTED):
        return COMMITTED
    build_app(daemon)
    change = (
        "echo 'release 3' > /srv/www/release.txt; rm /doomed/kept; mkdir /srv/www/new; echo new > /srv/www/new/file"
    )
    run = ("run", "--detach", "--network", "none", "--user", "root", "--entrypoint", "/bin/sh", APP, "-c", change)
    container = daemon.docker(*run).stdout.decode().strip()
    try:
        status = daemon.docker("wait", container).stdout.decode().strip()
        if status != "0":
            raise LabError(f"changing the container to be committed failed with {status} on {daemon.name}")
        entry = '--change=ENTRYPOINT ["/srv/app/start"]'
        cmd = '--change=CMD ["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/srv/www"]'
        about = ("--message", "release 3, by hand", "--author", "Lab <lab@example.org>")
        daemon.docker("commit", *about, "--change=USER app:app", entry, cmd, container, COMMITTED)
    finally:
        daemon.docker("rm", "--force", "--volumes", container)
    return COMMITTED


def build_large(daemon: LabDaemon, *, size_mb: int = 512) -> str:
    """Give ``lab/large:1``: five layers of this system's own files and, for the rest, random bytes.

    :param daemon: where to build.
    :param size_mb: size in megabytes of 10^6 bytes, without the base.
    """
    if has_image(daemon, LARGE):
        return LARGE
    build_base(daemon)
    layers = 5
    _build(daemon, LARGE, lambda pipe: _write_large_context(pipe, layers=layers, size_bytes=size_mb * _MEGABYTE))
    return LARGE


def build_random(daemon: LabDaemon, reference: str, *, size_mb: int, layers: int = 1, seed: int = 0) -> str:
    """Give an image of random bytes, which no compression makes smaller; the same seed gives the same layers.

    :param daemon: where to build.
    :param reference: its name and tag.
    :param size_mb: size in megabytes of 10^6 bytes, all layers together, without the base.
    :param layers: over how many layers.
    :param seed: of the random bytes; a layer's bytes depend on the seed and on its number only.
    """
    if has_image(daemon, reference):
        return reference
    build_base(daemon)
    share = size_mb * _MEGABYTE // layers

    def write(pipe: IO[bytes]) -> None:
        with _context(pipe, _data_dockerfile(layers)) as tar:
            for number in range(layers):
                with _layer(tar, number) as layer:
                    _add_random(layer, number, size_bytes=share, seed=seed * 1_000 + number)

    _build(daemon, reference, write)
    return reference


def run_app_container(daemon: LabDaemon, *, name: str = APP_CONTAINER) -> str:
    """Give the id of a running container of the application, with a variable, labels, volumes and a restart policy.

    :param daemon: where to run it.
    :param name: its name; one of that name that exists is given as it is.
    """
    found = daemon.docker("container", "inspect", "--format", "{{.Id}}", name, check=False)
    if found.returncode == 0:
        return found.stdout.decode().strip()
    build_app(daemon)
    options = ["--name", name, "--hostname", name, "--network", "none", "--restart", "unless-stopped"]
    options += ["--env", "STAGE=lab", "--label", "lab.container=yes", "--label", "backup.enable=true"]
    options += ["--volume", f"{name}-data:/var/lib/app", "--stop-timeout", "2"]
    return daemon.docker("run", "--detach", *options, APP).stdout.decode().strip()


def wait_healthy(daemon: LabDaemon, container: str, *, seconds: float = 20.0) -> None:
    """Return once the container's healthcheck passes.

    :param daemon: where it runs.
    :param container: its name or id.
    :param seconds: patience.
    :raises LabError: when it does not in time.
    """

    def status() -> str:
        return daemon.docker("inspect", "--format", "{{.State.Health.Status}}", container).stdout.decode().strip()

    if not wait_until(lambda: status() == "healthy", seconds=seconds, interval=0.1):
        log = daemon.docker("logs", "--tail", "20", container, check=False)
        raise LabError(f"{container} on {daemon.name} is {status()} after {seconds} s: {log.stdout + log.stderr!r}")


def has_image(daemon: LabDaemon, reference: str) -> bool:
    """Tell whether the daemon has an image.

    :param daemon: which.
    :param reference: the image's name and tag, or its id.
    """
    return daemon.docker("image", "inspect", reference, check=False).returncode == 0


def _build(daemon: LabDaemon, reference: str, write: Callable[[IO[bytes]], None]) -> None:
    """Run the classic builder on a context that is written as it is read: nothing is spooled on our side."""
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


def _write(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(data)


def _data_dockerfile(layers: int) -> str:
    additions = "".join(f"ADD {number}.tar /\n" for number in range(layers))
    return f'FROM {BASE}\n{additions}CMD ["/bin/sleep", "1000000"]\n'


@contextmanager
def _context(pipe: IO[bytes], dockerfile: str) -> Iterator[tarfile.TarFile]:
    with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 20) as tar:
        _add(tar, "Dockerfile", dockerfile.encode())
        yield tar


@contextmanager
def _layer(context: tarfile.TarFile, number: int) -> Iterator[tarfile.TarFile]:
    """A layer as a tar in the context: ADD keeps its times, so that the diff_id is the same each time."""
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as layer:
            for name in ("data", f"data/{number}"):
                layer.addfile(directory(name).header())
            yield layer
        header = Entry(name=f"{number}.tar").header()
        header.size = file.tell()
        file.seek(0)
        context.addfile(header, file)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.addfile(Entry(name=name, data=data).header(), io.BytesIO(data))


def _add_random(layer: tarfile.TarFile, number: int, *, size_bytes: int, seed: int) -> None:
    source = random.Random(seed)  # noqa: S311 - it shall be the same each time
    piece = 8 * _MEGABYTE
    for part, start in enumerate(range(0, size_bytes, piece)):
        _add(layer, f"data/{number}/random-{part:03}", source.randbytes(min(piece, size_bytes - start)))


def _write_large_context(pipe: IO[bytes], *, layers: int, size_bytes: int) -> None:
    """Two thirds files of this system, each once, the rest random; all random where there are too few."""
    files = _system_files()
    share = size_bytes // layers
    with _context(pipe, _data_dockerfile(layers)) as tar:
        for number in range(layers):
            with _layer(tar, number) as layer:
                written = _add_system_files(layer, number, files=files, size_bytes=share * 2 // 3)
                _add_random(layer, number, size_bytes=share - written, seed=number)


def _add_system_files(layer: tarfile.TarFile, number: int, *, files: Iterator[Path], size_bytes: int) -> int:
    """Add files until one no longer fits, and give how many bytes they have."""
    written = 0
    for path in files:
        try:
            data = path.read_bytes()
        except OSError:
            continue
        if written + len(data) > size_bytes:
            break
        _add(layer, f"data/{number}{path}", data)
        written += len(data)
    return written


def _system_files() -> Iterator[Path]:
    for root in ("/usr/lib", "/usr/share", "/usr/bin"):
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink() and path.stat().st_size <= _LARGEST_FILE_BYTES:
                    yield path
