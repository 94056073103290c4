# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup audit report``: coverage, freshness, drills, deletions, controls, and the trail's integrity."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from airflow_provider_dockerbackup.cli.audit_options import anchors_of, anchors_option, key_option
from airflow_provider_dockerbackup.cli.options import (
    HostOptions,
    host_of,
    open_repository,
    repository_option,
    rpo_of,
)
from airflow_provider_dockerbackup.cli.output import plain, print_table
from airflow_provider_dockerbackup.core.audit.signature import keyring
from airflow_provider_dockerbackup.core.report.build import build_report, live_things
from airflow_provider_dockerbackup.core.report.controls import NAMES
from airflow_provider_dockerbackup.core.report.model import LiveThing, Report, ReportRequest
from airflow_provider_dockerbackup.core.report.output import rows, to_csv, to_dict, to_html
from airflow_provider_dockerbackup.core.retention.duration import Duration
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError
from airflow_provider_dockerbackup.transport.signing_key import read_public_key

# Whose evidence is the id of a backup; jobs and deletions have it as their item.
_ABOUT_A_BACKUP: Final = frozenset({"coverage", "source", "restore drill", "hold"})


@click.command()
@repository_option
@click.option("--host", "-H", "targets", multiple=True, metavar="[NAME=]TARGET", help="Docker host to compare with.")
@click.option(
    "--ssh-config", "-F", type=click.Path(path_type=Path), default=Path("~/.ssh/config"), help="SSH configuration file."
)
@click.option("--identity", "-i", type=click.Path(path_type=Path), help="SSH private key.")
@click.option("--rpo", default="36h", show_default=True, help="How old the newest verified backup may be.")
@click.option("--rpo-for", multiple=True, metavar="PATTERN=DURATION", help="The same for some sources; repeatable.")
@click.option("--rto-minutes", type=float, default=720.0, show_default=True, help="How long a test restore may take.")
@click.option("--min-retention-days", type=float, default=35.0, show_default=True, help="Age that deletions must have.")
@click.option("--max-interval", default="36h", show_default=True, help="How far apart two points may be.")
@click.option("--period", default="7d", show_default=True, help="How far back jobs and deletions are looked at.")
@key_option
@anchors_option
@click.option(
    "--format", "form", type=click.Choice(["table", "html", "csv", "json"]), default="table", show_default=True
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="File to write.  [default: standard output]")
@click.option(
    "--fail-on", multiple=True, metavar="CONTROL", help="Exit code 5 when it fails; 'trail' is one; repeatable."
)
def report(
    *,
    repository: str,
    targets: tuple[str, ...],
    ssh_config: Path,
    identity: Path | None,
    rpo: str,
    rpo_for: tuple[str, ...],
    rto_minutes: float,
    min_retention_days: float,
    max_interval: str,
    period: str,
    key_files: tuple[Path, ...],
    anchors_file: Path | None,
    form: str,
    output: Path | None,
    fail_on: tuple[str, ...],
) -> None:
    """Report on the backups in a repository; nothing is written there.

    \b
    Example:
      dockerbackup audit report -r /srv/backups --host web1 --rpo 26h --format html -o report.html
    """
    request = ReportRequest(
        period=Duration.parse(period, what="--period"),
        rpo=rpo_of(rpo, rpo_for),
        rto_minutes=rto_minutes,
        min_retention_days=min_retention_days,
        max_interval=Duration.parse(max_interval, what="--max-interval"),
    )
    if unknown := sorted(set(fail_on) - {*NAMES, "trail"}):
        raise ConfigurationError(f"--fail-on: unknown {', '.join(unknown)}; known are {', '.join(NAMES)} and trail")
    opened = open_repository(repository)
    keys = keyring(read_public_key(each) for each in key_files)
    hosts = [host_of(each, ssh_config=ssh_config, identity=identity) for each in targets]
    names, live = _live(hosts)
    made = build_report(opened, request, live=live, live_hosts=names, keys=keys, anchors=anchors_of(anchors_file))
    _put(made, form, output)
    if failed := made.failed(fail_on):
        raise IntegrityError("; ".join(f"{each.name}: {each.detail}" for each in failed))


def _live(hosts: list[HostOptions]) -> tuple[list[str], list[LiveThing]]:
    names: list[str] = []
    things: list[LiveThing] = []
    for host in hosts:
        with host.connected() as docker:
            names.append(docker.name)
            things.extend(live_things(docker))
    return names, things


def _cells(row: Sequence[str]) -> list[str]:
    """Return a row for people: of what is evidence, only the backups that it is about."""
    section, item, status, detail, evidence = row
    return [section, item, status, evidence if section in _ABOUT_A_BACKUP else "", detail]


def _put(made: Report, form: str, output: Path | None) -> None:
    if form == "table" and output is None:
        cells = [_cells(row) for row in rows(made) if row[0] != "job" or row[2] == "failure"]
        print_table(["SECTION", "ITEM", "STATUS", "BACKUP", "DETAIL"], cells)
        return
    text = {
        "html": lambda: to_html(made),
        "csv": lambda: to_csv(made),
        "json": lambda: json.dumps(to_dict(made), indent=2, sort_keys=True) + "\n",
        "table": lambda: "".join("\t".join(plain(cell) for cell in row) + "\n" for row in rows(made)),
    }[form]()
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8", newline="")
    except OSError as err:
        raise ConfigurationError(f"--output {output}: cannot be written: {err.strerror}") from err
