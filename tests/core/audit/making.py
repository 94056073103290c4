# SPDX-License-Identifier: Apache-2.0
"""A trail of many tries and checkpoints, with the anchors that Airflow would have kept."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from airflow_provider_dockerbackup.core.audit.checkpoint import CheckpointRequest, make_checkpoint
from airflow_provider_dockerbackup.core.audit.event import AuditEvent, signature_of
from airflow_provider_dockerbackup.core.audit.proof import Anchor, TrailProof, prove
from airflow_provider_dockerbackup.core.audit.reading import StoredEvent, examine, stored_events
from airflow_provider_dockerbackup.core.audit.signature import PublicKeys, SigningKey, keyring
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.memory import FixedClock, MemoryStorage
from tests.core.world import Notes

ACTOR = {"dag_id": "nightly"}


@dataclass(kw_only=True)
class Told:
    """A repository whose trail is being written.

    :param key: signs; None leaves events unsigned.
    :param anchors: the head of every try, and every checkpoint.
    :param order: paths in the order in which they were written.
    """

    key: SigningKey | None = field(default_factory=SigningKey.generate)
    clock: FixedClock = field(default_factory=FixedClock)
    anchors: list[Anchor] = field(default_factory=list)
    order: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the repository."""
        self.storage = MemoryStorage(clock=self.clock)
        self.repository = Repository.open_or_create(self.storage, clock=self.clock, signer=self.key)

    @property
    def keys(self) -> PublicKeys:
        """The trusted keys."""
        return keyring([self.key.public_key]) if self.key is not None else {}

    def work(self, number: int) -> None:
        """One try: an intent and its outcome, and one event more now and then."""
        trail = self.repository.trail({**ACTOR, "run_id": f"run {number}"})
        trail.record("backup.started", outcome="intent", source="web1 image app:1", subject={"backup_id": str(number)})
        self.order.append(trail.head_path)
        self.clock.advance(timedelta(seconds=40))
        trail.record(
            "backup.committed", outcome="success", source="web1 image app:1", subject={"backup_id": str(number)}
        )
        self.order.append(trail.head_path)
        self.anchors.append(Anchor(digest=trail.head or "", what=f"run {number}"))
        self.clock.advance(timedelta(minutes=9))

    def checkpoint(self) -> None:
        """Make a checkpoint."""
        made = make_checkpoint(self.repository, CheckpointRequest(actor=ACTOR), progress=Notes())
        assert made.made
        self.order.append(f"audit/checkpoints/{made.sequence:08d}.json")
        self.anchors.append(Anchor(digest=made.audit_head or "", what=f"checkpoint {made.sequence}"))

    def write(self, *, events: int) -> Told:
        """Write a trail of at least this many events that ends with a checkpoint."""
        number = 0
        while len(self.order) < events - 1:
            self.work(number)
            number += 1
            if number % 25 == 0:
                self.checkpoint()
        self.clock.advance(timedelta(minutes=10))
        if not self.order[-1].startswith("audit/checkpoints"):
            self.checkpoint()
        return self

    def examined(self) -> dict[str, StoredEvent]:
        """Return every object of the trail by its path."""
        return {each.path: each for each in stored_events(self.storage, keys=self.keys)}

    def prove(self, trail: dict[str, StoredEvent] | None = None, *, anchored: bool = True) -> TrailProof:
        """Return what is to be said of the trail, or of another that stands in its place."""
        found = self.examined() if trail is None else trail
        return prove(
            found.values(),
            keys_given=self.key is not None,
            repository_id=self.repository.document.repository_id,
            anchors=self.anchors if anchored else (),
        )

    def put(self, path: str, data: bytes) -> StoredEvent:
        """Return what an object would be examined as."""
        return examine(path, data, keys=self.keys)


def signed(event: AuditEvent, key: SigningKey | None) -> tuple[str, bytes]:
    """Return the place and the bytes of an event that a key signed, or that nobody did."""
    event = event.model_copy(update={"signature": None})
    if key is not None:
        event = event.model_copy(update={"signature": key.sign(event.payload())})
    data = event.to_bytes()
    return event.path(sha256_of(data)), data


def flips(data: bytes) -> Iterator[bytes]:
    """Yield the bytes with one bit changed, for every byte."""
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        yield bytes(changed)


def without_signature(data: bytes) -> bytes:
    """Return an event's bytes as they were before they were signed."""
    payload, signature = signature_of(data)
    assert signature is not None
    assert len(base64.b64decode(signature.value)) == 64
    return payload
