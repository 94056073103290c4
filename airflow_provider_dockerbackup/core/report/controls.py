# SPDX-License-Identifier: Apache-2.0
"""Evaluate the controls of AWS Backup Audit Manager, by name, for backups of Docker images and containers.

https://docs.aws.amazon.com/aws-backup/latest/devguide/choosing-controls.html
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from airflow_provider_dockerbackup.core.audit.event import AuditEvent
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.report.model import (
    Control,
    Coverage,
    DeletedBackup,
    ReportRequest,
    RestoreDrill,
    SourceState,
    Status,
)
from airflow_provider_dockerbackup.core.retention.duration import Duration
from airflow_provider_dockerbackup.core.retention.policy import ALL
from airflow_provider_dockerbackup.exceptions import ConfigurationError

NAMES = {
    "BACKUP_RESOURCES_PROTECTED_BY_BACKUP_PLAN": "Backup resources are included in at least one backup plan",
    "BACKUP_PLAN_MIN_FREQUENCY_AND_MIN_RETENTION_CHECK": "Backup plan has minimum frequency and minimum retention",
    "BACKUP_RECOVERY_POINT_MANUAL_DELETION_DISABLED": "Vaults prevent manual deletion of recovery points",
    "BACKUP_RECOVERY_POINT_ENCRYPTED": "Recovery points are encrypted",
    "BACKUP_RECOVERY_POINT_MINIMUM_RETENTION_CHECK": "Minimum retention established for recovery point",
    "BACKUP_RESOURCES_PROTECTED_BY_CROSS_REGION": "Cross-Region backup copy is scheduled",
    "BACKUP_RESOURCES_PROTECTED_BY_CROSS_ACCOUNT": "Cross-account backup copy is scheduled",
    "BACKUP_RESOURCES_PROTECTED_BY_BACKUP_VAULT_LOCK": "Backups are protected by AWS Backup Vault Lock",
    "BACKUP_LAST_RECOVERY_POINT_CREATED": "Last recovery point was created",
    "RESTORE_TIME_FOR_RESOURCES_MEET_TARGET": "Restore time for resources meet target",
    "RESOURCES_IN_LOGICALLY_AIR_GAPPED_VAULT": "Resources are in a logically air-gapped vault",
}
_SHOWN = 20
_DAYS = {"hourly": 1 / 24, "daily": 1.0, "weekly": 7.0, "monthly": 28.0, "yearly": 365.0}


def evaluate(
    request: ReportRequest,
    *,
    coverage: Sequence[Coverage],
    live_hosts: Sequence[str],
    sources: Sequence[SourceState],
    backups: Sequence[Backup],
    drills: Sequence[RestoreDrill],
    deletions: Sequence[DeletedBackup],
    policies: Sequence[tuple[str, AuditEvent]],
    now: datetime,
    since: datetime,
) -> tuple[Control, ...]:
    """Return each control as pass, fail or not applicable, with what shows it.

    :param policies: events ``rotate.planned`` of the period, with their digests.
    """
    none: Status = "not applicable"
    copies = "copies in other repositories cannot be seen from here; a report of each repository shows what it holds"
    return (
        _protected(coverage, live_hosts),
        _frequency_and_retention(request, backups, policies, now, since),
        _manual_deletion(deletions, backups),
        _encrypted(backups),
        _minimum_retention(request, deletions),
        _control("BACKUP_RESOURCES_PROTECTED_BY_CROSS_REGION", none, copies),
        _control("BACKUP_RESOURCES_PROTECTED_BY_CROSS_ACCOUNT", none, copies),
        _control(
            "BACKUP_RESOURCES_PROTECTED_BY_BACKUP_VAULT_LOCK",
            none,
            "whether the storage locks its objects cannot be seen from here; holds are listed below",
        ),
        _fresh(sources),
        _restore_time(request, drills),
        _control("RESOURCES_IN_LOGICALLY_AIR_GAPPED_VAULT", none, copies),
    )


def _control(name: str, status: Status, detail: str, evidence: Iterable[str] = ()) -> Control:
    found = list(evidence)
    more = (f"and {len(found) - _SHOWN} more",) if len(found) > _SHOWN else ()
    return Control(name=name, title=NAMES[name], status=status, detail=detail, evidence=(*found[:_SHOWN], *more))


def _protected(coverage: Sequence[Coverage], live_hosts: Sequence[str]) -> Control:
    name = "BACKUP_RESOURCES_PROTECTED_BY_BACKUP_PLAN"
    if not live_hosts:
        return _control(name, "not applicable", "no Docker host was asked what lives on it")
    bare = [str(each.thing.source) for each in coverage if each.how == "unprotected"]
    if bare:
        detail = f"{len(bare)} of {len(coverage)} images and containers on {', '.join(live_hosts)} have no good backup"
        return _control(name, "fail", detail, bare)
    detail = f"all {len(coverage)} images and containers on {', '.join(live_hosts)} have a backup"
    return _control(name, "pass", detail, (each.backup_id for each in coverage))


def _frequency_and_retention(
    request: ReportRequest,
    backups: Sequence[Backup],
    policies: Sequence[tuple[str, AuditEvent]],
    now: datetime,
    since: datetime,
) -> Control:
    name = "BACKUP_PLAN_MIN_FREQUENCY_AND_MIN_RETENTION_CHECK"
    if not backups:
        return _control(name, "not applicable", "there is no backup")
    rare = sorted(_too_rare(request, backups, now, since))
    short = [(digest, event) for digest, event in policies if reach_days(event) < request.min_retention_days]
    problems = []
    if rare:
        problems.append(f"{len(rare)} sources have points further apart than {request.max_interval}")
    if short:
        problems.append(
            f"{len(short)} rotations had a policy that reaches back less than {request.min_retention_days:g} days"
        )
    if problems:
        return _control(name, "fail", "; ".join(problems), [*rare, *(digest for digest, _ in short)])
    runs = f"the policies of {len(policies)} rotations reach" if policies else "nothing is rotated, so all reach"
    detail = (
        f"no two points are further apart than {request.max_interval}; {runs} back {request.min_retention_days:g} days"
    )
    return _control(name, "pass", detail, (digest for digest, _ in policies))


def _too_rare(request: ReportRequest, backups: Sequence[Backup], now: datetime, since: datetime) -> Iterator[str]:
    """Yield the sources with a gap in the period, its end included; one begins when its first backup was made."""
    points: dict[Source, list[datetime]] = defaultdict(list)
    for backup in backups:
        if backup.record is not None:
            points[backup.source].extend(backup.points)
    for source, found in points.items():
        times = [*sorted(found), now]
        gaps = [(before, after) for before, after in pairwise(times) if after >= since]
        if any(before < request.max_interval.before(after, ZoneInfo("UTC")) for before, after in gaps):
            yield str(source)


def reach_days(event: AuditEvent) -> float:
    """Return how many days back the policy of a rotation keeps something, by its furthest rule."""
    policy: dict[str, Any] = event.object.get("policy", {})
    reach = 0.0
    for rule, value in policy.items():
        period = rule.removeprefix("keep_")
        if period in _DAYS and isinstance(value, int):
            reach = max(reach, float("inf") if value == ALL else value * _DAYS[period])
        elif rule == "keep_last" and value == ALL:
            reach = float("inf")
        elif rule.startswith("keep_within") or rule == "min_age":
            reach = max(reach, _days(value))
    return reach


def _days(value: Any) -> float:
    try:
        length = Duration.parse(value)
    except ConfigurationError:
        return 0.0
    return length.years * 365 + length.months * 28 + length.days + length.hours / 24


def _manual_deletion(deletions: Sequence[DeletedBackup], backups: Sequence[Backup]) -> Control:
    name = "BACKUP_RECOVERY_POINT_MANUAL_DELETION_DISABLED"
    by_hand = [each for each in deletions if each.how != "rotated"]
    gone = [each.backup_id for each in backups if each.record is not None and not each.complete]
    if by_hand or gone:
        detail = (
            f"{len(by_hand)} backups were removed by a person, "
            f"and of {len(gone)} backups in the catalog files are missing"
        )
        return _control(name, "fail", detail, [*(each.event for each in by_hand), *gone])
    detail = (
        f"{len(deletions)} backups were removed, all by rotation, and no backup in the catalog lacks files. "
        "That the storage forbids deletion cannot be seen from here"
    )
    return _control(name, "pass", detail, (each.event for each in deletions))


def _encrypted(backups: Sequence[Backup]) -> Control:
    name = "BACKUP_RECOVERY_POINT_ENCRYPTED"
    if not backups:
        return _control(name, "not applicable", "there is no backup")
    plain = [each.backup_id for each in backups if each.record is None or each.record.encryption == "none"]
    if plain:
        detail = (
            f"{len(plain)} of {len(backups)} backups are not encrypted, or their records are unreadable; encryption of "
            "the storage itself cannot be seen from here"
        )
        return _control(name, "fail", detail, plain)
    recipients = {each for backup in backups for each in backup.whole().recipients}
    detail = f"all {len(backups)} backups are encrypted with age, to the recipients below; their records are not"
    return _control(name, "pass", detail, sorted(recipients))


def _minimum_retention(request: ReportRequest, deletions: Sequence[DeletedBackup]) -> Control:
    name = "BACKUP_RECOVERY_POINT_MINIMUM_RETENTION_CHECK"
    if not deletions:
        return _control(name, "pass", "nothing was deleted in the period")
    young = [each for each in deletions if each.age_days is None or each.age_days < request.min_retention_days]
    if young:
        detail = (
            f"{len(young)} of {len(deletions)} deleted backups were younger than {request.min_retention_days:g} days"
        )
        return _control(name, "fail", f"{detail}, or of unknown age", (each.event for each in young))
    detail = f"all {len(deletions)} deleted backups were at least {request.min_retention_days:g} days old"
    return _control(name, "pass", detail, (each.event for each in deletions))


def _fresh(sources: Sequence[SourceState]) -> Control:
    name = "BACKUP_LAST_RECOVERY_POINT_CREATED"
    if not sources:
        return _control(name, "fail", "there is no backup at all")
    late = [each for each in sources if each.freshness != "ok"]
    if late:
        never = sum(each.freshness == "never verified" for each in late)
        detail = f"of {len(sources)} sources {never} have no verified backup, and of {len(late) - never} it is too old"
        return _control(name, "fail", detail, (str(each.source) for each in late))
    detail = f"each of {len(sources)} sources has a verified backup within its RPO"
    return _control(name, "pass", detail, (each.newest_backup_id for each in sources))


def _restore_time(request: ReportRequest, drills: Sequence[RestoreDrill]) -> Control:
    name = "RESTORE_TIME_FOR_RESOURCES_MEET_TARGET"
    if not drills:
        return _control(name, "not applicable", "no backup was restored to a test daemon in the period")
    limit = timedelta(minutes=request.rto_minutes).total_seconds()
    bad = [each for each in drills if each.result != "passed" or (each.restore_seconds or 0) > limit]
    if bad:
        detail = f"{len(bad)} of {len(drills)} test restores failed or took longer than {request.rto_minutes:g} minutes"
        return _control(name, "fail", detail, (each.backup_id for each in bad))
    longest = max(each.restore_seconds or 0 for each in drills)
    detail = f"{len(drills)} test restores passed; the longest took {longest:.1f} s of {limit:.0f} s"
    return _control(name, "pass", detail, (each.backup_id for each in drills))
