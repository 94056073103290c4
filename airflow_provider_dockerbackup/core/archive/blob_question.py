# SPDX-License-Identifier: Apache-2.0
"""An image that names blobs and brings none, so that an engine says of each whether its store holds it.

Engines with the containerd image store say of every manifest that an image's index names whether they have all that it
names (API 1.48, ``GET /images/{name}/json?manifests=1``, ``Available``), and load an image of which they have little.
So each blob that is asked about gets a manifest of its own. These are manifests of an artifact (OCI image specification
v1.1, guidelines for artifact usage) for no platform: no engine unpacks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from airflow_provider_dockerbackup.core.archive.load_form import compact_json
from airflow_provider_dockerbackup.core.archive.oci_layout import (
    INDEX_TYPE,
    MANIFEST_TYPE,
    blob_member,
    check_digest,
    descriptor,
    oci_layout,
)
from airflow_provider_dockerbackup.core.archive.tar_header import ZERO_BLOCK, whole_file
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.model import ImageManifest
from airflow_provider_dockerbackup.exceptions import DockerBackupError

_ARTIFACT_TYPE = "application/vnd.dockerbackup.question.v1"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"
_BLOB_TYPE = "application/octet-stream"
_NO_PLATFORM = {"architecture": "unknown", "os": "unknown"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobQuestion:
    """What to load, and what the answer means.

    :param archive: for ``docker load``; it names no tag.
    :param image_id: the ID that the engine gives it: the digest of its index.
    :param blobs: the blob that each manifest asks about, by the manifest's digest.
    """

    archive: bytes
    image_id: str
    blobs: Mapping[str, str]

    def held(self, manifests: Iterable[ImageManifest]) -> frozenset[str]:
        """Return the digests of the blobs that the engine says it has.

        :param manifests: what the engine says of the loaded image.
        :raises DockerBackupError: when it does not speak of every one: somebody removed the image meanwhile.
        """
        whole = {each.digest: each.whole for each in manifests}
        if missing := self.blobs.keys() - whole.keys():
            raise DockerBackupError(
                f"the engine spoke of {len(self.blobs) - len(missing)} of {len(self.blobs)} blobs; was the image "
                f"{self.image_id} that asks about them removed meanwhile, by a prune or another restore?"
            )
        return frozenset(blob for digest, blob in self.blobs.items() if whole[digest])


def blob_question(sizes: Mapping[str, int]) -> BlobQuestion:
    """Return the question for some blobs; the same for the same ones, in any order.

    :param sizes: size of each blob in bytes, by its digest.
    :raises ConfigurationError: when a digest is not one.
    """
    blobs, manifests = {}, []
    for digest, size_bytes in sorted(sizes.items()):
        check_digest(digest)
        manifest = _manifest(descriptor(_BLOB_TYPE, digest, size_bytes))
        blobs[sha256_of(manifest)] = digest
        manifests.append(manifest)
    named = [_descriptor_of(MANIFEST_TYPE, each) | {"platform": _NO_PLATFORM} for each in manifests]
    index = _index(named)
    members = [blob_member(each) for each in (_EMPTY, *manifests, index)]
    members += [
        whole_file("oci-layout", oci_layout()),
        whole_file("index.json", _index([_descriptor_of(INDEX_TYPE, index)])),
        2 * ZERO_BLOCK,
    ]
    return BlobQuestion(archive=b"".join(members), image_id=sha256_of(index), blobs=blobs)


def _manifest(blob: dict[str, object]) -> bytes:
    return compact_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": _ARTIFACT_TYPE,
            "config": _descriptor_of(_EMPTY_TYPE, _EMPTY),
            "layers": [blob],
        }
    )


def _index(manifests: list[dict[str, object]]) -> bytes:
    return compact_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests})


def _descriptor_of(media_type: str, data: bytes) -> dict[str, object]:
    return descriptor(media_type, sha256_of(data), len(data))
