# SPDX-License-Identifier: Apache-2.0
"""The page of the repository format has every field of every document, and every type of audit event."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import BaseModel

from airflow_provider_dockerbackup.core.audit.event import AuditEvent
from airflow_provider_dockerbackup.core.gc.documents import (
    ClosedDocument,
    CondemnedDocument,
    LeaseDocument,
    PinDocument,
)
from airflow_provider_dockerbackup.core.record import BackupRecord
from airflow_provider_dockerbackup.core.repository import RepositoryDocument
from airflow_provider_dockerbackup.core.since import Confirmation, Deletion, Hold, Quarantine, Release, Verification
from tests.pages import REFERENCE, names_in_tables, section, text_of
from tests.reference.event_types import written_types


def documented_parts(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield a document's model and those of all its parts."""
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if inspect.isclass(kind) and issubclass(kind, BaseModel):
                yield from documented_parts(kind)


@pytest.mark.parametrize(
    "document",
    [RepositoryDocument, BackupRecord, Verification, Confirmation, Hold, Release, Quarantine, Deletion, AuditEvent],
    ids=lambda each: each.__name__,
)
def test_the_reference_has_every_field_of_a_document(document: type[BaseModel]) -> None:
    """Each field of a document and of all its parts is named on the page of the format."""
    page = text_of(REFERENCE / "repository-format.md")
    for part in documented_parts(document):
        for name in part.model_fields:
            assert f"`{name}`" in page, f"{part.__name__}.{name}"


@pytest.mark.parametrize(
    ("heading", "document"),
    [
        ("### `repository.json`", RepositoryDocument),
        ("### `backup.json`", BackupRecord),
        ("### `verification-<time>.json`", Verification),
        ("### `confirmed-<run time>-<key>.json`", Confirmation),
        ("### `hold-<time>.json`", Hold),
        ("### `release-<time>.json`", Release),
        ("### `quarantined-<time>.json`", Quarantine),
        ("### `deleted-<time>.json`", Deletion),
        ("### `pins/<attempt>/<number>.json`", PinDocument),
        ("### `gc/lease/<number>.json`", LeaseDocument),
        ("### `gc/condemned/<gc>/<number>.json`", CondemnedDocument),
        ("### `trash/<gc>/closed.json`", ClosedDocument),
        ("## Audit events", AuditEvent),
    ],
)
def test_the_table_of_a_document_has_its_fields_and_no_others(heading: str, document: type[BaseModel]) -> None:
    """The first table below a document's heading lists exactly its fields."""
    page = text_of(REFERENCE / "repository-format.md")
    blocks = page.partition(f"{heading}\n")[2].lstrip("\n").split("\n\n")
    table = next(block for block in blocks if block.startswith("|"))
    assert names_in_tables(table) == set(document.model_fields)


def test_every_type_of_audit_event_is_listed() -> None:
    """What the package writes, wherever it does, and what the format's page lists are the same."""
    _, head, table = section("repository-format.md", "Audit events").partition("| type | when |\n")
    assert head
    assert names_in_tables(head + table.partition("\n\n")[0]) == written_types()
