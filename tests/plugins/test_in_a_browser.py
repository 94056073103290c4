# SPDX-License-Identifier: Apache-2.0
"""The page in a real Chromium, served by a real Airflow: accessible, without scripts, in Airflow's frame."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import cast
from urllib.parse import urlsplit

import pytest

from airflow_provider_dockerbackup.core.page.fleet import Filters
from airflow_provider_dockerbackup.plugins import rendering
from airflow_provider_dockerbackup.plugins.views import fleet_view
from tests.lab.browser import Page, Scheme, browser
from tests.lab.processes import wait_until
from tests.plugins.conftest import world_at
from tests.plugins.fleet import Fleet, make_fleet
from tests.scheduler.standalone import Standalone

HOSTS = ("web1", "web2", "db1")
SOURCES = ("shop/frontend:2.4", "shop/api:7", "postgres:16", "a" * 200)
VERIFY = """
from airflow.sdk import DAG
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator

with DAG("check", schedule=None):
    DockerBackupVerifyOperator(
        task_id="verify", backup_id="{{{{ params.backup_id }}}}", repository="{repository}", level="digests",
        params={{"backup_id": "none"}},
    )
"""
TAB, ENTER = 9, 13


@dataclass(kw_only=True)
class Seen:
    """A browser at an Airflow.

    :param small: URL of a repository with real archives.
    :param without: URL of the page as it is when no repository is configured.
    """

    airflow: Standalone
    page: Page
    small: str
    without: str
    backup_id: str

    def address(self, view: str) -> str:
        """Return a view's address; links are taken from the fleet's page."""
        fleet = f"{self.airflow.url}/dockerbackup/?repository=fleet"
        if view == "fleet":
            return fleet
        if view == "no repository":
            return self.without
        if view == "problem":
            return f"{self.airflow.url}/dockerbackup/backup?repository=fleet&backup=none"
        if view == "container":
            fleet, view = f"{self.airflow.url}/dockerbackup/?repository=small&kind=container", "backup"
        self.page.open(fleet)
        links = self.page.evaluate("[...document.querySelectorAll('tbody a')].map(each => each.href)")
        return cast("str", next(each for each in reversed(links) if urlsplit(each).path.endswith(f"/{view}")))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Airflow with a fleet of twelve sources and a small repository, and a browser that is logged in."""
    folder = tmp_path_factory.mktemp("seen")
    make_fleet(folder / "fleet", Fleet(hosts=HOSTS, sources=SOURCES, backups=14, now=datetime.now(UTC)))
    small = f"file://{folder}/small"
    backup = world_at(small).repository.catalog.backups()[-1]
    dags = folder / "dags"
    dags.mkdir()
    (dags / "check.py").write_text(VERIFY.format(repository=small), encoding="utf-8")
    environment = {
        "AIRFLOW__DOCKERBACKUP__REPOSITORIES": f"fleet={folder}/fleet, small={small}",
        "AIRFLOW__DOCKERBACKUP__PAGE_INDEX_FOLDER": str(folder / "index"),
    }
    with (
        page_without_repositories(folder / "without") as without,
        Standalone(folder / "home", dags=dags, environment=environment) as airflow,
        browser() as page,
    ):
        page.log_in(airflow.url, airflow.token)
        found = Seen(airflow=airflow, page=page, small=small, without=without, backup_id=backup.backup_id)
        assert wait_until(lambda: "not read to its end" not in text_of(found, "fleet"), seconds=60, interval=0.5)
        yield found


@contextmanager
def page_without_repositories(folder: Path) -> Iterator[str]:
    """Give the URL of the fleet's page of this process, where none is configured."""
    folder.mkdir()
    text = rendering.page("fleet.html", **fleet_view(Filters(), number=1))
    assert "No repository is shown yet" in text
    (folder / "fleet.html").write_text(text, encoding="utf-8")
    (folder / "page.css").write_text(rendering.stylesheet(), encoding="utf-8")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/fleet.html"
        finally:
            server.shutdown()


