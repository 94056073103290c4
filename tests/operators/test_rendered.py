# SPDX-License-Identifier: Apache-2.0
"""Values that templates rendered, as text or, with native rendering, as what they look like."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.operators.audit import DockerBackupAuditOperator
from airflow_provider_dockerbackup.operators.rendered import columns, flag, number, whole_number
from tests.operators.context import context


@pytest.mark.parametrize(("value", "meant"), [(True, True), (False, False), ("True", True), (" false ", False)])
def test_a_flag_is_true_or_false(value: Any, meant: bool) -> None:
    """Also as text, in any case."""
    assert flag("dry_run", value) is meant


@pytest.mark.parametrize("value", ["", "yes", "0", None, 1])
def test_what_is_no_flag_is_named(value: Any) -> None:
    """Nothing is true because it is something."""
    with pytest.raises(ConfigurationError, match=r"^dry_run: expected true or false, got "):
        flag("dry_run", value)


@pytest.mark.parametrize(("value", "meant"), [(3, 3), ("3", 3), (" -1 ", -1), (3.0, 3), (2**60 + 1, 2**60 + 1)])
def test_a_whole_number_is_taken_as_it_is(value: Any, meant: int) -> None:
    """Large ones to the last digit."""
    assert whole_number("step", value) == meant


@pytest.mark.parametrize("value", [3.5, "3.5", "", "two", True, None, [], float("nan"), float("inf"), 10**400])
def test_what_is_no_whole_number_is_named_and_never_cut_to_one(value: Any) -> None:
    """A rollback to step 1.5 must not go to step 1."""
    with pytest.raises(ConfigurationError, match=r"^step: expected a whole number, got "):
        whole_number("step", value)


@pytest.mark.parametrize(("value", "meant"), [(0.5, 0.5), ("0.5", 0.5), (7, 7.0), ("1e3", 1000.0)])
def test_a_number_is_taken_as_it_is(value: Any, meant: float) -> None:
    """As number or as text."""
    assert number("grace_hours", value) == meant


@pytest.mark.parametrize("value", ["soon", "", False, None, "nan", float("nan"), "inf", "-Infinity"])
def test_what_is_no_number_is_named(value: Any) -> None:
    """Nothing is longer than a limit that is no number, so that every control would pass."""
    with pytest.raises(ConfigurationError, match=r"^grace_hours: expected a number, got "):
        number("grace_hours", value)


@pytest.mark.parametrize("name", ["rto_minutes", "min_retention_days"])
def test_a_limit_of_a_report_is_a_number(name: str) -> None:
    """It is minutes or days, and not a share."""
    limits: dict[str, Any] = {name: "nan"}
    operator = DockerBackupAuditOperator(task_id="audit", repository="file:///srv/absent", **limits)
    with pytest.raises(ConfigurationError, match=f"^{name}: expected a number, got 'nan'"):
        operator.work(context())


def test_a_table_has_its_columns_one_below_the_other() -> None:
    """No line ends in blanks."""
    assert list(columns(("ID", "WHY"), [("a", "long"), ("bcd", "")])) == ["ID   WHY", "a    long", "bcd"]
