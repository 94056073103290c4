# SPDX-License-Identifier: Apache-2.0
"""The names of layers in archives that engines before 25.0 write: ``<v1 id>/layer.tar``.

A v1 id is the SHA-256 of a JSON object: the layer's chain id (OCI image specification v1.1, "Layer ChainID"), the v1
id below it, and an image without content of the time 0; for the top layer the image itself (moby ``image/v1``,
``CreateID``; Docker 1.10 to 24.0). So each id stands for exactly one series of diff_ids, and all can be computed
beforehand. The time 0 is written in the daemon's time zone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_dockerbackup.core.model import JsonObject

# `container_config` of an image without content, as Go writes it.
_EMPTY_CONFIG = (
    '{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,'
    '"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"",'
    '"Entrypoint":null,"OnBuild":null,"Labels":null}'
)
# Keys of the image in the top layer's id, by those of `docker image inspect`; these are left out when empty.
_TOP_KEYS = {
    "Comment": "comment",
    "Container": "container",
    "DockerVersion": "docker_version",
    "Author": "author",
    "Config": "config",
    "Architecture": "architecture",
    "Variant": "variant",
    "Os": "os",
}
# Go escapes what could end a script in a page, and until 1.21 had no short form for two control characters.
_UNSAFE = {"&": r"\u0026", "<": r"\u003c", ">": r"\u003e", "\u2028": r"\u2028", "\u2029": r"\u2029"}
_SHORT = {r"\b": r"\u0008", r"\f": r"\u000c"}
_ESCAPED = re.compile(r"\\.|[&<>\u2028\u2029]")


def legacy_names(document: JsonObject, diff_ids: Sequence[str], *, epoch: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each layer's member and its diff_id, lowest first; for the top layer there may be two names.

    :param document: the ``docker image inspect`` document of the image.
    :param epoch: the time 0 as the daemon writes it.
    """
    below = ""
    for diff_id, chain_id in zip(diff_ids[:-1], chain_ids(diff_ids)[:-1], strict=True):
        below = _v1_id({"created": _go_json(epoch), "container_config": _EMPTY_CONFIG}, chain_id, below=below)
        yield f"{below}/layer.tar", diff_id
    for top in _tops(document) if diff_ids else ():
        yield f"{_v1_id(top, chain_ids(diff_ids)[-1], below=below)}/layer.tar", diff_ids[-1]


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """Return what identifies each layer together with those below it."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(_sha256(f"{chain[-1]} {diff_id}") if chain else diff_id)
    return tuple(chain)


def _tops(document: JsonObject) -> Iterator[dict[str, str]]:
    """Yield the images that ``inspect`` may describe: it shows the last step's comment when the image has none."""
    top = {key: _go_json(document[shown]) for shown, key in _TOP_KEYS.items() if document.get(shown) not in (None, "")}
    top["created"] = _go_json(document.get("Created") or "0001-01-01T00:00:00Z")
    config = document.get("ContainerConfig")
    top["container_config"] = _EMPTY_CONFIG if config is None else _go_json(config)
    yield top
    if "comment" in top:
        yield {key: value for key, value in top.items() if key != "comment"}


def _v1_id(image: Mapping[str, str], chain_id: str, *, below: str) -> str:
    """Return the hex digits of one id; Go sorts the keys of a map and leaves those of a struct in their order."""
    parts = {**image, "layer_id": _go_json(chain_id)}
    if below:
        parts["parent"] = _go_json(f"sha256:{below}")
    whole = ",".join(f"{_go_json(key)}:{parts[key]}" for key in sorted(parts))
    return _sha256(f"{{{whole}}}").removeprefix("sha256:")


def _sha256(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _go_json(value: Any) -> str:
    """Return JSON as Go's ``encoding/json`` writes it, keys in the order given."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return _ESCAPED.sub(lambda match: _UNSAFE.get(match[0]) or _SHORT.get(match[0]) or match[0], text)
