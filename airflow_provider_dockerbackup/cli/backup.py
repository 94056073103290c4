# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup save`` and ``export``: back up an image or a container now, without Airflow."""

from __future__ import annotations

from typing import Any, get_args

import click

from airflow_provider_dockerbackup.cli.options import (
    HostOptions,
    actor,
    compression_options,
    host_options,
    json_option,
    one_off_work,
    open_or_create_repository,
    quiesce_commands,
    quiesce_options,
    recipient_options,
    repository_option,
)
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json
from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive_bytes import only_host
from airflow_provider_dockerbackup.core.attempt import BackupKey
from airflow_provider_dockerbackup.core.capture import BackupOutcome, Tuning
from airflow_provider_dockerbackup.core.consistency import check_consistency
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient
from airflow_provider_dockerbackup.core.export import ExportRequest, export_container
from airflow_provider_dockerbackup.core.layers.choice import CaptureChoice
from airflow_provider_dockerbackup.core.model import Consistency, SourceKind
from airflow_provider_dockerbackup.core.onhost.begun import check_on_host
from airflow_provider_dockerbackup.core.onhost.export import check_unwatched, export_on_host
from airflow_provider_dockerbackup.core.onhost.save import save_on_host
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.reference import ImageReference, container_name
from airflow_provider_dockerbackup.core.save import SaveRequest, save_image
from airflow_provider_dockerbackup.core.sizes import size_text

ON_HOST_DEADLINE_SECONDS = 6 * 3600
_location_option = click.option(
    "--archive-location",
    metavar="host:/PATH",
    help="Make, compress and keep the archive in a folder of the Docker host itself; only its digests come here.",
)


@click.command()
@click.argument("image")
@repository_option
@host_options
@compression_options
@recipient_options
@click.option(
    "--capture",
    type=click.Choice(get_args(CaptureChoice)),
    default="auto",
    show_default=True,
    help="In layout layers: have the host push or save what is new, or take what is expected to be faster.",
)
@click.option("--force", is_flag=True, help="Save also when the newest backup holds the same image.")
@_location_option
@json_option
def save(
    *,
    image: str,
    repository: str,
    host: HostOptions,
    layout: str,
    compression: str | None,
    recipients: tuple[Recipient, ...],
    tuning: Tuning,
    capture: CaptureChoice,
    force: bool,
    archive_location: str | None,
    as_json: bool,
) -> None:
    """Save an image of a host, with its layers and history; the repository is made if there is none.

    \b
    Example:
      dockerbackup save app:1 -r /srv/backups --host web1 --layout layers
    """
    reference = str(ImageReference.parse(image))
    if archive_location is not None:
        check_on_host(archive_location, tuning, layout=layout, encrypted=bool(recipients))
    with host.connected() as docker:
        found = docker.inspect_image(reference)
        opened = open_or_create_repository(repository, compression=compression, layout=layout, recipients=recipients)
        source = Source(host=docker.name, kind=SourceKind.IMAGE, name=reference)
        request = SaveRequest(
            key=BackupKey.of(source, run_time=opened.clock.now(), work=one_off_work()),
            actor=actor(),
            compression=Compression(compression) if compression else None,
            capture=capture,
            tuning=tuning,
            force=force,
        )
        opened.host_files = only_host(docker.name, docker.archives)
        if archive_location is None:
            outcome = save_image(request, host=docker, repository=opened, progress=BarProgress(), image=found)
        else:
            outcome = save_on_host(
                request,
                archive_location,
                image=found,
                deadline_seconds=ON_HOST_DEADLINE_SECONDS,
                host=docker,
                archives=docker.archives,
                repository=opened,
                progress=BarProgress(),
            )
    _tell(outcome, as_json=as_json)


@click.command("export")
@click.argument("container")
@repository_option
@host_options
@compression_options
@recipient_options
@click.option(
    "--consistency",
    type=click.Choice(get_args(Consistency)),
    default="snapshot",
    show_default=True,
    help="Of a running container: commit and export that, pause it for the whole export, or take what comes.",
)
@click.option(
    "--pause-limit", type=int, default=300, show_default=True, metavar="SECONDS", help="It runs again after this long."
)
@quiesce_options
@_location_option
@json_option
def export(
    *,
    container: str,
    repository: str,
    host: HostOptions,
    layout: str,
    compression: str | None,
    recipients: tuple[Recipient, ...],
    tuning: Tuning,
    consistency: Consistency,
    pause_limit: int,
    pre_command: str | None,
    post_command: str | None,
    command_timeout: float,
    archive_location: str | None,
    as_json: bool,
) -> None:
    """Export a container's filesystem with its configuration; the repository is made if there is none.

    \b
    Example:
      dockerbackup export db -r /srv/backups --host web1 --pre-command "psql -U app -c CHECKPOINT"
    """
    name = container_name(container)
    check_consistency(consistency, pause_limit_seconds=pause_limit)
    commands = quiesce_commands(pre_command, post_command, timeout_seconds=command_timeout)
    if archive_location is not None:
        check_on_host(archive_location, tuning, layout=layout, encrypted=bool(recipients))
        check_unwatched(consistency, commands)
    with host.connected() as docker:
        found = docker.inspect_container(name)
        opened = open_or_create_repository(repository, compression=compression, layout=layout, recipients=recipients)
        source = Source(host=docker.name, kind=SourceKind.CONTAINER, name=name)
        request = ExportRequest(
            key=BackupKey.of(source, run_time=opened.clock.now(), work=one_off_work()),
            actor=actor(),
            consistency=consistency,
            pause_limit_seconds=pause_limit,
            commands=commands,
            compression=Compression(compression) if compression else None,
            tuning=tuning,
        )
        opened.host_files = only_host(docker.name, docker.archives)
        if archive_location is None:
            outcome = export_container(request, host=docker, repository=opened, progress=BarProgress())
        else:
            outcome = export_on_host(
                request,
                archive_location,
                container=found,
                deadline_seconds=ON_HOST_DEADLINE_SECONDS,
                host=docker,
                archives=docker.archives,
                repository=opened,
                progress=BarProgress(),
            )
    _tell(outcome, as_json=as_json)


def _tell(outcome: BackupOutcome, *, as_json: bool) -> None:
    record = outcome.backup.whole()
    if as_json:
        print_json(_json(outcome))
        return
    sizes = f"{size_text(record.size_bytes)}, stored {size_text(record.stored_size_bytes)}"
    if record.blobs is not None and outcome.status == "committed":
        sizes += f", new {size_text(record.blobs.new_bytes)}, received {size_text(record.blobs.received_bytes)}"
    click.echo(plain(f"{record.source}: {outcome.status} as backup {record.backup_id}, {sizes}"))
    for mount in record.not_covered:
        click.echo(plain(f"not in this backup: {mount}"))


def _json(outcome: BackupOutcome) -> dict[str, Any]:
    record = outcome.backup.whole()
    return {
        "status": outcome.status,
        "backup_id": record.backup_id,
        "host": record.source.host,
        "kind": record.source.kind.value,
        "source": record.source.name,
        "size_bytes": record.size_bytes,
        "stored_size_bytes": record.stored_size_bytes,
        "not_covered": [mount.destination for mount in record.not_covered],
        "audit_head": outcome.audit_head,
    }
