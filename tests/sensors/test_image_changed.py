# SPDX-License-Identifier: Apache-2.0
"""The sensor and its trigger against a real Docker host: as worker and triggerer run them, one after the other."""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.sensors.image_changed import DockerImageChangedSensor
from airflow_provider_dockerbackup.triggers import image_changed
from tests.lab.lab import LabHost
from tests.operators.context import context

pytestmark = pytest.mark.usefixtures("connections")
TAG = "lab-sensor/app:1"


@pytest.fixture
def tag(host: LabHost) -> Iterator[str]:
    """A tag of the first host that may move; it stands for ``lab/base:1``."""
    host.daemon.docker("tag", "lab/base:1", TAG)
    yield TAG
    host.daemon.docker("rmi", TAG, check=False)


def move(host: LabHost) -> None:
    """Let the tag stand for another image."""
    host.daemon.docker("tag", "lab/app:1", TAG)


def sensor(repository: str, **options: Any) -> DockerImageChangedSensor:
    """Return a sensor that looks every tenth of a second."""
    given: dict[str, Any] = {
        "dockerbackup_conn_id": "docker_host_1",
        "deferrable": True,
        "poke_interval": 0.1,
        "timeout": 60,
    }
    return DockerImageChangedSensor(task_id="wait", image=TAG, repository=repository, **(given | options))


def save(repository: str, run_id: str = "run-1") -> Any:
    """Save what the tag stands for."""
    operator = DockerSaveOperator(
        task_id="save", dockerbackup_conn_id="docker_host_1", image=TAG, repository=repository
    )
    return operator.execute(context(task_id="save", run_id=run_id))


def deferred(task: DockerImageChangedSensor, event: Any = None) -> Any:
    """Begin or go on with a task, which must defer; return the trigger as the triggerer makes it."""
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context()) if event is None else task.execute_complete(context(), event)
    assert caught.value.method_name == "execute_complete"
    path, arguments = caught.value.trigger.serialize()
    module, _, name = path.rpartition(".")
    # It goes through the database.
    return getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))


def fired(trigger: Any) -> Any:
    """Run a trigger; return its only event."""

    async def events() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (event,) = asyncio.run(asyncio.wait_for(events(), 60))
    return json.loads(json.dumps(event))


def test_without_a_backup_it_succeeds_at_once(tag: str, host: LabHost, repository_url: str) -> None:
    """The first save makes the repository, too; and then there is something to wait for."""
    found = sensor(repository_url).execute(context())
    assert (found["reason"], found["backup_id"], found["source"], found["host"]) == ("no backup", None, TAG, host.name)
    assert not Path(repository_url.removeprefix("file://")).exists()
    save(repository_url)
    deferred(sensor(repository_url))


def test_it_succeeds_when_the_tag_stands_for_another_image(tag: str, host: LabHost, repository_url: str) -> None:
    """The trigger sees it, the worker looks again; after a save it waits anew."""
    saved = save(repository_url)
    trigger = deferred(sensor(repository_url))
    move(host)
    event = fired(trigger)
    assert event["status"] == "look"
    found = sensor(repository_url).execute_complete(context(), event)
    assert (found["reason"], found["backup_id"]) == ("changed", saved["backup_id"])
    save(repository_url, "run-2")
    deferred(sensor(repository_url))


def test_a_change_that_is_backed_up_or_over_by_the_time_of_the_look_waits_on(
    tag: str, host: LabHost, repository_url: str
) -> None:
    """With what is backed up now, and until the first deadline."""
    save(repository_url)
    first = deferred(sensor(repository_url))
    move(host)
    event = fired(first)
    save(repository_url, "run-2")
    again = deferred(sensor(repository_url), event)
    assert again.deadline == first.deadline
    assert again.ids != first.ids
    host.daemon.docker("tag", "lab/base:1", TAG)
    assert fired(again)["status"] == "look"


def test_nothing_that_changes_in_time_is_a_timeout_and_may_be_a_skip(tag: str, repository_url: str) -> None:
    """Airflow tries a timed out sensor no second time."""
    save(repository_url)
    began = time.monotonic()
    event = fired(deferred(sensor(repository_url, timeout=1)))
    assert event["status"] == "timeout"
    assert time.monotonic() - began >= 1
    with pytest.raises(AirflowSensorTimeout, match=f"image {TAG} is what its newest backup holds"):
        sensor(repository_url).execute_complete(context(), event)
    with pytest.raises(AirflowSkipException):
        sensor(repository_url, soft_fail=True).resume_execution("execute_complete", {"event": event}, context())


def test_a_missing_image_is_an_error_unless_it_is_waited_for(tag: str, host: LabHost, repository_url: str) -> None:
    """Before the wait, and during it."""
    save(repository_url)
    trigger = deferred(sensor(repository_url))
    patient = deferred(sensor(repository_url, wait_for_missing="True"))
    host.daemon.docker("rmi", TAG)
    event = fired(trigger)
    assert event["status"] == "look"
    with pytest.raises(AirflowFailException, match="NotFoundError"):
        sensor(repository_url).execute_complete(context(), event)
    with pytest.raises(AirflowFailException, match="NotFoundError"):
        sensor(repository_url).execute(context())
    deferred(sensor(repository_url, wait_for_missing=True))

    async def comes_back() -> list[Any]:
        waiting = asyncio.ensure_future(anext(patient.run()))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        move(host)
        return [(await asyncio.wait_for(waiting, 60)).payload["status"]]

    assert asyncio.run(comes_back()) == ["look"]


