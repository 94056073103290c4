# SPDX-License-Identifier: Apache-2.0
"""The fidelity report: what a restore gives back, what it changes, and what is lost.

The rules are those measured of Docker itself: ``save``/``load`` keeps layers, history and configuration byte for
byte; ``export`` keeps one flat filesystem and nothing else, and ``container-<attempt>.json`` brings the configuration
back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Literal

from airflow_provider_dockerbackup.core.archive.docker_archive import ArchivedImage
from airflow_provider_dockerbackup.core.archive.rootfs import Rootfs
from airflow_provider_dockerbackup.core.configuration import IMAGE_KEYS, differences
from airflow_provider_dockerbackup.core.model import ContainerInspect, ImageInspect, ImageManifest
from airflow_provider_dockerbackup.core.record import (
    Capture,
    Configuration,
    Fidelity,
    FidelityItem,
    Image,
    OtherManifest,
)

TIMES_OF_DOCKER = (
    "/.dockerenv",
    "/dev",
    "/dev/console",
    "/etc",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
)
"""What Docker makes anew in every container: of all files, only the times of these differ after a restore."""

MANIFEST_DIGEST_LOST = FidelityItem(
    subject="identity",
    name="manifest digest",
    outcome="lost",
    reason="layers are compressed anew; configuration and diff_ids stay",
)
"""What layout ``layers`` does to every image."""

_EMPTIED = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


def image_fidelity(
    image: ArchivedImage,
    inspected: ImageInspect,
    configuration: Configuration,
    *,
    others: Sequence[OtherManifest] = (),
    stored_anew: bool = False,
) -> Fidelity:
    """Return the report of a saved image.

    :param image: as it came in the archive.
    :param inspected: as the host showed it.
    :param configuration: names and salted HMACs of the configuration that the host showed.
    :param others: what stood beside it under the same ID.
    :param stored_anew: whether its layers are kept compressed anew, as layout ``layers`` does.
    """
    items = [_item("layers", f"all {len(image.layers)}", "kept", "each compared by its digest")]
    items += _image_items(image.config, len(image.history), inspected, configuration)
    items += _other_items(others, own=_platform(inspected))
    if stored_anew:
        items.append(MANIFEST_DIGEST_LOST)
    return Fidelity(items=tuple(items))


def unread_fidelity(config: bytes, inspected: ImageInspect, configuration: Configuration) -> Fidelity:
    """Return the report of an image whose archive nobody has read but its host.

    :param config: the configuration in the archive.
    """
    layers = f"all {len(inspected.diff_ids)}"
    items = [_item("layers", layers, "kept", "as the host says; compared when a verification reads the archive")]
    items += _image_items(config, len(json.loads(config).get("history") or ()), inspected, configuration)
    return Fidelity(items=tuple(items))


def fidelity_in_layers(fidelity: Fidelity, image: Image) -> Fidelity:
    """Return the report of a saved image once layout ``layers`` keeps it; what was lost before stays lost.

    :param image: as it is in layout ``layers``.
    """
    beside = {"platforms", "attestations"}
    items = [each for each in fidelity.items if each.subject not in beside and each != MANIFEST_DIGEST_LOST]
    items += _other_items(image.others, own=_platform(image))
    return fidelity.model_copy(update={"items": (*items, MANIFEST_DIGEST_LOST)})


def _image_items(
    config: bytes, steps: int, inspected: ImageInspect, configuration: Configuration
) -> Iterator[FidelityItem]:
    yield _item("history", f"all {steps} steps", "kept")
    yield _item("identity", "configuration digest", "kept", "the same on every engine")
    yield _item(
        "identity", ".Id", "changed", "the same between classic stores; containerd stores name it by a manifest"
    )
    if inspected.document.get("Parent"):
        yield _item("identity", "Parent", "lost", "docker save leaves it out unless the parent is saved with it")
    for tag in inspected.repo_tags:
        yield _item("tags", tag, "changed", "in the record; put back on restore only when asked")
    for digest in inspected.repo_digests:
        yield _item("tags", digest, "changed", "in the record; shown again once the image is pulled or pushed")
    archived = json.loads(config).get("config") or {}
    other = set(differences(configuration, archived))
    for name in sorted(configuration.values.keys() | other):
        if name in other:
            yield _item("configuration", name, "changed", "the archive has another value than the host shows")
        else:
            yield _item("configuration", name, "kept")
    yield _item("files", "all attributes in the layers", "kept", "byte for byte")
    for path in sorted((inspected.config.get("Volumes") or {}).keys()):
        yield _item("mounts", str(path), "lost", "data of volumes lives outside of images")


def _platform(image: ImageInspect | Image) -> str:
    return "/".join(part for part in (image.os, image.architecture, image.variant) if part)


def _other_items(others: Sequence[OtherManifest], *, own: str) -> Iterator[FidelityItem]:
    """Yield what becomes of the manifests beside the image's own.

    :param own: the image's platform.
    """
    if any(each.kind == "platform" for each in others):
        yield _item("platforms", own, "kept", "the one that the host runs")
    for each in others:
        subject = "platforms" if each.kind == "platform" else "attestations"
        name = each.platform or each.digest
        if not each.whole:
            yield _item(subject, name, "lost", "its host did not have all of it")
        elif each.kept:
            yield _item(subject, name, "kept", "byte for byte")
        else:
            yield _item(subject, name, "lost", "layout 'layers' keeps the image for its host's platform alone")


def other_manifests(others: Sequence[ImageManifest], *, kept: bool) -> tuple[OtherManifest, ...]:
    """Return what a record says of the manifests beside the image's own.

    :param kept: whether what the host had of them is in the backup.
    """
    return tuple(
        OtherManifest(
            digest=each.digest, kind=each.kind, platform=each.platform, whole=each.whole, kept=kept and each.whole
        )
        for each in others
    )


def notes_on_others(others: Sequence[OtherManifest]) -> tuple[str, ...]:
    """Return what a record notes on those of them that are not in the backup."""
    notes = []
    for each in others:
        what = f"platform {each.platform}" if each.platform else each.kind
        why = "layout 'archive' would keep it" if each.whole else "its host did not have all of it"
        if not each.kept:
            notes.append(f"{what} (manifest {each.digest}) is not in this backup: {why}")
    return tuple(notes)


def container_fidelity(
    container: ContainerInspect, configuration: Configuration, *, capture: Capture, rootfs: Rootfs | None
) -> Fidelity:
    """Return the report of an exported container.

    :param configuration: names and salted HMACs of the container's configuration.
    :param capture: how it was taken.
    :param rootfs: what came; None when nobody but the host has read it.
    """
    return Fidelity(items=tuple(_container_items(container, configuration, capture, rootfs)))


def _container_items(
    container: ContainerInspect, configuration: Configuration, capture: Capture, rootfs: Rootfs | None
) -> Iterator[FidelityItem]:
    yield _item("layers", "all", "changed", "one flat filesystem remains")
    yield _item("history", "all", "lost", "an export has none")
    yield _item("identity", "image", "changed", "a restored image is a new one, of one layer")
    yield _item("tags", container.image_reference, "lost", "it stays the name of the image the container came from")
    for name in sorted(configuration.values):
        yield _item("configuration", name, "kept", "in the file beside the archive; a plain docker import loses it")
    for name in sorted(key for key, value in container.config.items() if value and key not in IMAGE_KEYS):
        yield _item("configuration", name, "changed", "given to a re-created container, not to a restored image")
    if rootfs is None:
        reason = "with owner, mode, links and time in seconds; compared when a verification reads the archive"
        yield _item("files", "all that the host exported", "kept", reason)
    for kind, count in sorted(rootfs.kinds.items()) if rootfs is not None else ():
        yield _item("files", f"{kind}: {count}", "kept", "with owner, mode, links and time in seconds")
    if rootfs is not None and rootfs.capabilities:
        yield _item("files", f"security.capability: {rootfs.capabilities}", "kept")
    yield _item("files", "other extended attributes", "lost", "docker export leaves them out: user.*, ACLs")
    yield _item("files", "fractions of a second in times", "lost", "docker export writes whole seconds")
    yield _item("files", "sockets", "lost", "a tar has no place for them")
    yield _item("files", "holes in sparse files", "changed", "docker export writes them as zeros")
    for path in TIMES_OF_DOCKER:
        reason = "Docker makes it anew in every container: its time"
        yield _item("files", path, "changed", f"{reason}, and it is empty" if path in _EMPTIED else reason)
    if capture == "crash":
        yield _item("files", "one moment", "lost", "the container wrote on during the export")
    for mount in container.mounts:
        yield _item("mounts", str(mount.get("Destination", "")), "lost", "an export has the mount point alone")


def _item(subject: str, name: str, outcome: Literal["kept", "changed", "lost"], reason: str = "") -> FidelityItem:
    return FidelityItem(subject=subject, name=name, outcome=outcome, reason=reason)
