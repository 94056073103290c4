# SPDX-License-Identifier: Apache-2.0
"""What dead tries left in a repository on local disk."""

from __future__ import annotations

from pathlib import Path


def leftovers(repository: Path) -> list[Path]:
    """Return the folders of backups that have no record, and archives beside the one that a record can name."""
    found = []
    for backup in sorted(repository.glob("backups/*/*/*")):
        archives = sorted(path for path in backup.iterdir() if path.suffix != ".json")
        found += archives[1:] if (backup / "backup.json").exists() else [backup]
    return found
