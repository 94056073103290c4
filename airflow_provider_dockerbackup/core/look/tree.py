# SPDX-License-Identifier: Apache-2.0
"""The layer tree of images, as ``docker images --tree`` once drew it: a trie over their diff_ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_dockerbackup.core.catalog import Backup


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChain:
    """One image: its name and its layers, lowest first.

    :param name: what stands for it, such as a backup id; unique.
    :param layers: diff_id and size in bytes of each.
    """

    name: str
    layers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNode:
    """One layer at one place: the same layer on another parent is another node.

    :param depth: 0 for a lowest layer.
    :param size_bytes: of the uncompressed layer.
    :param virtual_size_bytes: of the layer and all below it.
    :param held_by: names of the images that have it.
    :param tops: names of the images that end with it.
    """

    diff_id: str
    depth: int
    size_bytes: int
    virtual_size_bytes: int
    held_by: tuple[str, ...]
    tops: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShare:
    """How much of one image others have as well.

    :param virtual_size_bytes: all its layers.
    :param shared_bytes: layers that at least one other image has at the same place.
    :param own_bytes: the rest.
    """

    name: str
    layers: int
    virtual_size_bytes: int
    shared_bytes: int
    own_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTree:
    """The layers of images.

    :param nodes: each layer followed by those on top of it (pre-order).
    :param shares: one for each image, in the order given.
    """

    nodes: tuple[LayerNode, ...]
    shares: tuple[LayerShare, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all layers, each counted once."""
        return sum(node.size_bytes for node in self.nodes)


def layer_tree(chains: Sequence[LayerChain]) -> LayerTree:
    """Return the trie of images' layers; siblings stand in the order in which their layers first come."""
    rank: dict[str, int] = {}
    for chain in chains:
        for diff_id, _ in chain.layers:
            rank.setdefault(diff_id, len(rank))
    places: dict[tuple[int, str], int] = {}
    trail: list[tuple[str, int, int, int]] = []
    held: list[list[str]] = []
    tops: list[list[str]] = []
    paths: dict[str, list[int]] = {}
    # Sorted by their layers, images with a common beginning stand together: new nodes come in pre-order.
    for chain in sorted(chains, key=lambda each: [rank[diff_id] for diff_id, _ in each.layers]):
        place, virtual, path = -1, 0, []
        for depth, (diff_id, size_bytes) in enumerate(chain.layers):
            virtual += size_bytes
            place = places.setdefault((place, diff_id), len(trail))
            if place == len(trail):
                trail.append((diff_id, depth, size_bytes, virtual))
                held.append([])
                tops.append([])
            held[place].append(chain.name)
            path.append(place)
        if path:
            tops[path[-1]].append(chain.name)
        paths[chain.name] = path
    nodes = tuple(
        LayerNode(
            diff_id=diff_id,
            depth=depth,
            size_bytes=size_bytes,
            virtual_size_bytes=virtual,
            held_by=tuple(held[place]),
            tops=tuple(tops[place]),
        )
        for place, (diff_id, depth, size_bytes, virtual) in enumerate(trail)
    )
    return LayerTree(nodes=nodes, shares=tuple(_share(chain.name, paths[chain.name], nodes) for chain in chains))


def _share(name: str, path: list[int], nodes: Sequence[LayerNode]) -> LayerShare:
    mine = [nodes[place] for place in path]
    virtual = sum(node.size_bytes for node in mine)
    own = sum(node.size_bytes for node in mine if len(node.held_by) == 1)
    return LayerShare(
        name=name, layers=len(path), virtual_size_bytes=virtual, shared_bytes=virtual - own, own_bytes=own
    )


def image_chains(backups: Iterable[Backup]) -> list[LayerChain]:
    """Return the layers of each image's backup, by backup id, from records alone; containers, what is unreadable, and
    archives on hosts, of whose layers no sizes are recorded, are passed over.
    """
    return [
        LayerChain(
            name=backup.backup_id,
            layers=tuple((layer.diff_id, layer.size_bytes) for layer in backup.record.image.layers),
        )
        for backup in backups
        if backup.record is not None and backup.record.image is not None and backup.record.path_on_host is None
    ]
