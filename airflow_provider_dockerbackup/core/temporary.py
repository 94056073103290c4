# SPDX-License-Identifier: Apache-2.0
"""Temporary images and containers on a Docker host: their names, and how they go, by whoever is left to remove them.

A name says which work made it and when it expires, so that the next run of that work, or any run after that time, can
tell what is nobody's any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError, NotFoundError, TransientError

TEMPORARY = "dockerbackup-temporary"
TEMPORARY_MESSAGE = "temporary, for an export"
_NAME = re.compile(rf"{TEMPORARY}[:-](?P<work>[0-9a-f]{{16}})-(?P<unique>[0-9a-f]{{12}})-(?P<expires>\d{{10,11}})")


def temporary_tag(work: str, unique: str, *, expires: int) -> str:
    """Return the tag of a temporary image.

    :param work: first 16 hex of the idempotency key.
    :param unique: 12 hex of this try.
    :param expires: seconds since 1970 by the host's clock, after which it is nobody's.
    """
    return f"{TEMPORARY}:{work}-{unique}-{expires}"


def is_temporary_of(image: str, unique: str) -> bool:
    """Tell whether an image is the temporary one of a try, and nobody else's.

    :param unique: 12 hex of that try.
    """
    match = _NAME.fullmatch(image)
    return match is not None and image.startswith(f"{TEMPORARY}:") and match["unique"] == unique


def container_of(image: str) -> str:
    """Return the name of the container that is made from a temporary image."""
    return image.replace(":", "-")


@contextmanager
def temporary_objects(host: DockerHost, image: str, progress: Progress) -> Iterator[None]:
    """Read from a temporary container; the host removes it at the end, or we do when its stream never began."""
    with discarded_on_failure(host, image, progress), unless_taken_away(host, image):
        yield


@contextmanager
def discarded_on_failure(host: DockerHost, image: str | None, progress: Progress) -> Iterator[None]:
    """Remove a temporary image and its container when the body raises; None stands for none."""
    try:
        yield
    except BaseException:
        if image is not None:
            discard(host, image, progress)
        raise


@contextmanager
def unless_taken_away(host: DockerHost, image: str) -> Iterator[None]:
    """Make it worth a retry when another try of the same work, or somebody, removed what a snapshot just made."""
    try:
        yield
    except NotFoundError as err:
        raise TransientError(
            f"{image} or its container on {host.name} was removed while it was exported, perhaps by another try of "
            f"the same task; try again ({err})"
        ) from err


def discard(host: DockerHost, image: str, progress: Progress) -> None:
    """Remove a temporary image and its container, and never hide why they are not needed any more."""
    container = container_of(image)
    try:
        host.remove_container(container)
        host.remove_image(image)
    except DockerBackupError as err:
        progress.note(f"{container} or {image} stays on {host.name} for the next run to remove: {err}")


def remove_temporary(host: DockerHost, *, work: str, progress: Progress) -> None:
    """Remove temporary containers and images that earlier tries of the same work, or any expired try, left on a host.

    :param work: first 16 hex of the idempotency key.
    """
    now = host.now()
    try:
        for container in host.list_containers():
            if _is_left(container.name, work, now):
                host.remove_container(container.name)
                progress.note(f"removed {container.name} that an earlier try left on {host.name}")
        for image in host.list_images():
            if _is_left(image.reference, work, now):
                host.remove_image(image.reference)
                progress.note(f"removed {image.reference} that an earlier try left on {host.name}")
    except (NotFoundError, ConflictError) as err:
        # Another task on this host removed or used something while we listed; what it leaves goes with the next run.
        progress.note(f"temporary objects on {host.name} were not all looked at: {err}")


def _is_left(name: str, work: str, now: datetime) -> bool:
    match = _NAME.fullmatch(name)
    return match is not None and (match["work"] == work or int(match["expires"]) < now.timestamp())
