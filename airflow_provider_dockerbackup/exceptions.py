# SPDX-License-Identifier: Apache-2.0
"""Errors of this package, by what the reader must do.

A message says what failed, on which host, source and path, and what to do next; it never holds a secret.
Foreign exceptions are wrapped where they enter (``raise ... from err``), so callers meet only these.
"""

from __future__ import annotations


class DockerBackupError(Exception):
    """Root of every error this package raises on purpose."""


class TransientError(DockerBackupError):
    """The work may succeed when it is tried again: a lost link, a busy or restarting daemon, a full disk."""


class ConfigurationError(DockerBackupError):
    """Settings or arguments are wrong; trying again without changing them is of no use."""


class PushUnavailableError(ConfigurationError):
    """A host cannot push to us: sshd forbids the forwarding, or its engine cannot reach it. Saving works there."""


class IntegrityError(DockerBackupError):
    """Bytes are not what they must be. Nothing was published or deleted because of them; a human should look."""


class IncompleteError(IntegrityError):
    """What came lacks something that was left out on purpose, but wrongly; fetch it once more, leaving nothing out."""


class BadBlobError(IntegrityError):
    """A blob of a repository is not what its name or its record says; others may need it as well.

    :param digest: its name, ``sha256:<hex>``; empty when that is not known.
    """

    def __init__(self, message: str, *, digest: str = "") -> None:
        super().__init__(message)
        self.digest = digest


class NotFoundError(DockerBackupError):
    """A named image, container, backup or object is not there."""


class ConflictError(DockerBackupError):
    """Something else holds the name or did the same work first; nothing was overwritten."""


class StaleError(DockerBackupError):
    """A source has no backup that is fresh enough; nothing is wrong with those that are there."""


def problem_of(err: BaseException) -> str:
    """Return what an event says of an error: our text, but of a foreign one, which may hold anything, only its class.

    ``execution_timeout`` and a kill raise a BaseException; they are failures all the same.
    """
    return str(err) if isinstance(err, DockerBackupError) else type(err).__name__
