# SPDX-License-Identifier: Apache-2.0
"""The reference of operators, sensors, alerts, connection, labels and configuration has what Airflow shows of us."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args, get_type_hints, is_typeddict

import attrs
import pytest
from airflow.sdk import Connection

from airflow_provider_dockerbackup.core import labels
from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.tar_header import MemberKind
from airflow_provider_dockerbackup.core.model import Consistency
from airflow_provider_dockerbackup.core.record import Capture
from airflow_provider_dockerbackup.core.restore import Method
from airflow_provider_dockerbackup.core.since import Level
from airflow_provider_dockerbackup.get_provider_info import get_provider_info
from airflow_provider_dockerbackup.notifications.alert import Alert
from airflow_provider_dockerbackup.notifications.webhook import DockerBackupWebhookNotifier
from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator, DockerHostOperator
from airflow_provider_dockerbackup.operators.fleet import DockerFleetOperator
from airflow_provider_dockerbackup.operators.on_host import WaitsForHost
from airflow_provider_dockerbackup.sensors.image_changed import DockerImageChangedSensor, ImageChange
from tests.pages import REFERENCE, cells_of, names_in, names_in_tables, section, shown, text_of
from tests.reference.public import operator_classes

# Of a connection, what no form of a type decides on.
_NOT_IN_FORMS = {"conn_id", "conn_type", "description", "extra"}


def keyword_parameters(*kinds: Any) -> dict[str, Any]:
    """Return the keyword-only parameters of classes with their defaults."""
    given = [one for each in kinds for one in inspect.signature(each.__init__).parameters.values()]
    return {one.name: one.default for one in given if one.kind is one.KEYWORD_ONLY}


def require_rows(rows: dict[str, list[str]], expected: dict[str, Any], templated: Any) -> None:
    """Each parameter has a row; its default, and whether it is templated, are those of the code; no row is more."""
    assert set(rows) == set(expected)
    for name, default in expected.items():
        assert rows[name][1] == ("required" if default is inspect.Parameter.empty else f"`{shown(default)}`"), name
        assert (rows[name][2] == "yes") == (name in templated), name


def rows_of(text: str, *, columns: int) -> dict[str, list[str]]:
    """Return the rows of a text's tables that have this many columns, each under the name in its first cell."""
    return {row[0].strip("`"): row for row in cells_of(text) if len(row) == columns}


@pytest.mark.parametrize("operator", operator_classes(), ids=lambda each: each.__name__)
def test_the_reference_has_every_parameter_of_an_operator_with_its_default(
    operator: type[DockerBackupBaseOperator],
) -> None:
    """Each has its section, which names its module and has its parameters."""
    text = section("operators.md", operator.__name__)
    assert f"`{operator.__module__}`" in text
    shared = [each for each in (DockerHostOperator, DockerFleetOperator, WaitsForHost) if issubclass(operator, each)]
    require_rows(rows_of(text, columns=4), keyword_parameters(operator, *shared), operator.template_fields)


def test_the_reference_has_every_parameter_of_the_sensor_and_every_key_of_what_it_returns() -> None:
    """As for operators."""
    text = section("sensors.md", DockerImageChangedSensor.__name__)
    assert f"`{DockerImageChangedSensor.__module__}`" in text
    expected = keyword_parameters(DockerImageChangedSensor)
    require_rows(rows_of(text, columns=4), expected, DockerImageChangedSensor.template_fields)
    assert set(ImageChange.__annotations__) <= set(names_in(returns_in(text)))


def returns_in(text: str) -> str:
    """Return what a section says of what is returned: its paragraph, and the table that the paragraph announces."""
    parts = text.split("\n\n")
    found = [number for number, part in enumerate(parts) if part.startswith("Returns ")]
    assert len(found) == 1, "what is returned is said in one paragraph, which begins with 'Returns'"
    (at,) = found
    return "\n".join(parts[at : at + 2 if parts[at].endswith(":") else at + 1])


def keys_of(kind: Any) -> set[str]:
    """Return the keys of a summary and of all summaries in it, of a list's items likewise; none for other types."""
    if is_typeddict(kind):
        return set(kind.__annotations__) | {key for each in get_type_hints(kind).values() for key in keys_of(each)}
    return {key for each in get_args(kind) for key in keys_of(each)}


