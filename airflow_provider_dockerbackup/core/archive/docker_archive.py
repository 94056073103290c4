# SPDX-License-Identifier: Apache-2.0
"""What one ``docker save`` stream holds, and the gate that only a whole image passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow_provider_dockerbackup.core.archive.completeness import image_in
from airflow_provider_dockerbackup.core.archive.contents import ContentsCollector
from airflow_provider_dockerbackup.core.archive.image import ArchivedImage, ArchivedLayer, DockerArchive, HistoryEntry
from airflow_provider_dockerbackup.core.archive.layer_reader import DecompressLimits, LayerConsumer
from airflow_provider_dockerbackup.core.archive.tar import TarLimits, TarScanner
from airflow_provider_dockerbackup.exceptions import IntegrityError

__all__ = [
    "ArchivedImage",
    "ArchivedLayer",
    "DecompressLimits",
    "DockerArchive",
    "DockerArchiveScanner",
    "HistoryEntry",
    "LayerConsumer",
    "require_image",
]


class DockerArchiveScanner:
    """Reads one docker-archive as it streams by, in flat memory, each byte hashed once.

    The ``content_digest`` is ``sha256:`` and the hex SHA-256 of this sequence: for each member in order, its header
    blocks with their extension payloads and padding as they stand in the stream, and then, for a regular file, the 32
    bytes of the SHA-256 of its body in place of body and padding; at the end, everything from the first of the two
    zero blocks on. Padding is left out because it must be zero and its length follows from the size. So every byte of
    the stream is covered, and bodies, by far the most of it, are hashed a single time.

    :param max_total_bytes: length above which the stream is refused; None for any.
    :param decompress_limits: how far compressed layers may grow.
    :param layers: is handed what layers hold, uncompressed, while they stream by.
    :param held: the diff_ids of layers that may be missing because they are held already, by the names of the members
        that were left out. What is in the stream all the same is looked at as strictly as without.
    """

    def __init__(
        self,
        *,
        max_total_bytes: int | None = None,
        decompress_limits: DecompressLimits | None = None,
        layers: LayerConsumer | None = None,
        held: Mapping[str, str] | None = None,
    ) -> None:
        self._held = dict(held or {})
        self._collector = ContentsCollector(decompress_limits or DecompressLimits(), layers=layers)
        limits = TarLimits(total_bytes=max_total_bytes)
        self._tar = TarScanner(self._collector, limits=limits, framing=self._collector.framing)

    def feed(self, chunk: bytes | memoryview) -> None:
        """Scan the next piece, of any length; 1 MiB is a good one.

        :raises IntegrityError: as soon as a member is not what engines write.
        """
        self._tar.feed(chunk)

    def finish(self) -> DockerArchive:
        """Return what the archive holds, once the stream is over.

        :raises IncompleteError: when something was left out that is not the layer it was taken for.
        :raises IntegrityError: when the tar was cut short, or the image in it is not whole.
        """
        self._tar.finish()
        return DockerArchive(
            image=image_in(self._collector.contents, held=self._held),
            size_bytes=self._tar.total_bytes,
            content_digest=self._collector.content_digest,
        )


def require_image(archive: DockerArchive, *, image_id: str, diff_ids: Sequence[str]) -> None:
    """Return only if the archive holds exactly the image that ``docker image inspect`` announced.

    :param archive: what was received.
    :param image_id: ``.Id`` that inspect gave.
    :param diff_ids: ``.RootFS.Layers`` that inspect gave.
    :raises IntegrityError: when it is another image.
    """
    image = archive.image
    if image_id not in image.image_ids:
        raise IntegrityError(
            f"the archive holds image {image.config_digest}, not {image_id} that was asked for; "
            "was the image replaced during the save?"
        )
    if tuple(diff_ids) != image.diff_ids:
        raise IntegrityError(
            f"the archive holds layers {', '.join(image.diff_ids) or 'none'}, "
            f"the engine announced {', '.join(diff_ids) or 'none'}"
        )
