# SPDX-License-Identifier: Apache-2.0
"""The documentation names everything that is there, and nothing that is not."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest
from pydantic import BaseModel

from airflow_provider_dockerbackup import exceptions, operators
from airflow_provider_dockerbackup.cli.exit_codes import ExitCode, exit_code_of
from airflow_provider_dockerbackup.cli.main import cli
from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.tar_header import MemberKind
from airflow_provider_dockerbackup.core.audit.event import AuditEvent
from airflow_provider_dockerbackup.core.gc.documents import (
    ClosedDocument,
    CondemnedDocument,
    LeaseDocument,
    PinDocument,
)
from airflow_provider_dockerbackup.core.model import Consistency
from airflow_provider_dockerbackup.core.record import BackupRecord, Capture
from airflow_provider_dockerbackup.core.repository import RepositoryDocument
from airflow_provider_dockerbackup.core.restore import Method
from airflow_provider_dockerbackup.core.since import (
    Confirmation,
    Deletion,
    Hold,
    Level,
    Quarantine,
    Release,
    Verification,
)
from airflow_provider_dockerbackup.get_provider_info import get_provider_info
from airflow_provider_dockerbackup.notifications.alert import Alert
from airflow_provider_dockerbackup.notifications.webhook import DockerBackupWebhookNotifier
from airflow_provider_dockerbackup.operators import summary
from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator, DockerHostOperator
from airflow_provider_dockerbackup.operators.fleet import DockerFleetOperator
from airflow_provider_dockerbackup.operators.on_host import CapturesOnHost, WaitsForHost
from airflow_provider_dockerbackup.sensors.image_changed import DockerImageChangedSensor, ImageChange

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PROGRAMS = {
    *("airflow", "dockerbackup", "docker", "make", "pip"),
    *(
        "age-keygen",
        "cd",
        "cp",
        "export",
        "ls",
        "sha256sum",
        "skopeo",
        "ssh",
        "ssh-keygen",
        "ssh-keyscan",
        "tar",
        "zstd",
    ),
}

_CONTEXT = click.Context(cli)
VERBS = {name: command for name in cli.list_commands(_CONTEXT) if (command := cli.get_command(_CONTEXT, name))}
_FENCE = re.compile(r"^```(.*)$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def page_id(page: Path) -> str:
    """Return a page's path for the name of a test."""
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    """Return a page."""
    return page.read_text(encoding="utf-8")


def public_errors() -> list[type[exceptions.DockerBackupError]]:
    """Return the package's kinds of errors, without those that other tests of this process define."""
    kinds = exceptions.DockerBackupError.__subclasses__()
    return [kind for kind in kinds if kind.__module__ == exceptions.__name__]


