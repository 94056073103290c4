# SPDX-License-Identifier: Apache-2.0
"""Names on a host: images that were asked for, those that keep what stood there, and what we make for ourselves."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator
from itertools import count
from typing import Literal

from airflow_provider_dockerbackup.core.model import ImageInspect
from airflow_provider_dockerbackup.core.places import BACKUP_ID
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.reference import ImageReference
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    DockerBackupError,
    NotFoundError,
    TransientError,
)

_OWN_CONTAINER = re.compile(
    r"dockerbackup-temporary-[0-9a-f]{16}-[0-9a-f]{12}-\d{10,11}"
    rf"|dockerbackup-(?:restored|rollback)-{BACKUP_ID.pattern}-[0-9a-f]{{8}}"
    rf"|.+-dockerbackup-(?:new|failed)-{BACKUP_ID.pattern}",
    re.ASCII,
)

_CONTAINER_BEFORE = re.compile(rf"(?P<name>.+)-before-(?P<backup_id>{BACKUP_ID.pattern})", re.ASCII)


def is_own_container(name: str) -> bool:
    """Tell whether a container is one that a capture, rollback or restore made for itself, by the whole of its name.

    Its labels are those of what it was made from. One that is merely called ``dockerbackup-agent`` is somebody's.
    """
    return _OWN_CONTAINER.fullmatch(name) is not None


def container_before(name: str, backup_id: str) -> str:
    """Return the name under which a restore keeps the container that it replaces."""
    return f"{name}-before-{backup_id}"


def replaced_container(name: str) -> tuple[str, str] | None:
    """Return what a name of :func:`container_before` was made of; None for any other name."""
    found = _CONTAINER_BEFORE.fullmatch(name)
    return (found["name"], found["backup_id"]) if found is not None else None


def whole_tag(text: str, *, parameter: str) -> str:
    """Return ``NAME:TAG`` as Docker shows it.

    :raises ConfigurationError: names the parameter, when it is anything else.
    """
    parsed = ImageReference.parse(text)
    if not parsed.tag or parsed.digest:
        raise ConfigurationError(f"{parameter}: expected NAME:TAG, got {text!r}")
    return str(parsed)


def standing(tag: str, host: DockerHost) -> ImageInspect | None:
    """Return the image that ``tag`` stands for on a host, or None."""
    try:
        return host.inspect_image(tag)
    except NotFoundError:
        return None


def before_names(tag: str, backup_id: str, *, moving: Collection[str]) -> Iterator[str]:
    """Yield the names under which the image that ``tag`` stood for can be kept, best first, without end.

    :param moving: tags that are about to stand for another image: none of them keeps anything.
    """
    first = _before_name(tag, backup_id)
    return (name for number in count(1) if (name := first + (f"-{number}" if number > 1 else "")) not in moving)


def is_before_name(name: str, *, tag: str, backup_id: str) -> bool:
    """Tell whether a name is one of :func:`before_names`."""
    return re.fullmatch(re.escape(_before_name(tag, backup_id)) + r"(?:-\d+)?", name, re.ASCII) is not None


def _before_name(tag: str, backup_id: str) -> str:
    return re.sub(r":[^:/]*$", "", tag) + f":before-{backup_id}"


class WorkingName:
    """The name under which one try loads an image, for ``docker load`` takes tags from other images without asking.

    :param prefix: repository part of the name; nobody else uses it.
    """

    def __init__(self, prefix: str, backup_id: str) -> None:
        self._stem = f"{prefix}:{backup_id}-"
        self.tag = self._stem + secrets.token_hex(4)

    @property
    def container(self) -> str:
        """Name of the container that shows that the image is unpacked."""
        return self.tag.replace(":", "-")

    def remove(self, host: DockerHost, progress: Progress) -> None:
        """Take the name from the host; a failure of that is told to the reader, unless it was never made."""
        try:
            host.remove_image(self.tag)
        except DockerBackupError as err:
            if stays := self._stays(host, err):
                progress.note(f"the name {self.tag} {stays} on {host.name}: {err}")

    def _stays(self, host: DockerHost, err: DockerBackupError) -> Literal["stays", "may stay", ""]:
        """Return what is known of the name after its removal failed; empty when the host does not have it."""
        if isinstance(err, TransientError):
            return "may stay"
        try:
            return "stays" if standing(self.tag, host) is not None else ""
        except DockerBackupError:
            return "may stay"

    def remove_left(
        self, host: DockerHost, progress: Progress, *, image: ImageInspect, containers: bool = False
    ) -> None:
        """Take names and containers of killed tries from an image that has another name by now; not our own name.

        A try of the same backup that is at work right now may lose its name by this; when tried again it finds the
        work done.

        :param image: as it is now.
        :param containers: whether such tries make containers.
        """
        left = re.compile(re.escape(self._stem) + r"[0-9a-f]{8}")
        try:
            for container in host.list_containers() if containers else ():
                if left.fullmatch(container.image) and container.name == container.image.replace(":", "-"):
                    host.remove_container(container.name)
            for tag in image.repo_tags:
                if tag != self.tag and left.fullmatch(tag):
                    host.remove_image(tag)
        except DockerBackupError as err:
            progress.note(f"names of killed tries may stay on {host.name}: {err}")
