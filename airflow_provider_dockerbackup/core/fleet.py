# SPDX-License-Identifier: Apache-2.0
"""What a fleet's containers ask to have backed up, and what of it is due, told from labels and records alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from airflow_provider_dockerbackup.core.catalog import Backup, Catalog
from airflow_provider_dockerbackup.core.freshness import CLOCK_TOLERANCE
from airflow_provider_dockerbackup.core.labels import ENABLE, EXCLUDE, RESTORED_LABEL, BackupLabels, read_labels
from airflow_provider_dockerbackup.core.model import ContainerSummary, SourceKind
from airflow_provider_dockerbackup.core.names import is_own_container, replaced_container
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.reference import ImageReference
from airflow_provider_dockerbackup.core.schedule import Schedule
from airflow_provider_dockerbackup.exceptions import ConfigurationError, NotFoundError

Select = Literal["labelled", "all"]
_STOPPED = frozenset({"created", "exited", "dead"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of a fleet's sources are backed up, and how often.

    :param select: ``labelled`` for containers that say so; ``all`` for every container that does not say no.
    :param kinds: what is backed up of each: the ``container``, the ``image`` it was made from, or both.
    :param schedule: of what no label says.
    :param zone: whose calendar and clock schedules mean.
    """

    select: Select = "labelled"
    kinds: frozenset[SourceKind] = frozenset({SourceKind.CONTAINER})
    schedule: Schedule = field(default_factory=Schedule)
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One source that labels ask to have backed up.

    :param retention: its own policy as text, empty for none.
    :param problem: why it cannot be backed up as its labels say; empty for nothing.
    """

    source: Source
    schedule: Schedule
    retention: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one container asks for.

    :param labels: None when they are wrong; ``problem`` then says why.
    """

    container: ContainerSummary
    labels: BackupLabels | None
    problem: str = ""


def wanted(host: DockerHost, selection: Selection, *, progress: Progress) -> tuple[Wanted, ...]:
    """Return what the containers of a host ask to have backed up, sorted.

    One whose labels are wrong is among it, with its problem: to leave it out would be to lose it silently. An image
    that several containers were made from is there once.

    :param progress: told which containers are left out although they have the labels of what they were.
    :raises DockerBackupError: when the host cannot be listed.
    """
    listed = [each for each in host.list_containers() if not is_own_container(each.name)]
    asked = [each for each in (ask(one, host=host.name) for one in listed) if _is_selected(each, selection)]
    asked = _without_kept(asked, _kept(listed), host=host.name, progress=progress)
    found = [_container(each, host, selection) for each in asked if _covers(each, SourceKind.CONTAINER, selection)]
    by_image: dict[str, list[Asked]] = {}
    for each in asked:
        if each.labels is not None and _covers(each, SourceKind.IMAGE, selection):
            by_image.setdefault(_whole(each.container.image), []).append(each)
    found += [_image(reference, each, host, selection) for reference, each in by_image.items()]
    return tuple(sorted(found, key=lambda each: (each.source.kind.value, each.source.name)))


def ask(container: ContainerSummary, *, host: str) -> Asked:
    """Return what a container's labels ask for, or what is wrong with them.

    :param host: the host's name.
    """
    try:
        labels = read_labels(container.labels, where=f"{host} container {container.name}")
    except ConfigurationError as err:
        return Asked(container=container, labels=None, problem=str(err))
    return Asked(container=container, labels=labels)


def due(wanted_source: Wanted, newest: datetime | None, *, at: datetime, selection: Selection) -> bool:
    """Tell whether a source is due in a run; one with a problem always is, so that its task says so.

    :param newest: as :func:`newest_run` returns it.
    :param at: time of the run; names of backups have it to the second.
    """
    if wanted_source.problem:
        return True
    return wanted_source.schedule.due(newest, at=at.replace(microsecond=0), zone=selection.zone)


def newest_run(catalog: Catalog, source: Source, *, now: datetime) -> datetime | None:
    """Return the time of the newest run that left a backup of a source that counts; None when none did.

    :param now: backups of runs that are yet to come do not count: a clock was wrong, and they would stop all others.
    """
    return next((backup.newest_run for backup in catalog.by_run(source) if counts(backup, now=now)), None)


