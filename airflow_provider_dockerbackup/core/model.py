# SPDX-License-Identifier: Apache-2.0
"""What Docker hosts tell us, as values.

Times are aware UTC, sizes are bytes, digests are ``sha256:<hex>``. ``inspect`` documents are kept whole: the
configuration in them is needed for restores and must not be narrowed to what today's engines write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self

JsonObject = Mapping[str, Any]

Store = Literal["graphdriver", "containerd"]
Consistency = Literal["snapshot", "pause", "none"]
# What left members out of an archive on the host: a shell script, or nothing there could.
FilteredBy = Literal["sh", "none"]
# What of an archive for a load is compressed with zstd: nothing, all of it as a series of frames, or each layer in it.
Packing = Literal["none", "frames", "blobs"]

# The time 0 in UTC, as Go and JSON write it.
EPOCH = "1970-01-01T00:00:00Z"


class SourceKind(StrEnum):
    """What a backup is taken of."""

    IMAGE = "image"
    CONTAINER = "container"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """A Docker daemon: its version and how it stores images.

    :param version: engine version such as ``20.10.24``.
    :param api_version: newest API version it speaks.
    :param store: ``containerd`` when images live in the containerd image store, else ``graphdriver``.
    :param storage_driver: name of the storage driver or snapshotter.
    :param engine_id: the daemon's own identifier; says whether two connections reach the same daemon.
    :param data_root: directory in which the daemon keeps its data, on the host.
    :param epoch: the time 0 as its host writes it in its own time zone, such as ``1970-01-01T01:00:00+01:00``; names in
        archives of engines before 25.0 depend on it.
    """

    version: str
    api_version: str
    store: Store
    storage_driver: str
    os: str
    architecture: str
    engine_id: str
    data_root: str
    epoch: str = EPOCH

    @property
    def tells_manifests(self) -> bool:
        """Whether it keeps images by their manifests and shows these (API 1.48, engine 28)."""
        found = re.match(r"(\d+)\.(\d+)", self.api_version, re.ASCII)
        return self.store == "containerd" and found is not None and (int(found[1]), int(found[2])) >= (1, 48)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInspect:
    """One image as ``docker image inspect`` shows it.

    :param id: the engine's ``.Id``: the configuration's digest on graphdriver stores, a manifest's or index's digest
        on the containerd store; to be compared within one host only.
    :param diff_ids: sha256 of each uncompressed layer, lowest first: the same on every engine.
    :param size_bytes: the engine's ``.Size``; engines count differently, so it only sizes progress bars.
    :param config: the ``.Config`` object.
    :param document: the whole inspect document.
    """

    id: str
    diff_ids: tuple[str, ...]
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    created: str
    os: str
    architecture: str
    variant: str
    size_bytes: int
    config: JsonObject
    document: JsonObject

    @property
    def has_index(self) -> bool:
        """Whether the engine says that its ID is that of an index; those before 28 do not say."""
        descriptor = self.document.get("Descriptor")
        kind = str(descriptor.get("mediaType")) if isinstance(descriptor, dict) else ""
        return kind.endswith((".index.v1+json", ".list.v2+json"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageManifest:
    """One manifest of those that an image's index names, or the one that an image is known by.

    :param digest: ``sha256:<hex>`` of it.
    :param kind: ``platform`` for the image as it is for one platform, ``attestation`` for what is said of such a one.
    :param platform: ``os/architecture[/variant]``; empty for an attestation, and where the index does not say.
    :param whole: whether the engine has it and all that it names.
    """

    digest: str
    kind: Literal["platform", "attestation"]
    platform: str
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerInspect:
    """One container as ``docker container inspect`` shows it.

    :param status: ``created``, ``running``, ``paused``, ``restarting``, ``removing``, ``exited`` or ``dead``.
    :param image_id: the ``.Id`` of the image it was created from.
    :param config: the ``.Config`` object; secret-bearing (environment).
    :param document: the whole inspect document; secret-bearing.
    """

    id: str
    name: str
    status: str
    image_id: str
    image_reference: str
    created: str
    started_at: str
    finished_at: str
    config: JsonObject
    mounts: tuple[JsonObject, ...]
    document: JsonObject

    @classmethod
    def of(cls, document: JsonObject) -> Self:
        """Return a container from its inspect document."""
        state = document.get("State") or {}
        config = document.get("Config") or {}
        return cls(
            id=str(document.get("Id") or ""),
            name=str(document.get("Name") or "").removeprefix("/"),
            status=str(state.get("Status") or ""),
            image_id=str(document.get("Image") or ""),
            image_reference=str(config.get("Image") or ""),
            created=str(document.get("Created") or ""),
            started_at=str(state.get("StartedAt") or ""),
            finished_at=str(state.get("FinishedAt") or ""),
            config=config,
            mounts=tuple(document.get("Mounts") or ()),
            document=document,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a container of a test daemon may do; it never has a network, a capability or a way to new privileges.

    :param read_only: whether its filesystem is; ``/tmp``, ``/run`` and volumes can be written all the same.
    :param memory_bytes: limit of memory and swap together.
    :param pids: limit of processes and threads.
    :param nano_cpus: limit of processor time, in billionths of a processor.
    """

    read_only: bool
    memory_bytes: int
    pids: int
    nano_cpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningContainer:
    """A started container of a test daemon.

    :param health: ``starting``, ``healthy`` or ``unhealthy``; None when the image has no HEALTHCHECK.
    :param out_of_memory: whether the kernel ended it for its memory.
    """

    running: bool
    exit_status: int
    health: str | None = None
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLine:
    """One line of an image's history, newest last, as its configuration holds it.

    :param created_by: the command that made the layer.
    :param empty_layer: whether the step changed only the configuration.
    """

    created: str
    created_by: str
    comment: str
    author: str
    empty_layer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSummary:
    """One image in a listing.

    :param reference: ``name:tag``, or the ID when the image has no tag.
    """

    reference: str
    id: str
    created: str
    size_bytes: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSummary:
    """One container in a listing.

    :param image: the image it was created from, as it was named then.
    :param image_id: its ``.Id``.
    """

    name: str
    id: str
    image: str
    image_id: str
    state: str
    created: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedImage:
    """What an engine said it loaded.

    :param names: tags (``name:tag``) and IDs (``sha256:…``) named in its output.
    :param output: the engine's output, one line an item; never to be compared literally.
    """

    names: tuple[str, ...]
    output: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One object in a repository's storage.

    :param path: path relative to the repository's root, ``/``-separated.
    :param modified: the storage's own time of the last write, aware UTC.
    """

    path: str
    size_bytes: int
    modified: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedCommit:
    """An image committed while its container was paused.

    :param pause_seconds: how long we paused it, as the host measured; None when we did not: it did not run, or somebody
        else had paused it.
    """

    image_id: str
    pause_seconds: float | None
