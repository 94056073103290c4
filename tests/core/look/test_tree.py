# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_dockerbackup.core.look.tree import LayerChain, image_chains, layer_tree
from tests.core.archive.making import layer, sha256
from tests.core.world import CONTAINER, World, app_archive

SIZES = {"a": 1, "b": 10, "c": 100, "d": 1000}


@st.composite
def _chains(draw: st.DrawFn) -> list[LayerChain]:
    drawn = draw(st.lists(st.lists(st.sampled_from(sorted(SIZES)), max_size=6), max_size=8))
    return [
        LayerChain(name=str(number), layers=tuple((each, SIZES[each]) for each in layers))
        for number, layers in enumerate(drawn)
    ]


@given(_chains())
def test_the_tree_holds_every_image_once_and_no_beginning_twice(chains: list[LayerChain]) -> None:
    """Each node is a distinct beginning of the images' layers; walking down to where an image ends gives the image."""
    tree = layer_tree(chains)
    trail: list[str] = []
    beginnings = []
    for node in tree.nodes:
        assert node.depth <= len(trail), "a layer stands below its parent"
        del trail[node.depth :]
        trail.append(node.diff_id)
        beginnings.append(tuple(trail))
        assert node.virtual_size_bytes == sum(SIZES[each] for each in trail)
        having = {each.name for each in chains if [one for one, _ in each.layers][: len(trail)] == trail}
        assert set(node.held_by) == having
        assert set(node.tops) == {each.name for each in chains if [one for one, _ in each.layers] == trail}
    expected = {tuple(d for d, _ in each.layers[:n]) for each in chains for n in range(1, len(each.layers) + 1)}
    assert len(beginnings) == len(set(beginnings))
    assert set(beginnings) == expected


@given(_chains())
def test_shared_and_own_bytes_add_up(chains: list[LayerChain]) -> None:
    """Own bytes are what goes when the image goes."""
    tree = layer_tree(chains)
    assert [share.name for share in tree.shares] == [each.name for each in chains]
    for share, chain in zip(tree.shares, chains, strict=True):
        assert share.virtual_size_bytes == sum(size for _, size in chain.layers)
        assert share.shared_bytes + share.own_bytes == share.virtual_size_bytes
        without = layer_tree([each for each in chains if each.name != chain.name])
        assert tree.size_bytes - without.size_bytes == share.own_bytes


def test_very_deep_images_are_no_problem() -> None:
    """Records come from a repository; their length is bounded by nothing."""
    chain = LayerChain(name="deep", layers=tuple((str(number), 1) for number in range(20_000)))
    assert layer_tree([chain]).nodes[-1].virtual_size_bytes == 20_000


def test_two_versions_of_an_image_share_their_base() -> None:
    """From records alone: the lower layer is one node that both hold; containers are passed over."""
    world = World()
    one = world.backup(1).backup
    world.host.add_archive(app_archive("two"))
    two = world.backup(2).backup
    world.backup(3, CONTAINER)
    tree = layer_tree(image_chains(world.repository.catalog.backups()))
    base, *tops = tree.nodes
    assert base.diff_id == f"sha256:{sha256(layer('bin/sh', 'etc/passwd'))}"
    assert set(base.held_by) == {one.backup_id, two.backup_id}
    assert {node.tops for node in tops} == {(one.backup_id,), (two.backup_id,)}
    assert {share.shared_bytes for share in tree.shares} == {base.size_bytes}
