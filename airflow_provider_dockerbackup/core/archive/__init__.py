# SPDX-License-Identifier: Apache-2.0
"""Archives: the strict tar scanner, and readers and writers of docker-archives and root filesystems."""

from __future__ import annotations

from airflow_provider_dockerbackup.core.archive.compression import Compression, compressor, decompressed
from airflow_provider_dockerbackup.core.archive.docker_archive import (
    ArchivedImage,
    ArchivedLayer,
    DecompressLimits,
    DockerArchive,
    DockerArchiveScanner,
    HistoryEntry,
    LayerConsumer,
    require_image,
)
from airflow_provider_dockerbackup.core.archive.load_form import retagged
from airflow_provider_dockerbackup.core.archive.rootfs import (
    Rootfs,
    RootfsScanner,
    image_config_from,
    one_layer_image,
)
from airflow_provider_dockerbackup.core.archive.tar import (
    MemberHandler,
    MemberKind,
    TarLimits,
    TarMember,
    TarScanner,
)

__all__ = [
    "ArchivedImage",
    "ArchivedLayer",
    "Compression",
    "DecompressLimits",
    "DockerArchive",
    "DockerArchiveScanner",
    "HistoryEntry",
    "LayerConsumer",
    "MemberHandler",
    "MemberKind",
    "Rootfs",
    "RootfsScanner",
    "TarLimits",
    "TarMember",
    "TarScanner",
    "compressor",
    "decompressed",
    "image_config_from",
    "one_layer_image",
    "require_image",
    "retagged",
]
