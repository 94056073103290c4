# SPDX-License-Identifier: Apache-2.0
"""Airflow connections, and what is wrong with those that cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_dockerbackup.exceptions import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import Connection


def connection_of(conn_id: str) -> Connection:
    """Return an Airflow connection.

    :raises ConfigurationError: when there is none of that name; a secrets backend out of reach raises its own error.
    """
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as err:
        raise ConfigurationError(
            f"there is no connection {conn_id!r}; add it under Admin, Connections, or as AIRFLOW_CONN_"
            f"{conn_id.upper()}, or correct its name"
        ) from err
