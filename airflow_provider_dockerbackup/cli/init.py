# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup init``: a new repository."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import click

from airflow_provider_dockerbackup.cli.options import json_option, recipient_options, signer
from airflow_provider_dockerbackup.cli.output import plain, print_json
from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient
from airflow_provider_dockerbackup.core.repository import Layout, Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url


@click.command()
@click.argument("url", envvar="DOCKERBACKUP_REPOSITORY")
@click.option(
    "--layout",
    type=click.Choice(get_args(Layout)),
    default="archive",
    show_default=True,
    help="One plain file a backup, or each layer once for all backups.",
)
@click.option(
    "--compression",
    type=click.Choice([each.value for each in Compression]),
    help="How backups are stored unless one says otherwise.  [default: none; zstd in layout layers]",
)
@recipient_options
@json_option
def init(*, url: str, layout: str, compression: str | None, recipients: tuple[Recipient, ...], as_json: bool) -> None:
    """Make a new repository, and say what was made; one that is there is not changed.

    Layout and recipients are fixed from then on. With recipients, backups are encrypted to them with age, and read back
    with the private key of any one of them; keep these keys apart from the repository and from each other.

    \b
    Example:
      dockerbackup init /srv/backups --compression zstd --recipient ops=age1… --recipient "$(cat escrow.pub)"
    """
    made = Repository.create(
        storage_from_url(url),
        clock=SystemClock(),
        layout=layout,
        compression=Compression(compression) if compression else None,
        recipients=recipients,
        signer=signer(),
    )
    if as_json:
        print_json({"url": made.storage.url, **made.document.model_dump(mode="json")})
        return
    for name, value in _facts(made):
        click.echo(plain(f"{name + ':':<13}{value}"))


def _facts(made: Repository) -> Iterator[tuple[str, str]]:
    document = made.document
    yield "repository", made.storage.url
    yield "id", document.repository_id
    yield "layout", document.layout
    yield "compression", document.compression.value
    yield "encryption", made.encryption
    for recipient in document.recipients:
        yield "recipient", f"{recipient.name} {recipient.fingerprint} {recipient.public}".strip()
