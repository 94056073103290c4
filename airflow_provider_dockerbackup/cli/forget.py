# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup forget``: remove all backups of a source that is gone for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from airflow_provider_dockerbackup.cli.archive_hosts import archive_host_option
from airflow_provider_dockerbackup.cli.options import actor, json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.retention.forget import ForgetRequest, forget

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory


@click.command("forget")
@click.argument("host")
@click.argument("kind", type=click.Choice([each.value for each in SourceKind]))
@click.argument("source")
@repository_option
@archive_host_option
@click.option("--reason", required=True, help="Why it is gone for good; kept in the audit trail.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed and touch nothing.")
@json_option
def forget_verb(
    *,
    host: str,
    kind: str,
    source: str,
    repository: str,
    archive_hosts: HostFilesFactory,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove all backups of SOURCE, as 'dockerbackup list' names host, kind and source.

    Refused while one of them is held, or has an unreadable record. Rotation never does this.

    \b
    Example:
      dockerbackup forget web1 image app:1 -r /srv/backups --reason "replaced by shop:4" --dry-run
    """
    opened = open_repository(repository, archive_hosts=archive_hosts)
    request = ForgetRequest(
        source=Source(host=host, kind=SourceKind(kind), name=source), reason=reason, dry_run=dry_run, actor=actor()
    )
    gone = forget(opened, request, progress=BarProgress())
    if as_json:
        removed = [each.backup_id for each in gone]
        print_json({"removed": removed, "dry_run": dry_run, "audit_head": opened.audit_head})
        return
    for each in gone:
        click.echo(plain(f"{each.backup_id} of {each.source} {'would be' if dry_run else 'is'} removed"))
