# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup freshness``: see that every source has a fresh backup."""

from __future__ import annotations

from typing import cast, get_args

import click

from airflow_provider_dockerbackup.cli.options import json_option, open_repository, repository_option, rpo_of
from airflow_provider_dockerbackup.cli.output import print_json, print_table
from airflow_provider_dockerbackup.core.freshness import Trust, freshness
from airflow_provider_dockerbackup.exceptions import StaleError


@click.command("freshness")
@repository_option
@click.option("--rpo", default="36h", show_default=True, help="How old the newest backup of a source may be.")
@click.option("--rpo-for", multiple=True, metavar="PATTERN=DURATION", help="The same for some sources; repeatable.")
@click.option(
    "--trust",
    type=click.Choice(get_args(Trust)),
    default="verified",
    show_default=True,
    help="Which backups count: verified ones, or any that did not fail a verification.",
)
@json_option
def freshness_verb(*, repository: str, rpo: str, rpo_for: tuple[str, ...], trust: str, as_json: bool) -> None:
    """Say how old the newest backup of each source is. Exit code 7 when one is too old.

    \b
    Example:
      dockerbackup freshness -r /srv/backups --rpo 26h --rpo-for 'archive-*=8d'
    """
    limits = rpo_of(rpo, rpo_for)
    opened = open_repository(repository)
    found = freshness(opened.catalog.each(), rpo=limits, now=opened.clock.now(), trust=cast("Trust", trust))
    if as_json:
        print_json(
            [
                {
                    "host": each.source.host,
                    "kind": each.source.kind.value,
                    "source": each.source.name,
                    "newest": each.newest.isoformat() if each.newest else None,
                    "age_seconds": each.age_seconds,
                    "limit": str(each.limit),
                    "state": each.state,
                }
                for each in found
            ]
        )
    else:
        rows = [
            (str(each.source), f"{each.newest:%Y-%m-%d %H:%M} UTC" if each.newest else "", str(each.limit), each.state)
            for each in found
        ]
        print_table(["SOURCE", "NEWEST", "LIMIT", "STATE"], rows)
    late = sum(each.state != "ok" for each in found)
    if late:
        raise StaleError(f"{late} of {len(found)} sources have no fresh backup")
