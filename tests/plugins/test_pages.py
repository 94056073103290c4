# SPDX-License-Identifier: Apache-2.0
"""The pages as Airflow serves them: closed to strangers, read-only, escaped, and right."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import click
import pytest

from airflow_provider_dockerbackup.cli.main import cli
from airflow_provider_dockerbackup.core.audit.event import AuditEvent
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.places import backup_path
from airflow_provider_dockerbackup.core.record import BackupRecord, Source
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateRequest, rotate
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.plugins.app import HEADERS, app
from airflow_provider_dockerbackup.plugins.repositories import _shown
from tests.core.world import CONTAINER, HOST, IMAGE, World
from tests.plugins.conftest import IMAGE_QUERY, Site, world_at
from tests.plugins.fleet import Fleet, make_fleet

pytestmark = pytest.mark.filterwarnings("ignore")


def a_backup(site: Site, source: Source = IMAGE) -> str:
    """Return the id of the newest backup of a source."""
    return site.worlds["main"].repository.catalog.backups(source=source)[0].backup_id


def routes() -> list[str]:
    """Return every path that the page's application answers."""
    return sorted(route.path.removeprefix("/") for route in app.routes)  # type: ignore[attr-defined]


def test_the_routes_are_those_that_these_tests_know() -> None:
    """A new one must be tried here as well; there is no generated documentation of them."""
    assert routes() == ["", "backup", "page.css", "source", "source.csv", "sources.csv"]


@pytest.mark.parametrize("path", routes())
@pytest.mark.parametrize("user", [None, "nobody"])
def test_no_route_tells_anything_to_whoever_may_not_read(site: Site, path: str, user: str | None) -> None:
    """Without a token 401, without a role that may read assets 403; no word of a backup in either."""
    answer = site.get(path, user=user, **IMAGE_QUERY, backup=a_backup(site))
    assert answer.status_code == (401 if user is None else 403)
    assert HOST not in answer.text
    assert len(answer.text) < 200


@pytest.mark.parametrize("path", routes())
def test_a_wrong_token_opens_nothing(site: Site, path: str) -> None:
    """Neither in the header nor as the cookie."""
    for given in ({"headers": {"Authorization": "Bearer x.y.z"}}, {"cookies": {"_token": "x.y.z"}}):
        answer = site.client.get(f"/dockerbackup/{path}", params=IMAGE_QUERY, **given)
        assert answer.status_code in {401, 403}
        assert HOST not in answer.text


@pytest.mark.parametrize("path", routes())
def test_every_route_answers_a_viewer_by_token_or_cookie_and_forbids_scripts(site: Site, path: str) -> None:
    """What a browser in Airflow's frame sends is enough, and headers keep the page from more than it needs."""
    query = {**IMAGE_QUERY, "backup": a_backup(site)}
    site.shown("")
    assert site.get(path, **query).status_code == 200
    answer = site.client.get(
        f"/dockerbackup/{path}", params=query, headers={"Cookie": f"_token={site.tokens['viewer']}"}
    )
    assert answer.status_code == 200
    for name in HEADERS.keys() - {"Cache-Control"}:
        assert answer.headers[name] == HEADERS[name]
    assert "no-store" in answer.headers["Cache-Control"] or path == "page.css"
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]
    assert "script-src" not in HEADERS["Content-Security-Policy"]
    assert "<script" not in answer.text


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.parametrize("path", routes())
def test_nothing_can_be_changed(site: Site, path: str, method: str) -> None:
    """There is no route for it."""
    headers = {"Authorization": f"Bearer {site.tokens['viewer']}"}
    assert getattr(site.client, method)(f"/dockerbackup/{path}", headers=headers).status_code == 405


def test_the_fleet_shows_every_source_with_its_word(site: Site) -> None:
    """Both repositories; the container was never verified and stands above the image."""
    page = site.shown("")
    assert page.count("<tr>") == 1 + 4
    assert page.index(">never verified<") < page.index("lab/app:1")
    assert re.search(r"<strong>2</strong> <span class=\"word good\">ok", page)
    assert "as of <time" in page


def test_filters_pages_and_search_by_id_work_without_a_script(site: Site) -> None:
    """A form that is sent by GET."""
    assert site.shown("", kind="container", repository="second").count("<tr>") == 2
    assert "None of what is known fits" in site.shown("", q="nosuch")
    assert site.shown("", number=99, q="app").count("<tr>") == 3


