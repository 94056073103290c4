# SPDX-License-Identifier: Apache-2.0
"""Alerts that reach a real HTTP endpoint; ``test_events`` tries failures and deadlines in a whole Airflow."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, mask_secret, redact
from airflow.sdk import AsyncCallback  # type: ignore[attr-defined] # not in Airflow's stub
from airflow.triggers.callback import CallbackTrigger

from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    DockerBackupError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.notifications.webhook import DockerBackupWebhookNotifier
from tests.lab.webhook import LabWebhook, webhook_server

SECRET = "T0/B0/not-for-logs"
CALLBACK = f"{DockerBackupWebhookNotifier.__module__}.{DockerBackupWebhookNotifier.__qualname__}"


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[LabWebhook]:
    """An endpoint, and the connection ``dockerbackup_webhook`` to it."""
    with webhook_server() as server:
        monkeypatch.setenv(
            "AIRFLOW_CONN_DOCKERBACKUP_WEBHOOK",
            server.connection(password="bearer-secret", extra={"path": "alerts?a=1"}),
        )
        yield server


def failed(error: BaseException, *, map_index: int = -1) -> Any:
    """Return the part of a failed task's context that the notifier reads."""
    ti = SimpleNamespace(
        dag_id="nightly", task_id="save", map_index=map_index, try_number=3, log_url="http://airflow.example/log"
    )
    run = SimpleNamespace(dag_id="nightly", run_id="run-1")
    return {"ti": ti, "dag_run": run, "run_id": "run-1", "exception": error, "dag": None}


def permanent(error: DockerBackupError) -> AirflowFailException:
    """Return an error as the operators raise it when trying again is of no use."""
    raised = AirflowFailException(f"{type(error).__name__}: {error}")
    raised.__cause__ = error
    return raised


# As Airflow makes it of a missed deadline: the run as its REST API shows it.
MISSED = {
    "dag_run": {"dag_id": "nightly", "dag_run_id": "scheduled__2026-11-23", "run_type": "scheduled", "conf": {}},
    "deadline": {"id": "0193", "deadline_time": "2026-11-23T05:00:00+00:00"},
}


def notify(context: Any, **options: Any) -> None:
    """Notify as a task's callback does."""
    DockerBackupWebhookNotifier(**options)(context)


def notify_on_a_loop(context: Any, **options: Any) -> None:
    """Notify as a deadline's callback does."""

    async def run() -> None:
        await DockerBackupWebhookNotifier(context=context, **options)

    asyncio.run(run())


BOTH = pytest.mark.parametrize("send", [notify, notify_on_a_loop])


@BOTH
def test_a_failed_task_says_which_and_why(send: Any, webhook: LabWebhook) -> None:
    """The error is the one behind the exception that stops retries; the password goes as a bearer token."""
    send(failed(permanent(NotFoundError("there is no image app:1 on web1")), map_index=4))
    (post,) = webhook.posts
    assert post.path == "/alerts?a=1"
    assert post.headers["Authorization"] == "Bearer bearer-secret"
    assert post.body == {
        "text": "DAG nightly, run run-1, task save [4], try 3: NotFoundError: there is no image app:1 on web1",
        "event": "task_failed",
        "dag_id": "nightly",
        "run_id": "run-1",
        "task_id": "save",
        "map_index": 4,
        "try_number": 3,
        "error": "NotFoundError",
        "message": "there is no image app:1 on web1",
        "reason": None,
        "deadline": None,
        "log_url": "http://airflow.example/log",
    }


@BOTH
def test_other_contexts_say_what_they_know(send: Any, webhook: LabWebhook) -> None:
    """A DAG run has a reason, a deadline a time, a task that succeeded just a name; texts are templates."""
    dag = SimpleNamespace(dag_id="nightly", get_template_env=None)
    send({"run_id": "run-1", "reason": "task_failure", "ti": None, "dag_run": {"dag_id": dag.dag_id}})
    send(dict(MISSED))
    send({key: value for key, value in failed(ValueError()).items() if key != "exception"})
    send(dict(MISSED), text="{{ dag_run.dag_run_id }} is late")
    assert [(post.body["event"], post.body["text"]) for post in webhook.posts] == [
        ("dag_run", "DAG nightly, run run-1: task_failure"),
        (
            "deadline_missed",
            "DAG nightly, run scheduled__2026-11-23: missed its deadline of 2026-11-23T05:00:00+00:00",
        ),
        ("task", "DAG nightly, run run-1, task save"),
        ("deadline_missed", "scheduled__2026-11-23 is late"),
    ]


def test_it_is_a_deadlines_callback(webhook: LabWebhook) -> None:
    """By the way that the triggerer takes: path and arguments as Airflow stores them."""
    callback = AsyncCallback(DockerBackupWebhookNotifier, kwargs={"timeout_seconds": 5}).serialize()
    trigger = CallbackTrigger(callback["path"], {**callback["kwargs"], "context": dict(MISSED)})

    async def events() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    assert callback["path"] == CALLBACK
    assert [event["state"] for event in asyncio.run(events())] == ["running", "success"]
    assert [post.body["event"] for post in webhook.posts] == ["deadline_missed"]


