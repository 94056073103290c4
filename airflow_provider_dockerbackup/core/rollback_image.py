# SPDX-License-Identifier: Apache-2.0
"""The image that a rollback leads to: what it must become, how it is loaded, and the proof that it became that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from airflow_provider_dockerbackup.core.archive.earlier import (
    Earlier,
    earlier_configuration,
    earlier_image,
    member_bytes,
)
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.configuration import configuration_of, differences
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.drill import DrillPlan, run_drill
from airflow_provider_dockerbackup.core.model import ImageInspect, Store
from airflow_provider_dockerbackup.core.names import WorkingName
from airflow_provider_dockerbackup.core.ports import Clock, DockerHost, Progress, TestDaemon
from airflow_provider_dockerbackup.core.reading import archive_stream, config_digest_of, layers_of, load_stream, told
from airflow_provider_dockerbackup.core.record import Configuration, Image
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import Drill
from airflow_provider_dockerbackup.core.verify import saved_config_digest
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, IntegrityError


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An image that is not loaded yet.

    :param source_engine: identifier of the daemon that the backup was taken from.
    :param known_ids: every ID that an engine may give it, where that is known.
    :param configuration: names and salted HMACs of its configuration.
    :param stream: gives it as ``docker load`` takes it, under one tag.
    """

    backup_id: str
    source_engine: str
    config_digest: str
    known_ids: frozenset[str]
    diff_ids: tuple[str, ...]
    configuration: Configuration
    stream: Callable[[str], AbstractContextManager[Iterator[bytes]]]
    exact: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()

    def is_(self, image: ImageInspect, *, store: Store) -> bool:
        """Whether an image on a host is this one; by layers and configuration where its ID cannot tell."""
        if image.diff_ids != self.diff_ids:
            return False
        if image.id in self.known_ids:
            return True
        return store == "containerd" and not differences(self.configuration, image.config)

    def require(self, image: ImageInspect, *, store: Store, where: str) -> None:
        """Return only if an image is this one.

        :raises IntegrityError: when it is another one.
        """
        if not self.is_(image, store=store):
            raise IntegrityError(
                f"{where} loaded image {image.id} with diff_ids {image.diff_ids} for the rollback to backup "
                f"{self.backup_id}, expected configuration {self.config_digest} with diff_ids {self.diff_ids}"
            )


def candidate_of(repository: Repository, backup: Backup, *, step: int | None) -> Candidate:
    """Return the image of a backup, or as it was after the first ``step`` steps of its history.

    :raises ConfigurationError: when there is no such step; the message lists those there are.
    :raises IntegrityError: when the record or the configuration in the archive is damaged.
    """
    record = backup.whole()
    if step is not None:
        return _earlier(repository, backup, step)
    digest = config_digest_of(repository, backup)

    def stream(tag: str) -> AbstractContextManager[Iterator[bytes]]:
        return load_stream(repository, backup, tags=(tag,))

    return Candidate(
        backup_id=record.backup_id,
        source_engine=record.engine.engine_id,
        config_digest=digest,
        known_ids=record.image_ids | {digest},
        diff_ids=record.diff_ids,
        configuration=record.configuration,
        stream=stream,
    )


def _earlier(repository: Repository, backup: Backup, step: int) -> Candidate:
    record = backup.whole()
    image = record.image
    if image is None:
        raise ConfigurationError(
            f"step: backup {record.backup_id} is one of a container, whose history is not in it; leave step out"
        )
    with archive_stream(repository, backup) as tar:
        document = member_bytes(tar, digest=image.config_digest)
    try:
        earlier = earlier_configuration(document, step=step)
    except ConfigurationError as err:
        raise ConfigurationError(f"{err}; the steps of backup {record.backup_id} are:\n{steps_of(image)}") from err

    @contextmanager
    def stream(tag: str) -> Iterator[Iterator[bytes]]:
        layers = layers_of(repository, backup, image)[: len(earlier.diff_ids)]
        with archive_stream(repository, backup) as tar:
            yield earlier_image(tar, document=earlier.document, layers=layers, tags=(tag,))

    return _candidate_at(earlier, backup, stream)


