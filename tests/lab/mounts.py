# SPDX-License-Identifier: Apache-2.0
"""Find and undo mounts below a directory."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_ESCAPE = re.compile(rb"\\([0-7]{3})")
_MOUNT_POINT_FIELD = 4


def mounts_under(directory: Path) -> tuple[Path, ...]:
    """Give the mount points at or below a directory, the latest first.

    :param directory: an absolute path.
    """
    root = directory.resolve()
    found: list[Path] = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        escaped = line.split(b" ")[_MOUNT_POINT_FIELD]
        plain = _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), escaped)
        point = Path(plain.decode("utf-8", "surrogateescape"))
        if point.is_relative_to(root):
            found.append(point)
    return tuple(reversed(found))


def unmount_under(directory: Path) -> None:
    """Unmount everything at or below a directory; what is busy is detached.

    :param directory: an absolute path.
    """
    for point in mounts_under(directory):
        plain = subprocess.run(["umount", str(point)], check=False, capture_output=True)
        if plain.returncode != 0:
            subprocess.run(["umount", "--lazy", str(point)], check=False, capture_output=True)
