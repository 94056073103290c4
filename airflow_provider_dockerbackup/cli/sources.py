# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup sources``: what there is to back up on a Docker host."""

from __future__ import annotations

import click

from airflow_provider_dockerbackup.cli.options import HostOptions, host_options, json_option
from airflow_provider_dockerbackup.cli.output import print_json, print_table
from airflow_provider_dockerbackup.core.sizes import size_text


@click.command()
@host_options
@json_option
def sources(*, host: HostOptions, as_json: bool) -> None:
    """List the images of a Docker host with their size and its containers with their state.

    \b
    Example:
      dockerbackup sources --host web1
    """
    with host.connected() as docker:
        images, containers = docker.list_images(), docker.list_containers()
    if as_json:
        print_json(
            {
                "images": [
                    {"reference": each.reference, "id": each.id, "created": each.created, "size_bytes": each.size_bytes}
                    for each in images
                ],
                "containers": [
                    {"name": each.name, "id": each.id, "image": each.image, "state": each.state} for each in containers
                ],
            }
        )
        return
    print_table(
        ["IMAGE", "ID", "CREATED", "SIZE"],
        [
            (each.reference, each.id.removeprefix("sha256:")[:12], each.created[:19], size_text(each.size_bytes))
            for each in sorted(images, key=lambda each: each.reference)
        ],
        right=["SIZE"],
    )
    click.echo()
    print_table(
        ["CONTAINER", "IMAGE", "STATE"],
        [(each.name, each.image, each.state) for each in sorted(containers, key=lambda each: each.name)],
    )
