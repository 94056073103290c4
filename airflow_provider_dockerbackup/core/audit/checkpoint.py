# SPDX-License-Identifier: Apache-2.0
"""Make a checkpoint: one event that names every event which no other names yet.

From then on none of them can be removed, and none put among them, without it showing. A task of its own does it, so
that all others write without reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from airflow_provider_dockerbackup.core.audit.event import CHECKPOINT, AuditEvent, checkpoint_path
from airflow_provider_dockerbackup.core.audit.reading import StoredEvent, examine, stored_events
from airflow_provider_dockerbackup.core.audit.reconcile import reconcile
from airflow_provider_dockerbackup.core.audit.signature import PublicKey, Signer, keyring
from airflow_provider_dockerbackup.core.audit.trail import latest_checkpoint
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import ConflictError

# An event stands under the day that its writer's clock showed; whoever wrote it may have begun the day before.
_MARGIN = timedelta(days=2)
_TRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRequest:
    """How to make it.

    :param keys: public keys that are trusted besides the repository's own signing key: former ones, other workers'.
    :param actor: who does it: DAG run or user, and software versions.
    """

    keys: Sequence[PublicKey] = ()
    actor: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointOutcome:
    """The checkpoint that stands now.

    :param made: whether it is a new one; without new events none is made, but for a key that has signed none yet.
    :param audit_head: its digest, to be kept as an anchor; None when there is neither a checkpoint nor any event.
    :param events: how many events it is the first to know.
    :param left_out: paths of objects that are damaged or that nobody trusted signed; it does not vouch for them.
    :param reconciled: how many changes had no event of their outcome, and have one now.
    """

    made: bool
    sequence: int
    audit_head: str | None
    events: int
    left_out: tuple[str, ...]
    reconciled: int


def make_checkpoint(repository: Repository, request: CheckpointRequest, *, progress: Progress) -> CheckpointOutcome:
    """Return the checkpoint over all events that stand now.

    Changes of which a dead process left no outcome get one first. What is damaged, and with a signing key what no
    trusted key signed, is left out and told; the very first signed checkpoint takes over what was there before keys.
    A key that has signed none yet signs the latest checkpoint also when nothing came after it.

    :raises TransientError: when the storage fails.
    :raises ConflictError: when others make checkpoints all the time.
    """
    reconciled = reconcile(repository, actor=request.actor, progress=progress, since=window(repository))
    for _ in range(_TRIES):
        seen = _look(repository, request.keys)
        for path in seen.left_out:
            progress.note(f"WARNING: {path} is damaged, or no trusted key signed it; the checkpoint leaves it out")
        if not seen.heads and not seen.awaits_signature:
            return _outcome(seen, made=False, audit_head=seen.last, reconciled=reconciled)
        trail = repository.trail(request.actor)
        try:
            trail.write(trail.made(_event(seen, repository, request.actor)))
        except ConflictError:
            continue  # another one took the number since we looked
        return _outcome(seen, made=True, audit_head=trail.head, reconciled=reconciled)
    raise ConflictError(f"{repository.storage.url}: others made checkpoints {_TRIES} times meanwhile; try again")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What a look at the trail found.

    :param sequence: number of the latest checkpoint, and ``last`` its digest; 0 and None without one.
    :param fit: what a checkpoint can vouch for, ``heads`` those of it that no other names.
    :param adopts: whether it would be the first signed one.
    :param awaits_signature: whether the latest checkpoint is fit and the key has signed none yet.
    """

    began: datetime
    sequence: int
    last: str | None
    fit: Sequence[StoredEvent]
    heads: Sequence[StoredEvent]
    left_out: tuple[str, ...]
    adopts: bool
    awaits_signature: bool