def _candidate_at(
    earlier: Earlier, backup: Backup, stream: Callable[[str], AbstractContextManager[Iterator[bytes]]]
) -> Candidate:
    record = backup.whole()
    digest = sha256_of(earlier.document)
    return Candidate(
        backup_id=record.backup_id,
        source_engine=record.engine.engine_id,
        config_digest=digest,
        known_ids=frozenset({digest}),
        diff_ids=earlier.diff_ids,
        configuration=configuration_of(earlier.config, salt=bytes.fromhex(record.configuration.salt)),
        stream=stream,
        exact=earlier.exact,
        guessed=earlier.guessed,
    )


def steps_of(image: Image) -> str:
    """Return an image's steps, one a line, numbered from 1, without commands and values."""
    return "\n".join(
        f"{number:4} {each.created or '-'} {each.created_by or '-'}{' (no layer)' if each.empty_layer else ''}"
        for number, each in enumerate(image.history, start=1)
    )


def load_proven(candidate: Candidate, *, own: WorkingName, host: DockerHost, progress: Progress) -> ImageInspect:
    """Load an image onto a host under the name ``own``, create a container from it, and return what the host holds.

    :raises IntegrityError: when the archive is damaged, or the host holds another image, or cannot unpack it.
    """
    with candidate.stream(own.tag) as stream:
        host.load_image(told(stream, progress))
    image = host.inspect_image(own.tag)
    candidate.require(image, store=host.engine().store, where=host.name)
    # Engines report a successful load although unpacking failed; creating a container needs the unpacked layers.
    try:
        host.create_container(own.tag, name=own.container)
    finally:
        _quietly(
            lambda: host.remove_container(own.container),
            f"the container {own.container} stays on {host.name}",
            progress,
        )
    return image


def prove_in(
    daemon: TestDaemon,
    candidate: Candidate,
    *,
    own: WorkingName,
    host: DockerHost,
    drill: DrillPlan | None,
    clock: Clock,
    progress: Progress,
) -> Drill | None:
    """Load an image into a test daemon, compare it, create a container from it or run it, and remove both.

    :param drill: how it is run; None only creates a container.
    :return: how it passed.
    :raises ConfigurationError: when the daemon is that of the source or of the target.
    :raises IntegrityError: when the archive is damaged, or the daemon holds something else, or it did not pass.
    """
    engine = daemon.engine()
    if engine.engine_id in {candidate.source_engine, host.engine().engine_id}:
        raise ConfigurationError(
            f"the test daemon is that of the source or of the target (engine {engine.engine_id}); give another one, "
            "none for a throw-away daemon, or leave this proof out (prove: none)"
        )
    try:
        with candidate.stream(own.tag) as stream:
            daemon.load(told(stream, progress))
        loaded = daemon.inspect_image(own.tag)
        candidate.require(loaded, store=engine.store, where="the test daemon")
        if engine.store == "containerd":
            found = saved_config_digest(daemon, loaded, own.tag)
            if found != candidate.config_digest:
                raise IntegrityError(f"the test daemon holds configuration {found}, expected {candidate.config_digest}")
        if drill is None:
            daemon.create_container(own.tag, name=own.container)
            return None
        return _passed(daemon, own, drill=drill, clock=clock, progress=progress)
    finally:
        for remove, name in ((daemon.remove_container, own.container), (daemon.remove_image, own.tag)):
            _quietly(partial(remove, name), f"{name} stays in the test daemon", progress)


def _passed(daemon: TestDaemon, own: WorkingName, *, drill: DrillPlan, clock: Clock, progress: Progress) -> Drill:
    try:
        return run_drill(daemon, own.tag, name=own.container, plan=drill, clock=clock, progress=progress)
    except IntegrityError as err:
        raise IntegrityError(
            f"the image does not run in the test daemon, so no tag was moved: {err}; if that is not to be expected "
            "without network and capabilities, give a command and a probe (drill), or only load it there (prove: load)"
        ) from err


def _quietly(action: Callable[[], None], otherwise: str, progress: Progress) -> None:
    """Clean up; a failure of that never hides the first error."""
    try:
        action()
    except DockerBackupError as err:
        progress.note(f"{otherwise}: {err}")
