# SPDX-License-Identifier: Apache-2.0
"""What makes two images the same, on one host: the engine's ID and the layers."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.model import ImageInspect


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageIdentity:
    """The identity of an image that a backup holds.

    :param ids: the ID that the engine showed, and the digest of the configuration.
    :param diff_ids: of its layers, lowest first.
    """

    ids: frozenset[str]
    diff_ids: tuple[str, ...]

    def is_of(self, image: ImageInspect) -> bool:
        """Tell whether an image of the same host is this one."""
        return image.id in self.ids and image.diff_ids == self.diff_ids


def held_by(backup: Backup) -> ImageIdentity | None:
    """Return the identity of the image that a backup stands for; None when the backup stands for nothing.

    One whose record is unreadable, whose bytes are not there with the recorded size, or whose last verification failed
    stands for nothing: the next save makes another.
    """
    record = backup.record
    if record is None or record.image is None or backup.trust == "failed" or not backup.complete:
        return None
    return ImageIdentity(ids=frozenset({record.image.id, record.image.config_digest}), diff_ids=record.image.diff_ids)
