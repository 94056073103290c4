# SPDX-License-Identifier: Apache-2.0
"""Read and make the file of a signing key: only its owner may read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from airflow_provider_dockerbackup.core.audit.signature import PublicKey, SigningKey
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError


def read_signing_key(path: Path) -> SigningKey:
    """Return the key in a file.

    :raises ConfigurationError: when it is not there, others may read it, or it holds no Ed25519 key.
    """
    where = f"signing key {path}"
    return SigningKey.parse(read_private(path, where=where), where=where)


def read_private(path: Path, *, where: str) -> bytes:
    """Return the content of the file of a private key.

    :param where: what to name in messages.
    :raises ConfigurationError: when it is not there, or others may read it.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise ConfigurationError(f"{where}: others than its owner may read it; run: chmod 600 {path}")
            return file.read()
    except OSError as err:
        raise ConfigurationError(f"{where} cannot be read: {err.strerror}") from err


def make_signing_key(path: Path) -> PublicKey:
    """Write a new key to ``path``, mode 0600, its public half to ``path.pub``, and return that.

    :raises ConflictError: when one of them exists; nothing was changed.
    :raises ConfigurationError: when they cannot be written.
    """
    key = SigningKey.generate()
    public = path.with_name(path.name + ".pub")
    if public.exists():
        raise ConflictError(f"{public} exists already; it was not changed")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.to_pem())
        with public.open("x", encoding="ascii") as text:
            text.write(key.public_key.to_pem())
    except FileExistsError as err:
        raise ConflictError(f"{path} or {public} exists already; it was not changed") from err
    except OSError as err:
        raise ConfigurationError(f"signing key {path} cannot be written: {err.strerror}") from err
    return key.public_key


def read_public_key(path: Path) -> PublicKey:
    """Return the public key in a file, PEM or OpenSSH.

    :raises ConfigurationError: when it is not there, or none.
    """
    try:
        text = path.read_bytes()
    except OSError as err:
        raise ConfigurationError(f"public key {path} cannot be read: {err.strerror}") from err
    return PublicKey.parse(text, where=f"public key {path}")
