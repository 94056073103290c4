# SPDX-License-Identifier: Apache-2.0
"""Configurations of images and containers, by name and by salted HMAC: drift can be proven, nothing leaks."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from airflow_provider_dockerbackup.core.archive.rootfs import image_config_from
from airflow_provider_dockerbackup.core.document import utc_text
from airflow_provider_dockerbackup.core.model import JsonObject
from airflow_provider_dockerbackup.core.record import Configuration, Engine, UncoveredMount

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

# How the classic builder (``/bin/sh -c #(nop)  ENV A=b``) and BuildKit (``ENV A=b``) write the step of an instruction.
_STEP = re.compile(
    r"(?:/bin/sh -c #\(nop\)\s*)?"
    r"(?P<instruction>ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL|STOPSIGNAL|USER"
    r"|VOLUME|WORKDIR)\b\s*(?P<name>[^\s=]*)(?P<rest>.*)",
    re.DOTALL,
)
_NAMING = frozenset({"ARG", "ENV", "LABEL"})
# A RUN of the classic builder; ``|2 A=x B=y`` are its build arguments.
_RUN = re.compile(r"(?:\|\d+ .*)?/bin/sh -c .*", re.DOTALL)


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
    # Not RFC 8785: a health check's nanoseconds may be beyond the 2^53 that it can carry.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()


def step_without_values(created_by: str) -> str:
    """Return what a history step is, without what may be secret: ``RUN``, ``COPY``, ``ENV PATH=…``.

    Commands and arguments carry tokens as often as environments do, and where one value of several ends cannot be
    told. The archive keeps all of it. What no builder wrote, such as the command line that ``docker commit`` puts
    there, becomes nothing.

    :param created_by: as in the image's history.
    """
    if step := _STEP.fullmatch(created_by):
        if step["instruction"] not in _NAMING:
            return str(step["instruction"])
        return f"{step['instruction']} {step['name']}{'=…' if step['rest'] else ''}"
    return "RUN" if _RUN.fullmatch(created_by) else ""


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


def filesystem_comment(container: str, backup_id: str) -> str:
    """Return what the history of a restored filesystem says of itself."""
    return f"exported from container {container}, backup {backup_id}"


def filesystem_config(document: JsonObject, *, engine: Engine, created: datetime, diff_id: str, comment: str) -> bytes:
    """Return the image configuration with which a container's filesystem is restored: always the same bytes.

    :param document: what ``container-<attempt>.json`` holds.
    :param engine: whence it was taken; its platform counts where the container's image is gone.
    :param created: time for the image.
    :param diff_id: ``sha256:<hex>`` of the filesystem's tar.
    :param comment: of its one step of history.
    """
    image = document.get("image") or {}
    return image_config_from(
        document["container"].get("Config") or {},
        architecture=str(image.get("Architecture") or engine.architecture),
        os=str(image.get("Os") or engine.os),
        variant=str(image.get("Variant") or ""),
        created=utc_text(created),
        diff_id=diff_id,
        comment=comment,
    )
