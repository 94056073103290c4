# SPDX-License-Identifier: Apache-2.0
"""Apply a retention policy: per backup keep or remove, with the rule that decided."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from airflow_provider_dockerbackup.core.catalog import Trust
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError

COLUMNS = ("DECISION", "SOURCE", "BACKUP", "STATE", "RULES")
_BLOCKED = "blocked: "
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What planning must know of one backup.

    :param points: moments for which it is the state of its source: its capture and its confirmations; none when its
        record is unreadable.
    :param trust: how far it is proven, as in the catalog.
    :param whole: whether the files that its record names are there with their sizes.
    :param hold: why it must stay, empty when nobody holds it.
    :param size_bytes: what removing it frees.
    :param told: the newest of its points at which its source's own policy was known, and that policy as text, empty for
        none; None when it was known at none of them.
    :param copied: whether it was copied from another repository: whoever writes there must not have this one keep less.
    """

    backup_id: str
    source: Source
    points: tuple[datetime, ...]
    trust: Trust
    whole: bool = True
    hold: str = ""
    size_bytes: int = 0
    told: tuple[datetime, str] | None = None
    copied: bool = False

    @property
    def newest_point(self) -> datetime:
        """The last moment for which it is the state of its source."""
        return max(self.points)

    @property
    def counts(self) -> bool:
        """Whether it is good enough to take a place: failed, partial and unscanned ones never do."""
        return self.whole and self.trust not in {"failed", "unscanned"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one backup.

    :param reasons: the rules that keep it, or why none does.
    """

    candidate: Candidate
    keep: bool
    reasons: tuple[str, ...]

    @property
    def blocked(self) -> bool:
        """Whether it stays because something of its source is unreadable."""
        return any(each.startswith(_BLOCKED) for each in self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What becomes of every backup, by source and newest first.

    :param policies: the own policy of each source that has one, as text.
    """

    decisions: tuple[Decision, ...]
    policies: Mapping[Source, str] = field(default_factory=dict)

    @property
    def removed(self) -> tuple[Candidate, ...]:
        """The backups that go."""
        return tuple(each.candidate for each in self.decisions if not each.keep)

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """The backups that stay."""
        return tuple(each.candidate for each in self.decisions if each.keep)

    @property
    def blocked(self) -> tuple[Source, ...]:
        """The sources of which nothing is removed because a record, or the source's own policy, is unreadable."""
        return tuple(dict.fromkeys(each.candidate.source for each in self.decisions if each.blocked))

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Return the plan as a table: :data:`COLUMNS`."""
        return [
            (
                "keep" if each.keep else "remove",
                str(each.candidate.source),
                each.candidate.backup_id,
                "not verified" if each.candidate.trust == "none" else each.candidate.trust,
                ", ".join(each.reasons),
            )
            for each in self.decisions
        ]

    def require_share(self, max_removed_share: float) -> None:
        """Refuse to remove more than this share of all backups.

        :param max_removed_share: from 0 to 1; 1 allows what the policy says.
        :raises ConflictError: with the numbers.
        """
        removed, all_ = len(self.removed), len(self.decisions)
        if removed > max_removed_share * all_:
            raise ConflictError(
                f"the plan removes {removed} of {all_} backups, more than max_removed_share={max_removed_share:g} "
                "allows; nothing was removed. Look at the plan in a dry run, then correct the policy or raise the share"
            )


def plan_rotation(
    candidates: Iterable[Candidate], policy: RetentionPolicy, *, now: datetime, own_policies: bool = True
) -> Plan:
    """Return what becomes of each backup; the same input always gives the same plan.

    A source's own policy, as its newest point that knows of it has it, takes the place of the given one, see
    :meth:`~airflow_provider_dockerbackup.core.retention.policy.RetentionPolicy.over`; one that came with a copy only
    keeps more. A source with an unreadable record, or a policy of its own that is unreadable or of the future, keeps
    everything. Whatever the rules say, a backup stays that is held, younger than ``min_age``, among the
    ``min_verified`` newest verified ones, or newer than the newest verified one and not proven yet; so does one of the
    future, which takes no other's place.

    :param own_policies: whether policies of sources count.
    :raises ConfigurationError: when the policy keeps nothing.
    :raises ConflictError: when a source would be left without any backup.
    """
    policy.check()
    by_source: dict[Source, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_source[candidate.source].append(candidate)
    decisions: list[Decision] = []
    policies: dict[Source, str] = {}
    for source in sorted(by_source, key=lambda each: (each.host, each.kind.value, each.name)):
        backups = by_source[source]
        if own_policies and (own := _told(backups, copied=True)[1]):
            policies[source] = own
        decided = _decide_own(backups, policy, now) if own_policies else _decide(backups, policy, now)
        if not any(each.keep for each in decided):
            raise ConflictError(f"the plan would leave {source} without any backup; nothing was removed")
        decisions += decided
    return Plan(decisions=tuple(decisions), policies=policies)


def _decide_own(backups: Sequence[Candidate], policy: RetentionPolicy, now: datetime) -> list[Decision]:
    """Decide by the source's own policy; one that came later, with a copy, only keeps more."""
    if why := _disputed(backups, now):
        return _all_blocked(backups, why)
    own, newest = _told(backups, copied=False), _told(backups, copied=True)
    decided = _decide_by(own[1], backups, policy, now)
    if newest == own:
        return decided
    more = _decide_by(newest[1], backups, policy, now)
    if any(each.blocked for each in more):
        return more
    return [
        replace(other, reasons=tuple(f"copied policy: {each}" for each in other.reasons))
        if other.keep and not one.keep
        else one
        for one, other in zip(decided, more, strict=True)
    ]


def _told(backups: Sequence[Candidate], *, copied: bool) -> tuple[datetime, str]:
    """Return when the source's own policy was known last, and that policy, empty for none.

    :param copied: whether copies count.
    """
    told = (each.told for each in backups if each.told is not None and (copied or not each.copied))
    return max(told, default=(_NEVER, ""))


def _disputed(backups: Sequence[Candidate], now: datetime) -> str:
    """Return why nobody can say which of its own policies a source has now; empty when that is plain."""
    told = {each.told: each.backup_id for each in backups if each.told is not None}
    newest = max(told, default=None)
    present = max((each for each in told if each[0] <= now), default=None)
    if newest is None or present is None or newest[1] == present[1]:
        return ""
    return (
        f"{told[newest]} says at {newest[0]:%Y-%m-%d %H:%M} UTC, in the future, that the source's own policy is "
        f"{newest[1] or 'none'!r}, another says {present[1] or 'none'!r}: a clock was wrong; quarantine it"
    )


def _decide_by(own: str, backups: Sequence[Candidate], policy: RetentionPolicy, now: datetime) -> list[Decision]:
    if not own:
        return _decide(backups, policy, now)
    try:
        return _decide(backups, RetentionPolicy.parse(own, what="the source's own policy").over(policy), now)
    except ConfigurationError as err:
        # A newer release may know rules that this one does not.
        return _all_blocked(backups, str(err))


def _all_blocked(backups: Sequence[Candidate], why: str) -> list[Decision]:
    reasons = (f"{_BLOCKED}{why}",)
    return [Decision(candidate=each, keep=True, reasons=reasons) for each in _newest_first(backups)]


def _decide(backups: Sequence[Candidate], policy: RetentionPolicy, now: datetime) -> list[Decision]:
    unreadable = sorted(each.backup_id for each in backups if not each.points)
    if unreadable:
        return _all_blocked(backups, f"the record of {', '.join(unreadable)} is unreadable; repair or quarantine it")
    ordered = _newest_first(backups)
    present = [each for each in ordered if each.newest_point <= now]
    ruled = _ruled(present, policy, now)
    verified = [each for each in present if each.whole and each.trust == "verified"]
    proven_until = verified[0].newest_point if verified else None
    oldest_allowed = policy.min_age.before(now, ZoneInfo(policy.timezone)) if policy.min_age else now
    proven = {each.backup_id for each in verified[: policy.min_verified]}
    decisions = []
    for each in ordered:
        reasons = list(ruled.get(each.backup_id, ()))
        if each.hold:
            reasons.append(each.hold)
        if each.backup_id in proven:
            reasons.append("newest verified")
        if each.newest_point > now:
            reasons.append("in the future: a clock was wrong")
        elif each.newest_point > oldest_allowed:
            reasons.append(f"min_age={policy.min_age}")
        if not reasons and (proven_until is None or each.newest_point > proven_until):
            reasons.extend(_unproven(each, policy))
        keep = bool(reasons)
        decisions.append(Decision(candidate=each, keep=keep, reasons=tuple(reasons) or (_why_not(each),)))
    return decisions


def _newest_first(backups: Sequence[Candidate]) -> list[Candidate]:
    latest = datetime.max.replace(tzinfo=UTC)
    return sorted(backups, key=lambda each: (max(each.points, default=latest), each.backup_id), reverse=True)


def _ruled(backups: Sequence[Candidate], policy: RetentionPolicy, now: datetime) -> dict[str, tuple[str, ...]]:
    """Return by backup id the rules that keep any of its points."""
    counting = [each for each in backups if each.counts and (each.trust == "verified" or not policy.require_verified)]
    points = sorted(
        ((point, each.backup_id) for each in counting for point in each.points),
        reverse=True,
    )
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for (_, backup_id), reasons in zip(points, policy.reasons([at for at, _ in points], now=now), strict=True):
        found[backup_id].update(dict.fromkeys(reasons))
    return {backup_id: tuple(reasons) for backup_id, reasons in found.items() if reasons}


def _unproven(candidate: Candidate, policy: RetentionPolicy) -> list[str]:
    """Return why a backup that is newer than every verified one stays although no rule counts it."""
    if candidate.whole and candidate.trust == "unscanned":
        return ["not scanned yet: verify it"]
    if not candidate.counts:
        return ["damaged, but nothing newer is verified"]
    if policy.require_verified:
        return ["not verified yet"]
    return []


def _why_not(candidate: Candidate) -> str:
    if not candidate.whole:
        return "its files are not all there, and a newer one is verified"
    if candidate.trust == "failed":
        return "its verification failed, and a newer one is verified"
    if candidate.trust == "unscanned":
        return "it was never scanned, and a newer one is verified"
    return "no rule keeps it"
