# SPDX-License-Identifier: Apache-2.0
"""Rotate a repository: plan by the policy, tell the audit trail, remove, and clear away what dead tries left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_provider_dockerbackup.core.attempt import reap
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.retention.plan import Candidate, Plan, plan_rotation
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.removal import Removed, Remover
from airflow_provider_dockerbackup.exceptions import ConfigurationError, NotFoundError, problem_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateRequest:
    """What to rotate, and how.

    :param policy: which backups stay.
    :param hosts: shell patterns of Docker hosts.
    :param names: shell patterns of image references and container names.
    :param max_removed_share: of the backups it looks at, from 0 to 1; a plan that removes more is refused.
    :param own_policies: whether the policies that sources have of their own, by labels, take the place of this one.
    :param dry_run: plan only; nothing is written or removed.
    :param actor: who does it: DAG run or user, and software versions.
    """

    policy: RetentionPolicy
    hosts: Sequence[str] = ("*",)
    names: Sequence[str] = ("*",)
    max_removed_share: float = 0.5
    own_policies: bool = True
    dry_run: bool = False
    actor: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what cannot be meant.

        :raises ConfigurationError: names the value.
        """
        self.policy.check()
        share = self.max_removed_share
        if not 0 < share <= 1:
            raise ConfigurationError(f"max_removed_share: expected a number over 0 and up to 1, got {share!r}")
        for name in ("hosts", "names"):
            value = getattr(self, name)
            if isinstance(value, str) or not value or not all(isinstance(item, str) for item in value):
                raise ConfigurationError(f"{name}: expected a list of patterns such as ['*'], got {value!r}")

    def covers(self, source: Source) -> bool:
        """Tell whether a source is to be rotated."""
        return source.is_like(hosts=self.hosts, names=self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateOutcome:
    """What a rotation did.

    :param plan: what it decided.
    :param removed: ids of the backups that are gone, those of interrupted removals among them.
    :param kept_after_all: ids of backups that were confirmed, held or newly needed since the plan was made.
    :param freed_bytes: what the files of the removed backups took.
    :param reaped: paths of files that dead tries had left.
    :param audit_head: digest of the newest audit event of this try; None in a dry run.
    """

    plan: Plan
    removed: tuple[str, ...] = ()
    kept_after_all: tuple[str, ...] = ()
    freed_bytes: int = 0
    reaped: tuple[str, ...] = ()
    audit_head: str | None = None


def candidate_of(backup: Backup, *, now: datetime) -> Candidate:
    """Return what planning must know of a backup."""
    readable = backup.record is not None
    return Candidate(
        backup_id=backup.backup_id,
        source=backup.source,
        points=backup.points if readable else (),
        trust=backup.trust,
        whole=readable and backup.complete,
        hold="; ".join(str(hold) for hold in backup.held(now)),
        size_bytes=sum(backup.sizes.values()),
        told=backup.told if readable else None,
        copied=backup.record is not None and backup.record.copied_from is not None,
    )


def plan_for(repository: Repository, request: RotateRequest) -> Plan:
    """Return what a rotation would decide now.

    :raises ConfigurationError: when the request cannot be meant.
    :raises NotFoundError: when there are backups, but none that the patterns match.
    :raises ConflictError: when the plan would empty a source, or removes more than its share.
    """
    request.check()
    now = repository.clock.now()
    candidates, others = [], 0
    for backup in repository.catalog.each():
        if request.covers(backup.source):
            candidates.append(candidate_of(backup, now=now))
        else:
            others += 1
    if others and not candidates:
        raise NotFoundError(
            f"no backup in {repository.storage.url} matches hosts {list(request.hosts)} and names "
            f"{list(request.names)}; nothing was rotated"
        )
    plan = plan_rotation(candidates, request.policy, now=now, own_policies=request.own_policies)
    plan.require_share(request.max_removed_share)
    return plan


def rotate(repository: Repository, request: RotateRequest, *, progress: Progress) -> RotateOutcome:
    """Return what a rotation did; run again after a death anywhere, it finishes what was begun.

    :raises ConfigurationError: when the request cannot be meant.
    :raises ConflictError: when the plan is refused, or clocks differ; nothing was removed.
    :raises TransientError: when the trail could not be written first, or the storage failed on the way.
    """
    plan = plan_for(repository, request)
    if request.dry_run:
        return RotateOutcome(plan=plan)
    trail = repository.trail(request.actor)
    trail.record("rotate.planned", outcome="intent", subject=_planned(plan, request))
    remover = Remover(repository, trail, actor=request.actor, progress=progress)
    done: list[Removed] = []
    reaped: tuple[str, ...] = ()
    try:
        remover.require_clock()
        done.extend(remover.finish())
        _remove(plan, request, repository, remover, done)
        reaped = _reap(repository, request)
    except BaseException as err:
        subject = {**_results(done), "problem": problem_of(err)}
        trail.tell("rotate.failed", progress=progress, outcome="failure", subject=subject)
        raise
    subject = {**_results(done), "reaped": list(reaped)}
    trail.tell("rotate.done", progress=progress, outcome="success", subject=subject)
    return RotateOutcome(
        plan=plan,
        removed=tuple(each.backup.backup_id for each in done if each.gone),
        kept_after_all=tuple(each.backup.backup_id for each in done if not each.gone),
        freed_bytes=sum(each.freed_bytes for each in done),
        reaped=reaped,
        audit_head=trail.head,
    )


def _remove(plan: Plan, request: RotateRequest, repository: Repository, remover: Remover, done: list[Removed]) -> None:
    """Remove what the plan says, and what a fresh look at its source still says."""
    chosen = {each.backup_id for each in plan.removed}
    for source in dict.fromkeys(each.source for each in plan.removed):
        now = repository.clock.now()
        backups = {each.backup_id: each for each in repository.catalog.backups(source=source)}
        fresh = plan_rotation(
            [candidate_of(each, now=now) for each in backups.values()],
            request.policy,
            now=now,
            own_policies=request.own_policies,
        )
        for decision in fresh.decisions:
            backup_id = decision.candidate.backup_id
            if backup_id not in chosen:
                continue
            if decision.keep:
                done.append(Removed(backup=backups[backup_id], gone=False, freed_bytes=0))
            else:
                done.append(remover.remove(backups[backup_id], how="rotated", rules=decision.reasons))


def _reap(repository: Repository, request: RotateRequest) -> tuple[str, ...]:
    removed: list[str] = []
    for source in repository.catalog.sources():
        if request.covers(source):
            removed.extend(reap(repository, source))
    return tuple(removed)


def _planned(plan: Plan, request: RotateRequest) -> dict[str, Any]:
    """Return what the event says of a plan: every decision with its rules, by source."""
    by_source: dict[str, list[dict[str, Any]]] = {}
    for each in plan.decisions:
        by_source.setdefault(str(each.candidate.source), []).append(
            {
                "backup_id": each.candidate.backup_id,
                "decision": "keep" if each.keep else "remove",
                "rules": list(each.reasons),
            }
        )
    return {
        "policy": request.policy.to_dict(),
        "own_policies_apply": request.own_policies,
        "own_policies": {str(source): text for source, text in plan.policies.items()},
        "hosts": list(request.hosts),
        "names": list(request.names),
        "max_removed_share": request.max_removed_share,
        "kept": len(plan.kept),
        "removed": len(plan.removed),
        "decisions": by_source,
    }


def _results(done: Iterable[Removed]) -> dict[str, Any]:
    return {
        "removed": [each.backup.backup_id for each in done if each.gone],
        "kept_after_all": [each.backup.backup_id for each in done if not each.gone],
        "freed_bytes": sum(each.freed_bytes for each in done),
    }
