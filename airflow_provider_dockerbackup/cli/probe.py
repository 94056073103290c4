# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup probe``: is this storage safe for a repository?"""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from airflow_provider_dockerbackup.cli.exit_codes import ExitCode
from airflow_provider_dockerbackup.cli.options import json_option, repository_option
from airflow_provider_dockerbackup.cli.output import print_json, print_table
from airflow_provider_dockerbackup.core.probe import probe
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url


@click.command("probe")
@repository_option
@json_option
def probe_storage(*, repository: str, as_json: bool) -> None:
    """Try whether a storage keeps its promises: create-only objects, listing, clock. Leaves nothing behind.

    \b
    Example:
      dockerbackup probe --repository s3://backups/docker
    """
    report = probe(storage_from_url(repository), clock=SystemClock())
    if as_json:
        print_json(asdict(report) | {"ok": report.ok})
    else:
        print_table(
            ["CHECK", "RESULT", "DETAIL"],
            [(each.name, "ok" if each.ok else "FAILED", each.detail) for each in report.checks],
        )
    if not report.ok:
        sys.exit(ExitCode.FAILED)
