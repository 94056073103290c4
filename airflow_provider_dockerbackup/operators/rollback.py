# SPDX-License-Identifier: Apache-2.0
"""Roll a tag back on a Docker host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.drill import DrillPlan
from airflow_provider_dockerbackup.core.rollback import PREVIOUS, Proof, RollbackRequest, find_backup, roll_back
from airflow_provider_dockerbackup.links.backup import BackupLink
from airflow_provider_dockerbackup.operators.base import DockerHostOperator, actor_of
from airflow_provider_dockerbackup.operators.reading import ReadsBackups
from airflow_provider_dockerbackup.operators.rendered import flag, whole_number
from airflow_provider_dockerbackup.operators.summary import RollbackSummary

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.core.rollback import RollbackOutcome


class DockerBackupRollbackOperator(ReadsBackups, DockerHostOperator):
    """Point a tag of a Docker host back to an earlier backup, or to an earlier step of an archived image's history.

    The image is loaded, compared and run in a test daemon first, then loaded onto the host and compared; the tag moves
    last, and what it stood for stays there as ``<name>:before-<backup id>``. No container is touched.

    :param tag: ``name:tag`` on the host. (templated)
    :param repository: URL of the repository. (templated)
    :param backup_id: id of the backup, an unambiguous beginning of it, or ``previous``: the newest backup of this tag
        of this host that holds another image than the tag stands for now; of a tag that was rolled back already, that
        same backup, so that a retry changes nothing. (templated)
    :param step: how many steps of the image's history are kept, oldest first, as ``dockerbackup history`` numbers
        them; None for the image as it was saved. Configuration values that the history does not tell are taken from
        the image and reported as guessed. (templated)
    :param prove: what the test daemon does with the image first: ``run``, ``load``, or ``none``. (templated)
    :param drill: how it is run there: fields of :class:`~airflow_provider_dockerbackup.core.drill.DrillPlan` that
        differ from its defaults. (templated)
    :param test_daemon: URL of a Docker daemon that is neither the source's nor this host's; None starts an empty
        throw-away ``dockerd`` on the worker, which needs root and docker.io there. (templated)
    :param plan_only: a dry run: say what would be done and touch nothing. (templated)
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :param archive_host_conn_ids: connections of the Docker hosts on which archives lie; None takes ``[dockerbackup]
        archive_host_conn_ids``. (templated)
    :param dockerbackup_conn_id: connection of type ``dockerbackup`` or ``ssh`` that reaches the host. (templated)
    :return: a :class:`~airflow_provider_dockerbackup.operators.summary.RollbackSummary`.
    """

    template_fields: Sequence[str] = (
        "tag",
        "repository",
        "backup_id",
        "step",
        "prove",
        "drill",
        "test_daemon",
        "plan_only",
        "repository_conn_id",
        "archive_host_conn_ids",
        "dockerbackup_conn_id",
    )

    operator_extra_links = (BackupLink(),)
    metric = "rollback"

    def __init__(
        self,
        *,
        tag: str,
        repository: str,
        backup_id: str = PREVIOUS,
        step: int | str | None = None,
        prove: Proof = "run",
        drill: Mapping[str, Any] | None = None,
        test_daemon: str | None = None,
        plan_only: bool | str = False,
        repository_conn_id: str | None = None,
        archive_host_conn_ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tag = tag
        self.repository = repository
        self.backup_id = backup_id
        self.step = step
        self.prove = prove
        self.drill = drill
        self.test_daemon = test_daemon
        self.plan_only = plan_only
        self.repository_conn_id = repository_conn_id
        self.archive_host_conn_ids = archive_host_conn_ids

    def work(self, context: Context) -> RollbackSummary:
        """Roll the tag back."""
        from airflow_provider_dockerbackup.transport.given_daemon import test_daemon_at

        request = RollbackRequest(
            tag=self.tag,
            step=None if self.step is None or self.step in {"", "None"} else whole_number("step", self.step),
            prove=self.prove,
            drill=DrillPlan.of(self.drill or {}),
            dry_run=flag("plan_only", self.plan_only),
            actor=actor_of(context),
        )
        repository = self._opened()
        with self.hook.docker_host() as host:
            backup = find_backup(repository, self.backup_id, tag=self.tag, host=host, step=request.step)
            outcome = roll_back(
                backup,
                request,
                host=host,
                repository=repository,
                test_daemon=partial(test_daemon_at, self.test_daemon or None, progress=self.progress),
                progress=self.progress,
            )
            verb = "would stand" if request.dry_run else "stands"
            step = "" if outcome.step is None else f" at step {outcome.step}"
            self.log.info("%s on %s %s for backup %s%s", outcome.tag, host.name, verb, backup.backup_id, step)
            if outcome.kept:
                self.log.info("what it stood for before: %s", outcome.kept)
            if outcome.guessed:
                self.log.warning("not told by the history, so guessed: %s", ", ".join(outcome.guessed))
            for note in outcome.notes:
                self.log.info("%s", note)
            return _summary(
                outcome,
                backup_source=str(backup.source),
                host=host.name,
                dry_run=request.dry_run,
                audit_head=repository.audit_head,
            )


def _summary(
    outcome: RollbackOutcome, *, backup_source: str, host: str, dry_run: bool, audit_head: str | None
) -> RollbackSummary:
    return RollbackSummary(
        backup_id=outcome.backup_id,
        backup_source=backup_source,
        host=host,
        tag=outcome.tag,
        step=outcome.step,
        image_id=outcome.image_id,
        previous_id=outcome.previous_id,
        kept=outcome.kept,
        exact=list(outcome.exact),
        guessed=list(outcome.guessed),
        proven=list(outcome.proven),
        passed_by=outcome.drill.passed_by if outcome.drill else None,
        seconds=outcome.seconds,
        dry_run=dry_run,
        notes=list(outcome.notes),
        audit_head=audit_head,
    )
