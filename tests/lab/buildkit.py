# SPDX-License-Identifier: Apache-2.0
"""Images built by BuildKit, offline: for several platforms, and with attestations; for engine 28."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.lab.daemon import LabDaemon
from tests.lab.debian import fetched_packages
from tests.lab.errors import LabError

_BUILDX = Path("usr/libexec/docker/cli-plugins/docker-buildx")
_BLOBS = "blobs/sha256/"


def build_with_buildkit(
    daemon: LabDaemon, reference: str, files: Mapping[str, bytes], *, options: Sequence[str] = ()
) -> str:
    """Give an image that the engine's own BuildKit built.

    :param daemon: where to build; with the containerd store, to keep all that is built.
    :param reference: its name and tag.
    :param files: the context, with a ``Dockerfile``; an executable one begins as ELF files do.
    :param options: of ``docker buildx build``, such as ``--platform=linux/amd64,linux/arm64``.
    :raises LabError: with what the builder said.
    """
    root = fetched_packages("buildx-forky", ("docker-buildx",), suite="forky", check=_check)
    with tempfile.TemporaryDirectory() as context:
        for name, data in files.items():
            path = Path(context, name)
            path.write_bytes(data)
            path.chmod(0o755 if data.startswith(b"\x7fELF") else 0o644)
        done = subprocess.run(
            [str(root / _BUILDX), "build", "--tag", reference, *options, context],
            env=daemon.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise LabError(f"building {reference} on {daemon.name} failed with {done.returncode}: {done.stderr[-2000:]}")
    return reference


def without_platforms(archive: bytes, left_out: Callable[[Mapping[str, str]], bool]) -> bytes:
    """Return what ``docker save`` gave of an image for several platforms, without some: as after a pull of the rest.

    :param left_out: tells by a descriptor's ``platform`` whether its manifest, and what only it names, is left out.
    """
    members: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            members[info.name] = (info, file.read() if file else b"")
    (top,) = json.loads(members["index.json"][1])["manifests"]
    kept: set[str] = {top["digest"]}
    gone: set[str] = set()
    for named in json.loads(members[_BLOBS + top["digest"][7:]][1])["manifests"]:
        manifest = json.loads(members[_BLOBS + named["digest"][7:]][1])
        digests = {named["digest"], *(each["digest"] for each in (manifest["config"], *manifest["layers"]))}
        (gone if left_out(named["platform"]) else kept).update(digests)
    absent = {_BLOBS + digest[7:] for digest in gone - kept}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, (info, data) in members.items():
            if name not in absent:
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _check(root: Path) -> None:
    if not (root / _BUILDX).exists():
        raise LabError(f"Debian's package docker-buildx has no {_BUILDX}")
