# SPDX-License-Identifier: Apache-2.0
"""Lineage: from which image or container to which backup, and back; told to OpenLineage where that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.places import source_path
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.operators.summary import is_of_backup

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlace:
    """A dataset by OpenLineage's rules for names.

    :param namespace: ``docker://HOST``; of a repository ``s3://BUCKET``, ``file``, or what its storage is.
    :param name: image reference, ``container/NAME``, or the folder of a source's backups.
    :param version: id of the backup; empty on a host.
    :param size_bytes: what was written, where that is known.
    """

    namespace: str
    name: str
    version: str = ""
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """What a task read, and what it wrote; a dry run, or one that found an image unchanged, wrote nothing."""

    read: tuple[DataPlace, ...] = ()
    written: tuple[DataPlace, ...] = ()


def movement(summary: Mapping[str, Any], *, repository: str) -> Movement:
    """Return what a task moved, as its summary says.

    :param repository: URL of its repository without credentials; empty for none.
    """
    if is_of_backup(summary):
        source = Source(host=summary["host"], kind=SourceKind(summary["kind"]), name=summary["source"])
        made = _in_repository(repository, source, summary["backup_id"], size_bytes=summary["stored_size_bytes"])
        return Movement(read=(_on_host(source),), written=() if summary["status"] == "unchanged" else (made,))
    if {"container", "image", "image_id"} <= summary.keys():
        container = Source(host=summary["host"], kind=SourceKind.CONTAINER, name=summary["container"])
        image = Source(host=summary["host"], kind=SourceKind.IMAGE, name=summary["image"])
        return Movement(read=(_on_host(container),), written=(_on_host(image),))
    # A removal names the backup that covers it, and moves nothing.
    if {"backup_id", "backup_source"} <= summary.keys() and "object_id" not in summary and repository:
        source = Source.parse(summary["backup_source"])
        read = _in_repository(repository, source, summary["backup_id"])
        return Movement(read=(read,), written=() if summary.get("dry_run") else _restored(summary))
    if {"target_repository", "copied"} <= summary.keys():
        source_root, target_root = (_place(summary[key]) for key in ("repository", "target_repository"))
        copied = summary["copied"] and not summary["dry_run"]
        return Movement(read=(source_root,), written=(target_root,) if copied else ())
    return Movement()


def _restored(summary: Mapping[str, Any]) -> tuple[DataPlace, ...]:
    """Return what a restore or a rollback made on its host; nothing for a verification."""
    if summary.get("name"):
        return (_on_host(Source(host=summary["host"], kind=SourceKind.CONTAINER, name=summary["name"])),)
    tags = [*summary.get("tags", ()), *([summary["tag"]] if "tag" in summary else ())]
    return tuple(_on_host(Source(host=summary["host"], kind=SourceKind.IMAGE, name=tag)) for tag in tags)


def _on_host(source: Source) -> DataPlace:
    name = source.name if source.kind is SourceKind.IMAGE else f"container/{source.name}"
    return DataPlace(namespace=f"docker://{source.host}", name=name)


def _in_repository(repository: str, source: Source, backup_id: str, *, size_bytes: int | None = None) -> DataPlace:
    return replace(_place(repository, source_path(source)), version=backup_id, size_bytes=size_bytes)


def _place(repository: str, *below: str) -> DataPlace:
    """Return a folder of a repository; its own when none is named."""
    parts = urlsplit(repository)
    if parts.scheme in {"", "file"}:
        return DataPlace(namespace="file", name="/".join((parts.path.rstrip("/"), *below)) or "/")
    names = (name for name in (parts.path.strip("/"), *below) if name)
    return DataPlace(namespace=f"{parts.scheme}://{parts.netloc}", name="/".join(names) or "/")


def openlineage_of(moved: Movement) -> OperatorLineage[Any, Any]:
    """Return a movement for Airflow's OpenLineage provider, which alone asks for it; needs that installed."""
    from airflow.providers.common.compat.openlineage.facet import (
        Dataset,
        InputDataset,
        OutputDataset,
        OutputStatisticsOutputDatasetFacet,
    )
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import dataset_version_dataset

    def facets(place: DataPlace) -> dict[str, Any]:
        version = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=place.version)
        return {"version": version} if place.version else {}

    def statistics(place: DataPlace) -> dict[str, Any]:
        written = OutputStatisticsOutputDatasetFacet(size=place.size_bytes)
        return {} if place.size_bytes is None else {"outputStatistics": written}

    inputs: list[Dataset] = [
        InputDataset(namespace=each.namespace, name=each.name, facets=facets(each)) for each in moved.read
    ]
    outputs: list[Dataset] = [
        OutputDataset(namespace=each.namespace, name=each.name, facets=facets(each), outputFacets=statistics(each))
        for each in moved.written
    ]
    return OperatorLineage(inputs=inputs, outputs=outputs)
