# SPDX-License-Identifier: Apache-2.0
"""What the Docker command line client prints, read: pure functions of bytes.

Shell start-up files on a host may print text before a command's own output; it is skipped where the output can be told
from it, else the error says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_provider_dockerbackup.core.archive.manifests import manifest_of
from airflow_provider_dockerbackup.core.archive.wire import Descriptor, parse
from airflow_provider_dockerbackup.core.model import (
    EPOCH,
    ContainerInspect,
    ContainerSummary,
    EngineInfo,
    FilteredBy,
    HistoryLine,
    ImageInspect,
    ImageManifest,
    ImageSummary,
    LoadedImage,
    Store,
)
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, IntegrityError

_SHOWN_BYTES = 200
_DOCUMENT = re.compile(r"[\[{\"]")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}", re.ASCII)
_PAUSED = re.compile(rb"^dockerbackup: paused from ([0-9.]+) to ([0-9.]+)$", re.MULTILINE)
_FILTERED = re.compile(rb"^dockerbackup: filtered by (sh|none)$", re.MULTILINE)
_FILTERS: dict[bytes, FilteredBy] = {b"sh": "sh", b"none": "none"}
_LOCAL_TIME = re.compile(r"^(19(?:69|70)-\d\d-\d\dT\d\d:\d\d:\d\d)([+-]\d\d)(\d\d)$", re.MULTILINE | re.ASCII)
_LOADED = re.compile(r"Loaded image(?: ID)?: (\S+)")
_NO_NAME = "<none>"
# Names that an image has while it is pushed to us.
_PUSHED = re.compile(
    r"127\.0\.0\.1:[0-9]+/dockerbackup/[^:@/]+(?::[a-z0-9]+_[0-9]+_[0-9]+_[0-9]+|@sha256:[0-9a-f]{64})", re.ASCII
)
_ZERO_SIZES = frozenset({"0", "0B", ""})
# Dockerfile steps that write files, as the classic builder and BuildKit put them into `created_by`.
_CLASSIC_NOP = "/bin/sh -c #(nop)"
_LAYER_STEPS = ("COPY", "ADD", "RUN", "WORKDIR", "/bin/sh", "|")


def json_array(stdout: bytes) -> list[dict[str, Any]]:
    """Return the objects of the array that ``docker … inspect`` prints.

    :raises ConfigurationError: when there is no such array.
    """
    lines = stdout.decode("utf-8", "replace").splitlines(keepends=True)
    for index, line in enumerate(lines):
        if line.startswith("["):
            array = _parsed("".join(lines[index:]))
            if isinstance(array, list) and all(isinstance(item, dict) for item in array):
                return array
    raise _unreadable(stdout)


def json_lines(stdout: bytes) -> list[dict[str, Any]]:
    """Return the objects that a ``{{json .}}`` template prints, one a line; an empty output holds none.

    :raises ConfigurationError: when other text stands where an object should.
    """
    lines = [line for line in stdout.decode("utf-8", "replace").splitlines() if line.strip()]
    first = next((index for index, line in enumerate(lines) if isinstance(_parsed(line), dict)), len(lines))
    if first == len(lines) and lines:
        raise _unreadable(stdout)
    objects = [_parsed(line) for line in lines[first:]]
    if not all(isinstance(item, dict) for item in objects):
        raise _unreadable(stdout)
    return objects


def json_object(stdout: bytes) -> dict[str, Any]:
    """Return the one object that a ``{{json .}}`` template prints.

    :raises ConfigurationError: when there is none.
    """
    objects = json_lines(stdout)
    if not objects:
        raise _unreadable(stdout)
    return objects[-1]


def ids(stdout: bytes) -> tuple[str, ...]:
    """Return the IDs printed one a line, each once, in order; other lines are skipped."""
    words = (line.strip() for line in stdout.decode("utf-8", "replace").splitlines())
    return tuple(dict.fromkeys(word for word in words if _ID.fullmatch(word)))


def last_id(stdout: bytes) -> str:
    """Return the ID that a command printed last.

    :raises ConfigurationError: when it printed none.
    """
    found = ids(stdout)
    if not found:
        raise _unreadable(stdout)
    return found[-1]


def moment(stdout: bytes) -> datetime:
    """Return the time that ``date`` printed last, aware UTC.

    :raises ConfigurationError: when it printed none.
    """
    for line in reversed(stdout.decode("utf-8", "replace").splitlines()):
        try:
            return datetime.strptime(line.strip(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            continue
    raise _unreadable(stdout)


def epoch(stdout: bytes) -> str:
    """Return the time 0 that ``date`` printed last, as Go writes it; in UTC when it printed none."""
    found = _LOCAL_TIME.findall(stdout.decode("utf-8", "replace"))
    if not found:
        return EPOCH
    local, hours, minutes = found[-1]
    return EPOCH if (hours[1:], minutes) == ("00", "00") else f"{local}{hours}:{minutes}"


def engine(*, version: Mapping[str, Any], info: Mapping[str, Any]) -> EngineInfo:
    """Return the daemon's description from the objects of ``docker version`` and ``docker info``.

    :raises DockerBackupError: when the daemon's half is missing.
    """
    server = version.get("Server")
    if not isinstance(server, dict) or not info.get("ServerVersion"):
        raise DockerBackupError("the Docker client answered without the daemon's version")
    driver = str(info.get("Driver") or "")
    return EngineInfo(
        version=str(info["ServerVersion"]),
        api_version=str(server.get("ApiVersion") or ""),
        store=_store(driver, info.get("DriverStatus")),
        storage_driver=driver,
        os=str(info.get("OSType") or server.get("Os") or ""),
        architecture=str(server.get("Arch") or info.get("Architecture") or ""),
        engine_id=str(info.get("ID") or ""),
        data_root=str(info.get("DockerRootDir") or ""),
    )


def only_image(stdout: bytes) -> ImageInspect:
    """Return the one image that ``docker image inspect`` printed.

    :raises ConfigurationError: when it printed something else.
    """
    documents = json_array(stdout)
    if len(documents) != 1:
        raise _unreadable(stdout)
    return image(documents[0])


def only_container(stdout: bytes) -> ContainerInspect:
    """Return the one container that ``docker container inspect`` printed.

    :raises ConfigurationError: when it printed something else.
    """
    documents = json_array(stdout)
    if len(documents) != 1:
        raise _unreadable(stdout)
    return ContainerInspect.of(documents[0])


def image(document: Mapping[str, Any]) -> ImageInspect:
    """Return an image from its inspect document."""
    return ImageInspect(
        id=str(document.get("Id") or ""),
        diff_ids=_strings((document.get("RootFS") or {}).get("Layers")),
        repo_tags=_names(document.get("RepoTags")),
        repo_digests=_names(document.get("RepoDigests")),
        created=str(document.get("Created") or ""),
        os=str(document.get("Os") or ""),
        architecture=str(document.get("Architecture") or ""),
        variant=str(document.get("Variant") or ""),
        size_bytes=int(document.get("Size") or 0),
        config=document.get("Config") or {},
        document=document,
    )


def image_manifests(answer: bytes) -> tuple[ImageManifest, ...]:
    """Return the manifests of an image from an engine's answer; nothing when it is no such answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    document = _parsed(body.decode("utf-8", "replace"))
    if not re.match(rb"HTTP/1\.[01] 200 ", head[head.rfind(b"HTTP/1.") :]) or not isinstance(document, dict):
        return ()
    try:
        return tuple(
            manifest_of(parse(Descriptor, each["Descriptor"], where="Descriptor"), whole=bool(each["Available"]))
            for each in document.get("Manifests") or ()
        )
    except (IntegrityError, KeyError, TypeError):
        return ()


