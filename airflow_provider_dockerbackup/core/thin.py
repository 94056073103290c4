# SPDX-License-Identifier: Apache-2.0
"""What of an image a Docker host has already, so that a restore need not send it.

Classic stores know a layer by all that lies below it, and do not read it again. Containerd stores hold blobs, and want
each under the very name by which the image's manifest calls it: a layer that is there in another compression is none
that they have. So of each layer every name is asked about by which the store may hold it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, product

from airflow_provider_dockerbackup.core.archive.oci_layout import LayerName
from airflow_provider_dockerbackup.core.layers.hints import hints_of
from airflow_provider_dockerbackup.core.model import EngineInfo, Packing
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.record import BackupRecord, LayerBlob
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import DockerBackupError

# A question takes some 12 ms for each name (engine 28): a smaller layer is sent sooner than it is asked about.
_ASKED_BYTES = 512 * 1024
_ASKED_LAYERS = 32
# All together must be worth the quarter of a second that any question takes.
_WORTH_BYTES = 4 * 1024 * 1024
# Engines compress a layer always the same way; further names come from elsewhere.
_HINTS_PER_LAYER = 4
_READERS = 8


def known_layers(record: BackupRecord, host: DockerHost) -> frozenset[str]:
    """Return the diff_ids of layers that a load onto a host with a classic store need not bring.

    Of the layers with which an image of the host begins, none need be sent, unless it comes once more above them.
    """
    ours = record.diff_ids
    depth = max((_common(ours, chain) for chain in host.layer_chains()), default=0)
    return frozenset(ours[:depth]) - frozenset(ours[depth:])


def _common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return with how many layers both begin."""
    return next(
        (depth for depth, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )


def held_layers(
    record: BackupRecord,
    host: DockerHost,
    *,
    engine: EngineInfo,
    packing: Packing,
    repository: Repository,
    progress: Progress,
) -> dict[str, LayerName]:
    """Return by diff_id the blobs by which a containerd store holds layers of a backup, as it says itself.

    :param packing: how layers will be sent, which decides by which of their names the repository's blobs count.
    """
    if record.blobs is None:
        return {}
    layers = dict(zip(record.diff_ids, record.blobs.layers, strict=True))
    largest = sorted(layers, key=lambda diff_id: layers[diff_id].stored_size_bytes, reverse=True)[:_ASKED_LAYERS]
    asked = {each: layers[each] for each in largest if layers[each].stored_size_bytes >= _ASKED_BYTES}
    if sum(each.stored_size_bytes for each in asked.values()) < _WORTH_BYTES:
        return {}
    try:
        names = _clear(asked, _names(record, asked, engine=engine, packing=packing, repository=repository))
        sizes = {name.digest: name.size_bytes for each in names.values() for name in each}
        there = host.held_blobs(sizes, engine=engine)
    except DockerBackupError as err:
        # It would only have been faster; should the host be gone, the load itself will say so.
        progress.note(f"{host.name} did not say which layers it has, sending all: {err}")
        return {}
    return {
        diff_id: held
        for diff_id, each in names.items()
        if (held := next((name for name in each if name.digest in there), None)) is not None
    }


def _clear(diff_ids: Iterable[str], names: Iterable[tuple[str, LayerName]]) -> dict[str, list[LayerName]]:
    """Return by diff_id the names of layers, best first; a blob that would be two layers, or of two sizes, is none."""
    found: dict[str, list[LayerName]] = {diff_id: [] for diff_id in diff_ids}
    meanings = defaultdict(set)
    for diff_id, name in names:
        found[diff_id].append(name)
        meanings[name.digest].add((diff_id, name.size_bytes))
    return {diff_id: [name for name in each if len(meanings[name.digest]) == 1] for diff_id, each in found.items()}


def _names(
    record: BackupRecord,
    layers: Mapping[str, LayerBlob],
    *,
    engine: EngineInfo,
    packing: Packing,
    repository: Repository,
) -> Iterator[tuple[str, LayerName]]:
    """Yield layers, by diff_id, with names by which a store may hold them; of each the best first."""
    for diff_id, blob in layers.items():
        if packing == "blobs" and record.encryption == "none":
            yield diff_id, LayerName.stored(blob.digest, blob.stored_size_bytes)
        yield diff_id, LayerName.plain(diff_id, blob.size_bytes)
    known = list(product(dict.fromkeys([engine.engine_id, record.engine.engine_id]), layers))
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        found = pool.map(lambda each: hints_of(repository, each[0], [each[1]], most=_HINTS_PER_LAYER), known)
        for hint in chain.from_iterable(found):
            if hint.compression is not None and hint.size_bytes > 0:
                yield (
                    hint.diff_id,
                    LayerName(digest=hint.digest, size_bytes=hint.size_bytes, compression=hint.compression),
                )
