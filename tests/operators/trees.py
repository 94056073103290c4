# SPDX-License-Identifier: Apache-2.0
"""Two filesystems as tars, compared path by path."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import Any


def tree_differences(first: bytes, second: bytes) -> dict[str, tuple[str, ...]]:
    """Return by path, sorted, what differs: names of attributes, ``missing`` in the second, or ``new`` there."""
    one, other = _tree(first), _tree(second)
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted({*one, *other}):
        if path not in other:
            found[path] = ("missing",)
        elif path not in one:
            found[path] = ("new",)
        elif different := tuple(name for name in one[path] if one[path][name] != other[path][name]):
            found[path] = different
    return found


def _tree(data: bytes) -> dict[str, dict[str, Any]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {f"/{member.name.strip('/')}": _attributes(tar, member) for member in tar}


def _attributes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    file = tar.extractfile(member) if member.isreg() else None
    return {
        "type": member.type,
        "mode": member.mode & 0o7777,  # 20.10 writes the type there, too
        "owner": (member.uid, member.gid),
        "size": member.size,
        "time": member.mtime,
        "target": member.linkname,
        "device": (member.devmajor, member.devminor),
        "attributes": {name: value for name, value in member.pax_headers.items() if name.startswith("SCHILY.xattr.")},
        "content": hashlib.sha256(file.read()).hexdigest() if file is not None else "",
    }
