# SPDX-License-Identifier: Apache-2.0
"""The key that signs audit events, as Airflow's configuration names it."""

from __future__ import annotations

from pathlib import Path

from airflow.providers.common.compat.sdk import conf

from airflow_provider_dockerbackup.core.audit.signature import SigningKey
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.hooks.connection import connection_of
from airflow_provider_dockerbackup.transport.signing_key import read_signing_key

_SECTION = "dockerbackup"


def configured_signer() -> SigningKey | None:
    """Return the signing key that ``[dockerbackup] signing_conn_id`` or ``signing_key_file`` names; None for neither.

    :raises ConfigurationError: when both are set, or the key cannot be used.
    """
    conn_id = conf.get(_SECTION, "signing_conn_id", fallback="")
    file = conf.get(_SECTION, "signing_key_file", fallback="")
    if conn_id and file:
        raise ConfigurationError("[dockerbackup] signing_conn_id and signing_key_file are both set; keep one")
    if conn_id:
        text = connection_of(conn_id).password or ""
        return SigningKey.parse(text.encode(), where=f"password of connection {conn_id!r}")
    return read_signing_key(Path(file)) if file else None
