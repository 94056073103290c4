# SPDX-License-Identifier: Apache-2.0
"""The page's routes: read-only, and closed to whoever Airflow does not know, or does not let read assets.

Routes are plain functions, which run in threads: storage blocks, and Airflow's ObjectStoragePath starts event loops.
"""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.core_api.security import get_user, requires_access_asset
from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import Response
from starlette.middleware.base import RequestResponseEndpoint

from airflow_provider_dockerbackup.core.page import fleet, timeline
from airflow_provider_dockerbackup.core.page.fleet import Filters
from airflow_provider_dockerbackup.core.report.output import csv_table
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.plugins import views
from airflow_provider_dockerbackup.plugins.rendering import page, stylesheet

HEADERS = {
    # Whatever a name from a host may hold: no script runs here, and nothing is loaded from elsewhere.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_STATUS: tuple[tuple[type[DockerBackupError], int], ...] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (TransientError, 503),
    (ConfigurationError, 500),
)
_LONGEST = 512

# Records become asset events, and whoever may read assets sees those.
app = FastAPI(
    title="Image backups",
    dependencies=[Depends(get_user), Depends(requires_access_asset("GET"))],
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
)

Text = Annotated[str, Query(max_length=_LONGEST)]


@app.middleware("http")
async def _with_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


@app.exception_handler(DockerBackupError)
def _problem(request: Request, error: Exception) -> Response:
    """Say what is wrong; messages of this package hold no secrets."""
    del request
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    return _html(page("problem.html", problem=str(error), status=status), status=status)


@app.get("/")
def fleet_page(
    q: Text = "", repository: Text = "", host: Text = "", kind: Text = "", state: Text = "", number: int = 1
) -> Response:
    """Show every source in one line."""
    filters = Filters(text=q, repository=repository, host=host, kind=kind, state=state)
    return _html(page("fleet.html", **views.fleet_view(filters, number=number)))


@app.get("/sources.csv")
def fleet_csv(q: Text = "", repository: Text = "", host: Text = "", kind: Text = "", state: Text = "") -> Response:
    """Return the same lines as CSV."""
    filters = Filters(text=q, repository=repository, host=host, kind=kind, state=state)
    return _csv("sources", csv_table(fleet.COLUMNS, fleet.csv_rows(views.chosen(filters))))


@app.get("/source")
def source_page(repository: Text, host: Text, kind: Text, name: Text) -> Response:
    """Show a source's backups through time."""
    return _html(page("source.html", **views.source_view(repository, host=host, kind=kind, name=name)))


@app.get("/source.csv")
def source_csv(repository: Text, host: Text, kind: Text, name: Text) -> Response:
    """Return a source's backups as CSV."""
    rows = views.source_view(repository, host=host, kind=kind, name=name)["timeline"].rows
    return _csv("backups", csv_table(timeline.COLUMNS, timeline.csv_rows(rows)))


@app.get("/backup")
def backup_page(repository: Text, backup: Text, host: Text = "", kind: Text = "", name: Text = "") -> Response:
    """Show everything known of a backup."""
    return _html(page("backup.html", **views.backup_view(repository, backup, host=host, kind=kind, name=name)))


@app.get("/page.css")
def style() -> Response:
    """Return the stylesheet."""
    return Response(stylesheet(), media_type="text/css", headers={"Cache-Control": "private, max-age=3600"})


def _html(text: str, *, status: int = 200) -> Response:
    return Response(text, status_code=status, media_type="text/html")


def _csv(name: str, text: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="dockerbackup-{name}.csv"'}
    return Response(text, media_type="text/csv", headers=headers)
