# SPDX-License-Identifier: Apache-2.0
"""What a later try returns of what an earlier one did, also when host or source are gone meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_dockerbackup.operators.base import DockerHostOperator
from airflow_provider_dockerbackup.operators.capture import DockerCaptureOperator
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from tests.lab.images import BASE
from tests.lab.lab import LabHost
from tests.operators.context import context

pytestmark = pytest.mark.usefixtures("connections")
IMAGE, CONTAINER = "lab/earlier:1", "lab-earlier"
TASKS = ("save", "export", "capture image", "capture container")


@pytest.fixture
def sources(host: LabHost) -> Iterator[None]:
    """An image with a tag of its own, and a stopped container, which tests may remove."""
    host.daemon.docker("tag", BASE, IMAGE)
    host.daemon.docker("create", "--network", "none", "--name", CONTAINER, BASE, "/bin/true")
    yield
    _remove_sources(host)


def _remove_sources(host: LabHost) -> None:
    host.daemon.docker("rm", "--force", CONTAINER, check=False)
    host.daemon.docker("rmi", IMAGE, check=False)


def _away(host: LabHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing listen where the connection leads."""
    connection = json.loads(host.airflow_connection())
    monkeypatch.setenv(f"AIRFLOW_CONN_{host.connection_id.upper()}", json.dumps({**connection, "port": 1}))


def _task(kind: str, repository: str, **more: Any) -> DockerHostOperator:
    where: dict[str, Any] = {"task_id": "t", "dockerbackup_conn_id": "docker_host_1", "repository": repository, **more}
    if kind == "save":
        return DockerSaveOperator(image=IMAGE, **where)
    if kind == "export":
        return DockerExportOperator(container=CONTAINER, **where)
    _, _, source = kind.partition(" ")
    return DockerCaptureOperator(kind=source, source=IMAGE if source == "image" else CONTAINER, **where)


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("kind", TASKS)
def test_a_later_try_returns_the_backup_of_an_earlier_one_without_the_host(
    kind: str, repository_url: str, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a worker died between the commit and its success, and the host with it."""
    first = _task(kind, repository_url).execute(context())
    _away(host, monkeypatch)
    again = _task(kind, repository_url).execute(context(try_number=2))
    assert (first["status"], again["status"]) == ("committed", "already")
    assert (again["backup_id"], again["repository"]) == (first["backup_id"], repository_url)


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("kind", TASKS)
def test_a_source_that_is_gone_since_was_backed_up_all_the_same(kind: str, repository_url: str, host: LabHost) -> None:
    """The work is done, whichever try asks; for another run it is an error, which says that there is no such source."""
    first = _task(kind, repository_url).execute(context())
    _remove_sources(host)
    again = _task(kind, repository_url).execute(context())
    assert (again["status"], again["backup_id"]) == ("already", first["backup_id"])
    with pytest.raises(AirflowFailException, match=r"NotFoundError: .*earlier"):
        _task(kind, repository_url).execute(context(run_id="run-2"))


@pytest.mark.usefixtures("sources")
def test_a_source_that_is_gone_since_was_found_unchanged_all_the_same(repository_url: str, host: LabHost) -> None:
    """A confirmation is what a run came to as well as a backup; a later try would confirm anew what still is there."""
    first = _task("save", repository_url).execute(context())
    confirmed = _task("save", repository_url).execute(context(run_id="run-2"))
    again = _task("save", repository_url).execute(context(run_id="run-2", try_number=2))
    _remove_sources(host)
    gone = _task("save", repository_url).execute(context(run_id="run-2", try_number=3))
    assert [each["status"] for each in (confirmed, again, gone)] == ["unchanged"] * 3
    assert gone["backup_id"] == first["backup_id"]


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("kind", ["capture image", "capture container"])
def test_a_source_of_a_fleet_is_not_captured_for_a_past_date(
    kind: str, repository_url: str, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its labels say, and whether its host answers; what was made in time is returned."""
    past: dict[str, Any] = {"run_type": "backfill"}
    first = _task(kind, repository_url).execute(context())
    _away(host, monkeypatch)
    assert _task(kind, repository_url).execute(context(**past))["backup_id"] == first["backup_id"]
    for more in ({}, {"problem": "a label is wrong"}):
        with pytest.raises(AirflowSkipException, match="nothing was captured"):
            _task(kind, repository_url, **more).execute(context(run_id="run-2", **past))


@pytest.mark.parametrize("kind", TASKS)
def test_a_source_that_never_was_makes_no_repository(kind: str, repository_url: str) -> None:
    """Neither at the first try nor at a later one."""
    for number in (1, 2):
        with pytest.raises(AirflowFailException, match="NotFoundError"):
            _task(kind, repository_url).execute(context(try_number=number))
    assert not Path(repository_url.removeprefix("file://")).exists()
