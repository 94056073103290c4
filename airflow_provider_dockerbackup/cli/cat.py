# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup cat``: a backup as a stream that ``docker load`` takes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from airflow_provider_dockerbackup.cli.archive_hosts import archive_host_option
from airflow_provider_dockerbackup.cli.completion import backup_ids
from airflow_provider_dockerbackup.cli.options import identity_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import BarProgress
from airflow_provider_dockerbackup.core.reading import archive_stream, load_stream
from airflow_provider_dockerbackup.core.reference import ImageReference

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory


@click.command()
@click.argument("backup_id", shell_complete=backup_ids)
@repository_option
@archive_host_option
@identity_option
@click.option("--tag", "tags", multiple=True, metavar="NAME:TAG", help="Tag in the stream; may be repeated.")
@click.option("--filesystem", is_flag=True, help="A container's filesystem as a plain tar, as docker export wrote it.")
def cat(
    *,
    backup_id: str,
    repository: str,
    archive_hosts: HostFilesFactory,
    age_identity: Path | None,
    tags: tuple[str, ...],
    filesystem: bool,
) -> None:
    """Write a backup to standard output as docker load takes it.

    Every digest is compared on the way. When one is wrong, the end of the stream is withheld, so that nothing loads
    the rest, and the exit code is 5.

    \b
    Examples:
      dockerbackup cat 20261123T210400Z-1f -r /srv/backups --tag app:restored | docker load
      dockerbackup cat 20261123T210400Z-9c -r /srv/backups --filesystem | tar -t
    """
    if sys.stdout.isatty():
        raise click.UsageError("this is an archive, not text: pipe it into docker load, or redirect it to a file")
    opened = open_repository(repository, age_identity=age_identity, archive_hosts=archive_hosts)
    backup = opened.catalog.find(backup_id)
    record = backup.whole()
    if filesystem and record.filesystem is None:
        raise click.UsageError(f"--filesystem: backup {record.backup_id} is one of an image")
    names = [str(ImageReference.parse(tag)) for tag in tags]
    progress = BarProgress()
    progress.start(f"cat {record.backup_id}", record.size_bytes)
    stream = archive_stream(opened, backup) if filesystem else load_stream(opened, backup, tags=names)
    try:
        with stream as chunks:
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
                progress.advance(len(chunk))
        sys.stdout.buffer.flush()
    finally:
        progress.finish()
