# SPDX-License-Identifier: Apache-2.0
"""Repository URLs and connection ids, turned into storage; what is not local through Airflow's ObjectStoragePath."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args
from urllib.parse import urlsplit

from airflow_provider_dockerbackup.core.archive.compression import Compression, check_compression
from airflow_provider_dockerbackup.core.encryption.recipient import parse_recipients
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.repository import Layout, Repository
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.hooks.archive_hosts import archive_hosts
from airflow_provider_dockerbackup.hooks.connection import connection_of
from airflow_provider_dockerbackup.hooks.decryption import configured_identities
from airflow_provider_dockerbackup.hooks.signing import configured_signer
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import is_local, storage_for, storage_from_url

_S3_SCHEMES = frozenset({"s3", "s3a", "s3n"})


def storage_of(url: str, *, conn_id: str | None = None) -> Storage:
    """Return the storage that a repository URL names.

    :param url: ``/path``, ``file:///path``, ``s3://bucket/prefix`` or ``s3://conn_id@bucket/prefix``.
    :param conn_id: Airflow connection with the storage's credentials; wins over the one in the URL.
    :raises ConfigurationError: when the URL, its scheme or the connection cannot be used.
    """
    if not url or not url.strip():
        raise ConfigurationError("repository: expected a URL such as file:///srv/backups or s3://bucket/prefix, got ''")
    if "://" not in url and not url.startswith("/"):
        raise ConfigurationError(f"repository: expected an absolute path or a URL with its scheme, got {url!r}")
    shown = without_userinfo(url)
    _check_connection(url, conn_id, shown=shown)
    if is_local(url):
        # Airflow would import every provider that has a filesystem, boto3 among them, for each task.
        return storage_from_url(url)
    from airflow.sdk import ObjectStoragePath

    try:
        path = ObjectStoragePath(url, conn_id=conn_id)
        return storage_for(path.fs, path.path, url=shown)
    except ImportError as err:
        raise ConfigurationError(
            f"repository {shown} needs a library that is not installed ({err}); for S3: "
            "pip install 'airflow-provider-dockerbackup[s3]'"
        ) from err
    except ValueError as err:
        raise ConfigurationError(f"repository {shown} cannot be used: {err}") from err
    except Exception as err:
        # Airflow raises its own types here when the connection is missing or wrong, and they differ by version.
        if type(err).__module__.startswith("airflow."):
            raise ConfigurationError(f"repository {shown}: {err}") from err
        raise


def _check_connection(url: str, conn_id: str | None, *, shown: str) -> None:
    """Refuse a connection that is missing or of another store's type.

    Amazon's provider would go on without it, with whatever credentials the worker happens to have.
    """
    parts = urlsplit(url)
    if parts.password is not None:
        raise ConfigurationError(
            f"repository {shown}: credentials do not belong in a URL, which is logged and shown; put them into an "
            "Airflow connection and write s3://conn_id@bucket/prefix"
        )
    named = conn_id or (parts.username if "@" in parts.netloc else None)
    if not named:
        return
    try:
        connection = connection_of(named)
    except ConfigurationError as err:
        raise ConfigurationError(f"repository {shown}: {err}") from err
    if parts.scheme in _S3_SCHEMES and connection.conn_type != "aws":
        raise ConfigurationError(
            f"repository {shown}: connection {named!r} has type {connection.conn_type!r}; expected 'aws'"
        )


def repository_of(
    url: str,
    *,
    conn_id: str | None = None,
    layout: str = "archive",
    compression: str | None = None,
    recipients: Sequence[str] = (),
    allow_single_recipient: bool = False,
) -> Repository:
    """Return the repository at ``url``, made now if there is none yet.

    :param layout: layout of a new repository.
    :param compression: compression of a new repository; None is its layout's.
    :param recipients: public keys to which archives of a new repository are encrypted; an existing one must have the
        same, unless none are given.
    :param allow_single_recipient: accept only one recipient.
    :raises ConfigurationError: when the settings are wrong or the storage cannot be used.
    """
    check_compression(compression)
    wanted = parse_recipients(recipients, allow_single=allow_single_recipient)
    if layout not in get_args(Layout):
        raise ConfigurationError(f"layout: expected one of {', '.join(get_args(Layout))}, got {layout!r}")
    return Repository.open_or_create(
        storage_of(url, conn_id=conn_id),
        clock=SystemClock(),
        layout=layout,
        compression=Compression(compression) if compression else None,
        recipients=wanted,
        signer=configured_signer(),
    )


def existing_repository(
    url: str,
    *,
    conn_id: str | None = None,
    reads_archives: bool = False,
    archive_host_conn_ids: Sequence[str] | None = None,
) -> Repository:
    """Return the repository at ``url``.

    :param reads_archives: whether archives will be read, so that the configured private key is needed if they are
        encrypted.
    :param archive_host_conn_ids: connections of the hosts on which archives lie; None takes the configured ones.
    :raises NotFoundError: when there is none.
    :raises ConfigurationError: when the private key cannot be used.
    """
    return Repository.open(
        storage_of(url, conn_id=conn_id),
        clock=SystemClock(),
        signer=configured_signer(),
        identities=configured_identities if reads_archives else None,
        host_files=archive_hosts(archive_host_conn_ids),
    )


def without_userinfo(url: str) -> str:
    """Return ``url`` without the part before ``@``: a connection id, or credentials that do not belong there."""
    try:
        parts = urlsplit(url)
    except ValueError as err:
        raise ConfigurationError(f"repository: {err}") from err
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else url
