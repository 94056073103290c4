# SPDX-License-Identifier: Apache-2.0
"""Configurations of images and containers, by name and by salted HMAC: drift can be proven, nothing leaks."""

from __future__ import annotations

import hashlib
import hmac
import re
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

# How the classic builder and BuildKit write a step that sets values; ``|2 A=x B=y`` are a step's build arguments.
_SETTING = re.compile(
    r"(?P<step>(?:/bin/sh -c #\(nop\)\s*)?(?:ENV|LABEL|ARG)\s+)(?P<name>[^\s=]*)(?P<rest>.*)", re.DOTALL
)
_ARGUMENTS = re.compile(r"(?P<run>(?:RUN )?\|\d+ )(?P<rest>.*)", re.DOTALL)
_SHELL = " /bin/sh -c "


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


def command_without_values(created_by: str) -> str:
    """Return the command of a history step without the values of environment, labels and build arguments.

    The first name stays; where one value ends and the next name begins cannot be told, so the rest goes. The archive
    keeps all of it.

    :param created_by: as in the image's history.
    """
    if setting := _SETTING.fullmatch(created_by):
        return f"{setting['step']}{setting['name']}{'=…' if setting['rest'] else ''}"
    if arguments := _ARGUMENTS.fullmatch(created_by):
        _, shell, command = arguments["rest"].rpartition(_SHELL)
        return f"{arguments['run']}…{shell}{command if shell else ''}"
    return created_by


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
