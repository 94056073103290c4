# SPDX-License-Identifier: Apache-2.0
"""Roll a tag back on a Docker host: to an earlier backup, or to an earlier step of an archived image's own history."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count

from airflow_provider_dockerbackup.core.audit import Trail
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.model import ImageInspect, SourceKind
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.reference import ImageReference
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.rollback_image import Candidate, candidate_of, load_proven, prove_in
from airflow_provider_dockerbackup.core.verify import TestDaemonFactory
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, NotFoundError

PREVIOUS = "previous"
ROLLBACK = "dockerbackup-rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequest:
    """What to roll back, and to what.

    :param tag: ``name:tag`` on the target.
    :param step: how many steps of the image's history are kept; None for the image as it was saved.
    :param dry_run: check everything and say what would be done, but do not touch the target.
    :param actor: who does it: DAG run or user, and software versions.
    """

    tag: str
    step: int | None = None
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
    :param proven: where a container was created from the image before the tag moved: ``target``, ``test daemon``.
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
    seconds: float
    notes: tuple[str, ...] = ()


def find_backup(repository: Repository, backup_id: str, *, tag: str, host: DockerHost) -> Backup:
    """Return the backup to roll ``tag`` back to.

    :param backup_id: its id, an unambiguous beginning of it, or ``previous``: the newest backup of this very tag on
        this very host that holds another image than the tag stands for now.
    :raises NotFoundError: when there is none.
    :raises ConflictError: when several ids begin so.
    """
    if backup_id != PREVIOUS:
        return repository.catalog.find(backup_id)
    tag = _tag(tag)
    source, image = Source(host=host.name, kind=SourceKind.IMAGE, name=tag), host.inspect_image(tag)
    store = host.engine().store
    for backup in repository.catalog.backups(source=source):
        if backup.record is None or backup.trust == "failed" or not backup.complete:
            continue
        if not candidate_of(repository, backup, step=None).is_(image, store=store):
            return backup
    raise NotFoundError(
        f"no backup of {source} in {repository.storage.url} holds another image than {tag} stands for now; "
        "'dockerbackup list' shows what there is, give the id of the backup to use"
    )


def roll_back(
    backup: Backup,
    request: RollbackRequest,
    *,
    host: DockerHost,
    repository: Repository,
    test_daemon: TestDaemonFactory | None,
    progress: Progress,
) -> RollbackOutcome:
    """Return what the tag stands for after the rollback.

    Before the tag moves, a container is created from the image on the target, and in a test daemon first when one is
    given. What the tag stood for is kept as ``<name>:before-<backup id>``.

    :param test_daemon: gives a daemon that is neither the source's nor the target's; None leaves this proof out.
    :raises ConfigurationError: when tag or step are wrong, before the target is touched.
    :raises IntegrityError: when the archive is damaged or something else was loaded; the tag was not moved.
    :raises TransientError: when link, daemon or storage failed; the tag stands for the old image, or for the new one
        with the old one kept.
    """
    tag = _tag(request.tag)
    candidate = candidate_of(repository, backup, step=request.step)
    work = _Work(backup=backup, tag=tag, request=request, candidate=candidate, host=host, progress=progress)
    standing = _standing(tag, host)
    if standing is not None and candidate.is_(standing, store=host.engine().store):
        note = f"{tag} on {host.name} stands for this image already; nothing was done"
        return work.outcome(image_id=standing.id, previous=standing, kept="", notes=(note,))
    if request.dry_run:
        repository.storage.stat(backup.path + backup.whole().archive.name)
        kept = _before(tag, backup.backup_id, standing, host) if standing else ""
        return work.outcome(image_id="", previous=standing, kept=kept)
    trail = Trail(repository.storage, clock=repository.clock, actor=request.actor)
    work.tell(trail, "rollback.started", "intent", previous_id=standing.id if standing else "")
    try:
        outcome = _roll_back(work, repository=repository, test_daemon=test_daemon)
    except BaseException as err:
        problem = str(err) if isinstance(err, DockerBackupError) else type(err).__name__
        work.tell(trail, "rollback.failed", "failure", problem=problem)
        raise
    work.tell(
        trail,
        "rollback.done",
        "success",
        image_id=outcome.image_id,
        previous_id=outcome.previous_id,
        kept=outcome.kept,
        proven=list(outcome.proven),
        guessed=list(outcome.guessed),
    )
    return outcome


def _roll_back(work: _Work, *, repository: Repository, test_daemon: TestDaemonFactory | None) -> RollbackOutcome:
    backup, host, tag, progress = work.backup, work.host, work.tag, work.progress
    # Loaded under a name of our own: docker load takes tags from other images without asking.
    own = f"{ROLLBACK}:{backup.backup_id}-{secrets.token_hex(4)}"
    began = repository.clock.monotonic()
    proven: tuple[str, ...] = ()
    progress.start(f"roll {tag} on {host.name} back to {backup.backup_id}", backup.whole().archive.size_bytes)
    try:
        if test_daemon is not None:
            with test_daemon() as daemon:
                prove_in(daemon, work.candidate, own=own, host=host, progress=progress)
            proven = ("test daemon",)
        image = load_proven(work.candidate, own=own, host=host, progress=progress)
        # Much time has passed: what does the tag stand for now?
        standing, kept = _standing(tag, host), ""
        if standing is not None and standing.id != image.id:
            kept = _before(tag, backup.backup_id, standing, host)
            host.tag_image(standing.id, reference=kept)
        host.tag_image(image.id, reference=tag)
    finally:
        progress.finish()
        _remove_own(host, own, progress)
    seconds = round(repository.clock.monotonic() - began, 3)
    return work.outcome(image_id=image.id, previous=standing, kept=kept, proven=(*proven, "target"), seconds=seconds)


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
        kept: str,
        proven: tuple[str, ...] = (),
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
            seconds=seconds,
            notes=notes,
        )

    def tell(self, trail: Trail, type_: str, outcome: str, **subject: object) -> None:
        about = {
            "backup_id": self.backup.backup_id,
            "target": self.host.name,
            "tag": self.tag,
            "step": self.request.step,
            "config_digest": self.candidate.config_digest,
        }
        try:
            trail.record(
                type_,
                outcome=outcome,
                source=str(self.backup.source),
                subject={**about, **subject},
                access=self.host.access,
            )
        except DockerBackupError as err:
            self.progress.note(f"WARNING: the audit trail lacks the event {type_}: {err}")


def _tag(tag: str) -> str:
    """Return ``tag`` as Docker shows it.

    :raises ConfigurationError: when it is not ``NAME:TAG``.
    """
    parsed = ImageReference.parse(tag)
    if not parsed.tag or parsed.digest:
        raise ConfigurationError(f"tag: expected NAME:TAG, got {tag!r}")
    return str(parsed)


def _standing(tag: str, host: DockerHost) -> ImageInspect | None:
    """Return the image that ``tag`` stands for, or None."""
    try:
        return host.inspect_image(tag)
    except NotFoundError:
        return None


def _before(tag: str, backup_id: str, standing: ImageInspect, host: DockerHost) -> str:
    """Return a name that keeps ``standing``: the first that stands for nothing else."""
    name = re.sub(r":[^:/]*$", "", tag) + f":before-{backup_id}"
    is_free: Callable[[str], bool] = lambda each: (_standing(each, host) or standing).id == standing.id  # noqa: E731
    return next(each for number in count(1) if is_free(each := name + (f"-{number}" if number > 1 else "")))


def _remove_own(host: DockerHost, own: str, progress: Progress) -> None:
    try:
        host.remove_image(own)
    except DockerBackupError as err:
        progress.note(f"the name {own} stays on {host.name}: {err}")
