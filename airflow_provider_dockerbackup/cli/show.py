# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup show``: everything known of one backup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from airflow_provider_dockerbackup.cli.completion import backup_ids
from airflow_provider_dockerbackup.cli.options import json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import plain, print_json, print_table
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import utc_text
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient, short_fingerprint
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.record import BackupRecord, Fidelity
from airflow_provider_dockerbackup.core.sizes import size_text


@click.command()
@click.argument("backup_id", shell_complete=backup_ids)
@repository_option
@json_option
def show(*, backup_id: str, repository: str, as_json: bool) -> None:
    """Show one backup: what it is, what a restore gives back, and how far it is proven.

    BACKUP_ID may be the beginning of an id. Configuration is shown by name, never by value.

    \b
    Example:
      dockerbackup show 20261123T210400Z-1f --repository /srv/backups
    """
    opened = open_repository(repository)
    backup = opened.catalog.find(backup_id)
    record = backup.whole()
    if as_json:
        print_json(
            {
                "record": record.model_dump(mode="json"),
                "confirmations": [each.model_dump(mode="json") for each in backup.confirmations],
                "verifications": [each.model_dump(mode="json") for each in backup.verifications],
                "trust": backup.trust,
            }
        )
        return
    for name, value in _facts(backup, opened.document.recipients):
        click.echo(plain(f"{name + ':':<15}{value}"))
    click.echo()
    print_table(["FIDELITY", "OF", "WHAT", "WHY"], _fidelity(record.fidelity))
    if layers := _layers(record):
        click.echo()
        print_table(["LAYER", "SIZE", "STORED AS"], layers, right=["SIZE"])


def _facts(backup: Backup, recipients: Sequence[Recipient]) -> Iterator[tuple[str, str]]:
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
        yield "not covered", f"{mount.type} {mount.name} at {mount.destination}".replace("  ", " ")
    for note in record.notes:
        yield "note", note
    yield "state", "not verified" if backup.trust == "none" else backup.trust
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


def _layers(record: BackupRecord) -> list[tuple[str, str, str]]:
    """Return the rows of layers: each with its member in the archive, or its blob in the repository."""
    if record.blobs is not None:
        return [
            (diff_id, size_text(layer.size_bytes), blob_path(layer.digest))
            for diff_id, layer in zip(record.diff_ids, record.blobs.layers, strict=True)
        ]
    layers = record.image.layers if record.image is not None else ()
    return [(layer.diff_id, size_text(layer.size_bytes), layer.member) for layer in layers]


def _fidelity(fidelity: Fidelity) -> list[tuple[str, str, str, str]]:
    """Return the report's rows: what is lost first; one row for all that has the same reason."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for outcome in ("lost", "changed", "kept"):
        for item in fidelity.items:
            if item.outcome == outcome:
                grouped.setdefault((outcome, item.subject, item.reason), []).append(item.name)
    return [(outcome, subject, ", ".join(names), why) for (outcome, subject, why), names in grouped.items()]
