# SPDX-License-Identifier: Apache-2.0
"""The JSON documents inside of archives, read so that no engine can read them differently.

Formats: docker image specification v1.2 (``manifest.json``, image configuration) and OCI image specification v1.1
(index, manifest, descriptor). Go matches keys without regard to case and lets the last one win; documents that rely on
either are refused.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from airflow_provider_dockerbackup.core.document import explain
from airflow_provider_dockerbackup.exceptions import IntegrityError

Digest = Annotated[str, Field(pattern=re.compile(r"\Asha256:[0-9a-f]{64}\Z"))]
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]", re.ASCII)
_Model = TypeVar("_Model", bound="Wire")


class Wire(BaseModel):
    """A document of an engine: known fields checked strictly, unknown ones passed over."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_spellings(cls, value: Any) -> Any:
        if isinstance(value, dict):
            known = {(field.alias or name).casefold(): field.alias or name for name, field in cls.model_fields.items()}
            for key in value:
                if known.get(key.casefold(), key) != key:
                    raise ValueError(f"key {key!r} is another spelling of {known[key.casefold()]!r}")
        return value


class ManifestEntry(Wire):
    """One image in ``manifest.json``."""

    config: str = Field(alias="Config")
    repo_tags: list[str] | None = Field(default=None, alias="RepoTags")
    layers: list[str] | None = Field(alias="Layers")


class Platform(Wire):
    """Platform of a descriptor."""

    architecture: str = ""
    os: str = ""
    variant: str = ""

    def __str__(self) -> str:
        """Return ``os/architecture[/variant]``."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(Wire):
    """A reference to a blob."""

    digest: Digest
    size: int = Field(ge=0)
    media_type: str = Field(default="", alias="mediaType")
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class OciManifest(Wire):
    """An image manifest, or an attestation in the shape of one."""

    config: Descriptor
    layers: list[Descriptor] | None = None


class OciIndex(Wire):
    """An image index; 25.0 wrote ``"manifests": null`` for images saved by digest (moby 47210)."""

    manifests: list[Descriptor] | None


class RootFs(Wire):
    """The layers of a configuration."""

    type: str
    diff_ids: list[Digest] | None


class History(Wire):
    """One step in the history of a configuration."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class ImageConfig(Wire):
    """What is read of an image configuration."""

    rootfs: RootFs
    history: list[History] | None = None


def strict_json(data: bytes, *, where: str) -> Any:
    """Return the JSON value in ``data``: UTF-8, no key twice, no NaN, no half of a surrogate pair.

    :param where: what to name in messages.
    :raises IntegrityError: when it is anything else.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        if _SURROGATE.search(text) is not None:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as err:
        raise IntegrityError(f"{where} is not JSON as engines write it: {err}") from err


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def parse(model: type[_Model], value: Any, *, where: str) -> _Model:
    """Return ``value`` as ``model``.

    :raises IntegrityError: naming ``where`` and the field.
    """
    try:
        return model.model_validate(value)
    except ValidationError as err:
        raise IntegrityError(f"{where} is not as engines write it: {explain(err)}") from err
