# SPDX-License-Identifier: Apache-2.0
"""What a docker-archive holds, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.model import ImageManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedLayer:
    """One layer of the image, proven to have its diff_id.

    :param diff_id: ``sha256:<hex>`` of the uncompressed layer, as the configuration names it.
    :param member: name of the member that holds it, links resolved.
    :param digest: ``sha256:<hex>`` of that member's body.
    :param size_bytes: uncompressed size.
    :param stored_size_bytes: size of the member's body.
    :param compression: how it is stored.
    :param held: True when it was left out of the archive because it is held elsewhere. Then the digest is the one in
        the member's name, or the diff_id where that is no digest; the sizes are 0 and the compression is none, for
        nothing was seen of it.
    """

    diff_id: str
    member: str
    digest: str
    size_bytes: int
    stored_size_bytes: int
    compression: Compression
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One step in an image's history, oldest first (docker image specification v1.2, ``history``).

    :param created: time as the engine wrote it, RFC 3339; None when it wrote none.
    :param created_by: command of the step.
    :param author: author of the step.
    :param comment: comment of the step, such as the message of a commit.
    :param empty_layer: True when the step made no layer.
    """

    created: str | None
    created_by: str
    author: str
    comment: str
    empty_layer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedImage:
    """The one image in an archive, whole.

    :param config: the configuration's bytes; they may hold secrets.
    :param config_digest: ``sha256:<hex>`` of them; the image's identity on every engine.
    :param diff_ids: its layers' digests, lowest first.
    :param layers: its layers, lowest first; the same member twice where a layer comes twice.
    :param repo_tags: ``name:tag`` as in ``manifest.json``.
    :param image_ids: every digest that an engine can mean by ``.Id`` of this image: that of the configuration, and
        those of the manifests and indexes that lead to it.
    :param history: its history, oldest first; empty when the configuration has none.
    :param format: ``oci`` when there is an ``index.json``, else ``docker``.
    :param notes: what is not as it could be and yet no defect.
    :param others: the manifests that indexes name beside the image's own: of other platforms, and attestations.
    """

    config: bytes
    config_digest: str
    diff_ids: tuple[str, ...]
    layers: tuple[ArchivedLayer, ...]
    repo_tags: tuple[str, ...]
    image_ids: frozenset[str]
    history: tuple[HistoryEntry, ...]
    format: Literal["docker", "oci"]
    notes: tuple[str, ...]
    others: tuple[ImageManifest, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerArchive:
    """One ``docker save`` stream, read to its end.

    :param image: what it holds.
    :param size_bytes: length of the uncompressed stream.
    :param content_digest: digest over the stream, see :class:`DockerArchiveScanner`.
    """

    image: ArchivedImage
    size_bytes: int
    content_digest: str
