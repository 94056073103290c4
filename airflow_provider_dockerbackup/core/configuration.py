# SPDX-License-Identifier: Apache-2.0
"""Configurations of images and containers, by name and by salted HMAC: drift can be proven, nothing leaks."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_dockerbackup.core.document import canonical_json
from airflow_provider_dockerbackup.core.model import JsonObject
from airflow_provider_dockerbackup.core.record import Configuration, UncoveredMount

# The keys of ``.Config`` that make up an image's configuration (image-spec 1.1 config.md, and Docker's additions).
IMAGE_KEYS = (
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
)


def configuration_of(config: JsonObject, *, salt: bytes) -> Configuration:
    """Return names and salted HMACs of a ``.Config`` object; empty values count as absent, as engines disagree there.

    :param config: the ``.Config`` object of an inspect document.
    :param salt: random bytes, kept in the result.
    """
    values = {name: _hmac(salt, value) for name, value in _flat(config)}
    return Configuration(salt=salt.hex(), values=values)


def differences(recorded: Configuration, config: JsonObject) -> tuple[str, ...]:
    """Return the names whose value in ``config`` is not the recorded one, sorted; values are never shown."""
    salt = bytes.fromhex(recorded.salt)
    found = {name: _hmac(salt, value) for name, value in _flat(config)}
    return tuple(
        sorted(name for name in found.keys() | recorded.values.keys() if found.get(name) != recorded.values.get(name))
    )


def _flat(config: JsonObject) -> Iterable[tuple[str, Any]]:
    """Yield ``(name, value)`` for every non-empty key; one item for each environment variable and label."""
    for key in IMAGE_KEYS:
        value = config.get(key)
        if not value:
            continue
        if key == "Env":
            for entry in value:
                name, _, text = str(entry).partition("=")
                yield f"Env.{name}", text
        elif isinstance(value, Mapping) and key in {"Labels", "ExposedPorts", "Volumes"}:
            for name, item in value.items():
                yield f"{key}.{name}", item
        else:
            yield key, value


def _hmac(salt: bytes, value: Any) -> str:
    return hmac.new(salt, canonical_json(value), hashlib.sha256).hexdigest()


def uncovered_mounts(mounts: Iterable[JsonObject]) -> tuple[UncoveredMount, ...]:
    """Return the volumes, binds and tmpfs of a container; ``docker export`` leaves only their empty mount points."""
    return tuple(
        UncoveredMount(
            type=str(mount.get("Type", "")),
            name=str(mount.get("Name") or mount.get("Source") or ""),
            destination=str(mount.get("Destination", "")),
        )
        for mount in mounts
    )


def declared_volumes(config: JsonObject) -> tuple[UncoveredMount, ...]:
    """Return the volumes that an image declares; their content lives outside of images."""
    return tuple(
        UncoveredMount(type="volume", destination=str(path)) for path in sorted((config.get("Volumes") or {}).keys())
    )
