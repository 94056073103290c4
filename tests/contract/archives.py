# SPDX-License-Identifier: Apache-2.0
"""Small docker-archives that every engine loads."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence


def layer(**files: str) -> bytes:
    """Return a layer with text files in its root folder."""
    return _tar({name: text.encode() for name, text in files.items()})


def docker_archive(layers: Sequence[bytes], *, tags: Sequence[str] = (), broken: int | None = None) -> bytes:
    """Return a docker-archive of one image.

    :param broken: number of the layer that gets one byte changed after its digest was taken.
    """
    diff_ids = [digest(data) for data in layers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["/a"], "Labels": {"tier": "web"}},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": f"step {at}"} for at in range(len(layers))],
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    ).encode()
    members = {_blob(config): config}
    for number, data in enumerate(layers):
        # A file's first byte, after the tar header.
        changed = data[:512] + bytes([data[512] ^ 1]) + data[513:] if number == broken else data
        members[f"blobs/sha256/{diff_ids[number].removeprefix('sha256:')}"] = changed
    manifest = [{"Config": _blob(config), "RepoTags": list(tags) or None, "Layers": [_blob(data) for data in layers]}]
    members["manifest.json"] = json.dumps(manifest).encode()
    return _tar(members)


def digest(data: bytes) -> str:
    """Return ``sha256:<hex>`` of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _blob(data: bytes) -> str:
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"


def _tar(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o755
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