def text_of(seen: Seen, view: str) -> str:
    """Return the words of a view."""
    seen.page.open(seen.address(view))
    return cast("str", seen.page.evaluate("document.body.innerText"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["fleet", "source", "backup", "container", "problem", "no repository"])
@pytest.mark.parametrize("width", [1280, 360])
def test_an_accessibility_check_finds_nothing_and_the_policy_refuses_nothing(
    seen: Seen, view: str, scheme: Scheme, width: int
) -> None:
    """Each view, light and dark, wide and narrow; a narrow page scrolls its tables, never itself."""
    seen.page.show(scheme, width=width)
    seen.page.open(seen.address(view))
    assert seen.page.findings() == []
    assert [each for each in seen.page.complaints() if "404" not in each] == []
    assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dark = seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
    assert dark == (scheme == "dark")


def test_colours_have_words_beside_them(seen: Seen) -> None:
    """All four states are there as text."""
    words = text_of(seen, "fleet")
    for state in ("unprotected", "never verified", "stale", "ok"):
        assert words.count(state) >= 2


def test_it_is_searched_by_keyboard_and_without_any_script(seen: Seen) -> None:
    """Tab passes the way around to the content, then the field; Enter sends the form."""
    page = seen.page
    page.show("light")
    page.allow_scripts(allowed=False)
    try:
        page.open(f"{seen.airflow.url}/dockerbackup/")
        for _ in range(2):
            page.press("Tab", code=TAB)
        page.call("Input.insertText", text="db1 shop")
        page.expect_load()
        page.press("Enter", code=ENTER, text="\r")
        page.loaded()
    finally:
        page.allow_scripts(allowed=True)
    assert page.evaluate("document.querySelectorAll('tbody tr').length") == 2
    assert page.evaluate("location.search").startswith("?q=db1+shop")


def test_focus_is_seen_on_everything_that_takes_it(seen: Seen) -> None:
    """Each stop of the Tab key has an outline, and the table that scrolls is one of them."""
    page = seen.page
    page.open(seen.address("fleet"))
    stops = []
    for _ in range(14):
        page.press("Tab", code=TAB)
        stops.append(page.evaluate("(e => [e.tagName, getComputedStyle(e).outlineStyle])(document.activeElement)"))
    assert {name for name, _ in stops} >= {"A", "INPUT", "SELECT", "BUTTON", "DIV"}
    assert all(outline not in {"none", ""} for _, outline in stops)


def test_it_works_inside_airflows_frame_and_follows_airflows_colours(seen: Seen) -> None:
    """Below Browse: its links lead within the frame, and Airflow's dark theme is the page's."""
    page = seen.page
    page.show(None, width=1500)
    page.open(f"{seen.airflow.url}/plugin/image-backups")
    assert wait_until(lambda: framed(page), seconds=60, interval=0.2)
    page.evaluate("document.querySelector('tbody th a').click(); 0", frame="/dockerbackup/")
    assert wait_until(lambda: framed(page, "/dockerbackup/source"), seconds=60, interval=0.2)
    assert "backups" in page.evaluate("document.querySelector('main').innerText", frame="/dockerbackup/source")
    page.evaluate("localStorage.setItem('theme', 'dark')")
    page.open(f"{seen.airflow.url}/plugin/image-backups")
    assert wait_until(lambda: framed(page), seconds=60, interval=0.2)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor", frame="/dockerbackup/")
    page.evaluate("localStorage.removeItem('theme')")
    page.show("light")
    assert colour == "rgb(13, 17, 23)"


@pytest.mark.parametrize(("view", "name"), [("", "dockerbackup-sources.csv"), ("source", "dockerbackup-backups.csv")])
def test_csv_is_saved_from_inside_airflows_frame(seen: Seen, view: str, name: str, tmp_path: Path) -> None:
    """A click on it, as people do; Airflow's frame has to allow downloads."""
    page, path = seen.page, f"/dockerbackup/{view}"
    page.show(None, width=1500)
    page.save_downloads(tmp_path)
    page.open(f"{seen.airflow.url}/plugin/image-backups")
    assert wait_until(lambda: framed(page), seconds=60, interval=0.2)
    if view:
        page.evaluate("document.querySelector('tbody th a').click(); 0", frame="/dockerbackup/")
        assert wait_until(lambda: framed(page, path), seconds=60, interval=0.2)
    page.evaluate("[...document.querySelectorAll('a')].find(a => a.innerText == 'CSV').click(); 0", frame=path)
    saved = wait_until((tmp_path / name).exists, seconds=60, interval=0.2)
    page.show("light")
    assert saved, page.complaints()
    rows = list(csv.DictReader((tmp_path / name).read_text(encoding="utf-8").splitlines()))
    assert len(rows) == (14 if view else len(HOSTS) * len(SOURCES) + 2)
    assert set(rows[0]) >= {"problem" if view else "newest_verified", "stored_bytes"}


def framed(page: Page, path: str = "/dockerbackup/") -> bool:
    """Tell whether the frame shows a page."""
    shown = [each for each in page.frames() if urlsplit(each["url"]).path == path]
    return bool(shown) and page.evaluate("document.readyState", frame=path) == "complete"


def test_a_task_links_to_its_backup(seen: Seen) -> None:
    """A real run of a verification; its link is the page of the backup, which tells of it."""
    airflow = seen.airflow
    run = airflow.trigger("check", backup_id=seen.backup_id)
    assert airflow.finished("check", run) == "success"
    links = airflow.get(f"dags/check/dagRuns/{run}/taskInstances/verify/links")["extra_links"]
    link = links["Image backup"]
    assert link.startswith("/dockerbackup/backup?")
    seen.page.open(airflow.url + link)
    words = seen.page.evaluate("document.body.innerText")
    assert seen.backup_id in words
    assert "digests" in words