@pytest.mark.parametrize("length", [4, 6, 8, 9, 12, 15, 16, 17, 20, 33])
def test_a_backup_is_found_by_the_beginning_of_its_id_however_short_and_in_any_case(site: Site, length: int) -> None:
    """From its year on, as people type or paste it."""
    site.shown("")
    beginning = a_backup(site)[:length]
    for text in (beginning, beginning.lower(), beginning.upper(), f" {beginning} "):
        assert ids_found(site.shown("", q=text)) >= {a_backup(site)}


@pytest.mark.parametrize(
    "text", ["2", "202", "web2026", "2026x", "20260303-", "20260303t06:00", "\u0662\u0660\u0662\u0666"]
)
def test_what_begins_no_id_is_not_sought_among_them(site: Site, text: str) -> None:
    """Nor a number so short that it is in names as well."""
    assert ids_found(site.shown("", q=text)) == set()


def test_of_many_ids_that_begin_so_the_newest_are_listed(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as a page can hold, and it says so."""
    now = datetime(2026, 3, 30, tzinfo=UTC)
    make_fleet(tmp_path / "many", Fleet(hosts=["web1"], sources=["app:1"], backups=25, now=now))
    monkeypatch.setenv("AIRFLOW__DOCKERBACKUP__REPOSITORIES", f"many={tmp_path}/many")
    page = site.shown("", q="2026")
    assert {each[:8] for each in ids_found(page)} == {f"202603{day:02}" for day in range(10, 30)}
    assert "At most the newest 20" in page


def ids_found(page: str) -> set[str]:
    """Return the ids in the list of those that begin as sought."""
    _, _, rest = page.partition("<h2>Backups whose id begins so</h2>")
    return set(re.findall(r"<code>([^<]*)</code>", rest.partition("</ul>")[0]))


def test_csv_has_the_lines_of_the_page_by_the_same_filters(site: Site) -> None:
    """With the header that makes browsers save it."""
    site.shown("")
    answer = site.get("sources.csv", kind="image")
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(line["repository"], line["source"], line["state"]) for line in lines] == [
        ("main", IMAGE.name, "ok"),
        ("second", IMAGE.name, "ok"),
    ]
    assert "attachment" in answer.headers["Content-Disposition"]
    backups = list(csv.DictReader(io.StringIO(site.get("source.csv", **IMAGE_QUERY).text)))
    assert [line["state"] for line in backups] == ["not verified", "verified"]


def test_a_source_has_its_backups_and_events(site: Site) -> None:
    """Newest first, each with a link to its own page."""
    site.shown("")
    page = site.shown("source", **IMAGE_QUERY)
    assert page.count("backup?repository=main") == 2
    assert "verify.passed" in page
    assert "no rotation looked at this source" in page


@pytest.mark.parametrize("own_policies", [True, False])
def test_a_source_says_what_its_decisions_leave_out(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, own_policies: bool
) -> None:
    """A plan that is refused as a whole removes nothing; a rotation that ignored policies of sources' own is told."""
    world, _ = shown_alone(monkeypatch, tmp_path)
    request = RotateRequest(policy=RetentionPolicy(keep_last=2), own_policies=own_policies)
    rotate(world.repository, request, progress=world.progress)
    page = site.shown("source", **{**IMAGE_QUERY, "repository": "alone"})
    assert "<code>max_removed_share</code> is refused" in page
    assert ("which ignored policies of sources' own" in page) is not own_policies


def test_a_backup_shows_record_fidelity_layers_history_verifications_events_and_its_restore(site: Site) -> None:
    """Also found by its id alone, as links of verifications have it, and by the repository's URL."""
    site.shown("")
    backup_id = a_backup(site)
    by_id = site.shown("backup", repository="main", backup=backup_id)
    by_url = site.shown("backup", repository=site.url["main"], backup=backup_id)
    full = site.shown("backup", **IMAGE_QUERY, backup=backup_id)
    assert by_id == by_url == full
    for heading in ("Restore it", "Record", "Verifications", "Fidelity", "Layers", "History", "Audit events"):
        assert f"<h2>{heading}</h2>" in full
    assert f"dockerbackup restore {backup_id} --repository {site.url['main']} --host HOST" in full
    assert "backup.committed" in full


def test_a_container_has_no_layers_but_a_second_way_back(site: Site) -> None:
    """Its page leaves out what it has not."""
    site.shown("")
    page = site.shown("backup", repository="main", backup=a_backup(site, CONTAINER))
    assert "dockerbackup restore-container" in page
    assert "<h2>Layers</h2>" not in page


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("backup", {"repository": "main", "backup": "../../etc/passwd"}),
        ("backup", {**IMAGE_QUERY, "backup": "../../../../../etc"}),
        ("backup", {"repository": "main", "backup": "20260101T000000Z-0000000000000000"}),
        ("backup", {**IMAGE_QUERY, "name": "../../../etc", "backup": "20260101T000000Z-0000000000000000"}),
        ("backup", {**IMAGE_QUERY, "kind": "..", "backup": "20260101T000000Z-0000000000000000"}),
        ("source", {**IMAGE_QUERY, "host": "%2e%2e/x"}),
        ("source", {**IMAGE_QUERY, "kind": "volume"}),
        ("source", {**IMAGE_QUERY, "repository": "/etc"}),
        ("source", {**IMAGE_QUERY, "repository": "file:///etc"}),
    ],
)
def test_what_is_not_there_is_not_found_and_nothing_else_is_opened(
    site: Site, path: str, query: dict[str, str]
) -> None:
    """Identifiers are compared or encoded, never used as paths; a repository that is not configured is not opened."""
    site.shown("")
    answer = site.get(path, **query)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_too_long_a_value_is_refused(site: Site) -> None:
    """Before anything is looked up."""
    assert site.get("", q="x" * 600).status_code == 422


HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>\u202e'


class Elements(HTMLParser):
    """Notes every element, every event handler and every address of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one."""
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.addresses += [value or "" for name, value in attrs if name in {"href", "src", "action"}]


def test_what_hosts_say_is_text_wherever_it_stands(site: Site) -> None:
    """A source, a note, a history step, a problem and an event that are markup stay text on every page."""
    world = site.worlds["second"]
    repository = world.repository
    honest = repository.catalog.backups(source=IMAGE)[0].whole()
    source = Source(host=HOSTILE, kind=SourceKind.IMAGE, name=HOSTILE)
    document = json.loads(honest.to_bytes())
    document["source"] = source.model_dump(mode="json")
    document["notes"] = [HOSTILE]
    document["image"]["history"][0].update(created_by=HOSTILE, comment=HOSTILE, created=HOSTILE)
    document["engine"]["version"] = HOSTILE
    record = BackupRecord.model_validate(document)
    folder = backup_path(source, record.backup_id)
    repository.storage.create(folder + "backup.json", record.to_bytes())
    event = AuditEvent(
        type="backup.failed", time=world.clock.now(), repository_id=repository.document.repository_id,
        actor={"user": HOSTILE}, source=str(source), outcome="failure",
        object={"backup_id": record.backup_id, "problem": HOSTILE},
    )  # fmt: skip
    repository.trail({"user": HOSTILE}).record(
        "backup.failed", outcome="failure", source=str(source), subject=event.object
    )
    query = {"repository": "second", "host": source.host, "kind": "image", "name": source.name}
    pages = [site.shown("backup", **query, backup=record.backup_id)]
    # The index learns of it with its next refresh.
    from airflow_provider_dockerbackup.plugins.repositories import configured

    configured().named("second")._due = float("-inf")
    pages += [site.shown("", q="script"), site.shown("source", **query)]
    pages.append(site.get("source", **{**query, "name": HOSTILE * 2}).text)
    for page in pages:
        assert "alert(1)" in page
        found = Elements()
        found.feed(page)
        assert not found.tags & {"script", "img", "iframe", "object"}
        assert found.handlers == []
        assert all(not urlsplit(each).scheme and not urlsplit(each).netloc for each in found.addresses)
    (link,) = {each for each in found_links(pages[1]) if each.startswith("source?")}
    assert dict(parse_qsl(urlsplit(link).query))["name"] == HOSTILE


class Commands(HTMLParser):
    """Notes every command that a page shows, and every other word of it."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []
        self.words = ""
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a command, maybe."""
        del attrs
        if tag in {"code", "pre"}:
            self._inside = True
            self.shown.append("")

    def handle_endtag(self, tag: str) -> None:
        """End it."""
        self._inside = self._inside and tag not in {"code", "pre"}

    def handle_data(self, data: str) -> None:
        """Note words."""
        if self._inside:
            self.shown[-1] += data
        else:
            self.words += data


def commands(page: str) -> list[list[str]]:
    """Return the words of each command on a page, as a shell takes them; none stands anywhere else."""
    found = Commands()
    found.feed(page)
    assert "dockerbackup " not in found.words
    return [shlex.split(each) for each in found.shown if each.startswith("dockerbackup ")]


def refused(words: list[str]) -> str:
    """Return why the command line does not take a command; empty when it does."""
    command, rest = cast("click.Command", cli), words[1:]
    try:
        while isinstance(command, click.Group):
            _, found, rest = command.resolve_command(click.Context(command), rest)
            command = cast("click.Command", found)
        with command.make_context(words[1], rest):
            return ""
    except click.UsageError as err:
        return f"{shlex.join(words)}: {err.format_message()}"


