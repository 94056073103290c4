# SPDX-License-Identifier: Apache-2.0
"""One audit event, and where it stands in a repository.

An event's name is the sha256 of its bytes (RFC 8785 canonical JSON), so an edit shows, and writers need no lock.
Checkpoints stand under their number instead, so that of several writers one makes each; what names a checkpoint names
it by its digest, like any event.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from airflow_provider_dockerbackup.core.document import Document, Part, UtcTime, canonical_json

TRAIL = "audit"
CHECKPOINTS = "audit/checkpoints"
CHECKPOINT = "checkpoint"

Outcome = Literal["intent", "success", "failure"]

# Between ``schema_version`` and ``source`` in canonical JSON. A text of this form further in would be part of a string,
# where quotes are escaped, or of ``object``, which stands before it.
_SIGNATURE = re.compile(
    rb',"signature":\{"key_id":"(sha256:[0-9a-f]{64})","value":"([A-Za-z0-9+/]{86}==)"\}(?=,"source":)'
)
_SIGNATURE_BEGINS = b',"signature":{"key_id":"'


class Signature(Part):
    """An Ed25519 signature over the event without it.

    :param key_id: sha256 of the 32 bytes of the public key.
    :param value: base64 of the 64 bytes of the signature.
    """

    key_id: str
    value: str


class AuditEvent(Document):
    """One fact about a change.

    :param type: such as ``backup.committed``.
    :param repository_id: of the repository, so that an event of another one does not count; empty in older events.
    :param parents: digests of the events that came before it in this try, and of the latest checkpoint seen.
    :param source: ``host kind name``, empty when it is about none.
    :param object: what changed: backup id, digests, sizes; no secrets.
    :param duration_seconds: since the intent of this try; None where there was none.
    :param signature: None when no signing key was configured.
    """

    type: str
    time: UtcTime
    repository_id: str = ""
    parents: tuple[str, ...] = ()
    actor: dict[str, str]
    access: dict[str, str] = Field(default_factory=dict)
    source: str = ""
    object: dict[str, Any] = Field(default_factory=dict)
    outcome: Outcome
    duration_seconds: float | None = None
    signature: Signature | None = None

    def payload(self) -> bytes:
        """Return what is signed: the canonical JSON without the signature."""
        return canonical_json(self.model_dump(mode="json", exclude={"signature"}))

    def to_bytes(self) -> bytes:
        """Return the canonical JSON; an unsigned event has no field ``signature``."""
        if self.signature is None:
            return self.payload()
        return super().to_bytes()

    def path(self, digest: str) -> str:
        """Return where it stands in the repository.

        :param digest: of its bytes, ``sha256:<hex>``.
        """
        if self.type == CHECKPOINT:
            return checkpoint_path(int(self.object.get("sequence", 0)))
        return f"{TRAIL}/{self.time:%Y-%m-%d}/{digest.removeprefix('sha256:')}.json"


def checkpoint_path(sequence: int) -> str:
    """Return where the checkpoint of this number stands."""
    return f"{CHECKPOINTS}/{sequence:08d}.json"


def signature_of(data: bytes) -> tuple[bytes, Signature | None]:
    """Return the signed payload in an event's bytes, and the signature; without one the bytes as they are."""
    begins = data.rfind(_SIGNATURE_BEGINS)
    match = _SIGNATURE.match(data, begins) if begins >= 0 else None
    if match is None:
        return data, None
    signature = Signature(key_id=match[1].decode(), value=match[2].decode())
    return data[:begins] + data[match.end() :], signature
