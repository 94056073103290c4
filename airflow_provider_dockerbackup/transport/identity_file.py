# SPDX-License-Identifier: Apache-2.0
"""Read the file of the private keys that decrypt archives: only its owner may read it."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_dockerbackup.core.encryption.identity import Identities
from airflow_provider_dockerbackup.transport.signing_key import read_private


def read_identities(path: Path) -> Identities:
    """Return the identities in a file: an age key file, or an OpenSSH private key without a passphrase.

    :raises ConfigurationError: when it is not there, others may read it, or it holds no such key.
    """
    where = f"age identity {path}"
    return Identities.parse(read_private(path, where=where), where=where)
