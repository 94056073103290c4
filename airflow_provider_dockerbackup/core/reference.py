# SPDX-License-Identifier: Apache-2.0
"""Names that Docker gives to images and containers, checked by Docker's own grammar.

Nothing that did not pass through here reaches a remote command line. The grammar of references is that of
``distribution/reference`` (``[domain/]path[:tag][@digest]``), that of container names is moby's
``[a-zA-Z0-9][a-zA-Z0-9_.-]+``. No value it accepts can begin with ``-``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_provider_dockerbackup.exceptions import ConfigurationError

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<repository>(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}", re.ASCII)
_MAX_REPOSITORY = 255
_MAX_REFERENCE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """One image by name, or by ID.

    :param repository: repository without tag, ``[domain/]path``; empty when the image is named by its ID.
    :param tag: tag, empty when there is a digest or an ID instead.
    :param digest: registry digest ``sha256:<hex>``, or the image ID when ``repository`` is empty.
    """

    repository: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Return the reference that ``text`` names; a bare repository gets the tag ``latest``.

        A bare repository would make ``docker save`` write all of its tags, hence the tag. A bare ID must carry its
        ``sha256:`` (the containerd store does not accept it without).

        :param text: ``name[:tag][@digest]`` or ``sha256:<64 hex>``.
        :raises ConfigurationError: when Docker's grammar does not accept it.
        """
        if not isinstance(text, str):
            raise ConfigurationError(f"image reference: expected a text such as NAME:TAG, got {text!r}")
        if _IMAGE_ID.fullmatch(text):
            return cls(repository="", tag="", digest=text)
        match = _REFERENCE.fullmatch(text) if len(text) <= _MAX_REFERENCE else None
        if match is None or len(match["repository"]) > _MAX_REPOSITORY:
            raise ConfigurationError(
                f"image reference {shown(text)} is not one Docker accepts; "
                "write NAME[:TAG][@sha256:…] in lower case, or sha256:<64 hex digits>"
            )
        if re.fullmatch(r"[0-9a-f]{64}", match["repository"]):
            raise ConfigurationError(f"image reference {shown(text)} is a bare ID; write it as sha256:{text}")
        digest = match["digest"] or ""
        tag = match["tag"] or ("" if digest else "latest")
        return cls(repository=match["repository"], tag=tag, digest=digest)

    def __str__(self) -> str:
        """Return the reference as the Docker command line takes it."""
        if not self.repository:
            return self.digest
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


def container_name(text: str) -> str:
    """Return ``text`` when it is a container's name or ID, as given.

    :raises ConfigurationError: when Docker's grammar does not accept it.
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"container name: expected a text, got {text!r}")
    if _CONTAINER_NAME.fullmatch(text) is None:
        raise ConfigurationError(
            f"container name {shown(text)} is not one Docker accepts; "
            "use letters, digits, '_', '.' and '-', beginning with a letter or digit, at least two characters"
        )
    return text


def image_id(text: str) -> str:
    """Return ``text`` when it is a full image ID ``sha256:<64 hex>``.

    :raises ConfigurationError: when it is anything else.
    """
    if _IMAGE_ID.fullmatch(text) is None:
        raise ConfigurationError(f"{shown(text)} is not an image ID; expected sha256:<64 hex digits>")
    return text


def shown(text: str) -> str:
    """Return ``text`` quoted and short enough for a message, control characters escaped."""
    return ascii(text if len(text) <= 120 else text[:117] + "...")
