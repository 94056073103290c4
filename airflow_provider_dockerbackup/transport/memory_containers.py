# SPDX-License-Identifier: Apache-2.0
"""Containers of the in-memory twin of a Docker host: what stands under which name, and in which state."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_dockerbackup.core.ports import Clock
from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError, NotFoundError
from airflow_provider_dockerbackup.transport.memory_images import MemoryImage

# What engines say of a moment that has not come.
_NEVER = "0001-01-01T00:00:00Z"


@dataclass(slots=True, kw_only=True)
class MemoryContainer:
    """A container of a twin: its inspect document and its filesystem as a tar."""

    id: str
    name: str
    document: dict[str, Any]
    filesystem: bytes | None

    @property
    def state(self) -> dict[str, Any]:
        """Its ``.State``, which a change of it changes."""
        found: dict[str, Any] = self.document["State"]
        return found

    @property
    def status(self) -> str:
        """Its ``.State.Status``."""
        return str(self.state["Status"])


@dataclass(slots=True, kw_only=True)
class MemoryContainers:
    """Containers by name, as a daemon keeps them.

    :param host: the host's name, for messages.
    :param clock: the host's clock.
    """

    host: str
    clock: Clock
    by_name: dict[str, MemoryContainer] = field(default_factory=dict)

    def add(
        self,
        name: str,
        *,
        image: MemoryImage,
        reference: str,
        filesystem: bytes | None,
        status: str,
        config: Mapping[str, Any],
    ) -> str:
        """Keep a container and return its ID.

        :param reference: how the image was called.
        :param config: keys of its ``.Config`` that differ from the image's.
        :raises ConflictError: when the name is taken.
        """
        self._require_free(name)
        container_id = secrets.token_hex(32)
        document: dict[str, Any] = {
            "Id": container_id,
            "Name": f"/{name}",
            "Created": self._now(),
            "Image": image.id,
            "State": {
                "Status": status,
                "Running": status == "running",
                "StartedAt": _NEVER if status == "created" else self._now(),
                "FinishedAt": self._now() if status in {"exited", "dead"} else _NEVER,
            },
            "Config": {**image.config, "Image": reference, **config},
            "HostConfig": {"NetworkMode": "none"},
            "Mounts": [],
        }
        self.by_name[name] = MemoryContainer(id=container_id, name=name, document=document, filesystem=filesystem)
        return container_id

    def find(self, name: str) -> MemoryContainer:
        """Return the container of that name or ID.

        :raises NotFoundError: when there is none.
        """
        for container in self.by_name.values():
            if name in {container.name, container.id}:
                return container
        raise NotFoundError(f"no such container on {self.host}: {name}")

    def filesystem(self, name: str) -> bytes:
        """Return a container's filesystem as a tar.

        :raises DockerBackupError: when the twin was given none.
        """
        filesystem = self.find(name).filesystem
        if filesystem is None:
            raise DockerBackupError(
                f"the twin knows no filesystem of {name}: give one to add_container(), or use an image with one layer"
            )
        return filesystem

    def carrying(self, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the inspect documents of those that carry all ``labels``, sorted by name."""
        for _, container in sorted(self.by_name.items()):
            if carries(container.document["Config"], labels):
                yield container.document

    def users_of(self, image_id: str) -> tuple[str, ...]:
        """Return the names of those that were created from an image."""
        return tuple(each.name for each in self.by_name.values() if each.document["Image"] == image_id)

    def start(self, name: str) -> None:
        """Start a container; one that runs is no error."""
        found = self.find(name)
        if found.status != "running":
            found.state.update(Status="running", Running=True, StartedAt=self._now())

    def stop(self, name: str) -> None:
        """Stop a container; one that was never started stays as it is."""
        found = self.find(name)
        if found.status != "created":
            found.state.update(Status="exited", Running=False, FinishedAt=self._now())

    def rename(self, name: str, *, to: str) -> None:
        """Give a container another name.

        :raises ConflictError: when the name is taken, also by itself.
        """
        found = self.find(name)
        self._require_free(to)
        del self.by_name[found.name]
        found.name = to
        found.document["Name"] = f"/{to}"
        self.by_name[to] = found

    def remove(self, name: str) -> None:
        """Remove a container that is not running; one that is not there is no error.

        :raises ConflictError: when it runs.
        """
        try:
            found = self.find(name)
        except NotFoundError:
            return
        if found.status in {"running", "paused", "restarting"}:
            raise ConflictError(f"container {name} on {self.host} runs; stop it first")
        del self.by_name[found.name]

    def _require_free(self, name: str) -> None:
        if name in self.by_name:
            raise ConflictError(f"the name {name} is already in use by a container on {self.host}")

    def _now(self) -> str:
        return self.clock.now().isoformat()


def carries(config: Mapping[str, Any], labels: Sequence[str]) -> bool:
    """Tell whether a configuration has all ``labels``, ``key`` or ``key=value`` each."""
    have = config.get("Labels") or {}
    for label in labels:
        key, has_value, value = label.partition("=")
        if key not in have or (has_value and have[key] != value):
            return False
    return True