def counts(backup: Backup, *, now: datetime) -> bool:
    """Tell whether a backup is readable and whole, did not fail its last verification, and is not of a time to come.

    An archive on its host that nobody has scanned does not count, as it does for no check of freshness.

    :param now: when that is looked at.
    """
    good = backup.record is not None and backup.complete and backup.trust not in {"failed", "unscanned"}
    return good and backup.newest_run <= now + CLOCK_TOLERANCE


def _kept(listed: Sequence[ContainerSummary]) -> frozenset[str]:
    """Return the names of containers that a restore stopped and keeps, while the one that it made instead stands.

    Of one whose place nobody has, or that runs, nobody can say that it is not needed.
    """
    made = set()
    for each in listed:
        replaced, restored = replaced_container(each.name), each.labels.get(RESTORED_LABEL, "")
        # One that was restored and then replaced itself stands for its name still, but not for its own replacement.
        name, by = replaced or (each.name, "")
        if restored != by:
            made.add((name, restored))
    return frozenset(each.name for each in listed if each.state in _STOPPED and replaced_container(each.name) in made)


def _without_kept(asked: Sequence[Asked], kept: Collection[str], *, host: str, progress: Progress) -> list[Asked]:
    for each in asked:
        if each.container.name in kept:
            progress.note(
                f"{host} container {each.container.name} is left out: a restore stopped it, and another has its place; "
                "remove it when it is not needed, or start it, and it is backed up again"
            )
    return [each for each in asked if each.container.name not in kept]


def _is_selected(asked: Asked, selection: Selection) -> bool:
    if asked.labels is None or asked.labels.enabled is None:
        return asked.labels is None or selection.select == "all"
    return asked.labels.enabled


def _covers(asked: Asked, kind: SourceKind, selection: Selection) -> bool:
    """Tell whether this part of a container is to be there, if only to say what is wrong."""
    if asked.labels is None or not selection.kinds - asked.labels.excluded:
        return kind is SourceKind.CONTAINER
    return kind in selection.kinds - asked.labels.excluded


def _container(asked: Asked, host: DockerHost, selection: Selection) -> Wanted:
    source = Source(host=host.name, kind=SourceKind.CONTAINER, name=asked.container.name)
    if asked.labels is None:
        return Wanted(source=source, schedule=selection.schedule, problem=asked.problem)
    problem = ""
    if not selection.kinds - asked.labels.excluded:
        kinds = ", ".join(sorted(each.value for each in selection.kinds))
        problem = f"{source}: label {EXCLUDE} leaves nothing of what is backed up here ({kinds}); set {ENABLE}=false"
    return Wanted(
        source=source,
        schedule=asked.labels.schedule or selection.schedule,
        retention=asked.labels.retention,
        problem=problem,
    )


def _image(reference: str, asked: Iterable[Asked], host: DockerHost, selection: Selection) -> Wanted:
    """Return an image for all of the containers that were made from it; what they say of it must agree."""
    known = [(each, each.labels) for each in asked if each.labels is not None]
    said = {(labels.schedule or selection.schedule, labels.retention) for _, labels in known}
    names = ", ".join(each.container.name for each, _ in known)
    schedule, retention = next(iter(said))
    problem = _moved(reference, {each.container.image_id for each, _ in known}, host)
    if len(said) > 1:
        problem = (
            "they differ in their labels schedule or retention; make them agree, or leave the image out of all but one "
            f"of them by {EXCLUDE}=image"
        )
    source = Source(host=host.name, kind=SourceKind.IMAGE, name=reference)
    if problem:
        return Wanted(source=source, schedule=selection.schedule, problem=f"{source}, of containers {names}: {problem}")
    return Wanted(source=source, schedule=schedule, retention=retention)


def _whole(reference: str) -> str:
    """Return a reference as the name of a source, so that ``app`` and ``app:latest`` are one."""
    try:
        return str(ImageReference.parse(reference))
    except ConfigurationError:
        return reference


def _moved(reference: str, image_ids: Iterable[str], host: DockerHost) -> str:
    """Return why what a reference stands for now is not what containers were made from; empty when it is."""
    try:
        now = host.inspect_image(str(ImageReference.parse(reference))).id
    except ConfigurationError as err:
        return str(err)
    except NotFoundError:
        return "there is no image of that name on the host any more; its containers can be exported"
    if others := sorted(each for each in set(image_ids) if each != now):
        return (
            f"the name stands for {now[:19]} now, and they were made from {others[0][:19]}; make them anew, or leave "
            f"the image out by {EXCLUDE}=image"
        )
    return ""
