# SPDX-License-Identifier: Apache-2.0
"""Stop a container of a Docker host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.stop import StopRequest, stop_source
from airflow_provider_dockerbackup.operators.base import DockerHostOperator, actor_of
from airflow_provider_dockerbackup.operators.rendered import flag, whole_number
from airflow_provider_dockerbackup.operators.summary import StopSummary

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.core.stop import StopOutcome


class DockerStopOperator(DockerHostOperator):
    """Run ``docker stop``, so that an export that follows is of a container that nothing changes any more.

    The intent is in the repository's audit trail before the container is touched, or it runs on. One that was started
    with ``--rm`` is refused: stopped it would be gone.

    :param container: name or full ID of the container. (templated)
    :param repository: URL of the repository whose audit trail says so; it must exist. (templated)
    :param timeout_seconds: after this long it is ended by force; None is the container's own stop timeout, else 10.
        (templated)
    :param plan_only: a dry run: say what would be done and touch nothing. (templated)
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :param dockerbackup_conn_id: connection of type ``dockerbackup`` or ``ssh`` that reaches the host. (templated)
    :return: a :class:`~airflow_provider_dockerbackup.operators.summary.StopSummary`.
    """

    template_fields: Sequence[str] = (
        "container",
        "repository",
        "timeout_seconds",
        "plan_only",
        "repository_conn_id",
        "dockerbackup_conn_id",
    )

    def __init__(
        self,
        *,
        container: str,
        repository: str,
        timeout_seconds: int | str | None = None,
        plan_only: bool | str = False,
        repository_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.container = container
        self.repository = repository
        self.timeout_seconds = timeout_seconds
        self.plan_only = plan_only
        self.repository_conn_id = repository_conn_id

    def work(self, context: Context) -> StopSummary:
        """Stop the container."""
        from airflow_provider_dockerbackup.hooks.storage import existing_repository

        request = StopRequest(
            name=self.container,
            timeout_seconds=_seconds(self.timeout_seconds),
            dry_run=flag("plan_only", self.plan_only),
            actor=actor_of(context),
        )
        repository = existing_repository(self.repository, conn_id=self.repository_conn_id)
        with self.hook.docker_host() as host:
            outcome = stop_source(request, host=host, repository=repository, progress=self.progress)
            verb = "would be" if request.dry_run else "is"
            self.log.info("container %s on %s %s %s", self.container, host.name, verb, outcome.status)
            return _summary(outcome, dry_run=request.dry_run)


def _seconds(value: int | str | None) -> int | None:
    if value is None or value in {"", "None"}:
        return None
    return whole_number("timeout_seconds", value)


def _summary(outcome: StopOutcome, *, dry_run: bool) -> StopSummary:
    return StopSummary(
        host=outcome.source.host,
        container=outcome.source.name,
        container_id=outcome.container_id,
        status=outcome.status,
        exit_code=outcome.exit_code,
        finished_at=outcome.finished_at,
        dry_run=dry_run,
        audit_head=outcome.audit_head,
    )
