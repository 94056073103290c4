# SPDX-License-Identifier: Apache-2.0
"""Real images and containers, built without a registry and without a network; what is there already stays."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Final

from tests.lab.builder import add_random, add_system_files, build_image, build_layers, has_image, system_files
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
_LARGE_LAYERS: Final = 5

# Behind the line that names its base.
_APP_DOCKERFILE: Final = rf"""
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


def build_app(daemon: LabDaemon, *, reference: str = APP, base: str = BASE) -> str:
    """Give an application image with every configuration key and many kinds of layers and files.

    Its layers have the same diff_ids each time, but for the two whose times the builder sets: deletions and COPY.

    :param daemon: where to build.
    :param reference: its name and tag.
    :param base: the image below, made from :func:`base_entries`.
    """
    if has_image(daemon, reference):
        return reference
    build_base(daemon)
    context = tar_of(
        [
            Entry(name="Dockerfile", data=f"FROM {base}\n{_APP_DOCKERFILE}".encode()),
            Entry(name="service.tar", data=tar_of(service_entries())),
            Entry(name="odd.tar", data=tar_of(odd_entries())),
            Entry(name="capability.tar", data=tar_of(capability_entries(), pax=True)),
            Entry(name="doomed.tar", data=tar_of(doomed_entries())),
            Entry(name="twin.tar", data=tar_of(twin_entries())),
            Entry(name="release.txt", data=b"release 2\n"),
        ]
    )
    build_image(daemon, reference, lambda pipe: _write(pipe, context))
    return reference


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
    files = system_files()
    share = size_mb * _MEGABYTE // _LARGE_LAYERS
    layers = [partial(_add_large, number=number, files=files, size_bytes=share) for number in range(_LARGE_LAYERS)]
    build_layers(daemon, LARGE, base=BASE, layers=layers)
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
    writers = [
        partial(_add_data, number=number, size_bytes=share, seed=seed * 1_000 + number) for number in range(layers)
    ]
    build_layers(daemon, reference, base=BASE, layers=writers)
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


def _write(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(data)


def _add_data(layer: tarfile.TarFile, *, number: int, size_bytes: int, seed: int) -> None:
    _add_directories(layer, number)
    add_random(layer, f"data/{number}/random", size_bytes=size_bytes, seed=seed)


def _add_large(layer: tarfile.TarFile, *, number: int, files: Iterator[Path], size_bytes: int) -> None:
    """Two thirds files of this system, each once, the rest random; all random where there are too few."""
    _add_directories(layer, number)
    written = add_system_files(layer, f"data/{number}", files=files, size_bytes=size_bytes * 2 // 3)
    add_random(layer, f"data/{number}/random", size_bytes=size_bytes - written, seed=number)


def _add_directories(layer: tarfile.TarFile, number: int) -> None:
    for name in ("data", f"data/{number}"):
        layer.addfile(directory(name).header())