def test_a_backup_that_lost_bytes_stands_for_nothing(tag: str, repository_url: str) -> None:
    """A save would make another, so that there is something to do."""
    saved = save(repository_url)
    folder = Path(repository_url.removeprefix("file://")) / saved["path"]
    next(folder.glob("image-*.tar")).unlink()
    found = sensor(repository_url).execute(context())
    assert (found["reason"], found["backup_id"]) == ("no backup", saved["backup_id"])


def test_without_the_triggerer_it_pokes(tag: str, host: LabHost, repository_url: str) -> None:
    """By Airflow's own rules for poking and timing out."""
    save(repository_url)
    with pytest.raises(AirflowSensorTimeout):
        sensor(repository_url, deferrable=False, timeout=0.3).execute(context())
    move(host)
    assert sensor(repository_url, deferrable=False).execute(context())["reason"] == "changed"


def test_a_host_that_is_lost_is_looked_for_again_until_it_is_enough(
    tag: str, repository_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time a little later; then another try of the task may help."""
    save(repository_url)
    trigger = deferred(sensor(repository_url))
    monkeypatch.setattr(image_changed, "_LONGEST_BACKOFF_SECONDS", 0.01)
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_HOST_1", '{"conn_type": "ssh", "host": "127.0.0.1", "port": 1}')
    event = fired(trigger)
    assert event["status"] == "unreachable"
    with pytest.raises(TransientError, match="the triggerer lost the host"):
        sensor(repository_url).execute_complete(context(), event)


def test_a_host_that_is_away_at_the_end_is_not_said_to_have_nothing_new(
    tag: str, repository_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody saw it: the task fails, and is not skipped as one whose image stayed what it was."""
    save(repository_url)
    trigger = deferred(sensor(repository_url, timeout=0.5))
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_HOST_1", '{"conn_type": "ssh", "host": "127.0.0.1", "port": 1}')
    event = fired(trigger)
    assert event["status"] == "unreachable"
    with pytest.raises(TransientError, match="the triggerer lost the host"):
        sensor(repository_url, soft_fail=True).resume_execution("execute_complete", {"event": event}, context())


def test_after_its_time_it_looks_once_more_before_it_says_that_nothing_changed(
    tag: str, host: LabHost, repository_url: str
) -> None:
    """Such as when the triggerer stood still, or the host was away until then."""
    save(repository_url)
    trigger = deferred(sensor(repository_url))
    trigger.deadline = time.time() - 1
    assert fired(trigger)["status"] == "timeout"
    move(host)
    assert fired(trigger)["status"] == "look"


def test_a_lost_connection_is_made_anew(tag: str, host: LabHost, repository_url: str) -> None:
    """Sessions of sshd are cut while the trigger waits; it fires all the same, for one event."""
    save(repository_url)
    trigger = deferred(sensor(repository_url))

    async def cut() -> list[Any]:
        waiting = asyncio.ensure_future(anext(trigger.run()))
        await asyncio.sleep(1)
        host.kill_sessions()
        move(host)
        return [(await asyncio.wait_for(waiting, 60)).payload["status"]]

    assert asyncio.run(cut()) == ["look"]


def test_a_host_that_answers_between_two_losses_is_not_given_up(
    tag: str, host: LabHost, repository_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only losses in a row are counted."""
    save(repository_url)
    trigger = deferred(sensor(repository_url))
    monkeypatch.setattr(image_changed, "_LONGEST_BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(image_changed, "_MOST_FAILURES", 1)

    async def lose_it_twice() -> list[Any]:
        waiting = asyncio.ensure_future(anext(trigger.run()))
        for _ in range(2):
            while not (trigger._answered or waiting.done()):
                await asyncio.sleep(0.02)
            host.kill_sessions()
            while trigger._answered and not waiting.done():
                await asyncio.sleep(0.02)
        move(host)
        return [(await asyncio.wait_for(waiting, 60)).payload["status"]]

    assert asyncio.run(lose_it_twice()) == ["look"]


def test_a_connection_that_triggers_cannot_use_is_refused_before_the_wait(
    tag: str, host: LabHost, repository_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that changes meanwhile ends the wait."""
    save(repository_url)
    trigger = deferred(sensor(repository_url))
    connection = json.loads(host.airflow_connection())
    connection["extra"]["ciphers"] = ["aes128-ctr"]
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_HOST_1", json.dumps(connection))
    with pytest.raises(AirflowFailException, match="a trigger cannot use its extra ciphers"):
        sensor(repository_url).execute(context())
    event = fired(trigger)
    assert event["status"] == "refused"
    with pytest.raises(AirflowFailException, match="the triggerer cannot wait for image"):
        sensor(repository_url).execute_complete(context(), event)