def image_summaries(documents: Iterable[Mapping[str, Any]]) -> tuple[ImageSummary, ...]:
    """Return a listing of images, one item a tag; an image without a tag stands once, under its ID."""
    found: dict[tuple[str, str], ImageSummary] = {}
    for one in map(image, documents):
        for reference in one.repo_tags or (one.id,):
            found[reference, one.id] = ImageSummary(
                reference=reference,
                id=one.id,
                created=one.created,
                size_bytes=one.size_bytes,
                labels=_labels(one.config),
            )
    return tuple(found.values())


def container_summaries(documents: Iterable[Mapping[str, Any]]) -> tuple[ContainerSummary, ...]:
    """Return a listing of containers."""
    return tuple(
        ContainerSummary(
            name=one.name,
            id=one.id,
            image=one.image_reference,
            image_id=one.image_id,
            state=one.status,
            created=one.created,
            labels=_labels(one.config),
        )
        for one in map(ContainerInspect.of, documents)
    )


def history(lines: Sequence[Mapping[str, Any]], *, layers: int) -> tuple[HistoryLine, ...]:
    """Return an image's history, oldest first.

    The client prints neither authors nor which steps have a layer. A step with a size has one; of the others as many
    as the image still has layers for are taken to have one, those that look like it first. The archive of the image
    knows both for certain.

    :param lines: what ``docker history`` printed, newest first.
    :param layers: how many layers the image has.
    """
    oldest_first = list(reversed(lines))
    empty = _empty_steps(oldest_first, layers=layers)
    return tuple(
        HistoryLine(
            created=str(line.get("CreatedAt") or ""),
            created_by=str(line.get("CreatedBy") or ""),
            comment=str(line.get("Comment") or ""),
            author="",
            empty_layer=index in empty,
        )
        for index, line in enumerate(oldest_first)
    )


