# SPDX-License-Identifier: Apache-2.0
"""Restore a backup onto a Docker host: an image as it was, or a container's filesystem as an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.change import Change
from airflow_provider_dockerbackup.core.configuration import differences
from airflow_provider_dockerbackup.core.layers.reading import WHOLE, Sending
from airflow_provider_dockerbackup.core.model import ImageInspect
from airflow_provider_dockerbackup.core.names import WorkingName, before_names, standing, whole_tag
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.reading import (
    archive_stream,
    config_digest_of,
    load_stream,
    loaded_manifest_of,
    require_bytes,
    require_readable,
    told,
)
from airflow_provider_dockerbackup.core.record import BackupRecord
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.thin import held_layers, known_layers
from airflow_provider_dockerbackup.exceptions import (
    BadBlobError,
    ConfigurationError,
    ConflictError,
    IntegrityError,
    NotFoundError,
)

RESTORED = "dockerbackup-restored"
Method = Literal["load", "import"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """What to restore, and under which names.

    :param tags: names to give it on the target, ``name:tag`` each; without any it is found as
        ``dockerbackup-restored:<backup id>``.
    :param recorded_tags: also give it the tags that the source image had.
    :param replace_tags: take over a tag that stands for another image on the target; that image stays reachable
        under ``<name>:before-<backup id>``, with a number behind it where that stands for another image.
    :param all_layers: send every layer, also those that the target says it has: its store may have lost one since.
    :param method: ``load`` gives the image, or the container's filesystem with its configuration; ``import`` gives a
        container's filesystem alone, as ``docker import`` does.
    :param dry_run: check everything and say what would be done, but do not touch the target.
    :param actor: who does it: DAG run or user, and software versions.
    """

    tags: tuple[str, ...] = ()
    recorded_tags: bool = False
    replace_tags: bool = False
    all_layers: bool = False
    method: Method = "load"
    dry_run: bool = False
    actor: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOutcome:
    """What a restore did, or would do.

    :param image_id: the target engine's ID of the image; empty in a dry run.
    :param tags: the names it has now.
    :param kept: for each tag that was taken over, the name under which the image it stood for is kept.
    :param identical: whether configuration and layers are proven equal to the recorded ones.
    :param seconds: from the first byte read to the compared image.
    """

    backup_id: str
    image_id: str
    tags: tuple[str, ...]
    kept: Mapping[str, str]
    identical: bool
    seconds: float
    notes: tuple[str, ...] = ()


def restore_backup(
    backup: Backup, request: RestoreRequest, *, host: DockerHost, repository: Repository, progress: Progress
) -> RestoreOutcome:
    """Return what stands on the target host after the restore.

    :raises ConfigurationError: when names or method are wrong, or the backup cannot be decrypted, before the target
        is touched.
    :raises ConflictError: when a tag stands for another image and ``replace_tags`` is not set.
    :raises IntegrityError: when the archive is damaged or the target loaded something else; no tag was moved.
    :raises TransientError: when the link, the daemon or the storage failed; no tag was moved.
    """
    require_readable(repository, backup)
    record = backup.whole()
    tags = _tags(record, request)
    taken = _taken(record, host, tags)
    if taken and not request.replace_tags:
        raise _in_use(taken, host)
    kept = _kept(taken, tags, host, record.backup_id)
    if request.dry_run:
        require_bytes(repository, backup)
        return RestoreOutcome(
            backup_id=record.backup_id, image_id="", tags=tags, kept=kept, identical=False, seconds=0.0
        )
    about = {"backup_id": backup.backup_id, "target": host.name}
    trail = repository.trail(request.actor)
    change = Change(trail, source=backup.source, host=host, progress=progress, about=about)
    change.tell("restore.started", "intent", tags=list(tags))
    with change.or_failed("restore.failed"):
        outcome = _restore(backup, request, tags, host=host, repository=repository, progress=progress)
    change.tell("restore.done", "success", image_id=outcome.image_id, tags=list(outcome.tags))
    return outcome


def _in_use(taken: Mapping[str, str], host: DockerHost) -> ConflictError:
    return ConflictError(
        f"{', '.join(sorted(taken))} on {host.name} stands for another image; restore under another tag, or ask for "
        "its replacement (replace_tags, --replace-tags), which keeps that image under a second tag"
    )


def _restore(
    backup: Backup,
    request: RestoreRequest,
    tags: Sequence[str],
    *,
    host: DockerHost,
    repository: Repository,
    progress: Progress,
) -> RestoreOutcome:
    record = backup.whole()
    own = WorkingName(RESTORED, record.backup_id)
    began = repository.clock.monotonic()
    try:
        image, sending = _load(backup, request, own, host=host, repository=repository, progress=progress)
        identical, notes = _compare(repository, backup, request.method, host, image, sending)
        seconds = round(repository.clock.monotonic() - began, 3)
        # Now that the image's ID is known, and much time has passed: what do the tags stand for really?
        ids = {image.id} | (record.image_ids if identical else frozenset())
        stands = {tag: held for tag in tags if (held := standing(tag, host)) is not None}
        taken = {
            tag: held.id
            for tag, held in stands.items()
            if held.id not in ids and not (identical and _is_same(held, image) and host.engine().store == "containerd")
        }
        if taken and not request.replace_tags:
            raise _in_use(taken, host)
        kept = _kept(taken, tags, host, record.backup_id)
        for tag, image_id in taken.items():
            host.tag_image(image_id, reference=kept[tag])
        for tag in tags:
            host.tag_image(image.id, reference=tag)
        own.remove_left(host, progress, image=image)
    finally:
        own.remove(host, progress)
    return RestoreOutcome(
        backup_id=record.backup_id,
        image_id=image.id,
        tags=tuple(tags),
        kept=kept,
        identical=identical,
        seconds=seconds,
        notes=notes,
    )


def _load(
    backup: Backup,
    request: RestoreRequest,
    own: WorkingName,
    *,
    host: DockerHost,
    repository: Repository,
    progress: Progress,
) -> tuple[ImageInspect, Sending]:
    """Return the image that was loaded, and how it was sent."""
    record = backup.whole()
    host.expect_stream()
    if request.method == "import":
        with archive_stream(repository, backup) as tar, _shown(record, host, progress, record.size_bytes):
            host.import_filesystem(told(tar, progress), reference=own.tag)
        return host.inspect_image(own.tag), WHOLE
    sending = _sending(record, host, repository=repository, progress=progress, all_layers=request.all_layers)
    if sending.left_out:
        progress.note(f"{host.name} has {len(sending.left_out)} of {len(record.diff_ids)} layers; they are not sent")
    while True:
        try:
            return _sent(repository, backup, own.tag, host=host, progress=progress, sending=sending), sending
        except IntegrityError as err:
            if sending == WHOLE:
                raise
            # An image that had them may be gone since, or zstd fail; damage of our own is found again by the last try.
            sending = _instead(sending, err)
            how = "all, uncompressed" if sending == WHOLE else "all"
            progress.note(f"{host.name} does not take it so; sending {how}: {err}")
            own.remove(host, progress)  # a containerd store keeps what it could not unpack


def _instead(sending: Sending, err: IntegrityError) -> Sending:
    """Return how to send what was refused: all of it as it is stored, where only blobs were missing; else plain."""
    if sending.held and not isinstance(err, BadBlobError):
        return replace(sending, held={})
    return WHOLE


def _sending(
    record: BackupRecord, host: DockerHost, *, repository: Repository, progress: Progress, all_layers: bool
) -> Sending:
    if record.blobs is None:
        return WHOLE
    engine = host.engine()
    packing = host.packing(engine)
    # A classic store compares each layer that it keeps with its diff_id, and reads no other. A containerd store keeps a
    # blob without a look into it when it has the layer unpacked.
    sending = Sending(packing=packing, prove=packing == "none" or engine.store != "graphdriver")
    if all_layers:
        return sending
    if engine.store == "graphdriver":
        return replace(sending, without=known_layers(record, host))
    if not engine.tells_manifests:
        return sending
    held = held_layers(record, host, engine=engine, packing=packing, repository=repository, progress=progress)
    return replace(sending, held=held)


def _sent(
    repository: Repository, backup: Backup, own: str, *, host: DockerHost, progress: Progress, sending: Sending
) -> ImageInspect:
    """Send a backup and return the image that it is on the host.

    :raises IntegrityError: when the engine refuses it, or is not known to have what was left out.
    """
    _send(repository, backup, own, host=host, progress=progress, sending=sending)
    image = host.inspect_image(own)
    # A containerd store takes an image also without blobs that it lacks, if it has what they unpack to.
    if sending.held and not any(each.whole and each.digest == image.id for each in host.image_manifests(image)):
        raise IntegrityError(f"it does not say that it has all of image {image.id}")
    return image


def _send(
    repository: Repository, backup: Backup, own: str, *, host: DockerHost, progress: Progress, sending: Sending
) -> None:
    record = backup.whole()
    stream = load_stream(repository, backup, tags=(own,), sending=sending)
    with stream as chunks, _shown(record, host, progress, sending.size_bytes(record)):
        host.load_image(told(chunks, progress))


@contextmanager
def _shown(record: BackupRecord, host: DockerHost, progress: Progress, total_bytes: int) -> Iterator[None]:
    progress.start(f"restore {record.backup_id} to {host.name}", total_bytes)
    try:
        yield
    finally:
        progress.finish()


def _compare(
    repository: Repository, backup: Backup, method: Method, host: DockerHost, image: ImageInspect, sending: Sending
) -> tuple[bool, tuple[str, ...]]:
    """Return whether the loaded image is proven to be the recorded one, with notes.

    :raises IntegrityError: when its layers are others, or its configuration is where the ID must be its digest.
    """
    record = backup.whole()
    if image.diff_ids != record.diff_ids:
        raise IntegrityError(
            f"{host.name} loaded diff_ids {image.diff_ids} from backup {record.backup_id}, "
            f"the record says {record.diff_ids}"
        )
    if method == "import":
        return False, ("docker import keeps the filesystem only: configuration and history are not restored",)
    expected = config_digest_of(repository, backup)
    if image.id == expected or image.id in record.image_ids:
        return True, ()
    if sending.held and image.id == loaded_manifest_of(repository, backup, sending=sending):
        return True, ()
    if host.engine().store == "graphdriver":
        raise IntegrityError(
            f"{host.name} loaded configuration {image.id} from backup {record.backup_id}, the record says {expected}"
        )
    # The containerd store names images by a manifest it may have made up; compare the configuration value by value.
    changed = differences(record.configuration, image.config)
    if changed:
        return False, (f"configuration differs in {', '.join(changed)}",)
    return True, ("the containerd store gave it an ID of its own; layers and configuration values are equal",)


def _tags(record: BackupRecord, request: RestoreRequest) -> tuple[str, ...]:
    if request.method not in get_args(Method):
        raise ConfigurationError(f"method: expected one of {', '.join(get_args(Method))}, got {request.method!r}")
    if request.method == "import" and record.filesystem is None:
        raise ConfigurationError(f"method: 'import' is for containers; backup {record.backup_id} is one of an image")
    wanted = list(request.tags)
    if request.recorded_tags and record.image is not None:
        wanted += [tag for tag in record.image.repo_tags if tag not in wanted]
    if not wanted:
        wanted = [f"{RESTORED}:{record.backup_id}"]
    return tuple(whole_tag(tag, parameter="tags") for tag in wanted)


def _taken(record: BackupRecord, host: DockerHost, tags: Sequence[str]) -> dict[str, str]:
    """Return the tags that stand for another image on the target, each with that image's ID."""
    taken = {}
    for tag in tags:
        with suppress(NotFoundError):
            image = host.inspect_image(tag)
            if image.diff_ids != record.diff_ids or differences(record.configuration, image.config):
                taken[tag] = image.id
    return taken


def _kept(taken: Mapping[str, str], tags: Sequence[str], host: DockerHost, backup_id: str) -> dict[str, str]:
    """Return for each taken tag the name that keeps its image: one that stands for no other image, now or then."""
    kept: dict[str, str] = {}
    for tag, image_id in taken.items():
        promised = {name: taken[other] for other, name in kept.items()}
        names = before_names(tag, backup_id, moving=tags)
        kept[tag] = next(
            name for name in names if (promised.get(name) or _standing_id(name, host) or image_id) == image_id
        )
    return kept


def _is_same(one: ImageInspect, other: ImageInspect) -> bool:
    """Tell whether two IDs of a containerd store are of one image, which manifests call by other blobs."""
    return _identity(one) == _identity(other)


def _identity(image: ImageInspect) -> tuple[object, ...]:
    platform = (image.os, image.architecture, image.variant)
    return (image.diff_ids, image.config, image.created, platform, image.document.get("Author"))


def _standing_id(tag: str, host: DockerHost) -> str:
    image = standing(tag, host)
    return image.id if image else ""