def section(page: str, heading: str) -> str:
    """Return the text of a second-level section of a reference page."""
    found = re.search(
        rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text_of(REFERENCE / page), re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"{page} has no section {heading!r}"
    return found[1]


def names_in_tables(text: str) -> set[str]:
    """Return every name in backticks in the first cell of a table's rows."""
    cells = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def fences(page: Path, language: str) -> list[str]:
    """Return the bodies of a page's fences in one language."""
    parts = re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [str(part) for part in parts]


def console_lines(page: Path) -> list[str]:
    """Return the commands of a page's console blocks, continuation lines joined, comments left out."""
    joined = "\n".join(fences(page, "console")).replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s+#\s.*", "", line) for line in lines]


def operator_classes() -> list[type[DockerBackupBaseOperator]]:
    """Return every operator that the package has."""
    found = set()
    for module in pkgutil.iter_modules(operators.__path__):
        loaded = importlib.import_module(f"{operators.__name__}.{module.name}")
        for _, each in inspect.getmembers(loaded, inspect.isclass):
            if issubclass(each, DockerBackupBaseOperator):
                found.add(each)
    bases: set[type[DockerBackupBaseOperator]] = {
        DockerBackupBaseOperator,
        DockerHostOperator,
        DockerFleetOperator,
        CapturesOnHost,
        WaitsForHost,
    }
    return sorted(found - bases, key=lambda each: each.__name__)


def parameters_of(operator: type[DockerBackupBaseOperator]) -> dict[str, Any]:
    """Return an operator's own parameters with their defaults."""
    found: dict[str, Any] = {}
    for each in (operator, DockerHostOperator, DockerFleetOperator, WaitsForHost):
        if issubclass(operator, each):
            given = inspect.signature(each.__init__).parameters.values()
            found |= {one.name: one.default for one in given if one.kind is one.KEYWORD_ONLY}
    return found


def heading_anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", text_of(page)), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def documented_parts(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield a document's model and those of all its parts."""
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if inspect.isclass(kind) and issubclass(kind, BaseModel):
                yield from documented_parts(kind)


@pytest.mark.parametrize("operator", operator_classes(), ids=lambda each: each.__name__)
def test_the_reference_has_every_parameter_of_an_operator_with_its_default(
    operator: type[DockerBackupBaseOperator],
) -> None:
    """Each parameter has a row; its default, and whether it is templated, are those of the code; no row is more."""
    rows = {
        line.split("`")[1]: [cell.strip() for cell in line.strip("|").split("|")]
        for line in section("operators.md", operator.__name__).splitlines()
        if line.startswith("| `") and len(re.sub(r"\\\|", "", line).strip("|").split("|")) == 4
    }
    expected = parameters_of(operator)
    assert set(rows) == set(expected)
    for name, default in expected.items():
        shown = "required" if default is inspect.Parameter.empty else f"`{_shown(default)}`"
        assert rows[name][1] == shown, name
        assert (rows[name][2] == "yes") == (name in operator.template_fields), name


def _shown(default: Any) -> str:
    if isinstance(default, str):
        return default or '""'
    return repr(default).replace("'", '"')


def test_the_reference_has_every_parameter_of_the_sensor_and_every_key_of_what_it_returns() -> None:
    """As for operators."""
    text = section("sensors.md", DockerImageChangedSensor.__name__)
    assert f"`{DockerImageChangedSensor.__module__}`" in text
    given = inspect.signature(DockerImageChangedSensor.__init__).parameters.values()
    rows = {line.split("`")[1]: line.split(" | ") for line in text.splitlines() if line.startswith("| `")}
    assert set(rows) == {one.name for one in given if one.kind is one.KEYWORD_ONLY}
    for one in given:
        if one.kind is one.KEYWORD_ONLY:
            shown = "required" if one.default is inspect.Parameter.empty else f"`{_shown(one.default)}`"
            assert rows[one.name][1] == shown, one.name
            assert (rows[one.name][2].strip() == "yes") == (one.name in DockerImageChangedSensor.template_fields)
    for key in ImageChange.__annotations__:
        assert f"`{key}`" in text, key


def test_every_operator_stops_retries_when_trying_again_is_of_no_use() -> None:
    """The base class sorts errors around each operator's work; none goes around it."""
    for operator in operator_classes():
        assert operator.execute is DockerBackupBaseOperator.execute, operator.__name__


def test_the_reference_has_every_operator_and_every_key_of_its_summary() -> None:
    """No operator and no key of a summary is missing, and the module path is right."""
    page = text_of(REFERENCE / "operators.md")
    for operator in operator_classes():
        assert f"`{operator.__module__}`" in section("operators.md", operator.__name__)
    for each in (
        *(summary.BackupSummary, summary.VerificationSummary, summary.RestoreSummary, summary.ContainerSummary),
        *(summary.RotateSummary, summary.CheckpointSummary, summary.RollbackSummary),
    ):
        for key in each.__annotations__:
            assert f"`{key}`" in page, key
    for keys, operator_name in (
        (summary.StopSummary.__annotations__, "DockerStopOperator"),
        (summary.RemoveSummary.__annotations__, "DockerRemoveOperator"),
        (summary.AuditSummary.__annotations__, "DockerBackupAuditOperator"),
        (summary.GarbageSummary.__annotations__, "DockerBackupGarbageCollectOperator"),
        (summary.CopySummary.__annotations__, "DockerBackupCopyOperator"),
    ):
        for key in keys:
            assert f"`{key}`" in section("operators.md", operator_name), key


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        (Consistency, "operators.md"),
        (Level, "operators.md"),
        (Method, "operators.md"),
        (Capture, "repository-format.md"),
        (Compression, "repository-format.md"),
        (MemberKind, "repository-format.md"),
    ],
)
def test_the_reference_has_every_value_of_a_mode(kind: Any, page: str) -> None:
    """Each value of a literal or enumeration is named."""
    values = get_args(kind) or tuple(kind)
    for value in values:
        assert f"`{value}`" in text_of(REFERENCE / page), value


