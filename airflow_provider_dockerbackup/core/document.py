# SPDX-License-Identifier: Apache-2.0
"""Documents that are kept for years: versioned, canonical JSON that refuses what it does not understand.

A reader refuses an unknown major version, keeps fields it does not know, and names the field when a value is wrong.
Bytes are RFC 8785 canonical JSON, so that the same document always has the same digest.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self

import rfc8785
from pydantic import AwareDatetime, BaseModel, ConfigDict, PlainSerializer, ValidationError

from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError

_DOCUMENT_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_COMPACT_TIME = "%Y%m%dT%H%M%SZ"
_COMPACT_TIME_FRACTION = "%Y%m%dT%H%M%S.%fZ"


def utc_text(moment: datetime) -> str:
    """Return ``moment`` as RFC 3339 in UTC with microseconds."""
    return moment.astimezone(UTC).strftime(_DOCUMENT_TIME)


def compact_time(moment: datetime, *, fraction: bool = False) -> str:
    """Return ``moment`` in UTC as it stands in names, ``20261123T210400Z``; sorts as text.

    :param fraction: add microseconds, for names that must differ.
    """
    return moment.astimezone(UTC).strftime(_COMPACT_TIME_FRACTION if fraction else _COMPACT_TIME)


def time_of(text: str) -> datetime:
    """Return the moment that :func:`compact_time` wrote without a fraction.

    :raises ValueError: when it is none.
    """
    return datetime.strptime(text, _COMPACT_TIME).replace(tzinfo=UTC)


UtcTime = Annotated[AwareDatetime, PlainSerializer(utc_text, return_type=str)]


def sha256_of(data: bytes) -> str:
    """Return ``sha256:<hex>`` of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Part(BaseModel):
    """A part of a document: frozen, and unknown fields are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")


class _Version(BaseModel):
    """All that every document has, whatever wrote it."""

    schema_version: str = "1.0"


class Document(Part):
    """A whole document. Subclasses say which major version they read.

    :param schema_version: ``major.minor``; a higher minor adds fields only.
    """

    MAJOR: ClassVar[int] = 1

    schema_version: str = "1.0"

    def to_bytes(self) -> bytes:
        """Return the canonical JSON.

        :raises ConfigurationError: when a value has no canonical form, such as text that is not Unicode.
        """
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Self:
        """Return the document that ``data`` holds.

        :param where: path to name in messages.
        :raises IntegrityError: when it is not JSON, a field is wrong, or the major version is not known.
        """
        try:
            document = cls.model_validate_json(data)
        except ValidationError as err:
            # What a newer release wrote need not have the fields of ours: then its version is what is wrong.
            cls._check_version(_version_in(data), where=where)
            raise IntegrityError(f"{where} is not a readable {cls.__name__}: {explain(err)}") from err
        cls._check_version(document.schema_version, where=where)
        return document

    @classmethod
    def _check_version(cls, version: str, *, where: str) -> None:
        if version.split(".", maxsplit=1)[0] != str(cls.MAJOR):
            raise IntegrityError(
                f"{where}: schema_version: expected {cls.MAJOR}.x, got {version!r}; "
                "it was written by a newer release of airflow-provider-dockerbackup, use that one to read it"
            )


def _version_in(data: bytes) -> str:
    """Return the version of a document that cannot be read otherwise; ours when that cannot be told either."""
    try:
        return _Version.model_validate_json(data).schema_version
    except ValidationError:
        return f"{Document.MAJOR}.0"


def canonical_json(value: Any) -> bytes:
    """Return ``value`` as RFC 8785 canonical JSON.

    :raises ConfigurationError: when it has no canonical form.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as err:
        raise ConfigurationError(f"a document cannot be written as canonical JSON: {err}") from err


def explain(err: ValidationError) -> str:
    """Return the first few problems, each as ``field.path: what is wrong, got value``."""
    problems = []
    for problem in err.errors(include_url=False)[:3]:
        field = ".".join(str(step) for step in problem["loc"]) or "document"
        problems.append(f"{field}: {problem['msg']}, got {str(problem.get('input'))[:80]!r}")
    return "; ".join(problems)
