# SPDX-License-Identifier: Apache-2.0
"""From a filesystem or a URL to the storage that fits it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from airflow_provider_dockerbackup.transport.storage_path import without_credentials

_LOCAL: Final = frozenset({"", "file", "local"})
_HERE: Final = frozenset({"", "localhost"})
_S3: Final = frozenset({"s3", "s3a", "s3n"})
_PACKAGES: Final = {"gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "sftp": "paramiko"}


def storage_for(fs: Any, path: str, *, url: str) -> Storage:
    """Return the storage at ``path`` of an fsspec filesystem.

    :param fs: an ``fsspec.AbstractFileSystem``, such as ``ObjectStoragePath(...).fs``.
    :param path: path in it, without scheme: ``/srv/backups`` or ``bucket/prefix``.
    :param url: how messages and records name it; credentials in it are dropped.
    """
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    shown = without_credentials(url)
    if protocols & _LOCAL:
        return LocalStorage(Path(path), url=shown if "://" in shown else None)
    if protocols & _S3 and hasattr(fs, "call_s3"):
        from airflow_provider_dockerbackup.transport.storage_s3 import S3Storage

        return S3Storage(fs, path, url=shown)
    from airflow_provider_dockerbackup.transport.storage_object import ObjectStorage

    return ObjectStorage(fs, path, url=shown)


def storage_from_url(url: str, **storage_options: Any) -> Storage:
    """Return the storage that ``url`` names.

    :param url: ``/path``, ``file:///path``, ``s3://bucket/prefix``, or a URL of another fsspec filesystem.
    :param storage_options: arguments of that filesystem. For S3 ``key``, ``secret``, ``token`` and ``endpoint_url``;
        without them what AWS tools read holds: ``AWS_*`` environment variables (``AWS_ENDPOINT_URL`` too) and profiles.
    :raises ConfigurationError: when the scheme is unknown, a library is missing, or the URL holds credentials.
    """
    if is_local(url):
        return LocalStorage(_local_path(url))
    split = urlsplit(url)
    scheme = split.scheme.lower() if "://" in url else ""
    shown = without_credentials(url)
    if "@" in split.netloc and scheme in _S3:
        raise ConfigurationError(
            f"repository {shown}: a URL must not hold credentials or connection ids; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile in AWS_PROFILE"
        )
    if scheme in _S3:
        if not split.netloc:
            raise ConfigurationError(f"repository {shown}: expected s3://BUCKET/PREFIX")
        return storage_for(_filesystem("s3", _s3_options(storage_options), shown), split.netloc + split.path, url=shown)
    fs = _filesystem(scheme, storage_options, shown)
    return storage_for(fs, fs._strip_protocol(url), url=shown)  # fsspec has no public name for it


def place_of(url: str) -> str:
    """Return the place that a URL names, always written in the same way; links on the local disk are followed."""
    if is_local(url):
        return f"file://{_local_path(url).resolve()}"
    split = urlsplit(url)
    shown = without_credentials(url)
    return shown if split.scheme.lower() not in _S3 else f"s3://{split.netloc}{split.path}"


def is_local(url: str) -> bool:
    """Tell whether ``url`` is a path, or names one: ``file:///path``."""
    return "://" not in url or urlsplit(url).scheme.lower() in _LOCAL


def _local_path(url: str) -> Path:
    split = urlsplit(url)
    path = unquote(split.path) if "://" in url else url
    if not path.startswith("/") or ("://" in url and split.netloc not in _HERE):
        raise ConfigurationError(
            f"repository {url!r}: expected an absolute path such as /srv/backups, or a URL such as file:///srv/backups "
            "or s3://bucket/prefix"
        )
    return Path(path)


def _s3_options(given: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"use_listings_cache": False, **given}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "endpoint_url" not in options and "endpoint_url" not in options.get("client_kwargs", {}):
        options["endpoint_url"] = endpoint
    return options


def _filesystem(scheme: str, options: dict[str, Any], shown: str) -> Any:
    import fsspec

    try:
        return fsspec.filesystem(scheme, **options)
    except ImportError as err:
        package = "airflow-provider-dockerbackup[s3]" if scheme == "s3" else _PACKAGES.get(scheme, scheme)
        raise ConfigurationError(
            f"repository {shown} needs a library that is not installed; run: pip install '{package}'"
        ) from err
    except (ValueError, TypeError) as err:
        raise ConfigurationError(
            f"repository {shown}: no filesystem for '{scheme}://'; use /path, file:///path or s3://bucket/prefix"
        ) from err