def test_the_reference_has_every_field_of_the_connection_with_label_and_default() -> None:
    """The form of the connection type is documented field by field, in its order."""
    (connection,) = get_provider_info()["connection-types"]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section("connection.md", "Extras").splitlines()
        if line.startswith("| `")
    ]
    assert [row[0].strip("`") for row in rows] == list(connection["conn-fields"])
    for row, field in zip(rows, connection["conn-fields"].values(), strict=True):
        assert row[1] == field["label"]
        if (default := field["schema"].get("default")) is not None:
            assert row[2].strip("`") == str(default).lower() if isinstance(default, bool) else str(default) in row[2]


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_the_reference_has_every_option_of_a_verb(verb: str) -> None:
    """Each verb has a section; each of its options is there or among those that several verbs share."""
    text = section("cli.md", f"dockerbackup {verb}")
    shared = section("cli.md", "Options that several verbs share")
    command = VERBS[verb]
    below = command.commands if isinstance(command, click.Group) else {}
    for name in below:
        assert f"dockerbackup {verb} {name}`" in text, name
    for parameter in (*command.params, *(each for one in below.values() for each in one.params)):
        if isinstance(parameter, click.Option):
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert re.search(rf"`{option}[ `]", text + shared), option


def test_the_reference_has_every_parameter_and_every_key_of_an_alert() -> None:
    """Defaults are those of the code, and the body's keys those that are sent."""
    page = text_of(REFERENCE / "alerts.md")
    given = inspect.signature(DockerBackupWebhookNotifier.__init__).parameters.values()
    expected = {one.name: one.default for one in given if one.kind is one.KEYWORD_ONLY}
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for name, default in expected.items():
        shown = (
            f"| `{name}` | `{_shown(default)}` | {'yes' if name in DockerBackupWebhookNotifier.template_fields else ''}"
        )
        assert any(row.startswith(shown) for row in rows), shown
    assert names_in_tables(page.partition("## Body")[2]) - set(get_args(alert_event())) == set(Alert.__annotations__)
    assert set(get_args(alert_event())) <= set(re.findall(r"`(\w+)`", page))


def alert_event() -> Any:
    """Return the type of an alert's ``event``."""
    return get_type_hints(Alert)["event"]


def test_the_reference_names_no_verb_that_is_not_there() -> None:
    """Sections and verbs are the same."""
    found = re.findall(r"^## dockerbackup ([\w-]+)$", text_of(REFERENCE / "cli.md"), re.MULTILINE)
    assert sorted(found) == sorted(VERBS)


def test_every_exit_code_and_every_error_is_explained() -> None:
    """The tables of README, reference and troubleshooting agree with the code."""
    table = section("cli.md", "Exit codes")
    for code in ExitCode:
        assert f"| {code.value} | `{code.name}` |" in table
        assert re.search(rf"^\| {code.value} \|", text_of(ROOT / "README.md"), re.MULTILINE)
    troubleshooting = text_of(ROOT / "docs/how-to/troubleshooting.md")
    for kind in public_errors():
        assert f"`{kind.__name__}`" in table
        assert f"| `{kind.__name__}` | {exit_code_of(kind('')).value} |" in troubleshooting
        assert f"`{kind.__name__}`" in text_of(REFERENCE / "python.md")


@pytest.mark.parametrize(
    "document",
    [RepositoryDocument, BackupRecord, Verification, Confirmation, Hold, Release, Quarantine, Deletion, AuditEvent],
    ids=lambda each: each.__name__,
)
def test_the_reference_has_every_field_of_a_document(document: type[BaseModel]) -> None:
    """Each field of a document and of all its parts is named on the page of the format."""
    page = text_of(REFERENCE / "repository-format.md")
    for part in documented_parts(document):
        for name in part.model_fields:
            assert f"`{name}`" in page, f"{part.__name__}.{name}"


@pytest.mark.parametrize(
    ("heading", "document"),
    [
        ("### `repository.json`", RepositoryDocument),
        ("### `backup.json`", BackupRecord),
        ("### `verification-<time>.json`", Verification),
        ("### `confirmed-<run time>-<key>.json`", Confirmation),
        ("### `hold-<time>.json`", Hold),
        ("### `release-<time>.json`", Release),
        ("### `quarantined-<time>.json`", Quarantine),
        ("### `deleted-<time>.json`", Deletion),
        ("### `pins/<attempt>/<number>.json`", PinDocument),
        ("### `gc/lease/<number>.json`", LeaseDocument),
        ("### `gc/condemned/<gc>/<number>.json`", CondemnedDocument),
        ("### `trash/<gc>/closed.json`", ClosedDocument),
    ],
)
def test_the_table_of_a_document_has_its_fields_and_no_others(heading: str, document: type[BaseModel]) -> None:
    """The first table below a document's heading lists exactly its fields."""
    page = text_of(REFERENCE / "repository-format.md")
    table = page.partition(f"{heading}\n")[2].lstrip("\n").partition("\n\n")[0]
    if not table.startswith("|"):
        table = page.partition(f"{heading}\n")[2].split("\n\n")[2]
    assert names_in_tables(table.replace("|---|---|", "")) == set(document.model_fields)


