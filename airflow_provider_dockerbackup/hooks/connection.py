# SPDX-License-Identifier: Apache-2.0
"""Airflow connections, and what is wrong with those that cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.connection import get_async_connection
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
        raise _missing(conn_id) from err


async def async_connection_of(conn_id: str) -> Connection:
    """Return an Airflow connection on an event loop, which reading it does not block.

    :raises ConfigurationError: when there is none of that name; a secrets backend out of reach raises its own error.
    """
    try:
        return await get_async_connection(conn_id)
    except AirflowNotFoundException as err:
        raise _missing(conn_id) from err


def _missing(conn_id: str) -> ConfigurationError:
    return ConfigurationError(
        f"there is no connection {conn_id!r}; add it under Admin, Connections, or as AIRFLOW_CONN_"
        f"{conn_id.upper()}, or correct its name"
    )
