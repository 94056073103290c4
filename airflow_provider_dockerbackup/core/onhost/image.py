# SPDX-License-Identifier: Apache-2.0
"""The record of an image whose archive stays on its host: from what the host says, as far as it can be compared."""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import Any

from airflow_provider_dockerbackup.core.archive.completeness import history_of
from airflow_provider_dockerbackup.core.archive.wire import ImageConfig, ManifestEntry, parse, strict_json
from airflow_provider_dockerbackup.core.attempt import Attempt
from airflow_provider_dockerbackup.core.capture import engine_part
from airflow_provider_dockerbackup.core.configuration import configuration_of, declared_volumes
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.fidelity import unread_fidelity
from airflow_provider_dockerbackup.core.image_part import image_part
from airflow_provider_dockerbackup.core.onhost.ports import SavedOnHost
from airflow_provider_dockerbackup.core.ports import DockerHost
from airflow_provider_dockerbackup.core.record import ArchiveFile, BackupRecord
from airflow_provider_dockerbackup.core.save import SaveRequest
from airflow_provider_dockerbackup.exceptions import IntegrityError

_CONFIG = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
_WHERE = "the archive on the host"


def record_on_host(
    request: SaveRequest,
    saved: SavedOnHost,
    archive: ArchiveFile,
    *,
    attempt: Attempt,
    captured_at: datetime,
    host: DockerHost,
    image_id: str,
) -> BackupRecord:
    """Return the record; nobody has read the archive but its host.

    :param image_id: the image that was asked for.
    :raises IntegrityError: when configuration and layers in the archive are not those that the engine announced.
    """
    inspected = saved.image
    digest, config = _proven_config(saved, image_id)
    configuration = configuration_of(inspected.config, salt=secrets.token_bytes(16))
    return BackupRecord(
        backup_id=request.key.backup_id,
        idempotency_key=request.key.idempotency_key,
        attempt=attempt.name,
        source=request.key.source,
        captured_at=captured_at,
        committed_at=attempt.repository.clock.now(),
        capture="save",
        engine=engine_part(host.engine()),
        access=dict(host.access),
        actor=dict(request.actor),
        archive=archive,
        image=image_part(
            inspected,
            config_digest=digest,
            known_ids={inspected.id, digest},
            diff_ids=inspected.diff_ids,
            history=history_of(config.history, inspected.diff_ids)[0],
        ),
        configuration=configuration,
        not_covered=declared_volumes(inspected.config),
        fidelity=unread_fidelity(saved.config, inspected, configuration),
        retention=request.retention,
    )


def _proven_config(saved: SavedOnHost, image_id: str) -> tuple[str, ImageConfig]:
    """Return digest and content of the configuration in the archive, compared with what the engine announced."""
    entry = _entry(saved.manifest)
    named = _CONFIG.fullmatch(entry.config)
    digest = sha256_of(saved.config)
    if named is None or digest != f"sha256:{named[1]}":
        raise IntegrityError(f"{_WHERE}: the configuration is {digest}, manifest.json names {entry.config[:100]!a}")
    config = parse(ImageConfig, strict_json(saved.config, where=_WHERE), where=_WHERE)
    diff_ids = tuple(config.rootfs.diff_ids or ())
    if saved.image.id != image_id or diff_ids != saved.image.diff_ids or len(entry.layers or ()) != len(diff_ids):
        raise IntegrityError(
            f"{_WHERE} holds an image of {len(diff_ids)} layers that is not {image_id}, which was asked for; was the "
            "image replaced during the save?"
        )
    return digest, config


def _entry(manifest: bytes) -> ManifestEntry:
    entries: Any = strict_json(manifest, where=f"{_WHERE}: manifest.json")
    if not isinstance(entries, list) or len(entries) != 1:
        raise IntegrityError(f"{_WHERE}: manifest.json must describe exactly one image")
    return parse(ManifestEntry, entries[0], where=f"{_WHERE}: manifest.json")