def shown_alone(patch: pytest.MonkeyPatch, folder: Path) -> tuple[World, str]:
    """Return a repository that is the only one of the page from now on, at a place that must be quoted, and its URL."""
    url = f"file://{folder}/it's here"
    patch.setenv("AIRFLOW__DOCKERBACKUP__REPOSITORIES", f"alone={url}")
    return world_at(url), url


def test_every_command_on_a_page_is_one_that_the_command_line_takes(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is shown, in a shell without any variable of ours: nothing that it needs is left out."""
    monkeypatch.delenv("DOCKERBACKUP_REPOSITORY", raising=False)
    world, url = shown_alone(monkeypatch, tmp_path)
    shown = {"fleet": site.shown(""), "source": site.shown("source", **{**IMAGE_QUERY, "repository": "alone"})}
    for each in world.repository.catalog.backups():
        shown[each.source.kind] = site.shown("backup", repository="alone", backup=each.backup_id)
    verbs = {}
    for page, text in shown.items():
        found = commands(text)
        assert [refused(words) for words in found if refused(words)] == []
        assert all(words[words.index("--repository") + 1] == url for words in found)
        verbs[page] = [" ".join(word for word in words[1:3] if not word[0].isdigit()) for words in found]
    assert verbs == {
        "fleet": ["audit report"],
        "source": ["audit verify"],
        "image": ["restore", "history", "audit verify"],
        "container": ["restore", "restore-container", "audit verify"],
    }


def test_a_repository_is_named_in_commands_without_its_connection(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command takes credentials from the shell that it is pasted into."""
    monkeypatch.setenv("AIRFLOW__DOCKERBACKUP__REPOSITORIES", "bucket=s3://secret_conn@bucket/x y")
    page = site.get("").text
    assert [words[-3] for words in commands(page)] == ["s3://bucket/x y"]


def test_a_backup_whose_archive_is_gone_offers_no_command_and_says_why(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the place where the command would stand; the trail can still be proven."""
    world, _ = shown_alone(monkeypatch, tmp_path)
    backup = world.repository.catalog.backups(source=IMAGE)[0]
    world.storage.delete(backup.path + backup.whole().archive_file.name)
    site.shown("")
    page = site.shown("backup", repository="alone", backup=backup.backup_id)
    assert "No command restores it. Files or blobs that its record names are missing" in page
    assert [words[1:3] for words in commands(page)] == [["audit", "verify"]]


def found_links(page: str) -> list[str]:
    """Return the addresses on a page."""
    found = Elements()
    found.feed(page)
    return found.addresses


def test_every_link_of_every_page_leads_somewhere(site: Site) -> None:
    """Followed as a browser would, from the fleet on."""
    site.shown("")
    seen: set[str] = set()
    waiting = ["./"]
    while waiting:
        link = waiting.pop()
        if link in seen or link.startswith("#") or len(seen) > 60:
            continue
        seen.add(link)
        answer = site.get(link.removeprefix("./"))
        assert answer.status_code == 200, link
        if "text/html" in answer.headers["Content-Type"]:
            waiting += found_links(answer.text)
    assert {link.partition("?")[0] for link in seen} >= {
        "./",
        "source",
        "backup",
        "sources.csv",
        "source.csv",
        "page.css",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("a=/x, a=/y", "", "", ""), "a is there twice"),
        (("a=/x", "soon", "", ""), r"\[dockerbackup\] page_rpo: expected a duration"),
        (("a=/x", "", "db*", ""), "page_rpo_by_source: expected PATTERN=DURATION"),
        (("a=/x", "", "db*=soon", ""), "page_rpo_by_source 'db\\*'"),
    ],
)
def test_a_wrong_option_is_named(options: tuple[str, str, str, str], message: str) -> None:
    """With what it has to be."""
    with pytest.raises(ConfigurationError, match=message):
        _shown(*options)


def test_repositories_have_names_or_their_urls_and_connection_ids_are_not_shown(tmp_path: Path) -> None:
    """A URL with an equals sign is not taken for a name."""
    shown = _shown("main=file:///a, s3://conn@bucket/x=y", "", "db1 *=6h", str(tmp_path))
    assert [(each.name, each.shown_url) for each in shown.repositories] == [
        ("main", "file:///a"),
        ("s3://bucket/x=y", "s3://bucket/x=y"),
    ]
    assert shown.named("/a").name == "main"
    assert str(shown.rpo.of(Source(host="db1", kind=SourceKind.IMAGE, name="x"))) == "6h"
