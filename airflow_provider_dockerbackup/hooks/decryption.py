# SPDX-License-Identifier: Apache-2.0
"""The private keys that decrypt archives, as Airflow's configuration names them."""

from __future__ import annotations

from pathlib import Path

from airflow.providers.common.compat.sdk import conf

from airflow_provider_dockerbackup.core.encryption.identity import Identities
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.hooks.connection import connection_of
from airflow_provider_dockerbackup.transport.identity_file import read_identities

_SECTION = "dockerbackup"


def configured_identities() -> Identities | None:
    """Return the identities that ``[dockerbackup] identity_conn_id`` or ``identity_file`` names; None for neither.

    :raises ConfigurationError: when both are set, or they cannot be used.
    """
    conn_id = conf.get(_SECTION, "identity_conn_id", fallback="")
    file = conf.get(_SECTION, "identity_file", fallback="")
    if conn_id and file:
        raise ConfigurationError("[dockerbackup] identity_conn_id and identity_file are both set; keep one")
    if conn_id:
        text = connection_of(conn_id).password or ""
        return Identities.parse(text.encode(), where=f"password of connection {conn_id!r}")
    return read_identities(Path(file)) if file else None
