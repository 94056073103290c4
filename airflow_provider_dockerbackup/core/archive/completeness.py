# SPDX-License-Identifier: Apache-2.0
"""Is a docker-archive whole? From its contents to the one image in it, every reference followed, every digest compared.

``manifest.json`` and the configuration decide what the image is (docker image specification v1.2); the OCI documents
beside them (OCI image specification v1.1) must agree. Engine 25.0.0 wrote OCI manifests with layers missing or in
another order (moby 47065, 47150): that is a note.

Layers that are held already may have been left out. One counts as there only if the configuration names, at that very
place, the diff_id that is held under that member's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.contents import BLOBS, Contents, StoredFile
from airflow_provider_dockerbackup.core.archive.image import ArchivedImage, ArchivedLayer, HistoryEntry
from airflow_provider_dockerbackup.core.archive.manifests import in_order
from airflow_provider_dockerbackup.core.archive.oci_walk import OciWalk
from airflow_provider_dockerbackup.core.archive.tar import shown_name
from airflow_provider_dockerbackup.core.archive.wire import History, ImageConfig, ManifestEntry, parse, strict_json
from airflow_provider_dockerbackup.exceptions import IncompleteError, IntegrityError


def image_in(contents: Contents, *, held: Mapping[str, str] | None = None) -> ArchivedImage:
    """Return the image that an archive holds.

    :param held: the diff_ids of layers that were left out of the archive, by the names of their members.
    :raises IncompleteError: when something was left out that is not the layer it was taken for.
    :raises IntegrityError: when it holds none, several, or one that is not whole.
    """
    held = held or {}
    entry = _entry(contents)
    if entry.config in held and entry.config not in contents.files:
        raise IncompleteError(f"the configuration {shown_name(entry.config)} was left out as a layer that is held")
    config, config_digest = _config_bytes(contents, entry.config)
    parsed = parse(ImageConfig, strict_json(config, where=entry.config), where=entry.config)
    diff_ids = tuple(parsed.rootfs.diff_ids or ())
    history, notes = history_of(parsed.history, diff_ids)
    members = [_resolve(contents, name, held) for name in entry.layers or ()]
    if len(members) != len(diff_ids):
        raise IntegrityError(f"manifest.json lists {len(members)} layers, the configuration {len(diff_ids)} diff_ids")
    layers = tuple(
        _layer(contents.files[name], name, diff_id) if name in contents.files else _held(held[name], name, diff_id)
        for name, diff_id in zip(members, diff_ids, strict=True)
    )
    walk = OciWalk(contents, config_digest=config_digest, layers=layers, left_out=held)
    is_oci = "index.json" in contents.files
    if is_oci:
        walk.run()
    elif "oci-layout" in contents.files or entry.config.startswith(BLOBS):
        raise IntegrityError("index.json is missing from an archive in OCI form")
    _refuse_strangers(contents, {entry.config, *members, *walk.reached})
    return ArchivedImage(
        config=config,
        config_digest=config_digest,
        diff_ids=diff_ids,
        layers=layers,
        repo_tags=tuple(entry.repo_tags or ()),
        image_ids=frozenset({config_digest, *walk.image_ids}),
        history=history,
        format="oci" if is_oci else "docker",
        notes=(*notes, *walk.notes),
        others=in_order(walk.others),
    )


def _entry(contents: Contents) -> ManifestEntry:
    document = contents.documents.get("manifest.json")
    if document is None:
        raise IntegrityError("manifest.json is missing; the archive was cut short or is none of docker save")
    entries = strict_json(document, where="manifest.json")
    if not isinstance(entries, list) or len(entries) != 1:
        found = len(entries) if isinstance(entries, list) else "no list of"
        raise IntegrityError(f"manifest.json must describe exactly one image, it describes {found} images")
    return parse(ManifestEntry, entries[0], where="manifest.json")


def _config_bytes(contents: Contents, name: str) -> tuple[bytes, str]:
    """Return the configuration; that its sha256 is its name was checked when it streamed by."""
    is_legacy = name.endswith(".json") and "/" not in name and name not in ("manifest.json", "index.json")
    if not is_legacy and not name.startswith(BLOBS):
        raise IntegrityError(f"manifest.json: Config {shown_name(name)} is not named by a digest")
    if name not in contents.files:
        raise IntegrityError(f"the configuration {shown_name(name)} is missing")
    if name not in contents.documents:
        raise IntegrityError(f"{name} is not an image configuration, or the archive has too many JSON documents")
    return contents.documents[name], contents.files[name].digest


def history_of(
    entries: Sequence[History] | None, diff_ids: Sequence[str]
) -> tuple[tuple[HistoryEntry, ...], tuple[str, ...]]:
    """Return the history of a configuration and what there is to note of it.

    Engines refuse to show one with more steps than layers; builders other than Docker's leave steps out.
    """
    history = tuple(
        HistoryEntry(
            created=entry.created,
            created_by=entry.created_by or "",
            author=entry.author or "",
            comment=entry.comment or "",
            empty_layer=entry.empty_layer,
        )
        for entry in entries or ()
    )
    with_layer = sum(not entry.empty_layer for entry in history)
    said = f"the configuration's history has {with_layer} steps with a layer, but there are {len(diff_ids)} diff_ids"
    if with_layer > len(diff_ids):
        raise IntegrityError(said)
    return history, (said,) if history and with_layer < len(diff_ids) else ()


def _resolve(contents: Contents, name: str, held: Mapping[str, str]) -> str:
    """Return the member that holds a layer, through the one link that 20.10 and podman write."""
    target = contents.links.get(name, name)
    if target not in contents.files and target not in held:
        via = f" (linked from {name})" if target != name else ""
        raise IntegrityError(f"layer {shown_name(target)}{via} is missing")
    return target


def _layer(stored: StoredFile, name: str, diff_id: str) -> ArchivedLayer:
    if stored.digest == diff_id:
        compression, size = Compression.NONE, stored.size_bytes
    elif stored.plain_digest == diff_id:
        compression, size = stored.compression, stored.plain_size_bytes
    else:
        found = stored.problem or f"its sha256 is {stored.plain_digest or stored.digest}"
        raise IntegrityError(f"layer {shown_name(name)} is not that of diff_id {diff_id}: {found}")
    return ArchivedLayer(
        diff_id=diff_id,
        member=name,
        digest=stored.digest,
        size_bytes=size,
        stored_size_bytes=stored.size_bytes,
        compression=compression,
    )


def _held(held_diff_id: str, name: str, diff_id: str) -> ArchivedLayer:
    """Return a layer that was left out; content addressing makes its digest known where its name is one."""
    if held_diff_id != diff_id:
        raise IncompleteError(
            f"layer {shown_name(name)} was left out as that of diff_id {held_diff_id}, which is held; "
            f"the configuration says it is that of {diff_id}"
        )
    return ArchivedLayer(
        diff_id=diff_id,
        member=name,
        digest=f"sha256:{name.removeprefix(BLOBS)}" if name.startswith(BLOBS) else diff_id,
        size_bytes=0,
        stored_size_bytes=0,
        compression=Compression.NONE,
        held=True,
    )


def _refuse_strangers(contents: Contents, known: set[str]) -> None:
    """Layers that belong to nothing are refused; 25.0 and newer leave small JSON blobs behind, which do no harm."""
    for name, stored in contents.files.items():
        is_layer = name.startswith(BLOBS) or name.endswith(".tar")
        if is_layer and name not in known and not stored.looks_like_json:
            raise IntegrityError(f"archive member {name}: it belongs to no image in the archive")
    for name in contents.documents:
        is_config = name.endswith(".json") and "/" not in name and name not in ("manifest.json", "index.json")
        if is_config and name not in known:
            raise IntegrityError(f"archive member {name}: a configuration of no image in manifest.json")
    for name, target in contents.links.items():
        if target not in known:
            raise IntegrityError(f"archive member {name}: it links to {target}, which is no layer of the image")
