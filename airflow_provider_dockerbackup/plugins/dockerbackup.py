# SPDX-License-Identifier: Apache-2.0
"""The plugin as Airflow loads it, in every process: what only the API server needs is imported when it asks."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin


class DockerBackupPlugin(AirflowPlugin):
    """The page "Image backups", below Browse."""

    name = "dockerbackup"
    # Airflow reads it as an attribute of the class as well as of the instance.
    external_views = [  # noqa: RUF012
        {
            "name": "Image backups",
            # Without a leading slash, so that it also works below a path of [api] base_url.
            "href": "dockerbackup/",
            "destination": "nav",
            "category": "browse",
            "url_route": "image-backups",
        }
    ]

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        """The pages' application."""
        from airflow_provider_dockerbackup.plugins.app import app

        return [{"app": app, "url_prefix": "/dockerbackup", "name": "Image backups"}]