def _look(repository: Repository, trusted: Sequence[PublicKey]) -> _Seen:
    signer = repository.signer
    keys = keyring([*trusted, signer.public_key]) if signer is not None else {}
    began = repository.clock.now()
    sequence, last = latest_checkpoint(repository.storage)
    known = list(stored_events(repository.storage, keys=keys, since=window(repository)))
    adopts = signer is not None and not any(_is_signed_checkpoint(each) for each in known)
    vouched = _taken_over(known)
    fit = [each for each in known if each.sound or (_is_of_before_keys(each) and (adopts or each.digest in vouched))]
    named = {parent for each in fit if each.event is not None for parent in each.event.parents}
    return _Seen(
        began=began,
        sequence=sequence,
        last=last,
        fit=fit,
        heads=[each for each in fit if each.digest not in named and each.digest != last],
        left_out=tuple(sorted({each.path for each in known} - {each.path for each in fit})),
        adopts=adopts,
        awaits_signature=_awaits_signature(last, fit, signer),
    )


def _event(seen: _Seen, repository: Repository, actor: Mapping[str, str]) -> AuditEvent:
    return AuditEvent(
        type=CHECKPOINT,
        time=seen.began,
        repository_id=repository.document.repository_id,
        parents=(*([seen.last] if seen.last else []), *sorted(each.digest for each in seen.heads)),
        actor=dict(actor),
        object={
            "sequence": seen.sequence + 1,
            "events": _new_events(seen.fit, seen.heads),
            "left_out": list(seen.left_out),
            **({"adopts_unsigned": True} if seen.adopts else {}),
        },
        outcome="success",
    )


def _outcome(seen: _Seen, *, made: bool, audit_head: str | None, reconciled: int) -> CheckpointOutcome:
    return CheckpointOutcome(
        made=made,
        sequence=seen.sequence + made,
        audit_head=audit_head,
        events=_new_events(seen.fit, seen.heads) if made else 0,
        left_out=seen.left_out,
        reconciled=reconciled,
    )


def window(repository: Repository) -> date | None:
    """Return the day from which on events may not be under the latest checkpoint; None for all."""
    sequence, last = latest_checkpoint(repository.storage)
    if last is None:
        return None
    path = checkpoint_path(sequence)
    found = examine(path, repository.storage.read(path), keys={})
    return (found.event.time - _MARGIN).date() if found.event is not None else None


def _is_of_before_keys(stored: StoredEvent) -> bool:
    return stored.event is not None and not stored.misnamed and stored.signed == "unsigned"


def _taken_over(known: Sequence[StoredEvent]) -> set[str]:
    """Return the events that the first signed checkpoint took over, and the checkpoints among them."""
    signed = [each for each in known if _is_signed_checkpoint(each)]
    first = min(signed, key=lambda each: each.sequence or 0).event if signed else None
    if first is None or not first.object.get("adopts_unsigned"):
        return set()
    return _with_ancestors(first.parents, {each.digest: each for each in known}, past_checkpoints=True)


def _is_signed_checkpoint(stored: StoredEvent) -> bool:
    return stored.sequence is not None and stored.sound


def _awaits_signature(last: str | None, fit: Sequence[StoredEvent], signer: Signer | None) -> bool:
    """Tell whether the latest checkpoint is one to vouch for and the key has signed none: a new one, or the first."""
    if signer is None or last not in {each.digest for each in fit}:
        return False
    signatures = [each.event.signature for each in fit if each.event is not None and _is_signed_checkpoint(each)]
    return signer.public_key.key_id not in {each.key_id for each in signatures if each is not None}


def _new_events(fit: Sequence[StoredEvent], heads: Sequence[StoredEvent]) -> int:
    """Return how many events the heads stand for, themselves included, that no checkpoint knows."""
    by_digest = {each.digest: each for each in fit}
    known = {
        parent
        for each in fit
        if each.sequence is not None and each.event is not None
        for parent in _with_ancestors(each.event.parents, by_digest)
    }
    return len(_with_ancestors([each.digest for each in heads], by_digest) - known)


def _with_ancestors(
    digests: Sequence[str], by_digest: Mapping[str, StoredEvent], *, past_checkpoints: bool = False
) -> set[str]:
    """Return the events and all that come before them.

    :param past_checkpoints: whether checkpoints, and what is under them, are among these; else they are left out.
    """
    found: set[str] = set()
    pending = list(digests)
    while pending:
        digest = pending.pop()
        each = by_digest.get(digest)
        if digest in found or each is None or each.event is None:
            continue
        if each.sequence is not None and not past_checkpoints:
            continue
        found.add(digest)
        pending.extend(each.event.parents)
    return found
