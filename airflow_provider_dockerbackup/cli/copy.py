# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup copy``: backups of a repository into another one, such as a second site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from airflow_provider_dockerbackup.cli.archive_hosts import archive_host_option
from airflow_provider_dockerbackup.cli.completion import backup_ids as complete_ids
from airflow_provider_dockerbackup.cli.options import (
    actor,
    identity_option,
    json_option,
    open_repository,
    recipient_options,
    signer,
    tuning_options,
)
from airflow_provider_dockerbackup.cli.output import BarProgress
from airflow_provider_dockerbackup.cli.run_output import show_outcome
from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.convert import require_apart
from airflow_provider_dockerbackup.core.copies.copy import WORDS, CopyRequest, copy, target_on
from airflow_provider_dockerbackup.core.copies.selection import Selection
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient
from airflow_provider_dockerbackup.core.repository import Layout
from airflow_provider_dockerbackup.core.retention.duration import Duration
from airflow_provider_dockerbackup.transport.storage import place_of, storage_from_url

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory


@click.command("copy")
@click.argument("backup_ids", nargs=-1, shell_complete=complete_ids, metavar="[BACKUP_ID]...")
@click.option(
    "--from",
    "repository",
    envvar="DOCKERBACKUP_REPOSITORY",
    required=True,
    metavar="URL",
    help="The repository to copy from; it is only read.  [env: DOCKERBACKUP_REPOSITORY]",
)
@click.option("--to", "target_url", required=True, metavar="URL", help="The repository to copy into; made if need be.")
@click.option("--host", "hosts", multiple=True, metavar="PATTERN", help="Only these Docker hosts; may be repeated.")
@click.option("--source", "names", multiple=True, metavar="PATTERN", help="Only these sources; may be repeated.")
@click.option("--newest", type=click.IntRange(1), metavar="N", help="Of each source only the N newest good ones.")
@click.option("--since", metavar="DURATION", help="Only those of the last 7d, 36h, 1y6m, by their newest point.")
@click.option("--layout", type=click.Choice(get_args(Layout)), help="Of a new target.  [default: that of the source]")
@tuning_options
@recipient_options
@identity_option
@archive_host_option
@click.option("--dry-run", is_flag=True, help="Show what would be copied; write nothing.")
@json_option
def copy_verb(
    *,
    backup_ids: tuple[str, ...],
    repository: str,
    target_url: str,
    hosts: tuple[str, ...],
    names: tuple[str, ...],
    newest: int | None,
    since: str | None,
    layout: str | None,
    compression: str | None,
    tuning: Tuning,
    recipients: tuple[Recipient, ...],
    age_identity: Path | None,
    archive_hosts: HostFilesFactory,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy backups into another repository: all of them, or those that are chosen; the source is only read.

    Only what is missing there travels. Each backup keeps its id, points and holds, and what was written is read back
    before it counts; run it again after an interruption, or for what came since. Copies start as not verified: verify
    them there. Exit code 5 when one could not be copied, after all were tried.

    \b
    Examples:
      dockerbackup copy --from /srv/backups --to s3://second-site/backups
      dockerbackup copy --from /srv/backups --to /mnt/vault --host 'web*' --newest 3 --dry-run
    """
    require_apart(place_of(repository), place_of(target_url))
    request = CopyRequest(
        selection=Selection(
            backup_ids=backup_ids,
            hosts=hosts or ("*",),
            names=names or ("*",),
            newest=newest,
            since=Duration.parse(since, what="--since") if since is not None else None,
        ),
        layout=layout,
        compression=Compression(compression) if compression else None,
        recipients=recipients,
        tuning=tuning,
        dry_run=dry_run,
        actor=actor(),
    )
    source = open_repository(repository, age_identity=age_identity, archive_hosts=archive_hosts)
    target = target_on(storage_from_url(target_url), request, source=source, signer=signer())
    outcome = copy(request, source=source, target=target, progress=BarProgress())
    show_outcome(outcome, WORDS, source=source, target=target, dry_run=dry_run, as_json=as_json)
