# SPDX-License-Identifier: Apache-2.0
"""What is known of one backup, as rows for people: facts, fidelity, layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import utc_text
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient, short_fingerprint
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.record import BackupRecord, Fidelity
from airflow_provider_dockerbackup.core.sizes import size_text


def backup_facts(backup: Backup, recipients: Sequence[Recipient], *, now: datetime) -> Iterator[tuple[str, str]]:
    """Yield what is known of a backup, by name; configuration by its names alone.

    :param recipients: of the repository, for their names.
    :param now: for holds, which may have ended by themselves.
    :raises IntegrityError: when its record is unreadable.
    """
    record = backup.whole()
    yield "backup", record.backup_id
    yield "source", str(record.source)
    yield (
        "captured",
        f"{utc_text(record.captured_at)} by {record.capture}"
        + (f", {record.consistency}" if record.consistency not in {None, record.capture} else ""),
    )
    for confirmation in backup.confirmations:
        yield "confirmed", utc_text(confirmation.confirmed_at)
    yield "engine", f"{record.engine.version}, {record.engine.store} store ({record.engine.storage_driver})"
    yield from _place(backup)
    names = {each.fingerprint: each for each in recipients}
    for fingerprint in record.recipients:
        known = names.get(fingerprint)
        yield "encrypted to", str(known) if known else short_fingerprint(fingerprint)
    if record.image is not None:
        yield "image", f"{record.image.config_digest}, {record.image.os}/{record.image.architecture}"
        yield "tags", ", ".join(record.image.repo_tags) or "none"
        yield "history", f"{len(record.image.history)} steps"
    if record.container is not None:
        yield (
            "container",
            f"{record.container.id[:12]} of {record.container.image_reference}, {record.container.status}",
        )
        if record.container.pause_seconds is not None:
            yield "paused", f"{record.container.pause_seconds} s"
        elif record.container.commit_seconds is not None and record.capture == "snapshot":
            yield "paused", f"at most {record.container.commit_seconds} s, for the commit"
    if backup.told is not None and backup.told[1]:
        yield "retention", f"{backup.told[1]}, by the source's own label"
    yield "configuration", ", ".join(sorted(record.configuration.values)) or "none"
    for mount in record.not_covered:
        yield "not covered", str(mount)
    for note in record.notes:
        yield "note", note
    yield "state", "not verified" if backup.trust == "none" else backup.trust
    for hold in backup.held(now):
        yield "hold", str(hold)
    for check in backup.verifications:
        seconds = f", restored in {check.restore_seconds} s" if check.restore_seconds is not None else ""
        problem = f": {check.problem}" if check.problem else ""
        yield check.verification, f"level {check.level}, {utc_text(check.verified_at)}{seconds}{problem}"


def _place(backup: Backup) -> Iterator[tuple[str, str]]:
    """Yield where its bytes are, and how many."""
    record = backup.whole()
    sizes = f"{size_text(record.size_bytes)}, stored {size_text(record.stored_size_bytes)}"
    if record.archive is not None:
        on_host = record.path_on_host
        yield "archive", backup.path + record.archive.name if on_host is None else f"on {record.source.host}: {on_host}"
        yield "size", f"{sizes} ({record.archive.compression})"
    if record.blobs is not None:
        if record.blobs.folder and record.encryption == "none":
            yield "OCI layout", backup.path + record.blobs.folder
        yield "manifest", record.blobs.manifest.digest
        yield "size", f"{sizes} (zstd), of which new {size_text(record.blobs.new_bytes)}"
        yield "received", size_text(record.blobs.received_bytes)


def layer_rows(record: BackupRecord) -> list[tuple[str, str, str]]:
    """Return the rows of layers: each with its member in the archive, or its blob in the repository."""
    if record.blobs is not None:
        return [
            (diff_id, size_text(layer.size_bytes), blob_path(layer.digest))
            for diff_id, layer in zip(record.diff_ids, record.blobs.layers, strict=True)
        ]
    layers = record.image.layers if record.image is not None else ()
    return [(layer.diff_id, size_text(layer.size_bytes), layer.member) for layer in layers]


def fidelity_rows(fidelity: Fidelity) -> list[tuple[str, str, str, str]]:
    """Return the report's rows: what is lost first; one row for all that has the same reason."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for outcome in ("lost", "changed", "kept"):
        for item in fidelity.items:
            if item.outcome == outcome:
                grouped.setdefault((outcome, item.subject, item.reason), []).append(item.name)
    return [(outcome, subject, ", ".join(names), why) for (outcome, subject, why), names in grouped.items()]
