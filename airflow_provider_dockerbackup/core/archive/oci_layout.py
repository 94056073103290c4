# SPDX-License-Identifier: Apache-2.0
"""The documents of an OCI image layout as we write them (OCI image specification v1.1); always the same bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.contents import BLOBS
from airflow_provider_dockerbackup.core.archive.load_form import compact_json, name_annotations, tag_references
from airflow_provider_dockerbackup.core.archive.tar_header import whole_file
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.exceptions import ConfigurationError

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_LAYER_TYPES: Final = {
    Compression.NONE: _LAYER_TYPE,
    Compression.GZIP: f"{_LAYER_TYPE}+gzip",
    Compression.ZSTD: f"{_LAYER_TYPE}+zstd",
}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerName:
    """The name by which a manifest calls a layer: the blob that holds it.

    :param digest: ``sha256:<hex>`` of the blob.
    :param size_bytes: of the blob.
    :param compression: how it holds the layer.
    """

    digest: str
    size_bytes: int
    compression: Compression

    @classmethod
    def plain(cls, diff_id: str, size_bytes: int) -> Self:
        """Return that of an uncompressed layer."""
        return cls(digest=diff_id, size_bytes=size_bytes, compression=Compression.NONE)

    @classmethod
    def stored(cls, digest: str, size_bytes: int) -> Self:
        """Return that of a blob of a repository."""
        return cls(digest=digest, size_bytes=size_bytes, compression=Compression.ZSTD)

    @property
    def descriptor(self) -> dict[str, Any]:
        """The OCI descriptor."""
        return descriptor(_LAYER_TYPES[self.compression], self.digest, self.size_bytes)


def descriptor(media_type: str, digest: str, size_bytes: int, **extra: Any) -> dict[str, Any]:
    """Return an OCI descriptor (OCI image specification v1.1)."""
    return {"mediaType": media_type, "digest": digest, "size": size_bytes, **extra}


def image_manifest(config: bytes, names: Iterable[LayerName]) -> bytes:
    """Return the OCI manifest of an image; the same arguments always give the same bytes.

    :param config: its configuration.
    :param names: the blobs that are its layers, lowest first.
    """
    return compact_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, sha256_of(config), len(config)),
            "layers": [each.descriptor for each in names],
        }
    )


def image_index(manifest: bytes, *, tags: Sequence[str]) -> bytes:
    """Return the ``index.json`` that names one manifest, once for each of ``tags``."""
    named = [{"annotations": name_annotations(tag)} for tag in tag_references(tags)] or [{}]
    manifests = [descriptor(MANIFEST_TYPE, sha256_of(manifest), len(manifest), **extra) for extra in named]
    return compact_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests})


def oci_layout() -> bytes:
    """Return the file that marks a folder as an OCI image layout."""
    return compact_json({"imageLayoutVersion": "1.0.0"})


def plain_manifest(config: bytes, layers: Iterable[tuple[str, int]]) -> bytes:
    """Return the manifest that the archive names the image by; containerd stores take its digest for ``.Id``.

    :param layers: diff_id and size of each uncompressed layer, lowest first.
    """
    return image_manifest(config, [LayerName.plain(*each) for each in layers])


def stored_manifest(config: bytes, blobs: Iterable[tuple[str, int]]) -> bytes:
    """Return the manifest of an image whose layers are blobs of a repository.

    :param blobs: digest and size of each blob, lowest layer first.
    """
    return image_manifest(config, [LayerName.stored(*each) for each in blobs])


def blob_member(body: bytes) -> bytes:
    """Return the member of an OCI layout that holds ``body``."""
    return whole_file(BLOBS + sha256_of(body)[7:], body)


def check_digest(diff_id: str) -> None:
    """Return only if ``diff_id`` is a digest.

    :raises ConfigurationError: when it is not ``sha256:`` and 64 hex digits.
    """
    if _DIGEST.fullmatch(diff_id) is None:
        raise ConfigurationError(f"diff_id {diff_id!r:.100}: expected sha256:<64 hex digits>")
