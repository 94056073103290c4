# SPDX-License-Identifier: Apache-2.0
"""Which layers of a backup a target has already, so that a load need not bring them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice

from airflow_provider_dockerbackup.core.archive.hybrid import stored_manifest
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.layers.reading import image_config
from airflow_provider_dockerbackup.core.names import WorkingName
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.record import BackupRecord
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import DockerBackupError

# Each is a read of a record.
_LOOKED_AT = 30


def known_layers(record: BackupRecord, host: DockerHost) -> frozenset[str]:
    """Return the diff_ids of layers that a load onto a host with a classic store need not bring.

    Such a store knows a layer by all that lies below it, and then does not read it: of the layers with which an image
    of it begins, none need be sent, unless it comes once more above them.
    """
    if record.blobs is None:
        return frozenset()
    ours = record.diff_ids
    depth = max((_common(ours, chain) for chain in host.layer_chains()), default=0)
    return frozenset(ours[:depth]) - frozenset(ours[depth:])


def _common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return with how many layers both begin."""
    return next(
        (depth for depth, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """An image in a target's containerd store that was restored from the same repository, blob by blob.

    :param image_id: its ID there: the digest of the manifest that names those blobs.
    :param layers: diff_ids of the layers whose blobs it shares.
    """

    image_id: str
    layers: frozenset[str]


def base_on(host: DockerHost, repository: Repository, backup: Backup) -> Base | None:
    """Return the image on a host with a containerd store that shares most of a backup's blobs; None without any.

    Such a store takes an archive without blobs that it holds (tried with 26 and 28). That it has a layer unpacked is
    not enough, for then it keeps an image that runs and cannot be saved. An image whose ID is the digest of a manifest
    holds the blobs that this manifest names, and what it names is computed here.
    """
    record = backup.whole()
    ids = {each.id for each in host.list_images()}
    best: Base | None = None
    best_bytes = 0
    newest = islice(repository.catalog.by_run(backup.source), _LOOKED_AT)
    for other in chain([backup], newest) if ids else ():
        held = other.record
        if held is None or held.blobs is None or held.blobs.manifest.digest not in ids:
            continue
        shared, size_bytes = _shared(record, held)
        if size_bytes > best_bytes and _is_manifest_of_its_blobs(repository, other):
            best, best_bytes = Base(image_id=held.blobs.manifest.digest, layers=shared), size_bytes
    return best


def _shared(record: BackupRecord, other: BackupRecord) -> tuple[frozenset[str], int]:
    """Return the diff_ids of the layers that lie in blobs of both, and what these blobs take."""
    if record.blobs is None or other.blobs is None:
        return frozenset(), 0
    theirs = {each.digest for each in other.blobs.layers}
    shared = {each.diff_id: each.stored_size_bytes for each in record.blobs.layers if each.digest in theirs}
    return frozenset(shared), sum(shared.values())


def _is_manifest_of_its_blobs(repository: Repository, backup: Backup) -> bool:
    record = backup.whole()
    if record.blobs is None or record.encryption != "none":
        return False
    try:
        config = image_config(repository.storage, record, where=f"{repository.storage.url}/{backup.path}")
    except DockerBackupError:
        return False
    named = stored_manifest(config, [(each.digest, each.stored_size_bytes) for each in record.blobs.layers])
    return sha256_of(named) == record.blobs.manifest.digest


@contextmanager
def kept(base: Base | None, pin: WorkingName, *, host: DockerHost, progress: Progress) -> Iterator[frozenset[str]]:
    """Give the diff_ids of a base's layers, and have a name keep it on the host meanwhile; none when it is gone."""
    if base is None:
        yield frozenset()
        return
    try:
        host.tag_image(base.image_id, reference=pin.tag)
    except DockerBackupError as err:
        progress.note(f"{base.image_id} cannot be kept on {host.name}, so its layers are sent: {err}")
        yield frozenset()
        return
    try:
        yield base.layers
    finally:
        pin.remove(host, progress)
