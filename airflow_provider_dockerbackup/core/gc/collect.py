# SPDX-License-Identifier: Apache-2.0
"""Collect garbage: find the blobs that nobody needs, tell the audit trail, and move them to the trash."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from airflow_provider_dockerbackup.core.document import compact_time
from airflow_provider_dockerbackup.core.gc.lease import Lease
from airflow_provider_dockerbackup.core.gc.plan import GcPlan, Planner
from airflow_provider_dockerbackup.core.gc.references import References
from airflow_provider_dockerbackup.core.gc.sweep import Sweeper, Swept
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import ConfigurationError, problem_of

_SHOWN = 5
_MOST_THREADS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class GcRequest:
    """How to collect.

    :param grace_hours: blobs younger than this stay, and those of backups deleted since, by the storage's own clock.
    :param trash_days: what is in the trash for longer is removed for ever.
    :param dry_run: plan only; nothing is written, moved or removed.
    :param threads: how many requests at once.
    :param actor: who does it: DAG run or user, and software versions.
    """

    grace_hours: float = 24.0
    trash_days: float = 7.0
    dry_run: bool = False
    threads: int = 4
    actor: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what cannot be meant.

        :raises ConfigurationError: names the value.
        """
        for name in ("grace_hours", "trash_days"):
            value: object = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1_000_000:
                raise ConfigurationError(f"{name}: expected a number >= 0, got {value!r}")
        if not 1 <= self.threads <= _MOST_THREADS:
            raise ConfigurationError(f"threads: expected a number from 1 to {_MOST_THREADS}, got {self.threads!r}")

    @property
    def grace(self) -> timedelta:
        """How long blobs and deleted backups count like any other."""
        return timedelta(hours=self.grace_hours)

    @property
    def trash(self) -> timedelta:
        """How long the trash is kept."""
        return timedelta(days=self.trash_days)


@dataclass(frozen=True, slots=True, kw_only=True)
class GcOutcome:
    """What a garbage collection did, or would do.

    :param gc: its name; the trash it filled is ``trash/<gc>``. Empty in a dry run.
    :param plan: what it found.
    :param done: what it did; all zero in a dry run.
    :param audit_head: digest of the newest audit event of this try; None in a dry run.
    """

    gc: str
    plan: GcPlan
    done: Swept
    audit_head: str | None = None


def require_layers(repository: Repository) -> None:
    """Refuse a repository in which there is nothing to collect.

    :raises ConfigurationError: when its layout is not ``layers``.
    """
    if repository.document.layout != "layers":
        raise ConfigurationError(
            f"{repository.storage.url} has layout {repository.document.layout!r}: each backup has its own file, which "
            "goes when rotation deletes it; garbage is collected in layout 'layers'"
        )


def gc_name(now: datetime) -> str:
    """Return a new name for a collection; sorts by time."""
    return f"{compact_time(now)}-{secrets.token_hex(4)}"


def collect_garbage(repository: Repository, request: GcRequest, *, progress: Progress) -> GcOutcome:
    """Return what a garbage collection did; run again after a death anywhere, it goes on.

    :raises ConfigurationError: when the request cannot be meant, the layout is not ``layers``, or the storage does not
        keep what safety rests on; nothing was touched.
    :raises ConflictError: when another collection is at work, or clocks differ; nothing was touched.
    :raises IntegrityError: when a record or pins cannot be read; nothing was removed that was not in the trash before.
    :raises TransientError: when the trail could not be written first, or the storage failed on the way.
    """
    request.check()
    require_layers(repository)
    clock = repository.clock
    if request.dry_run:
        _, plan = _look(repository, request, now=clock.now, progress=progress)
        return GcOutcome(gc="", plan=plan, done=Swept())
    gc = gc_name(clock.now())
    lease = Lease(repository.storage, gc=gc, actor=request.actor, clock=clock, progress=progress)
    with lease:
        references, plan = _look(repository, request, now=lambda: lease.now, progress=progress)
        trail = repository.trail(request.actor)
        settings = {"gc": gc, "grace_hours": request.grace_hours, "trash_days": request.trash_days}
        trail.record("gc.planned", outcome="intent", subject={**settings, **plan.summary()})
        sweeper = Sweeper(
            repository=repository,
            lease=lease,
            references=references,
            plan=plan,
            gc=gc,
            progress=progress,
            threads=request.threads,
        )
        progress.start("collect garbage", plan.garbage_bytes)
        try:
            sweeper.sweep()
        except BaseException as err:
            subject = {"gc": gc, **asdict(sweeper.done), "problem": problem_of(err)}
            trail.tell("gc.failed", progress=progress, outcome="failure", subject=subject)
            raise
        finally:
            progress.finish()
        trail.tell("gc.done", progress=progress, outcome="success", subject={"gc": gc, **asdict(sweeper.done)})
    return GcOutcome(gc=gc, plan=plan, done=sweeper.done, audit_head=trail.head)


def _look(
    repository: Repository, request: GcRequest, *, now: Callable[[], datetime], progress: Progress
) -> tuple[References, GcPlan]:
    """Look at everything, and tell what is missing."""
    references = References(
        repository.storage, now=now, grace=request.grace, progress=progress, threads=request.threads
    )
    references.look()
    planner = Planner(
        repository.storage,
        references,
        now=now(),
        grace=request.grace,
        trash=request.trash,
        progress=progress,
        threads=request.threads,
    )
    plan = planner.plan()
    if plan.missing:
        shown = ", ".join(plan.missing[:_SHOWN])
        more = f" and {len(plan.missing) - _SHOWN} more" if len(plan.missing) > _SHOWN else ""
        progress.note(
            f"WARNING: blobs that backups need are not there: {shown}{more}; 'dockerbackup verify' tells which backups"
        )
    return references, plan