@BOTH
def test_an_endpoint_out_of_order_is_asked_again_and_one_that_refuses_is_not(send: Any, webhook: LabWebhook) -> None:
    """Three attempts in all; a redirection delivers nothing."""
    webhook.statuses[:] = [503, 429, 204]
    send(dict(MISSED))
    assert len(webhook.posts) == 3
    webhook.statuses[:] = [500, 500, 500]
    with pytest.raises(TransientError, match="connection dockerbackup_webhook: its endpoint answered HTTP 500"):
        send(dict(MISSED))
    assert len(webhook.posts) == 6
    for status in (404, 302):
        webhook.statuses[:] = [status]
        with pytest.raises(ConfigurationError, match=f"answered HTTP {status}; see its URL"):
            send(dict(MISSED))
    assert len(webhook.posts) == 8


def connect_chat(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let connection ``chat`` have this URL, and no password besides."""
    monkeypatch.setenv("AIRFLOW_CONN_CHAT", json.dumps({"conn_type": "http", "extra": {"webhook_url": url}}))


@BOTH
def test_neither_log_nor_error_shows_the_url(
    send: Any, webhook: LabWebhook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The URL of a chat's webhook is its password: not when it works, not when nothing listens there."""
    caplog.set_level(logging.INFO, logger="airflow_provider_dockerbackup")
    url = f"http://127.0.0.1:{webhook.port}/{SECRET}"
    connect_chat(monkeypatch, url)
    send(dict(MISSED), webhook_conn_id="chat")
    assert [post.path for post in webhook.posts] == [f"/{SECRET}"]
    connect_chat(monkeypatch, f"http://127.0.0.1:1/{SECRET}")
    with pytest.raises(TransientError, match=r"its endpoint was not reached \(ConnectError\)") as caught:
        send(dict(MISSED), webhook_conn_id="chat")
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert SECRET not in "".join(str(each) for each in chain) + caplog.text


@BOTH
def test_where_airflow_masks_secrets_no_library_logs_the_url(
    send: Any, webhook: LabWebhook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The HTTP client logs each request, where somebody raises its level, with the host in lower case."""
    caplog.set_level(logging.INFO, logger="httpx")
    url = f"http://LOCALHOST:{webhook.port}/hooks/of-a-chat?key=in-the-query"
    connect_chat(monkeypatch, url)
    send(dict(MISSED), webhook_conn_id="chat")
    assert [post.path for post in webhook.posts] == ["/hooks/of-a-chat?key=in-the-query"]
    logged = str(redact(caplog.text))
    assert f"HTTP Request: POST http://localhost:{webhook.port}" in logged
    assert "of-a-chat" not in logged
    assert "in-the-query" not in logged


def test_secrets_that_airflow_knows_are_masked(webhook: LabWebhook) -> None:
    """An error of a library may hold what a connection holds."""
    mask_secret("hunter2-hunter2")
    notify(failed(ValueError("cannot log in with hunter2-hunter2")))
    assert "hunter2" not in str(webhook.posts[0].body)
    assert webhook.posts[0].body["message"] == "cannot log in with ***"


def test_secrets_are_masked_in_every_part_of_an_alert(webhook: LabWebhook) -> None:
    """Not in errors alone: a reason, a run's id and a text of one's own may hold one."""
    mask_secret("hunter3-hunter3")
    told = {**MISSED, "run_id": "run hunter3-hunter3", "reason": "hunter3-hunter3"}
    notify(told)
    notify(dict(MISSED), text="see hunter3-hunter3")
    assert [post.body["text"].count("***") for post in webhook.posts] == [1, 1]
    assert (webhook.posts[0].body["run_id"], webhook.posts[0].body["reason"]) == ("run ***", "***")
    assert "hunter3" not in str([post.body for post in webhook.posts])


@pytest.mark.parametrize("made", [ValueError, str])
def test_a_secret_at_which_a_long_error_is_cut_is_masked(made: Any, webhook: LabWebhook) -> None:
    """Of its first half alone nobody would know that it is one."""
    mask_secret("pass-of-the-registry")
    notify(failed(made("x" * 1990 + "pass-of-the-registry" + "y" * 100)))
    message = webhook.posts[0].body["message"]
    assert message.startswith("x" * 1990 + "***")
    assert (len(message), "pass-of" in str(webhook.posts[0].body)) == (2000, False)


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"login": "jane", "password": "pw-of-jane"}, {"Authorization": "Basic amFuZTpwdy1vZi1qYW5l"}),
        ({"extra": {"headers": {"X-Api-Key": "key-of-jane"}}}, {"X-Api-Key": "key-of-jane"}),
    ],
)
def test_what_proves_the_sender_comes_from_the_connection(
    fields: dict[str, Any], sent: dict[str, str], webhook: LabWebhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Basic authentication with a login; any header."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", webhook.connection(**fields))
    notify(dict(MISSED), webhook_conn_id="other")
    assert sent.items() <= webhook.posts[0].headers.items()


@BOTH
@pytest.mark.parametrize(
    ("connection", "said"),
    [
        (None, "there is no connection 'other'"),
        ('{"conn_type": "http"}', "connection other: expected the URL of a webhook"),
        ('{"conn_type": "http", "extra": {"webhook_url": "ftp://x/y"}}', "expected the URL of a webhook"),
        ('{"conn_type": "http", "host": "x", "extra": {"headers": "X: y"}}', "connection other: headers: expected"),
    ],
)
def test_a_connection_that_cannot_be_used_is_named(
    connection: str | None, said: str, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is sent."""
    if connection:
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", connection)
    with pytest.raises(ConfigurationError, match=said):
        send(dict(MISSED), webhook_conn_id="other")
