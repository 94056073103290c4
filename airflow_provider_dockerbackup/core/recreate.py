# SPDX-License-Identifier: Apache-2.0
"""Restore a container: its filesystem as an image, and a container made from it as the one that was backed up.

A container that it replaces is stopped and renamed, never removed, and comes back when the new one does not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.change import Change
from airflow_provider_dockerbackup.core.container_options import ContainerOption, ContainerOptions, container_options
from airflow_provider_dockerbackup.core.labels import REPLACES_LABEL, RESTORED_LABEL
from airflow_provider_dockerbackup.core.model import ContainerInspect
from airflow_provider_dockerbackup.core.names import container_before
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.reading import container_document, require_readable
from airflow_provider_dockerbackup.core.recreate_steps import Position, Standing, Step, next_step, next_step_back
from airflow_provider_dockerbackup.core.reference import container_name
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.restore import RESTORED, RestoreRequest, restore_backup
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    NotFoundError,
)

_RUNNING = frozenset({"running", "restarting", "paused"})
_STOP_SECONDS = 10
_POLL_SECONDS = 0.5
# More than any way through the steps has; two runs that undo each other's work come to an end here.
_MOST_STEPS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class RecreateRequest:
    """Which container to make.

    :param name: its name; None is the name it had when it was backed up.
    :param replace: stop and keep a container that has the name, which is refused otherwise.
    :param network: network or network mode to use instead of its own.
    :param healthy_within_seconds: until then it must be healthy, or, without a health check, run steadily.
    :param running_seconds: how long it must run without interruption where it has no health check.
    :param dry_run: check everything and say what would be done, but do not touch the target.
    :param actor: who does it: DAG run or user, and software versions.
    """

    name: str | None = None
    replace: bool = False
    network: str | None = None
    healthy_within_seconds: int = 60
    running_seconds: int = 5
    dry_run: bool = False
    actor: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecreateOutcome:
    """What was done, or would be done.

    :param status: ``created``, ``replaced``, or ``already`` when an earlier run had done it.
    :param container_id: empty in a dry run.
    :param image: the image it is made from.
    :param kept: name under which the replaced container is kept, stopped; empty when none was replaced.
    :param options: names of the options of ``docker create``, such as ``--restart``.
    :param not_carried_over: what the new container does not have of the old one, by name.
    """

    backup_id: str
    name: str
    status: str
    container_id: str
    image: str
    kept: str
    options: tuple[str, ...]
    not_carried_over: tuple[str, ...]
    seconds: float


def restore_container(
    backup: Backup,
    request: RecreateRequest,
    *,
    host: DockerHost,
    repository: Repository,
    progress: Progress,
) -> RecreateOutcome:
    """Return what runs on the target host after the restore.

    When it is killed at any step, the next run of the same request goes on from there.

    :raises ConfigurationError: when the request is wrong, the backup cannot be decrypted, or a network is not there;
        the target was not touched.
    :raises ConflictError: when the name is taken and ``replace`` is not set; the target was not touched.
    :raises IntegrityError: when the archive is damaged; no container was touched.
    :raises DockerBackupError: when the new container did not start or get healthy; one that was replaced has its
        name back and runs again.
    :raises TransientError: when the link or the daemon failed; run it again.
    """
    require_readable(repository, backup)
    job = _Job(backup, request, host=host, repository=repository, progress=progress)
    at = job.look()
    job.refuse(at)
    status = "already" if next_step(at) is Step.AWAIT else "replaced" if at.current or at.before else "created"
    if request.dry_run:
        return job.outcome(at, status=status, seconds=0.0)
    began = repository.clock.monotonic()
    about = {"backup_id": backup.backup_id, "kind": "container", "name": job.name, "target": host.name}
    trail = repository.trail(request.actor)
    change = Change(trail, source=backup.source, host=host, progress=progress, about=about)
    change.tell("restore.started", "intent", replace=request.replace)
    with change.or_failed("restore.failed"):
        job.run()
        done = job.look()
    outcome = job.outcome(done, status=status, seconds=round(repository.clock.monotonic() - began, 3))
    change.tell("restore.done", "success", container_id=outcome.container_id, status=status, kept=outcome.kept)
    return outcome


class _Job:
    """One re-creation: looks at the names, takes the next step, looks again."""

    def __init__(
        self,
        backup: Backup,
        request: RecreateRequest,
        *,
        host: DockerHost,
        repository: Repository,
        progress: Progress,
    ) -> None:
        record = backup.whole()
        if record.container is None:
            raise ConfigurationError(f"backup {backup.backup_id} of {backup.source} is not one of a container")
        for name in ("healthy_within_seconds", "running_seconds"):
            if getattr(request, name) < 1:
                raise ConfigurationError(f"{name}: expected at least 1, got {getattr(request, name)}")
        self._backup, self._request = backup, request
        self._host, self._repository, self._progress = host, repository, progress
        self.name = container_name(request.name if request.name is not None else record.container.name)
        self._new = container_name(f"{self.name}-dockerbackup-new-{record.backup_id}")
        self._failed = container_name(f"{self.name}-dockerbackup-failed-{record.backup_id}")
        self.before = container_name(container_before(self.name, record.backup_id))
        self.image = f"{RESTORED}:{record.backup_id}"
        document = container_document(repository, backup)["container"]
        self._plan: ContainerOptions = container_options(document, network=request.network)

    def look(self) -> Position:
        """Return what stands under each name now."""
        return Position(
            current=self._standing(self.name),
            new=self._standing(self._new),
            before=self._standing(self.before),
            failed=self._standing(self._failed),
        )

    def refuse(self, at: Position) -> None:
        """Raise what speaks against it before anything is touched."""
        where = self._host.name
        for name, standing in ((self._new, at.new), (self._failed, at.failed)):
            if standing is not None and not standing.ours:
                raise ConflictError(f"the name {name} on {where} is held by another container; rename or remove it")
        theirs = at.current is not None and not at.current.ours
        if theirs and not self._request.replace:
            raise ConflictError(
                f"{where} has a container {self.name}; restore under another name, or ask for its replacement "
                "(replace, --replace), which keeps it, stopped, under a second name"
            )
        if at.before is not None and next_step(at) in {Step.CREATE, Step.STOP_OLD, Step.KEEP_OLD}:
            raise ConflictError(
                f"{self.before} on {where} is kept from an earlier restore of this backup; rename or remove it first"
            )
        if theirs:
            document = self._host.inspect_container(self.name)
            if (document.document.get("HostConfig") or {}).get("AutoRemove"):
                raise ConflictError(
                    f"container {self.name} on {where} was started with --rm: stopped it would be gone, so it cannot "
                    "be kept; stop it yourself"
                )
            if document.status == "paused":
                raise ConflictError(f"container {self.name} on {where} is paused; unpause or stop it first")
        self._require_networks()

    def _require_networks(self) -> None:
        if not self._plan.networks:
            return
        there = self._host.list_networks()
        for network in self._plan.networks:
            if network not in there:
                raise ConfigurationError(
                    f"the container's network {network} is not on {self._host.name}; create it there, or give another "
                    "(network, --network)"
                )

    def run(self) -> None:
        """Go from step to step until the new container runs; when it does not, put the old one back."""
        for _ in range(_MOST_STEPS):
            at = self.look()
            step = next_step(at)
            try:
                self._do(step, at)
            except DockerBackupError as err:
                # A run of the same request may have been faster: then go on from where it is now.
                if step not in {Step.START_NEW, Step.AWAIT} and self.look() != at:
                    continue
                self._put_back(err)
                raise
            if step in {Step.START_NEW, Step.AWAIT}:
                return
        raise ConflictError(f"another run works on container {self.name} on {self._host.name}; let one of them end")

    def _put_back(self, reason: DockerBackupError) -> None:
        try:
            for _ in range(_MOST_STEPS):
                at = self.look()
                step = next_step_back(at)
                if step is Step.DONE:
                    return
                self._do(step, at)
        except DockerBackupError as err:
            self._progress.note(
                f"WARNING: the container {self.name} on {self._host.name} is not put back: {err}; run the restore "
                f"again, or see to {self.name} and {self.before} on the host"
            )
            reason.add_note(f"putting the old container back failed: {err}")

    def _do(self, step: Step, at: Position) -> None:
        """Take one step; containers are named by ID, so that a faster run is not done over."""
        host, current = self._host, at.current
        spare, spare_name = (at.failed, self._failed) if at.failed else (at.new, self._new)
        if step is Step.CREATE:
            self._create(at)
        elif step is Step.AWAIT and current:
            self._await(current.id)
        elif step in {Step.STOP_OLD, Step.STOP_NEW} and current:
            self._stop(current.id)
        elif step is Step.KEEP_OLD and current:
            host.rename_container(current.id, to=self.before)
        elif step is Step.NAME_NEW and at.new:
            host.rename_container(at.new.id, to=self.name)
        elif step is Step.START_NEW and current:
            host.start_container(current.id)
            self._await(current.id)
        elif step is Step.START_OLD and current:
            host.start_container(current.id)
        elif step is Step.SET_ASIDE and current:
            host.rename_container(current.id, to=self._failed)
        elif step is Step.NAME_OLD and at.before:
            host.rename_container(at.before.id, to=self.name)
        elif step is Step.REMOVE_NEW and spare:
            if spare.running:
                self._stop(spare.id)
            host.remove_container(spare.id)
            self._progress.note(f"removed {spare_name} on {host.name}")

    def _create(self, at: Position) -> None:
        request = RestoreRequest(actor=self._request.actor)
        restore_backup(self._backup, request, host=self._host, repository=self._repository, progress=self._progress)
        replaces = "running" if at.current and at.current.running else "stopped"
        labels = {RESTORED_LABEL: self._backup.backup_id, REPLACES_LABEL: replaces}
        options = [ContainerOption(name="label", value=f"{key}={value}") for key, value in labels.items()]
        self._host.create_from_options(self.image, name=self._new, options=[*self._plan.options, *options])

    def _stop(self, container_id: str) -> None:
        seconds = self._host.inspect_container(container_id).config.get("StopTimeout")
        self._host.stop_container(container_id, timeout_seconds=_STOP_SECONDS if seconds is None else max(seconds, 0))

    def _await(self, container_id: str) -> None:
        """Wait until the new container is healthy, or runs steadily.

        :raises DockerBackupError: when it ended, is unhealthy, or the time is over.
        """
        clock, request = self._repository.clock, self._request
        began = steady_since = clock.monotonic()
        started = ""
        while True:
            found = self._host.inspect_container(container_id)
            now = clock.monotonic()
            health = str(((found.document.get("State") or {}).get("Health") or {}).get("Status") or "none")
            if found.status != "running" or found.started_at != started:
                steady_since, started = now, found.started_at
            if found.status == "running" and health == "healthy":
                return
            if found.status == "running" and health == "none" and now - steady_since >= request.running_seconds:
                return
            if found.status in {"created", "exited", "dead"} or health == "unhealthy":
                raise self._not_healthy(found, health)
            if now - began >= request.healthy_within_seconds:
                raise self._not_healthy(found, health)
            clock.sleep(_POLL_SECONDS)

    def _not_healthy(self, found: ContainerInspect, health: str) -> DockerBackupError:
        state = found.document.get("State") or {}
        code = f" with exit code {state.get('ExitCode')}" if found.status in {"exited", "dead"} else ""
        kept = self._standing(self.before)
        after = (
            "the one it replaced is put back and the new one removed" if kept else "it is left there to be looked at"
        )
        return DockerBackupError(
            f"the restored container {self.name} on {self._host.name} is {found.status}{code}, health {health}, within "
            f"{self._request.healthy_within_seconds} seconds of its start; {after}. Start one from {self.image} by "
            "hand to see why, or raise healthy_within_seconds"
        )

    def _standing(self, name: str) -> Standing | None:
        try:
            found = self._host.inspect_container(name)
        except NotFoundError:
            return None
        if found.name != name:  # the name is the beginning of another container's ID
            return None
        labels = found.config.get("Labels") or {}
        return Standing(
            id=found.id,
            ours=labels.get(RESTORED_LABEL) == self._backup.backup_id,
            running=found.status in _RUNNING,
            replaces_running=labels.get(REPLACES_LABEL) == "running",
        )

    def outcome(self, at: Position, *, status: str, seconds: float) -> RecreateOutcome:
        """Return what was done, or would be."""
        kept = at.before or (at.current and not at.current.ours)
        names = dict.fromkeys(f"--{option.name}" for option in self._plan.options)
        return RecreateOutcome(
            backup_id=self._backup.backup_id,
            name=self.name,
            status=status,
            container_id=at.current.id if at.current and not self._request.dry_run else "",
            image=self.image,
            kept=self.before if kept else "",
            options=tuple(names),
            not_carried_over=self._plan.not_carried_over,
            seconds=seconds,
        )
