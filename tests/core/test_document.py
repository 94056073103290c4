# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.document import canonical_json, compact_time, sha256_of, utc_text
from airflow_provider_dockerbackup.core.record import BackupRecord
from airflow_provider_dockerbackup.core.repository import RepositoryDocument
from airflow_provider_dockerbackup.core.since import Verification
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError
from tests.core.world import CONTAINER, IMAGE, World


def _record(world: World | None = None) -> BackupRecord:
    return (world or World()).backup(1).backup.whole()


def _changed(document: BackupRecord, **fields: Any) -> bytes:
    value = json.loads(document.to_bytes())
    for path, content in fields.items():
        *folders, last = path.split("__")
        part = value
        for folder in folders:
            part = part[folder]
        part[last] = content
    return canonical_json(value)


@pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=str)
def test_a_record_reads_back_equal_and_writes_the_same_bytes(source: Any) -> None:
    """Reading a record and writing it again changes nothing, whatever was backed up."""
    record = World().backup(1, source).backup.whole()
    again = BackupRecord.from_bytes(record.to_bytes(), where="here")
    assert again == record
    assert again.to_bytes() == record.to_bytes()


def test_a_record_is_canonical_json() -> None:
    """Keys are sorted and nothing is padded, so that equal documents have equal digests (RFC 8785)."""
    data = _record().to_bytes()
    value = json.loads(data)
    assert data == json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_unknown_fields_survive_byte_for_byte_at_every_depth() -> None:
    """What a newer minor version added is still there when an older release writes the document again."""
    more = {"z": [1, None, {"ä": "\u2028"}], "a": True}
    data = _changed(
        _record(), schema_version="1.7", added=more, source__added=more, archive__added=0.5, image__added="x"
    )
    assert BackupRecord.from_bytes(data, where="here").to_bytes() == data


def test_an_unknown_field_in_a_list_survives() -> None:
    """A layer's new field is kept as well."""
    value = json.loads(_record().to_bytes())
    value["image"]["layers"][1]["added"] = {"b": 1, "a": 2}
    data = canonical_json(value)
    assert BackupRecord.from_bytes(data, where="here").to_bytes() == data


@pytest.mark.parametrize("version", ["2.0", "2", "0.9", "10.0", "", "x", "-1.0", "1x.0"])
def test_an_unknown_major_version_is_refused_by_name(version: str) -> None:
    """A document of another major version is not read, and the message says which release to use."""
    with pytest.raises(IntegrityError, match=r"here: schema_version: expected 1\.x, got .*newer release"):
        BackupRecord.from_bytes(_changed(_record(), schema_version=version), where="here")


def test_an_unknown_major_version_is_told_before_fields_that_are_missing_in_it() -> None:
    """A newer document with other fields is called newer, not broken."""
    with pytest.raises(IntegrityError, match=r"schema_version: expected 1\.x, got '2\.0'"):
        BackupRecord.from_bytes(b'{"schema_version":"2.0","name":"other"}', where="here")


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("archive__size_bytes", "many", "archive.size_bytes"),
        ("archive__compression", "lzma", "archive.compression"),
        ("source__kind", "volume", "source.kind"),
        ("captured_at", "yesterday", "captured_at"),
        ("captured_at", "2026-01-01T00:00:00", "captured_at"),
        ("image__diff_ids", "sha256:x", "image.diff_ids"),
        ("engine__store", "btrfs", "engine.store"),
        ("configuration__values", {"Env.A": 1}, "configuration.values.Env.A"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(path: str, value: Any, named: str) -> None:
    """The message says which document, which field, and what stands there."""
    with pytest.raises(IntegrityError) as raised:
        BackupRecord.from_bytes(_changed(_record(), **{path: value}), where="s3://b/backup.json")
    message = str(raised.value)
    assert message.startswith("s3://b/backup.json is not a readable BackupRecord: ")
    assert named in message
    shown = 1 if named.endswith("Env.A") else value
    assert f"got {str(shown)!r}" in message


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b'"x"', b"\xff", b'{"a":1}', b"{" * 100_000])
def test_what_is_no_document_is_an_integrity_error(data: bytes) -> None:
    """Any garbage in the place of a document is reported as such, with its place."""
    with pytest.raises(IntegrityError, match=r"^here is not a readable RepositoryDocument: "):
        RepositoryDocument.from_bytes(data, where="here")


def test_times_of_other_zones_are_written_as_utc() -> None:
    """A time with an offset is the same moment in UTC, with microseconds."""
    moment = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert utc_text(moment) == "2026-02-28T20:00:00.000000Z"
    assert compact_time(moment) == "20260228T200000Z"
    assert compact_time(moment, fraction=True) == "20260228T200000.000000Z"
    record = BackupRecord.from_bytes(_changed(_record(), captured_at="2026-03-01T01:30:00+05:30"), where="here")
    assert json.loads(record.to_bytes())["captured_at"] == "2026-02-28T20:00:00.000000Z"


def test_a_time_without_a_zone_is_refused_in_a_new_document() -> None:
    """Nobody can say which moment a naive time means."""
    naive = datetime(2026, 3, 1, tzinfo=UTC).replace(tzinfo=None)
    with pytest.raises(ValueError, match="timezone"):
        Verification(backup_id="x", level="load", verified_at=naive, verification="passed", bytes_read=0, actor={})


@pytest.mark.parametrize("value", [{"a": 2**53}, {"a": float("nan")}, {"a": "\ud800"}, {"\ud800": 1}, {"a": object()}])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    """A value that RFC 8785 cannot carry does not become a document that reads back as something else."""
    with pytest.raises(ConfigurationError, match="canonical JSON"):
        canonical_json(value)


def test_a_document_is_frozen() -> None:
    """Nobody changes a record that was read."""
    with pytest.raises(ValueError, match="frozen"):
        _record().backup_id = "other"  # type: ignore[misc]


def test_digests_are_named_by_their_algorithm() -> None:
    """A digest says how it was made."""
    assert sha256_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
