# SPDX-License-Identifier: Apache-2.0
"""Roll a tag back on a Docker host: to an earlier backup, or to an earlier step of an archived image's own history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, get_args

from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.change import Change
from airflow_provider_dockerbackup.core.drill import DrillPlan
from airflow_provider_dockerbackup.core.model import ImageInspect, SourceKind
from airflow_provider_dockerbackup.core.names import WorkingName, before_names, is_before_name, standing, whole_tag
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.reading import require_bytes, require_readable
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.rollback_image import Candidate, candidate_of, load_proven, prove_in
from airflow_provider_dockerbackup.core.since import Drill
from airflow_provider_dockerbackup.core.verify import TestDaemonFactory
from airflow_provider_dockerbackup.exceptions import ConfigurationError, NotFoundError

PREVIOUS = "previous"
ROLLBACK = "dockerbackup-rollback"
Proof = Literal["none", "load", "run"]
"""What a test daemon does with the image before the tag moves: nothing, load it, or run it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequest:
    """What to roll back, and to what.

    :param tag: ``name:tag`` on the target.
    :param step: how many steps of the image's history are kept; None for the image as it was saved.
    :param prove: what a test daemon must do with the image first.
    :param drill: how it is run there.
    :param dry_run: check everything and say what would be done, but do not touch the target.
    :param actor: who does it: DAG run or user, and software versions.
    """

    tag: str
    step: int | None = None
    prove: Proof = "run"
    drill: DrillPlan = field(default_factory=DrillPlan)
    dry_run: bool = False
    actor: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackOutcome:
    """What a rollback did, or would do.

    :param image_id: the target engine's ID of the image that the tag stands for now; empty in a dry run.
    :param previous_id: that of the image it stood for before; empty when it stood for none.
    :param kept: name under which that one is kept; empty when there is nothing to keep.
    :param exact: names of configuration values that are proven to be those of the step.
    :param guessed: names of those that the history does not tell.
    :param proven: where a container was created from the image before the tag moved: ``test daemon``, ``target``.
    :param drill: how it ran in the test daemon; None when it was not run.
    :param seconds: from the first byte read to the moved tag.
    """

    backup_id: str
    tag: str
    step: int | None
    image_id: str
    previous_id: str
    kept: str
    exact: tuple[str, ...]
    guessed: tuple[str, ...]
    proven: tuple[str, ...]
    drill: Drill | None
    seconds: float
    notes: tuple[str, ...] = ()


def find_backup(
    repository: Repository, backup_id: str, *, tag: str, host: DockerHost, step: int | None = None
) -> Backup:
    """Return the backup to roll ``tag`` back to.

    :param backup_id: its id, an unambiguous beginning of it, or ``previous``: the newest backup of this very tag on
        this very host that is whole, did not fail its last verification, and holds another image than the tag stands
        for now. Where the tag was rolled back already, that backup again: a run that is repeated never rolls forth.
    :param step: as in the request.
    :raises NotFoundError: when there is none.
    :raises ConflictError: when several ids begin so.
    """
    if backup_id != PREVIOUS:
        return repository.catalog.find(backup_id)
    tag = whole_tag(tag, parameter="tag")
    source, image = Source(host=host.name, kind=SourceKind.IMAGE, name=tag), standing(tag, host)
    if image is None:
        raise NotFoundError(
            f"{tag} stands for nothing on {host.name}, so nothing is previous to it; 'dockerbackup list' shows what "
            "backups there are, give the id of the backup to use"
        )
    backups = [each for each in repository.catalog.backups(source=source) if each.record is not None and each.complete]
    done = _rolled_back_to(backups, image, tag=tag, step=step, host=host, repository=repository)
    if done is not None:
        return done
    store = host.engine().store
    for backup in backups:
        if backup.trust != "failed" and not candidate_of(repository, backup, step=None).is_(image, store=store):
            return backup
    raise NotFoundError(
        f"no backup of {source} in {repository.storage.url} holds another image than {tag} stands for now; "
        "'dockerbackup list' shows what there is, give the id of the backup to use"
    )


def _rolled_back_to(
    backups: Sequence[Backup],
    image: ImageInspect,
    *,
    tag: str,
    step: int | None,
    host: DockerHost,
    repository: Repository,
) -> Backup | None:
    """Return the backup that the tag stands for and that another image was kept for, as a rollback leaves them."""
    others = {each.reference for each in host.list_images() if each.id != image.id}
    for backup in backups:
        if any(is_before_name(name, tag=tag, backup_id=backup.backup_id) for name in others):
            with suppress(ConfigurationError):  # it has no such step
                if candidate_of(repository, backup, step=step).is_(image, store=host.engine().store):
                    return backup
    return None


