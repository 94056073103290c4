# SPDX-License-Identifier: Apache-2.0
"""Pages from templates; everything that goes into them is escaped."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from airflow_provider_dockerbackup.core.document import utc_text
from airflow_provider_dockerbackup.core.page.commands import command_line
from airflow_provider_dockerbackup.core.page.events import EVENT_DAYS

_PACKAGE = "airflow_provider_dockerbackup.plugins"


def page(template: str, **values: Any) -> str:
    """Return a page."""
    return _TEMPLATES[template].render(**values)


@lru_cache(maxsize=1)
def stylesheet() -> str:
    """Return the stylesheet of all pages."""
    return (files(_PACKAGE) / "static" / "page.css").read_text(encoding="utf-8")


def _compiled() -> dict[str, Template]:
    environment = Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["utc"] = _minute
    environment.filters["machine_time"] = utc_text
    environment.globals["address"] = address
    environment.globals["command_line"] = command_line
    environment.globals["event_days"] = EVENT_DAYS
    return {name: environment.get_template(name) for name in environment.list_templates()}


def address(of: str, **parameters: object) -> str:
    """Return a page's address relative to any other page; empty parameters are left out."""
    query = urlencode({name: str(value) for name, value in parameters.items() if value not in {"", None}})
    return f"{of}?{query}" if query else of


def _minute(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M") if moment is not None else "never"


# All of them are compiled when the API server starts, and not while somebody waits for the first page.
_TEMPLATES = _compiled()
