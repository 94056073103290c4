# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup convert``: every backup of a repository into another one of the other layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from airflow_provider_dockerbackup.cli.archive_hosts import archive_host_option
from airflow_provider_dockerbackup.cli.options import (
    actor,
    identity_option,
    json_option,
    open_or_create_repository,
    open_repository,
    recipient_options,
    tuning_options,
)
from airflow_provider_dockerbackup.cli.output import BarProgress
from airflow_provider_dockerbackup.cli.run_output import show_outcome
from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.convert import WORDS, ConvertRequest, convert, require_apart
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient
from airflow_provider_dockerbackup.core.repository import Layout, Repository
from airflow_provider_dockerbackup.exceptions import NotFoundError
from airflow_provider_dockerbackup.transport.storage import place_of

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory


@click.command("convert")
@click.argument("source_url", metavar="SOURCE_URL")
@click.argument("target_url", metavar="TARGET_URL")
@click.option("--layout", type=click.Choice(get_args(Layout)), required=True, help="Of the target; made if need be.")
@tuning_options
@recipient_options
@identity_option
@click.option("--dry-run", is_flag=True, help="Show what would be converted; write nothing.")
@archive_host_option
@json_option
def convert_verb(
    *,
    source_url: str,
    archive_hosts: HostFilesFactory,
    target_url: str,
    layout: str,
    compression: str | None,
    tuning: Tuning,
    recipients: tuple[Recipient, ...],
    age_identity: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy every backup of a repository into another one of the other layout; the source is not changed.

    Each backup keeps its id, points and holds, and is read back before it counts; run it again after an interruption,
    or for what came since. Backups start as 'checked' there: verify them before a rotation. Exit code 5 when one could
    not be converted, after all were tried.

    \b
    Example:
      dockerbackup convert /srv/backups s3://backups/layers --layout layers --dry-run
    """
    require_apart(place_of(source_url), place_of(target_url))
    request = ConvertRequest(
        layout=layout,
        compression=Compression(compression) if compression else None,
        recipients=recipients,
        tuning=tuning,
        dry_run=dry_run,
        actor=actor(),
    )
    source = open_repository(source_url, age_identity=age_identity, archive_hosts=archive_hosts)
    target = _target(target_url, request, source, age_identity=age_identity)
    outcome = convert(request, source=source, target=target, progress=BarProgress())
    show_outcome(outcome, WORDS, source=source, target=target, dry_run=dry_run, as_json=as_json)


def _target(url: str, request: ConvertRequest, source: Repository, *, age_identity: Path | None) -> Repository | None:
    """Return the repository to convert into, made if need be and if it fits; None for a dry run where there is none."""
    try:
        standing = open_repository(url, age_identity=age_identity)
    except NotFoundError:
        standing = None
    request.check(source, standing)
    if request.dry_run:
        return standing
    open_or_create_repository(
        url, compression=request.compression, layout=request.layout, recipients=request.recipients
    )
    return open_repository(url, age_identity=age_identity)
