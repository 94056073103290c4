# SPDX-License-Identifier: Apache-2.0
"""Under which names an engine will write the layers of an image, known before it writes them.

What is left out of a ``docker save`` by such a name can only be the layer that is meant: every one of these names is
made of a digest of it. A name that is not in the archive does no harm, for then the layer comes along.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal

from airflow_provider_dockerbackup.core.archive.contents import BLOBS
from airflow_provider_dockerbackup.core.archive.legacy_names import legacy_names
from airflow_provider_dockerbackup.core.model import EPOCH, EngineInfo, ImageInspect

_MAJOR = re.compile(r"v?(\d+)\.")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_OCI_SINCE = 25


def member_names(
    image: ImageInspect,
    *,
    engine: EngineInfo,
    held: Collection[str],
    hints: Mapping[str, Collection[str]] | None = None,
) -> dict[str, str]:
    """Return the names of members in which layers that are held may come, each with the layer's diff_id.

    :param image: what is to be saved.
    :param engine: the daemon that is to save it.
    :param held: diff_ids of layers that need not come; those of other images are passed over.
    :param hints: by diff_id, the digests (``sha256:<hex>``) under which this very daemon stores the layer; they matter
        for the containerd store, which keeps layers compressed.
    """
    needless = set(held) & set(image.diff_ids)
    names: dict[str, str] = {}
    contradicted: set[str] = set()
    for name, diff_id in _names(image, engine=engine, hints=hints or {}):
        if diff_id in needless and names.setdefault(name, diff_id) != diff_id:
            contradicted.add(name)
    return {name: diff_id for name, diff_id in names.items() if name not in contradicted}


def _names(
    image: ImageInspect, *, engine: EngineInfo, hints: Mapping[str, Collection[str]]
) -> Iterator[tuple[str, str]]:
    forms = archive_forms(engine)
    if "legacy" in forms:
        # The daemon may run in a container, and so in another time zone than its host.
        for epoch in dict.fromkeys((engine.epoch, EPOCH)):
            yield from legacy_names(image.document, image.diff_ids, epoch=epoch)
    if "oci" in forms:
        yield from _blobs((diff_id, diff_id) for diff_id in image.diff_ids)
    if engine.store == "containerd":
        yield from _blobs((digest, diff_id) for diff_id in image.diff_ids for digest in hints.get(diff_id, ()))


def archive_forms(engine: EngineInfo) -> tuple[Literal["legacy", "oci"], ...]:
    """Return the forms in which an engine may write archives: as all did before 25.0, or with blobs.

    The containerd store writes layers as they came: uncompressed ones, too, which then have their diff_id as name.
    """
    if engine.store == "containerd":
        return ("oci",)
    match = _MAJOR.match(engine.version)
    if match is None:
        return "legacy", "oci"
    return ("oci",) if int(match[1]) >= _OCI_SINCE else ("legacy",)


def _blobs(digests: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for digest, diff_id in digests:
        if _DIGEST.fullmatch(digest) is not None:
            yield BLOBS + digest.removeprefix("sha256:"), diff_id