def roll_back(
    backup: Backup,
    request: RollbackRequest,
    *,
    host: DockerHost,
    repository: Repository,
    test_daemon: TestDaemonFactory,
    progress: Progress,
) -> RollbackOutcome:
    """Return what the tag stands for after the rollback.

    Before the tag moves, the image is loaded and run in a test daemon, and a container is created from it on the
    target. What the tag stood for is kept as ``<name>:before-<backup id>``. A run that was killed can be run again.

    :param test_daemon: gives a daemon that is neither the source's nor the target's.
    :raises ConfigurationError: when tag or step are wrong, or the backup cannot be decrypted, before the target is
        touched.
    :raises IntegrityError: when the archive is damaged or something else was loaded; the tag was not moved.
    :raises TransientError: when link, daemon or storage failed; the tag stands for the old image, or for the new one
        with the old one kept.
    """
    tag = whole_tag(request.tag, parameter="tag")
    if request.prove not in get_args(Proof):
        raise ConfigurationError(f"prove: expected one of {', '.join(get_args(Proof))}, got {request.prove!r}")
    request.drill.check()
    require_readable(repository, backup)
    candidate = candidate_of(repository, backup, step=request.step)
    work = _Work(backup=backup, tag=tag, request=request, candidate=candidate, host=host, progress=progress)
    held = standing(tag, host)
    if held is not None and candidate.is_(held, store=host.engine().store):
        if not request.dry_run:
            WorkingName(ROLLBACK, backup.backup_id).remove_left(host, progress, image=held, containers=True)
        note = f"{tag} on {host.name} stands for this image already; nothing was done; other backups are given by id"
        return work.outcome(image_id=held.id, previous=held, notes=(note,))
    if request.dry_run:
        require_bytes(repository, backup)
        return work.outcome(image_id="", previous=held, kept=_before(tag, backup.backup_id, held, host))
    change = work.change(repository.trail(request.actor))
    change.tell("rollback.started", "intent", previous_id=held.id if held else "")
    with change.or_failed("rollback.failed"):
        outcome = _roll_back(work, repository=repository, test_daemon=test_daemon)
    change.tell(
        "rollback.done",
        "success",
        image_id=outcome.image_id,
        previous_id=outcome.previous_id,
        kept=outcome.kept,
        proven=list(outcome.proven),
        passed_by=outcome.drill.passed_by if outcome.drill else None,
        guessed=list(outcome.guessed),
    )
    return outcome


def _roll_back(work: _Work, *, repository: Repository, test_daemon: TestDaemonFactory) -> RollbackOutcome:
    backup, host, tag, progress, request = work.backup, work.host, work.tag, work.progress, work.request
    own = WorkingName(ROLLBACK, backup.backup_id)
    clock = repository.clock
    began = clock.monotonic()
    proven: tuple[str, ...] = ()
    drill = None
    loads = 1 if request.prove == "none" else 2
    what = f"roll {tag} on {host.name} back to {backup.backup_id}"
    progress.start(what, loads * backup.whole().size_bytes)
    try:
        if request.prove != "none":
            plan = request.drill if request.prove == "run" else None
            with test_daemon() as daemon:
                drill = prove_in(daemon, work.candidate, own=own, host=host, drill=plan, clock=clock, progress=progress)
            proven = ("test daemon",)
        image = load_proven(work.candidate, own=own, host=host, progress=progress)
        # Much time has passed: what does the tag stand for now?
        held, kept = standing(tag, host), ""
        if held is not None and held.id != image.id:
            kept = _before(tag, backup.backup_id, held, host)
            host.tag_image(held.id, reference=kept)
        host.tag_image(image.id, reference=tag)
        own.remove_left(host, progress, image=image, containers=True)
    finally:
        progress.finish()
        own.remove(host, progress)
    seconds = round(clock.monotonic() - began, 3)
    return work.outcome(
        image_id=image.id, previous=held, kept=kept, proven=(*proven, "target"), drill=drill, seconds=seconds
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One rollback: what is rolled back to what, and where."""

    backup: Backup
    tag: str
    request: RollbackRequest
    candidate: Candidate
    host: DockerHost
    progress: Progress

    def outcome(
        self,
        *,
        image_id: str,
        previous: ImageInspect | None,
        kept: str = "",
        proven: tuple[str, ...] = (),
        drill: Drill | None = None,
        seconds: float = 0.0,
        notes: tuple[str, ...] = (),
    ) -> RollbackOutcome:
        return RollbackOutcome(
            backup_id=self.backup.backup_id,
            tag=self.tag,
            step=self.request.step,
            image_id=image_id,
            previous_id=previous.id if previous else "",
            kept=kept,
            exact=self.candidate.exact,
            guessed=self.candidate.guessed,
            proven=proven,
            drill=drill,
            seconds=seconds,
            notes=(*self._of_another_source(), *notes),
        )

    def _of_another_source(self) -> tuple[str, ...]:
        """Return a note when the backup is not one of this tag: allowed, for a release may move, but worth a look."""
        source = self.backup.source
        if source.kind is SourceKind.IMAGE and source.name == self.tag:
            return ()
        return (f"backup {self.backup.backup_id} is one of {source}, not of image {self.tag}",)

    def change(self, trail: Trail) -> Change:
        about = {
            "backup_id": self.backup.backup_id,
            "target": self.host.name,
            "tag": self.tag,
            "step": self.request.step,
            "config_digest": self.candidate.config_digest,
        }
        return Change(trail, source=self.backup.source, host=self.host, progress=self.progress, about=about)


def _before(tag: str, backup_id: str, held: ImageInspect | None, host: DockerHost) -> str:
    """Return a name that keeps what the tag stands for: the first that stands for nothing else."""
    if held is None:
        return ""
    names = before_names(tag, backup_id, moving=(tag,))
    return next(name for name in names if (standing(name, host) or held).id == held.id)
