# SPDX-License-Identifier: Apache-2.0
"""The fidelity report: what a restore gives back, what it changes, and what is lost.

The rules are those measured of Docker itself: ``save``/``load`` keeps layers, history and configuration byte for
byte; ``export`` keeps one flat filesystem and nothing else, and ``container-<attempt>.json`` brings the configuration
back.
"""

from __future__ import annotations

from airflow_provider_dockerbackup.core.archive.docker_archive import ArchivedImage
from airflow_provider_dockerbackup.core.model import ContainerInspect
from airflow_provider_dockerbackup.core.record import Capture, Fidelity


def image_fidelity(image: ArchivedImage) -> Fidelity:
    """Return the report of a saved image."""
    kept = [f"layers: all {len(image.layers)}", f"history: all {len(image.history)} steps", "configuration"]
    return Fidelity(
        kept=tuple(kept),
        changed=("tags: in the record; put back on restore only when asked",),
        lost=("volume data",),
    )


def container_fidelity(container: ContainerInspect, *, capture: Capture) -> Fidelity:
    """Return the report of an exported container."""
    lost = [
        "layers: one flat filesystem remains",
        "history",
        "extended attributes other than security.capability",
        "fractions of a second in file times",
        "sockets",
    ]
    if container.mounts:
        lost.append(f"data of {len(container.mounts)} mounts")
    changed = ["sparse files are stored at full size", "/etc/hosts, /etc/hostname and /etc/resolv.conf are empty"]
    if capture == "crash":
        changed.append("files written during the export may disagree with each other")
    return Fidelity(
        kept=("files with owner, mode and time", "configuration, in the file beside the archive"),
        changed=tuple(changed),
        lost=tuple(lost),
    )
