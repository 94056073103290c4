# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_provider_dockerbackup.core.catalog import Catalog
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.places import backup_path, source_from_path, source_path
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.reference import ImageReference
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from airflow_provider_dockerbackup.transport.storage_path import object_parts
from tests.property.names import container_names, host_names, references

BACKUP_ID = "20260301T060000Z-0123456789abcdef"


@st.composite
def _sources(draw: st.DrawFn) -> Source:
    host = draw(host_names())
    if draw(st.booleans()):
        return Source(host=host, kind=SourceKind.IMAGE, name=str(ImageReference.parse(draw(references()))))
    return Source(host=host, kind=SourceKind.CONTAINER, name=draw(container_names()))


@given(_sources())
def test_a_source_has_one_folder_below_that_of_its_host_and_comes_back_from_it(source: Source) -> None:
    """Whatever host and source are called, they are one path component each, that no storage refuses or resolves."""
    path = source_path(source)
    root, host, folder = path.split("/")
    assert root == "backups"
    assert object_parts(path) == (root, host, folder)
    assert path.isascii()
    assert path.isprintable()
    assert not host.startswith(".")
    assert source_from_path(path) == source


@given(_sources(), _sources())
def test_two_sources_have_the_same_folder_only_when_they_are_the_same(one: Source, other: Source) -> None:
    """No two sources share a folder, not even by the beginning of a path."""
    assume(one != other)
    assert source_path(one) != source_path(other)
    assert not source_path(one).startswith(f"{source_path(other)}/")


@given(_sources())
def test_a_backup_is_found_again_under_its_source(source: Source) -> None:
    """A record in the folder of a source is listed for exactly that source, readable or not."""
    storage = MemoryStorage()
    storage.create(f"{backup_path(source, BACKUP_ID)}backup.json", b"{}")
    catalog = Catalog(storage)
    assert [each.source for each in catalog.backups()] == [source]
    assert [each.source for each in catalog.backups(source=source)] == [source]
    assert [each.source for each in catalog.backups(host=source.host)] == [source]


@given(st.lists(host_names().map(lambda text: text.replace("/", "")), max_size=6))
def test_any_tree_can_be_listed(parts: list[str]) -> None:
    """No foreign name makes the catalog fail."""
    path = "/".join(["backups", *(part for part in parts if part not in {"", ".", ".."}), "backup.json"])
    storage = MemoryStorage()
    storage.create(path, b"{}")
    assert [each for each in Catalog(storage).backups() if each.record is not None] == []
