# SPDX-License-Identifier: Apache-2.0
"""Alerts as JSON to an HTTP endpoint: a chat's incoming webhook, an alert manager's receiver, a script of one's own."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import BaseNotifier, mask_secret
from tenacity import AsyncRetrying, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from airflow_provider_dockerbackup.exceptions import ConfigurationError, TransientError
from airflow_provider_dockerbackup.notifications.alert import Alert, alert_of

if TYPE_CHECKING:
    from airflow.sdk import Connection, Context

_TOO_MANY, _SERVER_ERRORS = 429, 500
# An alert must not hold up for long what it tells of.
_ATTEMPTS = 3
_PATIENCE: Mapping[str, Any] = {
    "stop": stop_after_attempt(_ATTEMPTS),
    "wait": wait_exponential(multiplier=0.5, max=4),
    "retry": retry_if_exception_type(TransientError),
    "reraise": True,
}


class DockerBackupWebhookNotifier(BaseNotifier):
    """Post an :class:`~airflow_provider_dockerbackup.notifications.alert.Alert` as JSON to a URL.

    As ``on_failure_callback`` of tasks, DAGs and ``default_args`` it says which task failed why; as the callback of a
    ``DeadlineAlert``, which DAG run is late. What it needs is in the connection, so that no secret is in a DAG.

    :param webhook_conn_id: connection with the URL: extra ``webhook_url``, or schema, host and port with the extra
        ``path``. A password is sent as bearer token, with a login as basic authentication; the extra ``headers``
        is an object of others to send.
    :param text: sentence for people instead of the one that would be said. (templated)
    :param timeout_seconds: how long each of three attempts may take.
    """

    template_fields: Sequence[str] = ("text",)

    def __init__(
        self,
        *,
        webhook_conn_id: str = "dockerbackup_webhook",
        text: str = "",
        timeout_seconds: float = 10.0,
        **kwargs: Any,
    ) -> None:
        self.webhook_conn_id = webhook_conn_id
        self.text = text
        self.timeout_seconds = timeout_seconds
        super().__init__(**kwargs)

    def notify(self, context: Context) -> None:
        """Post the alert, from a worker or the DAG processor.

        :raises ConfigurationError: when the connection is wrong, or its endpoint refuses the alert.
        :raises TransientError: when the endpoint was not reached, or is out of order.
        """
        import httpx

        from airflow_provider_dockerbackup.hooks.connection import connection_of

        connection = connection_of(self.webhook_conn_id)
        webhook = Webhook.of(connection, connection.extra_dejson)
        alert = alert_of(context, text=self.text)
        with httpx.Client(timeout=self.timeout_seconds) as client:
            for attempt in Retrying(**_PATIENCE):
                with attempt:
                    try:
                        answer = client.post(webhook.url, json=alert, headers=webhook.headers)
                    except (httpx.HTTPError, httpx.InvalidURL) as err:
                        raise webhook.not_reached(err) from err
                    webhook.require_taken(answer.status_code)
        self._told(alert)

    async def async_notify(self, context: Context) -> None:
        """Post the alert, from the triggerer; raises what :meth:`notify` does."""
        import httpx
        from airflow.providers.common.compat.connection import get_async_extra_dejson

        from airflow_provider_dockerbackup.hooks.connection import async_connection_of

        connection = await async_connection_of(self.webhook_conn_id)
        webhook = Webhook.of(connection, await get_async_extra_dejson(connection))
        alert = alert_of(context, text=self.text)
        async with httpx.AsyncClient(timeout=self.timeout_seconds) as client:
            async for attempt in AsyncRetrying(**_PATIENCE):
                with attempt:
                    try:
                        answer = await client.post(webhook.url, json=alert, headers=webhook.headers)
                    except (httpx.HTTPError, httpx.InvalidURL) as err:
                        raise webhook.not_reached(err) from err
                    webhook.require_taken(answer.status_code)
        self._told(alert)

    def _told(self, alert: Alert) -> None:
        self.log.info("alert sent through connection %s: %s", self.webhook_conn_id, alert["text"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where alerts go and what proves who sends them; the URL itself may be a secret and is never shown.

    :param conn_id: the connection that says so, for messages.
    """

    conn_id: str
    url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)

    @classmethod
    def of(cls, connection: Connection, extra: Mapping[str, Any]) -> Webhook:
        """Return what a connection says.

        :raises ConfigurationError: names what is missing or wrong.
        """
        conn_id, password = connection.conn_id, connection.password or ""
        url = str(extra.get("webhook_url") or "") or _url_of(connection, str(extra.get("path") or ""))
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError(
                f"connection {conn_id}: expected the URL of a webhook, http:// or https:// with a host, in the extra "
                "webhook_url, or in schema, host and the extra path"
            )
        given = extra.get("headers") or {}
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"connection {conn_id}: headers: expected an object of names and values")
        headers = {str(name): str(value) for name, value in given.items()}
        # Where somebody raises httpx's log level, it logs each URL, with the host in a spelling of its own.
        for secret in (parts._replace(scheme="", netloc="").geturl(), *headers.values()):
            mask_secret(secret)
        if connection.login:
            headers["Authorization"] = "Basic " + b64encode(f"{connection.login}:{password}".encode()).decode()
        elif password:
            headers["Authorization"] = f"Bearer {password}"
        return cls(conn_id=conn_id, url=url, headers=headers)

    def not_reached(self, err: Exception) -> TransientError:
        """Return the error for a request that got no answer."""
        return TransientError(
            f"an alert was not delivered through connection {self.conn_id}: its endpoint was not reached "
            f"({type(err).__name__}); see whether URL and proxy are right, and what the task's own log says"
        )

    def require_taken(self, status: int) -> None:
        """Refuse every answer but success; a redirection is none, for the alert would be lost behind it."""
        if 200 <= status < 300:
            return
        said = f"an alert was not delivered through connection {self.conn_id}: its endpoint answered HTTP {status}"
        if status == _TOO_MANY or status >= _SERVER_ERRORS:
            raise TransientError(f"{said}; it may be out of order")
        raise ConfigurationError(f"{said}; see its URL, its password and what it expects")


def _url_of(connection: Connection, path: str) -> str:
    """Return the URL that the fields of a connection make."""
    if not connection.host:
        return ""
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.schema or 'https'}://{connection.host}{port}/{quote(path.lstrip('/'), safe='/?&=%:@+,;~')}"
