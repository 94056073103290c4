# SPDX-License-Identifier: Apache-2.0
"""Prove that nobody edited an audit trail, offline: with public keys, and with digests kept elsewhere (anchors).

What a signature and a name cannot show, the graph does: a removed event is missed by whoever names it, a cut tail by
the anchors, an event written later than it says by the checkpoints, which name all that stood before them. Whoever
holds the signing key when an event is made can lie in it; that cannot be seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final, Literal

from airflow_provider_dockerbackup.core.audit.reading import StoredEvent, is_checkpoint
from airflow_provider_dockerbackup.exceptions import ConfigurationError

# Workers' clocks may differ by this much before a backup is refused to be deleted, so events may as well.
TOLERANCE = timedelta(minutes=5)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Kind = Literal[
    "unreadable",
    "edited",
    "renamed",
    "foreign",
    "older-than-key",
    "unsigned",
    "unknown-key",
    "bad-signature",
    "missing",
    "anchor-missing",
    "checkpoint-missing",
    "fork",
    "backdated",
]

State = Literal["intact", "not signed", "changed"]

_SIGNED: Final[Mapping[Kind, str]] = {
    "older-than-key": "is older than the key, and no checkpoint that is signed vouches for it",
    "unsigned": "has no signature, and no checkpoint vouches for it",
    "unknown-key": "is signed by a key that is not trusted",
    "bad-signature": "has a signature that does not fit",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The digest of an event, kept where whoever writes to the repository cannot change it.

    :param what: where it is from, for messages.
    """

    digest: str
    what: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with a trail.

    :param event: digest of the event it is about, or the path of an object that is none.
    :param time: that the event says; None when it cannot be told.
    """

    kind: Kind
    event: str
    detail: str
    time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailProof:
    """What is known of a trail.

    :param findings: what is wrong, the earliest first.
    :param signatures_checked: whether public keys were given.
    :param anchors: how many anchors were compared.
    :param heads: digests of the events that no other names.
    :param signed_since: time of the first event that a trusted key signed; None when there is none.
    """

    events: int
    checkpoints: int
    findings: tuple[Finding, ...]
    signatures_checked: bool
    anchors: int
    heads: tuple[str, ...]
    signed_since: datetime | None = None

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.findings

    @property
    def state(self) -> State:
        """What it is in a word: ``not signed`` when all that is wrong is that its beginning is older than the key."""
        if self.intact:
            return "intact"
        return "not signed" if all(each.kind == "older-than-key" for each in self.findings) else "changed"

    @property
    def problem(self) -> str:
        """What is wrong with it, the first finding first, and what to do; empty when it is intact."""
        first = next((each for each in self.findings if each.kind != "older-than-key"), None)
        if first is not None:
            return f"the audit trail was changed: {first.kind}: {first.event} {first.detail}"
        if self.intact:
            return ""
        return (
            f"the audit trail is {self.not_signed}; nothing shows whether they were changed. A checkpoint with the key "
            "vouches for them as they are: 'dockerbackup audit checkpoint'"
        )

    @property
    def not_signed(self) -> str:
        """How many events are older than the key without a checkpoint that vouches for them; empty for none."""
        count = sum(each.kind == "older-than-key" for each in self.findings)
        before = f" before {self.signed_since:%Y-%m-%d %H:%M:%S} UTC" if self.signed_since else ""
        return f"not signed{before}: {count} events are older than the key" if count else ""


def parse_anchors(text: str, *, where: str) -> tuple[Anchor, ...]:
    """Return the anchors in ``text``.

    Each line is a digest with anything behind it, or a JSON object with ``audit_head``, as task logs and exports of
    Airflow's database give them. Empty lines and those that begin with ``#`` do not count.

    :raises ConfigurationError: names the line that is neither.
    """
    anchors = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        anchor = _anchor(words)
        if anchor is None:
            raise ConfigurationError(f"{where}:{number}: expected sha256:… or a JSON object with audit_head")
        anchors.append(anchor)
    return tuple(anchors)


def _anchor(line: str) -> Anchor | None:
    if line.startswith("{"):
        try:
            fields = json.loads(line)
        except ValueError:
            return None
        digest = fields.get("audit_head")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            return None
        what = " ".join(f"{name}={value}" for name, value in fields.items() if name != "audit_head")
        return Anchor(digest=digest, what=what)
    digest, _, what = line.partition(" ")
    return Anchor(digest=digest, what=what.strip()) if _DIGEST.fullmatch(digest) else None


def prove(
    stored: Iterable[StoredEvent], *, keys_given: bool, repository_id: str = "", anchors: Sequence[Anchor] = ()
) -> TrailProof:
    """Return what is to be said of a whole trail.

    :param stored: all of its objects, examined with the trusted keys.
    :param keys_given: whether signatures were checked.
    :param repository_id: that all events must name; empty when it is not known.
    :param anchors: digests that must be there.
    """
    graph = _Graph(list(stored))
    found = [
        *graph.misplaced(),
        *graph.unsigned(),
        *graph.foreign(repository_id),
        *graph.missing(),
        *graph.chain(),
        *graph.backdated(),
    ]
    for anchor in anchors:
        if anchor.digest not in graph.events and anchor.digest not in graph.damaged:
            detail = f"is not in the trail, but was written{f' ({anchor.what})' if anchor.what else ''}"
            found.append(Finding(kind="anchor-missing", event=anchor.digest, detail=detail))
    return TrailProof(
        events=len(graph.events),
        checkpoints=len(graph.checkpoints),
        findings=tuple(sorted(found, key=_order)),
        signatures_checked=keys_given,
        anchors=len(anchors),
        heads=tuple(sorted(set(graph.events) - graph.named)),
        signed_since=graph.signed_since if keys_given else None,
    )


def _order(finding: Finding) -> tuple[bool, float, str, str]:
    return (finding.time is None, finding.time.timestamp() if finding.time else 0.0, finding.kind, finding.event)


class _Graph:
    """The events by their digests, and who names whom."""

    def __init__(self, stored: Sequence[StoredEvent]) -> None:
        self._stored = stored
        placed = [each for each in stored if each.event is not None and not each.misnamed]
        self.events: dict[str, StoredEvent] = {each.digest: each for each in placed}
        self.named: set[str] = {parent for each in placed for parent in _parents(each)}
        self.checkpoints: dict[int, StoredEvent] = {
            each.sequence: each for each in placed if is_checkpoint(each) and each.sequence is not None
        }
        # Names under which something stands that is not the event of that name: it is not missing, but edited.
        bad = [each for each in stored if each.event is None or each.misnamed]
        self.damaged: set[str] = {each.named_digest for each in bad if each.named_digest}
        self._covered = self._covering()
        self.signed_since = min((_moment(each) for each in placed if not each.signed), default=None)

    def misplaced(self) -> Iterator[Finding]:
        """Yield the objects that are not what their names say."""
        for each in self._stored:
            about = each.named_digest or each.path
            if each.event is None:
                yield Finding(kind="unreadable", event=about, detail=f"{each.path}: {each.problem}")
            elif each.misnamed:
                known = each.digest in self.named or each.digest in self.events
                detail = f"{each.path} holds the event {each.digest}, whose place is {each.event.path(each.digest)}"
                yield Finding(
                    kind="renamed" if known else "edited",
                    event=each.digest if known else about,
                    detail=detail,
                    time=None if not known else each.event.time,
                )

    def unsigned(self) -> Iterator[Finding]:
        """Yield the events that nobody trusted signed, nor a checkpoint that took over what was there before keys."""
        adopted = self._adopted()
        for digest, each in self.events.items():
            if each.signed and not (each.signed == "unsigned" and digest in adopted):
                old = each.signed == "unsigned" and self._is_older_than_key(each)
                kind: Kind = "older-than-key" if old else each.signed
                yield Finding(kind=kind, event=digest, detail=f"{each.path} {_SIGNED[kind]}", time=_at(each))

    def foreign(self, repository_id: str) -> Iterator[Finding]:
        """Yield events of another repository, signed with the same key, perhaps."""
        for digest, each in self.events.items():
            said = each.event.repository_id if each.event else ""
            if repository_id and said != repository_id and (said or not each.signed):
                yield Finding(
                    kind="foreign",
                    event=digest,
                    detail=f"{each.path} is an event of repository {said or 'unknown'}",
                    time=_at(each),
                )

    def missing(self) -> Iterator[Finding]:
        """Yield the events that others name and that are not there."""
        first: dict[str, StoredEvent] = {}
        for each in self.events.values():
            for parent in _parents(each):
                if parent not in self.events and parent not in self.damaged:
                    known = first.setdefault(parent, each)
                    first[parent] = min(known, each, key=_moment)
        for digest, by in first.items():
            detail = f"is not there, but {by.digest} ({by.path}) names it"
            yield Finding(kind="missing", event=digest, detail=detail, time=_at(by))

    def chain(self) -> Iterator[Finding]:
        """Yield what is wrong with the checkpoints, each of which must name the one before it."""
        for number in range(1, max(self.checkpoints, default=0) + 1):
            here, before = self.checkpoints.get(number), self.checkpoints.get(number - 1)
            if here is None:
                after = next(self.checkpoints[each] for each in sorted(self.checkpoints) if each > number)
                yield Finding(
                    kind="checkpoint-missing",
                    event=f"checkpoint {number}",
                    detail=f"is not there, but checkpoint {after.sequence} is",
                    time=_at(after),
                )
            elif before is not None and before.digest not in _parents(here):
                detail = f"checkpoint {number} does not follow checkpoint {number - 1}, {before.digest}"
                yield Finding(kind="fork", event=here.digest, detail=detail, time=_at(here))

    def backdated(self) -> Iterator[Finding]:
        """Yield events that say they were there when a checkpoint was made that does not know them."""
        numbers = sorted(self.checkpoints)
        if not numbers:
            return
        before: dict[int | None, StoredEvent] = {None: self.checkpoints[numbers[-1]]}
        before |= {after: self.checkpoints[number] for number, after in pairwise(numbers)}
        for digest, each in self.events.items():
            known_by = self._covered.get(digest)
            last = before.get(known_by)
            if last is not None and digest != last.digest and _moment(each) < _moment(last) - TOLERANCE:
                detail = f"{each.path} says {_at(each)}, but checkpoint {last.sequence} of {_at(last)} does not know it"
                yield Finding(kind="backdated", event=digest, detail=detail, time=_at(each))

    def _covering(self) -> dict[str, int]:
        """Return for each event the number of the first checkpoint that knows it; the checkpoint itself counts."""
        covered: dict[str, int] = {}
        for number in sorted(self.checkpoints):
            pending = [self.checkpoints[number].digest]
            while pending:
                digest = pending.pop()
                if digest in covered or digest not in self.events:
                    continue
                covered[digest] = number
                pending.extend(_parents(self.events[digest]))
        return covered

    def _is_older_than_key(self, stored: StoredEvent) -> bool:
        """Tell whether it is of before the first signed event, and no checkpoint is signed that could vouch for it."""
        signed = any(not each.signed for each in self.checkpoints.values())
        return not signed and (self.signed_since is None or _moment(stored) < self.signed_since)

    def _adopted(self) -> set[str]:
        """Return the events that the first signed checkpoint took over because there was no key before it."""
        signed = [number for number, each in self.checkpoints.items() if not each.signed]
        first = min(signed, default=0)
        if not signed or not _adopts(self.checkpoints[first]):
            return set()
        return {digest for digest, number in self._covered.items() if number <= first}


def _adopts(checkpoint: StoredEvent) -> bool:
    return checkpoint.event is not None and bool(checkpoint.event.object.get("adopts_unsigned"))


def _parents(stored: StoredEvent) -> tuple[str, ...]:
    return stored.event.parents if stored.event is not None else ()


def _at(stored: StoredEvent) -> datetime | None:
    return stored.event.time if stored.event is not None else None


def _moment(stored: StoredEvent) -> datetime:
    if stored.event is None:
        raise ValueError(f"{stored.path} is no event")
    return stored.event.time