@pytest.mark.parametrize("operator", operator_classes(), ids=lambda each: each.__name__)
def test_the_reference_has_every_key_of_what_an_operator_returns(operator: type[DockerBackupBaseOperator]) -> None:
    """All of them are where it says what is returned; three operators return the same, which is told once."""
    said = returns_in(section("operators.md", operator.__name__))
    if said.startswith("Returns a backup summary."):
        said = returns_in(section("operators.md", "DockerSaveOperator"))
    returned = inspect.signature(operator.work).return_annotation
    keys = keys_of(eval(returned, operator.work.__globals__))  # noqa: S307 - the annotation of our own method
    assert keys or returned == "list[str]"
    assert keys - set(names_in(said)) == set()


def test_every_operator_stops_retries_when_trying_again_is_of_no_use() -> None:
    """The base class sorts errors around each operator's work; none goes around it."""
    for operator in operator_classes():
        assert operator.execute is DockerBackupBaseOperator.execute, operator.__name__


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


def test_the_reference_has_every_option_of_the_configuration_with_its_default() -> None:
    """The tables of options are, taken together, the section of the provider's description, in its order."""
    options = get_provider_info()["config"]["dockerbackup"]["options"]
    page = text_of(REFERENCE / "operators.md")
    tables = re.findall(
        r"^\| option in airflow\.cfg, section `\[dockerbackup\]` \|(?:.*\n)(?:\|.*\n)+", page, re.MULTILINE
    )
    rows = [row for table in tables for row in cells_of(table)]
    assert [row[0].strip("`") for row in rows] == list(options)
    for (name, option), row in zip(options.items(), rows, strict=True):
        if option["default"]:
            assert row[1] == f"`{option['default']}`", name
        assert row[-1], name


def test_the_reference_has_every_link_of_a_task_and_the_operators_that_have_it() -> None:
    """Name of the link and operators are said in one sentence; the provider's description names the link's class."""
    links = {link.name: type(link) for each in operator_classes() for link in each.operator_extra_links}
    listed = get_provider_info()["extra-links"]
    assert {f"{kind.__module__}.{kind.__qualname__}" for kind in links.values()} == set(listed)
    for name in links:
        (said,) = re.findall(
            rf"^((?:.+\n)*?.+) have\s+an extra link `{name}`", text_of(REFERENCE / "operators.md"), re.MULTILINE
        )
        have = {
            each.__name__ for each in operator_classes() if any(link.name == name for link in each.operator_extra_links)
        }
        assert set(names_in(said)) == have


def test_the_reference_has_every_field_of_the_connection_that_its_form_shows() -> None:
    """Airflow's own fields, as the type relabels them, without those that it hides."""
    (connection,) = get_provider_info()["connection-types"]
    behaviour = connection["ui-field-behaviour"]
    fields = {field.name for field in attrs.fields(Connection)} - _NOT_IN_FORMS - set(behaviour["hidden-fields"])
    labels_of = {name: f"{label} ({name})" for name, label in behaviour["relabeling"].items()}
    rows = {row[0]: row for row in cells_of(section("connection.md", "Fields"))}
    assert set(rows) == {labels_of.get(name, name.capitalize()) for name in fields}
    assert rows["Port"][1] == behaviour["placeholders"]["port"]
    for name in behaviour["hidden-fields"]:
        assert f"*{name.capitalize()}* is hidden" in section("connection.md", "Fields")


def test_the_reference_has_every_extra_of_the_connection_with_label_and_default() -> None:
    """The form of the connection type is documented field by field, in its order."""
    (connection,) = get_provider_info()["connection-types"]
    rows = cells_of(section("connection.md", "Extras"))
    assert [row[0].strip("`") for row in rows] == list(connection["conn-fields"])
    for row, field in zip(rows, connection["conn-fields"].values(), strict=True):
        assert row[1] == field["label"]
        if (default := field["schema"].get("default")) is not None:
            assert row[2].strip("`") == str(default).lower() if isinstance(default, bool) else str(default) in row[2]


def test_the_reference_has_every_label() -> None:
    """Those that people set are in the table, in its order; those that restores set are named."""
    page = text_of(REFERENCE / "labels.md")
    assert [row[0].strip("`") for row in cells_of(page)] == list(labels.KNOWN)
    for label in (labels.RESTORED_LABEL, labels.REPLACES_LABEL):
        assert f"`{label}`" in page


def test_the_reference_has_every_parameter_and_every_key_of_an_alert() -> None:
    """Defaults are those of the code, and the body's keys those that are sent."""
    page = text_of(REFERENCE / "alerts.md")
    expected = keyword_parameters(DockerBackupWebhookNotifier)
    require_rows(rows_of(page, columns=4), expected, DockerBackupWebhookNotifier.template_fields)
    events = set(get_args(get_type_hints(Alert)["event"]))
    body = section("alerts.md", "Body")
    assert names_in_tables(body) == set(Alert.__annotations__)
    assert events <= set(names_in(body))
