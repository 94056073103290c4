# SPDX-License-Identifier: Apache-2.0
"""Make a checkpoint of the audit trail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.audit.checkpoint import CheckpointRequest, make_checkpoint
from airflow_provider_dockerbackup.core.audit.signature import PublicKey
from airflow_provider_dockerbackup.exceptions import IntegrityError
from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator, actor_of
from airflow_provider_dockerbackup.operators.summary import CheckpointSummary

if TYPE_CHECKING:
    from airflow.sdk import Context


class DockerBackupCheckpointOperator(DockerBackupBaseOperator):
    """Make one audit event that names every event which no other names yet, so that none can vanish unseen.

    Changes whose outcome a dead process did not tell are told first. An event that is damaged, or that no trusted key
    signed although there is a signing key, is left out and fails the task, after the checkpoint was made.

    :param repository: URL of the repository. (templated)
    :param public_keys: Ed25519 public keys, PEM or OpenSSH, that are trusted besides the configured signing key: former
        ones, or those of other workers. (templated)
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :return: a :class:`~airflow_provider_dockerbackup.operators.summary.CheckpointSummary`.
    """

    template_fields: Sequence[str] = ("repository", "public_keys", "repository_conn_id")

    def __init__(
        self,
        *,
        repository: str,
        public_keys: Sequence[str] = (),
        repository_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repository = repository
        self.public_keys = public_keys
        self.repository_conn_id = repository_conn_id

    def work(self, context: Context) -> CheckpointSummary:
        """Make it."""
        from airflow_provider_dockerbackup.hooks.storage import existing_repository

        keys = [PublicKey.parse(each.encode(), where="public_keys") for each in self.public_keys]
        repository = existing_repository(self.repository, conn_id=self.repository_conn_id)
        request = CheckpointRequest(keys=keys, actor=actor_of(context))
        made = make_checkpoint(repository, request, progress=self.progress)
        if made.left_out:
            self.log.info("audit head %s", made.audit_head)
            raise IntegrityError(
                f"{len(made.left_out)} objects of the audit trail are damaged or not signed by a trusted key: "
                f"{', '.join(made.left_out[:3])}; 'dockerbackup audit verify' tells more"
            )
        self.log.info("checkpoint %d, %d new events", made.sequence, made.events)
        return CheckpointSummary(
            made=made.made,
            sequence=made.sequence,
            events=made.events,
            left_out=list(made.left_out),
            reconciled=made.reconciled,
            audit_head=made.audit_head,
        )
