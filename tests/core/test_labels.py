# SPDX-License-Identifier: Apache-2.0
"""Labels of containers: what they ask for, and that a wrong one is an error that says which, where."""

from __future__ import annotations

import pytest

from airflow_provider_dockerbackup.core.labels import REPLACES_LABEL, RESTORED_LABEL, BackupLabels, read_labels
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.schedule import Schedule
from airflow_provider_dockerbackup.exceptions import ConfigurationError

WHERE = "web-1 container shop"


def read(**labels: str) -> BackupLabels:
    """Read labels, those of ours without their prefix."""
    return read_labels({f"dockerbackup.{name}": text for name, text in labels.items()}, where=WHERE)


def test_labels_of_others_ask_for_nothing() -> None:
    """Neither do those that a restore leaves."""
    found = read_labels(
        {"maintainer": "Jane", "dockerbackups": "x", RESTORED_LABEL: "20261123T210400Z-5f", REPLACES_LABEL: ""},
        where=WHERE,
    )
    assert found == BackupLabels()


def test_each_label_is_read() -> None:
    """As its page says."""
    found = read(
        enable="TRUE",
        schedule=" 12h ",
        retention="keep_daily=7, keep_within=2d",
        pre='sh -c "pg_dump --file=/tmp/d.sql $DB"',
        post='["rm", "-f", "/tmp/d.sql", ""]',
        exclude="Image",
    )
    assert found == BackupLabels(
        enabled=True,
        schedule=Schedule.parse("12h", what=""),
        retention="keep_daily=7,keep_within=2d",
        before=("sh", "-c", "pg_dump --file=/tmp/d.sql $DB"),
        after=("rm", "-f", "/tmp/d.sql", ""),
        excluded=frozenset({SourceKind.IMAGE}),
    )
    commands = found.commands(timeout_seconds=5)
    assert (commands.before, commands.after, commands.timeout_seconds) == (found.before, found.after, 5)


def test_what_is_not_backed_up_may_have_any_label() -> None:
    """Who switches it off need not repair the rest first."""
    assert read(enable="false", schedule="whenever", colour="blue") == BackupLabels(enabled=False)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"enable": "true", "retention": f"keep_last={'9' * 5000}"}, "policy.keep_last: expected an integer"),
        ({"enable": "true", "pre": "[" * 30_000}, "label dockerbackup.pre: maximum recursion depth .*not shown"),
        ({"enable": "true", "pre": "x" * 32_769}, "dockerbackup.pre: expected at most 32768 characters, got 32769"),
        ({"enable": "yes"}, "label dockerbackup.enable: expected true or false, got 'yes'"),
        (
            {"schedule": "1h"},
            "label dockerbackup.enable: expected true or false beside dockerbackup.schedule, got none",
        ),
        ({"enable": "true", "shedule": "1h"}, "label dockerbackup.shedule: not known; known are dockerbackup.enable"),
        ({"enable": "true", "schedule": "soon"}, "label dockerbackup.schedule: expected a duration .* got 'soon'"),
        ({"enable": "true", "schedule": " "}, "label dockerbackup.schedule: expected a duration"),
        ({"enable": "true", "schedule": "0 25 * * *"}, "label dockerbackup.schedule: hour: .* '25'"),
        ({"enable": "true", "retention": ""}, "label dockerbackup.retention: policy: no keep_"),
        ({"enable": "true", "retention": "keep_dayly=7"}, "label dockerbackup.retention: policy: unknown keep_dayly"),
        ({"enable": "true", "retention": "keep_daily=x"}, "label dockerbackup.retention: policy.keep_daily: .* 'x'"),
        ({"enable": "true", "retention": "7d"}, "label dockerbackup.retention: .* got '7d'"),
        ({"enable": "true", "retention": "keep_last=1,keep_last=2"}, "retention: .* keep_last is there twice"),
        ({"enable": "true", "exclude": "/var/cache"}, "label dockerbackup.exclude: paths cannot be left out"),
        ({"enable": "true", "exclude": "volume"}, "label dockerbackup.exclude: expected some of container, image"),
        ({"enable": "true", "exclude": "image,container"}, "label dockerbackup.exclude: leaves nothing"),
    ],
)
def test_a_wrong_label_is_named_with_host_container_and_value(labels: dict[str, str], said: str) -> None:
    """A typing error is not silently a backup less."""
    with pytest.raises(ConfigurationError, match=f"^{WHERE}: .*{said}"):
        read(**labels)


@pytest.mark.parametrize(
    "text", ["mysqldump -phunter2 'open", '["sh", "-phunter2"', "[1, 'hunter2']", '["hunter2", 1]']
)
@pytest.mark.parametrize("label", ["pre", "post"])
def test_a_wrong_command_is_named_without_its_text(label: str, text: str) -> None:
    """Commands carry passwords, and messages reach logs."""
    with pytest.raises(ConfigurationError, match=f"^{WHERE}: label dockerbackup.{label}: .*not shown") as caught:
        read(enable="true", **{label: text})
    assert "hunter2" not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", ["", "  ", "[]", '[""]', "''"])
def test_an_empty_command_is_refused(text: str) -> None:
    """No label means no command."""
    with pytest.raises(ConfigurationError, match=r"label dockerbackup.pre: expected a command"):
        read(enable="true", pre=text)


def test_a_command_may_be_as_long_as_a_label() -> None:
    """Somebody has a script in it."""
    assert read(enable="true", pre="x" * 32_768).before == ("x" * 32_768,)


def test_all_wrong_labels_are_named_at_once() -> None:
    """One look repairs them all."""
    with pytest.raises(ConfigurationError, match=r"colour: not known.*; label dockerbackup.schedule: .*; .*exclude: "):
        read(enable="true", colour="blue", schedule="soon", exclude="x")


def test_a_message_has_no_character_that_acts_upon_a_terminal_and_an_end() -> None:
    """Whoever may start a container names its labels."""
    with pytest.raises(ConfigurationError) as caught:
        read_labels({f"dockerbackup.{number}\x1b[2J\n{'x' * 50}": "" for number in range(100)}, where=WHERE)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) == 1500
