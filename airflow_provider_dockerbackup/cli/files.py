# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup files``: the files of a container's backup, listed or taken out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from airflow_provider_dockerbackup.cli.completion import backup_ids
from airflow_provider_dockerbackup.cli.options import identity_option, json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_columns, print_json
from airflow_provider_dockerbackup.core.archive.tar import MemberKind
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.look.files import FileEntry, list_files
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.sizes import size_text
from airflow_provider_dockerbackup.transport.extraction import extract_files


@click.command()
@click.argument("backup_id", shell_complete=backup_ids)
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@repository_option
@identity_option
@click.option(
    "--extract", "destination", type=click.Path(path_type=Path), metavar="DIR", help="Write the files below DIR."
)
@click.option("--overwrite", is_flag=True, help="With --extract: replace files that are there.")
@json_option
def files(
    *,
    backup_id: str,
    patterns: tuple[str, ...],
    repository: str,
    age_identity: Path | None,
    destination: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """List files of a container's backup, or write them to a local folder.

    PATTERN is a path, a folder standing for all in it; * and ? match within a name, ** across folders, / is everything.
    Files appear below DIR only when every byte of the archive proved right. Owners and setuid bits are not restored.

    \b
    Examples:
      dockerbackup files 20261123T210400Z-9c '/etc/**.conf' -r /srv/backups
      dockerbackup files 20261123T210400Z-9c /etc/app.conf --extract /tmp/rescue -r /srv/backups
    """
    if destination is None and overwrite:
        raise click.UsageError("--overwrite goes with --extract")
    if destination is not None and not patterns:
        raise click.UsageError("--extract: name the files to extract; / means all of them")
    opened = open_repository(repository, age_identity=age_identity)
    backup = opened.catalog.find(backup_id)
    if destination is not None:
        _extract(opened, backup, destination, patterns, overwrite=overwrite, as_json=as_json)
        return
    found = list_files(opened, backup, patterns=patterns, progress=BarProgress())
    if as_json:
        print_json([_row_json(entry) for entry in found])
        return
    print_columns(["MODE", "OWNER", "SIZE", "MODIFIED", "PATH"], [_row(entry) for entry in found])


def _extract(
    opened: Repository, backup: Backup, destination: Path, patterns: tuple[str, ...], *, overwrite: bool, as_json: bool
) -> None:
    done = extract_files(opened, backup, destination, patterns=patterns, overwrite=overwrite, progress=BarProgress())
    if as_json:
        print_json(
            {
                "destination": str(destination),
                "paths": list(done.paths),
                "size_bytes": done.size_bytes,
                "left_out": list(done.left_out),
            }
        )
        return
    for path in done.left_out:
        click.echo(plain(f"dockerbackup: left out {path}: devices and pipes are not made"), err=True)
    click.echo(plain(f"wrote {len(done.paths)} files and links, {size_text(done.size_bytes)}, to {destination}"))


def _path(entry: FileEntry) -> str:
    return "/" if entry.path == "." else f"/{entry.path}"


def _modified(entry: FileEntry) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=entry.mtime_ns // 1_000_000_000)
    except OverflowError:
        return "?"
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _row(entry: FileEntry) -> tuple[str, ...]:
    shown = _path(entry)
    if entry.kind is MemberKind.SYMLINK:
        shown += f" -> {entry.link_name}"
    elif entry.kind is MemberKind.HARDLINK:
        shown += f" link to /{entry.link_name}"
    return (entry.mode_text, f"{entry.uid}:{entry.gid}", str(entry.size_bytes), _modified(entry), shown)


def _row_json(entry: FileEntry) -> dict[str, Any]:
    return {
        "path": _path(entry),
        "kind": entry.kind.value,
        "mode": f"{entry.mode:o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size_bytes": entry.size_bytes,
        "mtime_ns": entry.mtime_ns,
        "link_name": entry.link_name,
    }
