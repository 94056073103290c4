# SPDX-License-Identifier: Apache-2.0
"""The manifests that stand beside an image's own: of other platforms, and attestations.

An image index names them (OCI image specification v1.1); what makes one an attestation is BuildKit's annotation.
"""

from __future__ import annotations

from collections.abc import Iterable

from airflow_provider_dockerbackup.core.archive.wire import Descriptor
from airflow_provider_dockerbackup.core.model import ImageManifest

_SHOWN_CHARACTERS = 80
_ANNOTATION = "vnd.docker.reference.type"
_ATTESTATION = "attestation-manifest"


def manifest_of(descriptor: Descriptor, *, whole: bool) -> ImageManifest:
    """Return what an index's descriptor says of a manifest.

    :param whole: whether it and all that it names is there.
    """
    attests = (descriptor.annotations or {}).get(_ANNOTATION) == _ATTESTATION
    return ImageManifest(
        digest=descriptor.digest,
        kind="attestation" if attests else "platform",
        platform="" if attests else str(descriptor.platform or "")[:_SHOWN_CHARACTERS],
        whole=whole,
    )


def in_order(manifests: Iterable[ImageManifest]) -> tuple[ImageManifest, ...]:
    """Return each manifest once, platforms first, always in the same order."""
    unique = {each.digest: each for each in manifests}
    return tuple(sorted(unique.values(), key=lambda each: (each.kind != "platform", each.platform, each.digest)))