def test_every_type_of_audit_event_is_listed() -> None:
    """What the code writes and what the format's page lists are the same."""
    sources = "".join(text_of(path) for path in (ROOT / "airflow_provider_dockerbackup/core").rglob("*.py"))
    families = "backup|blob|layer_map|commit|restore|rollback|stop|remove|sample|rotate|gc|convert|copy|hold|quarantine"
    families += "|source"
    written = set(re.findall(rf'"((?:{families})\.[a-z]+)"', sources)) - {"backup.json"}
    written |= {"verify.passed", "verify.failed"}
    assert 'f"verify.{verification.verification}"' in sources
    listed = names_in_tables(section("repository-format.md", "Audit events"))
    assert '"report.made"' in text_of(ROOT / "airflow_provider_dockerbackup/operators/audit.py")
    assert {name for name in listed if "." in name} == written | {"report.made"}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere_and_fences_are_closed(page: Path) -> None:
    """Relative links name files, and headings where they have an anchor; every fence has its end and a language."""
    text = text_of(page)
    marks = _FENCE.findall(text)
    assert len(marks) % 2 == 0, "a fence is not closed"
    assert all(marks[0::2]), "a fence has no language"
    assert not any(marks[1::2]), "a fence is not closed before the next one"
    for link in _LINK.findall(_CODE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in heading_anchors(target), link


def test_the_readme_leads_to_every_page_of_the_reference() -> None:
    """Its list of reference pages has each one, once."""
    (listed,) = re.findall(r"^\*\*Reference\*\* (.*?)\n\n", text_of(ROOT / "README.md"), re.MULTILINE | re.DOTALL)
    links = [link for link in _LINK.findall(listed) if link.startswith("docs/reference/")]
    assert sorted(links) == sorted(f"docs/reference/{page.name}" for page in REFERENCE.glob("*.md"))


@pytest.mark.parametrize("page", [page for page in PAGES if fences(page, "console")], ids=page_id)
def test_console_blocks_use_verbs_and_options_that_exist(page: Path) -> None:
    """Each command is a known program; a verb of ours exists and has each option that is used."""
    for line in console_lines(page):
        for command in re.split(r"\s\|\s", line):
            words = shlex.split(command)
            assert words[0] in PROGRAMS, line
            if words[0] == "dockerbackup":
                verb = VERBS[words[1]]
                if isinstance(verb, click.Group):
                    verb = verb.commands[words[2]]
                known = {option for parameter in verb.params for option in parameter.opts}
                assert {word for word in words if word.startswith("-")} <= known, line


def test_python_blocks_run_as_they_stand() -> None:
    """Each Python block is a DAG file or a script that can be loaded: imports, names and parameters exist."""
    count = 0
    for page in PAGES:
        for block in fences(page, "python"):
            exec(compile(block, page_id(page), "exec"), {"__name__": "shown"})  # noqa: S102 - our own pages
            count += 1
    assert count >= 10


def test_the_design_says_what_there_is_and_keeps_all_guarantees() -> None:
    """Its first section names every verb; there are twelve guarantees."""
    design = text_of(ROOT / "docs/design.md")
    stands = design.partition("## 0. What there is")[2].partition("## 1. ")[0]
    verbs = next(line for line in stands.splitlines() if line.startswith("| command line |"))
    assert set(re.findall(r"`([a-z-]+)`", verbs)) == set(VERBS)
    guarantees = design.partition("## 6. Guarantees")[2].partition("## 7. ")[0]
    assert re.findall(r"^(\d+)\. ", guarantees, re.MULTILINE) == [str(number) for number in range(1, 13)]


def test_every_decision_is_listed_and_has_its_three_parts() -> None:
    """The list of decisions has each file once, numbered without gaps."""
    pages = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    listed = re.findall(r"\| \[\d{4}\]\(([^)]+)\)", text_of(ROOT / "docs/adr/README.md"))
    assert listed == [page.name for page in pages]
    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for page in pages:
        assert re.findall(r"^## (.+)$", text_of(page), re.MULTILINE) == ["Context", "Decision", "Consequences"]