def loaded(stdout: bytes, stderr: bytes = b"") -> LoadedImage:
    """Return what ``docker load`` said it loaded."""
    lines = tuple(line for line in (stdout + b"\n" + stderr).decode("utf-8", "replace").splitlines() if line.strip())
    return LoadedImage(names=tuple(match[1] for line in lines if (match := _LOADED.search(line))), output=lines)


def _empty_steps(lines: Sequence[Mapping[str, Any]], *, layers: int) -> frozenset[int]:
    no_size = [index for index, line in enumerate(lines) if str(line.get("Size") or "") in _ZERO_SIZES]
    spare = layers - (len(lines) - len(no_size))
    likely_first = sorted(no_size, key=lambda index: not _looks_like_layer(str(lines[index].get("CreatedBy") or "")))
    return frozenset(likely_first[max(spare, 0) :])


def _looks_like_layer(created_by: str) -> bool:
    if created_by.startswith(_CLASSIC_NOP):
        return created_by.removeprefix(_CLASSIC_NOP).lstrip().startswith(("COPY", "ADD", "WORKDIR"))
    return not created_by or created_by.startswith(_LAYER_STEPS)


def _store(driver: str, status: object) -> Store:
    """Tell the containerd image store, which shows itself in the driver's status only, from the classic one."""
    rows = status if isinstance(status, list) else []
    types = [str(row[1]) for row in rows if isinstance(row, list) and len(row) == 2 and row[0] == "driver-type"]
    return (
        "containerd"
        if any(text.startswith("io.containerd.snapshotter") for text in (driver, *types))
        else "graphdriver"
    )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _labels(config: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in (config.get("Labels") or {}).items()}


def _strings(values: object) -> tuple[str, ...]:
    return tuple(str(value) for value in values) if isinstance(values, list) else ()


def _names(values: object) -> tuple[str, ...]:
    """Return tags or digests without the placeholders that some engines write for none, and without those of a push."""
    return tuple(value for value in _strings(values) if _NO_NAME not in value and not _PUSHED.fullmatch(value))


def _unreadable(stdout: bytes) -> ConfigurationError:
    """Say that output could not be read, and how it begins: but nothing of a document, which may hold secrets."""
    before = _DOCUMENT.split(stdout[:_SHOWN_BYTES].decode("utf-8", "replace"), maxsplit=1)[0].strip()
    begins = f", beginning with {before!a}" if before else ""
    return ConfigurationError(
        "the output of a Docker command could not be read: either it was cut, or the remote shell prints text before "
        f"command output ({len(stdout)} bytes came{begins}); "
        "keep start-up files such as ~/.bashrc silent for commands run through SSH"
    )


def pause_seconds(stderr: bytes) -> float | None:
    """Return how long a script of ours says that it paused a container; None when it says nothing of that."""
    told = _PAUSED.search(stderr)
    return None if told is None else round(float(told[2]) - float(told[1]), 2)


def filtered_by(stderr: bytes) -> FilteredBy | None:
    """Return what a script of ours says that it filtered an archive by; None when it says nothing of that."""
    told = _FILTERED.search(stderr)
    return None if told is None else _FILTERS[told[1]]
