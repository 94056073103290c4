# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup tree``: which layers the images in a repository share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import click

from airflow_provider_dockerbackup.cli.options import json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import plain, print_columns, print_json
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.look.tree import LayerTree, image_chains, layer_tree
from airflow_provider_dockerbackup.core.sizes import size_text


@click.command()
@repository_option
@click.option("--host", "host_name", metavar="NAME", help="Only backups of this Docker host.")
@json_option
def tree(*, repository: str, host_name: str | None, as_json: bool) -> None:
    """Draw the layer tree of all image backups, and what each shares with others.

    Sizes are those of uncompressed layers in the records; no archive is read.

    \b
    Example:
      dockerbackup tree --repository /srv/backups --host web1
    """
    found = open_repository(repository).catalog.backups(host=host_name)
    for each in found:
        if each.record is None:
            click.echo(plain(f"dockerbackup: left out backup {each.backup_id}: {each.problem}"), err=True)
    images = {each.backup_id: each for each in found if each.record is not None and each.record.image is not None}
    drawn = layer_tree(image_chains(images.values()))
    if as_json:
        print_json(_document(drawn, images))
        return
    for line in _lines(drawn, images):
        click.echo(plain(line))
    click.echo(f"{len(drawn.nodes)} layers, {size_text(drawn.size_bytes)} with each counted once")
    click.echo()
    print_columns(
        ["HOST", "IMAGE", "BACKUP", "LAYERS", "VIRTUAL", "SHARED", "OWN", "TAGS"],
        [
            (
                images[share.name].source.host,
                images[share.name].source.name,
                share.name,
                str(share.layers),
                size_text(share.virtual_size_bytes),
                size_text(share.shared_bytes),
                size_text(share.own_bytes),
                ", ".join(_tags(images[share.name])),
            )
            for share in drawn.shares
        ],
    )


def _lines(drawn: LayerTree, images: Mapping[str, Backup]) -> Iterator[str]:
    """Yield one line for each layer, with branches drawn as ``docker images --tree`` drew them."""
    last = _last_among_siblings([node.depth for node in drawn.nodes])
    open_branches: list[bool] = []
    for node, is_last in zip(drawn.nodes, last, strict=True):
        del open_branches[node.depth :]
        stem = "".join("│ " if is_open else "  " for is_open in open_branches)
        open_branches.append(not is_last)
        line = f"{stem}{'└─' if is_last else '├─'}{node.diff_id.removeprefix('sha256:')[:12]} "
        line += f"{size_text(node.size_bytes)}, virtual {size_text(node.virtual_size_bytes)}"
        names = [f"{images[name].source.name} of {images[name].source.host} ({name})" for name in node.tops]
        yield f"{line}: {', '.join(names)}" if names else line


def _last_among_siblings(depths: list[int]) -> list[bool]:
    """Return for each node, in pre-order, whether no sibling follows it."""
    last = [True] * len(depths)
    followed: list[bool] = []  # by depth: does a sibling stand further down?
    for place in range(len(depths) - 1, -1, -1):
        depth = depths[place]
        followed += [False] * (depth + 1 - len(followed))
        last[place] = not followed[depth]
        followed[depth] = True
        del followed[depth + 1 :]
    return last


def _tags(backup: Backup) -> tuple[str, ...]:
    image = backup.whole().image
    return image.repo_tags if image is not None else ()


def _document(drawn: LayerTree, images: Mapping[str, Backup]) -> dict[str, object]:
    return {
        "size_bytes": drawn.size_bytes,
        "layers": [asdict(node) for node in drawn.nodes],
        "images": [
            {
                "backup_id": share.name,
                "host": images[share.name].source.host,
                "source": images[share.name].source.name,
                "repo_tags": list(_tags(images[share.name])),
                "layers": share.layers,
                "virtual_size_bytes": share.virtual_size_bytes,
                "shared_bytes": share.shared_bytes,
                "own_bytes": share.own_bytes,
            }
            for share in drawn.shares
        ],
    }
