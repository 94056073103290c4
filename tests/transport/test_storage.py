# SPDX-License-Identifier: Apache-2.0
"""From a URL or a filesystem to the storage that fits it."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.storage import storage_for, storage_from_url
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from airflow_provider_dockerbackup.transport.storage_object import ObjectStorage
from airflow_provider_dockerbackup.transport.storage_s3 import S3Storage


@pytest.mark.parametrize(
    "form", ["{}/a b", "file://{}/a b", "file://{}/a%20b", "file://localhost{}/a%20b", "local://{}/a%20b"]
)
def test_paths_and_file_urls_are_local(tmp_path: Path, form: str) -> None:
    """A plain path needs no scheme, a URL may be quoted."""
    storage = storage_from_url(form.format(tmp_path))
    storage.create("document", b"x")
    assert isinstance(storage, LocalStorage)
    assert (tmp_path / "a b" / "document").read_bytes() == b"x"


def test_local_filesystem_of_fsspec_is_local(tmp_path: Path) -> None:
    """What ObjectStoragePath gives for ``file://`` gets the durable storage, not fsspec's."""
    storage = storage_for(fsspec.filesystem("file"), str(tmp_path), url=f"file://{tmp_path}")
    assert isinstance(storage, LocalStorage)
    assert storage.url == f"file://{tmp_path}"


def test_s3_url_is_s3() -> None:
    """``s3://bucket/prefix`` needs no connection to be made before it is used."""
    storage = storage_from_url("s3://bucket/some/prefix", key="k", secret="s", endpoint_url="http://127.0.0.1:9")
    assert isinstance(storage, S3Storage)
    assert storage.url == "s3://bucket/some/prefix"


def test_other_filesystems_are_for_one_writer() -> None:
    """What fsspec knows can be used, and says that it cannot create atomically."""
    storage = storage_from_url("memory://somewhere/else")
    assert isinstance(storage, ObjectStorage)
    assert not storage.atomic_create


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("relative/path", "absolute path"),
        ("", "absolute path"),
        ("file://srv/backups", "file:///srv/backups"),
        ("file://nas/srv/backups", "file:///srv/backups"),
        ("file:srv/backups", "absolute path"),
        ("nosuch://x/y", "no filesystem for 'nosuch://'"),
        ("gs://bucket/x", "pip install 'gcsfs'"),
        ("s3:///prefix", "s3://BUCKET"),
        ("s3://key:secret@bucket/x", "must not hold credentials"),
    ],
)
def test_unusable_url_is_refused_with_a_hint(url: str, hint: str) -> None:
    """The message says what to write or install instead, and no secret."""
    with pytest.raises(ConfigurationError, match=hint) as caught:
        storage_from_url(url)
    assert "secret" not in str(caught.value)


def test_credentials_in_a_given_url_are_dropped() -> None:
    """A connection id or a password before ``@`` reaches neither messages nor records."""
    storage = storage_for(fsspec.filesystem("memory"), "/x", url="memory://user:secret@host/x?token=secret")
    assert storage.url == "memory://host/x"
