# SPDX-License-Identifier: Apache-2.0
"""The history of an archived image as ``docker history`` shows it, from the archive's own configuration.

Commands and values in it may be secrets: the record leaves them out, the archive has them.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_dockerbackup.core.archive.image_steps import ImageStepsScanner
from airflow_provider_dockerbackup.core.archive.wire import ImageConfig, parse, strict_json
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.reading import archive_stream, layers_of
from airflow_provider_dockerbackup.core.record import Image
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError

MISSING = "<missing>"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryStep:
    """One line of ``docker history``.

    :param step: its number, 1 for the oldest; a rollback takes it.
    :param image: the image's ``.Id`` on the newest line, ``<missing>`` on the others.
    :param created: RFC 3339 time as the engine wrote it; empty when it wrote none.
    :param size_bytes: of the files and symbolic links in its layer, 0 without one; None when that cannot be read.
    :param diff_id: the step's layer; None when it made none.
    """

    step: int
    image: str
    created: str
    created_by: str
    size_bytes: int | None
    comment: str
    author: str
    diff_id: str | None


def image_history(repository: Repository, backup: Backup, *, progress: Progress) -> tuple[HistoryStep, ...]:
    """Return the history of an image's backup, newest step first; the whole archive is read and compared.

    :raises ConfigurationError: when it is the backup of a container.
    :raises IntegrityError: when the archive is not the recorded one.
    :raises NotFoundError: when the archive is gone.
    """
    record = backup.whole()
    image = record.image
    if image is None:
        raise ConfigurationError(
            f"backup {record.backup_id} is one of container {record.source.name}: docker export keeps no history. "
            "Ask for the backup of an image; 'dockerbackup list' shows the kind of each"
        )
    members = [layer.member for layer in layers_of(repository, backup, image)]
    scanner = ImageStepsScanner(config_digest=image.config_digest, layer_members=members)
    progress.start(f"history of {record.backup_id}", record.size_bytes)
    try:
        with archive_stream(repository, backup) as tar:
            for chunk in tar:
                scanner.feed(chunk)
                progress.advance(len(chunk))
    finally:
        progress.finish()
    config, sizes = scanner.finish()
    return history_steps(config, image, layer_sizes=[sizes.get(member) for member in members])


def history_steps(config: bytes, image: Image, *, layer_sizes: list[int | None]) -> tuple[HistoryStep, ...]:
    """Return the steps in a configuration, newest first, each with its layer.

    :param config: the configuration's bytes.
    :param layer_sizes: size of each layer in bytes, lowest first.
    :raises IntegrityError: when the history names more layers than there are.
    """
    where = f"configuration {image.config_digest}"
    history = parse(ImageConfig, strict_json(config, where=where), where=where).history or []
    layers = iter(zip(image.diff_ids, layer_sizes, strict=True))
    steps = []
    for number, entry in enumerate(history, start=1):
        diff_id, size_bytes = (None, 0) if entry.empty_layer else next(layers, (None, -1))
        if size_bytes == -1:
            raise IntegrityError(f"{where}: the history has more steps with a layer than the image has layers")
        steps.append(
            HistoryStep(
                step=number,
                image=image.id if number == len(history) else MISSING,
                created=entry.created or "",
                created_by=entry.created_by or "",
                size_bytes=size_bytes,
                comment=entry.comment or "",
                author=entry.author or "",
                diff_id=diff_id,
            )
        )
    return tuple(reversed(steps))
