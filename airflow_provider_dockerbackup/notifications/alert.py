# SPDX-License-Identifier: Apache-2.0
"""What an alert says: read from the context of a callback, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, cast

from airflow.providers.common.compat.sdk import redact

# Longer ones are cut: chat systems refuse what is too long, and the log has all of it.
_ERROR_CHARACTERS = 2000


class Alert(TypedDict):
    """The JSON body of an alert; what a callback's context does not tell is None.

    ``text`` is one sentence for people, under the name that chat systems read. ``error`` is the class of the error, as
    docs/how-to/troubleshooting.md explains it.
    """

    text: str
    event: Literal["task_failed", "deadline_missed", "dag_run", "task"]
    dag_id: str | None
    run_id: str | None
    task_id: str | None
    map_index: int | None
    try_number: int | None
    error: str | None
    message: str | None
    reason: str | None
    deadline: str | None
    log_url: str | None


def alert_of(context: Mapping[str, Any], *, text: str = "") -> Alert:
    """Return the alert for a context of a task, of a DAG run, or of a missed deadline, without secrets.

    :param text: instead of the sentence that would be said.
    """
    ti, run = context.get("ti"), context.get("dag_run")
    error, message = _error(context.get("exception"))
    deadline = context.get("deadline")
    alert = Alert(
        text=text,
        event=_event(context),
        dag_id=_of(run, "dag_id") or _of(ti, "dag_id") or _of(context.get("dag"), "dag_id"),
        # The context of a deadline has the run as the REST API shows it.
        run_id=context.get("run_id") or _of(run, "run_id") or _of(run, "dag_run_id"),
        task_id=_of(ti, "task_id"),
        map_index=_of(ti, "map_index"),
        try_number=_of(ti, "try_number"),
        error=error,
        message=message,
        reason=None if context.get("reason") is None else str(context["reason"]),
        deadline=None if deadline is None else str(_of(deadline, "deadline_time")),
        log_url=_of(ti, "log_url"),
    )
    if not text:
        alert["text"] = _sentence(alert)
    return cast("Alert", redact(dict(alert)))


def _event(context: Mapping[str, Any]) -> Literal["task_failed", "deadline_missed", "dag_run", "task"]:
    if "deadline" in context:
        return "deadline_missed"
    if context.get("reason") is not None or context.get("ti") is None:
        return "dag_run"
    return "task_failed" if context.get("exception") is not None else "task"


def _error(exception: Any) -> tuple[str | None, str | None]:
    """Return class and message of an error; of one that stops retries, those of what it stands for."""
    if exception is None:
        return None, None
    if not isinstance(exception, BaseException):
        return None, _shortened(exception)
    cause = exception.__cause__
    told = cause if cause is not None and str(exception) == f"{type(cause).__name__}: {cause}" else exception
    return type(told).__name__, _shortened(told)


def _shortened(error: Any) -> str:
    # Masked before it is cut: of a secret that is cut in two Airflow knows neither half.
    return str(redact(str(error)))[:_ERROR_CHARACTERS]


def _sentence(alert: Alert) -> str:
    where = f"DAG {alert['dag_id']}, run {alert['run_id']}"
    if alert["event"] == "deadline_missed":
        return f"{where}: missed its deadline of {alert['deadline']}"
    if alert["event"] == "dag_run":
        return f"{where}: {alert['reason'] or 'ended'}"
    index = alert["map_index"]
    where += f", task {alert['task_id']}" + ("" if index in {None, -1} else f" [{index}]")
    if alert["event"] == "task":
        return where
    said = ": ".join(each for each in (alert["error"], alert["message"]) if each)
    return f"{where}, try {alert['try_number']}: {said}"


def _of(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)
