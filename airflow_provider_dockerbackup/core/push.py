# SPDX-License-Identifier: Apache-2.0
"""The port through which an engine's push reaches a repository, and what implementations MUST do.

An engine that pushes an image asks for each blob whether it is there, sends those that are not, several at once, then
the manifests, the image's own last. :mod:`airflow_provider_dockerbackup.transport.registry` speaks that protocol with
it and calls a :class:`PushTarget`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from airflow_provider_dockerbackup.core.reference import image_id as checked_image_id
from airflow_provider_dockerbackup.exceptions import ConfigurationError

_ATTEMPT = re.compile(r"[a-z0-9]{1,40}", re.ASCII)
_COMPONENT = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", re.ASCII)
_MAX_COMPONENT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedManifest:
    """A manifest, or an index of manifests, to the byte as the engine wrote it.

    :param media_type: its ``Content-Type``.
    """

    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of its bytes: the name it has in a registry."""
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"


class BlobUpload(Protocol):
    """One blob on its way in: a layer, compressed as the engine likes, or a configuration.

    Used by one thread at a time, though not always by the same one.
    """

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``; MAY block, which slows the engine down.

        :raises TransientError: when the storage is full or fails.
        """

    def finish(self, digest: str) -> None:
        """Keep the blob, which the engine calls ``digest``; it counts as pushed from now on.

        Called at most once, with nothing after it but :meth:`abort`.

        :raises IntegrityError: when its bytes have another digest, or cannot be read; nothing was kept.
        """

    def abort(self) -> None:
        """Release everything; a blob that was not finished leaves nothing behind.

        Always called, last; safe at any time, any number of times, also while another method raises.
        """


class PushTarget(Protocol):
    """Where one push of one image goes; alive for that push only.

    MUST be safe to call from several threads at once: engines send up to five blobs side by side (more, if their
    administrator says so). What any method raises ends the push, except for an ``IntegrityError`` of a blob, which the
    engine may send again.
    """

    def blob_size(self, digest: str) -> int | None:
        """Return the size, in bytes, of the blob that the engine calls ``digest``, if it need not be sent; else None.

        The size is that of the engine's own, compressed form: it goes into the manifest. A wrong size makes a manifest
        that no engine accepts; when it is not known, return None. MUST know what was finished in this push.
        """

    def upload(self) -> BlobUpload:
        """Begin a blob."""

    def manifest(self, reference: str, *, media_type: str, data: bytes) -> None:
        """Take a manifest or an index; everything it names was finished or asked for before, as a rule.

        :param reference: its digest; or the attempt's name for the image itself, which comes last.
        :param media_type: ``Content-Type`` as the engine gave it.
        :param data: at most 4 MiB.
        :raises IntegrityError: when it cannot be read, or is not what it should be.
        :raises NotFoundError: when it names a blob or a manifest that is not there and is needed.
        """

    def manifest_of(self, reference: str) -> PushedManifest | None:
        """Return what was put under ``reference``, by either name, or None; engines ask before and after they put."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """What an engine pushed.

    :param manifest: what it put under the attempt's name: the image's manifest, or an index.
    :param received_bytes: what came over the link for it: blobs, manifests and the requests around them.
    :param uploaded_blobs: how many blobs were sent.
    :param uploaded_bytes: what they hold, as they were sent.
    """

    manifest: PushedManifest
    received_bytes: int
    uploaded_blobs: int
    uploaded_bytes: int


def check_names(image_id: str, *, repository: str, attempt: str) -> None:
    """Refuse what cannot be part of the name of an image that is pushed.

    :param image_id: full ID of the image.
    :param repository: one component of a registry's name, by the grammar of the distribution specification.
    :param attempt: lower-case letters and digits, at most 40.
    :raises ConfigurationError: says which one, and what is expected.
    """
    checked_image_id(image_id)
    if _COMPONENT.fullmatch(repository) is None or len(repository) > _MAX_COMPONENT:
        raise ConfigurationError(
            f"repository: expected lower-case letters and digits, with single '.', '_' or '-' between them, at most "
            f"{_MAX_COMPONENT} characters, got {repository[:120]!a}"
        )
    if _ATTEMPT.fullmatch(attempt) is None:
        raise ConfigurationError(f"attempt: expected lower-case letters and digits, at most 40, got {attempt[:120]!a}")
