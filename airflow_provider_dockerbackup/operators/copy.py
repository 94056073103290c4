# SPDX-License-Identifier: Apache-2.0
"""Copy backups of a repository into another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.archive.compression import Compression, check_compression
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.convert import require_apart
from airflow_provider_dockerbackup.core.copies.copy import CopyRequest, copy, target_on
from airflow_provider_dockerbackup.core.copies.selection import Selection
from airflow_provider_dockerbackup.core.encryption.recipient import parse_recipients
from airflow_provider_dockerbackup.core.retention.duration import Duration
from airflow_provider_dockerbackup.core.sizes import size_text
from airflow_provider_dockerbackup.exceptions import IntegrityError
from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator, actor_of
from airflow_provider_dockerbackup.operators.reading import ReadsBackups
from airflow_provider_dockerbackup.operators.rendered import flag, whole_number
from airflow_provider_dockerbackup.operators.summary import CopySummary

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.core.bringing.run import RunOutcome


class DockerBackupCopyOperator(ReadsBackups, DockerBackupBaseOperator):
    """Copy backups into another repository, such as one at a second site; the source is only read.

    Only what is missing there travels. Each backup keeps its id, points and holds, and what was written is read back
    before it counts; run again after an interruption, it goes on. Copies start as not verified: verify them there.

    :param repository: URL of the repository to copy from. (templated)
    :param target_repository: URL of the repository to copy into; it is created when there is none. (templated)
    :param backup_ids: these backups alone, each a whole id or an unambiguous beginning; None for all that the following
        four choose. (templated)
    :param hosts: shell patterns of Docker hosts, by their name in the repository. (templated)
    :param names: shell patterns of image references and container names. (templated)
    :param newest: of each source only so many of the newest that can be restored; None for all. (templated)
    :param since: only backups whose newest point lies within this duration, such as ``7d``; None for all. (templated)
    :param layout: layout of a new target; None for that of the source. (templated)
    :param compression: of archives that cannot go as they are stored: ``none``, ``gzip`` or ``zstd``; None takes the
        target's own. (templated)
    :param compression_level: level, None for the compression's default.
    :param compression_threads: how many threads compress, in layout ``layers``.
    :param bandwidth_limit: bytes a second that may be read from the source; None for no limit.
    :param recipients: age recipients to which backups in a new target are encrypted; none for those of the source. An
        existing target must have the same, unless none are given. (templated)
    :param allow_single_recipient: accept only one recipient. (templated)
    :param plan_only: a dry run: say what would be copied, and write nothing. (templated)
    :param repository_conn_id: connection with the credentials of the source's storage, where it needs any. (templated)
    :param target_repository_conn_id: the same for the target's storage. (templated)
    :param archive_host_conn_ids: connections of the Docker hosts on which archives of the source lie; None takes
        ``[dockerbackup] archive_host_conn_ids``. (templated)
    :return: a :class:`~airflow_provider_dockerbackup.operators.summary.CopySummary`; a backup that cannot be copied
        fails the task, after all others were tried.
    """

    template_fields: Sequence[str] = (
        "repository",
        "target_repository",
        "backup_ids",
        "hosts",
        "names",
        "newest",
        "since",
        "layout",
        "compression",
        "recipients",
        "allow_single_recipient",
        "plan_only",
        "repository_conn_id",
        "target_repository_conn_id",
        "archive_host_conn_ids",
    )

    metric = "copy"

    def __init__(
        self,
        *,
        repository: str,
        target_repository: str,
        backup_ids: Sequence[str] | None = None,
        hosts: Sequence[str] = ("*",),
        names: Sequence[str] = ("*",),
        newest: int | str | None = None,
        since: str | None = None,
        layout: str | None = None,
        compression: str | None = None,
        compression_level: int | None = None,
        compression_threads: int = 2,
        bandwidth_limit: int | None = None,
        recipients: Sequence[str] = (),
        allow_single_recipient: bool | str = False,
        plan_only: bool | str = False,
        repository_conn_id: str | None = None,
        target_repository_conn_id: str | None = None,
        archive_host_conn_ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repository = repository
        self.target_repository = target_repository
        self.backup_ids = backup_ids
        self.hosts = hosts
        self.names = names
        self.newest = newest
        self.since = since
        self.layout = layout
        self.compression = compression
        self.compression_level = compression_level
        self.compression_threads = compression_threads
        self.bandwidth_limit = bandwidth_limit
        self.recipients = recipients
        self.allow_single_recipient = allow_single_recipient
        self.plan_only = plan_only
        self.repository_conn_id = repository_conn_id
        self.target_repository_conn_id = target_repository_conn_id
        self.archive_host_conn_ids = archive_host_conn_ids

    def work(self, context: Context) -> CopySummary:
        """Copy."""
        from airflow_provider_dockerbackup.hooks.signing import configured_signer
        from airflow_provider_dockerbackup.hooks.storage import storage_of, without_userinfo
        from airflow_provider_dockerbackup.transport.storage import place_of

        request = self._request(context)
        require_apart(*(place_of(without_userinfo(url)) for url in (self.repository, self.target_repository)))
        source = self._opened()
        storage = storage_of(self.target_repository, conn_id=self.target_repository_conn_id)
        target = target_on(storage, request, source=source, signer=configured_signer())
        outcome = copy(request, source=source, target=target, progress=self.progress)
        summary = _summary(outcome, source_url=source.storage.url, target_url=storage.url, dry_run=request.dry_run)
        self.log.info(
            "%d %s, %d finished, %d there already, %d skipped, %s stored",
            summary["copied"],
            "would be copied" if request.dry_run else "copied",
            *(summary["finished"], summary["already"], summary["skipped"]),
            size_text(summary["new_bytes"]),
        )
        if outcome.failed and outcome.audit_head:
            self.log.info("audit head %s", outcome.audit_head)
        _require_none_failed(outcome, source_url=source.storage.url)
        return summary

    def _request(self, context: Context) -> CopyRequest:
        """Return the request, of values that templates may have rendered to text."""
        check_compression(self.compression, level=self.compression_level)
        single = flag("allow_single_recipient", self.allow_single_recipient)
        return CopyRequest(
            selection=Selection(
                backup_ids=() if self.backup_ids is None else self.backup_ids,
                hosts=self.hosts,
                names=self.names,
                newest=None if self.newest is None else whole_number("newest", self.newest),
                since=None if self.since is None else Duration.parse(self.since, what="since"),
            ),
            layout=self.layout,
            compression=Compression(self.compression) if self.compression else None,
            recipients=parse_recipients(self.recipients, allow_single=single),
            tuning=Tuning(
                level=self.compression_level, threads=self.compression_threads, bandwidth_limit=self.bandwidth_limit
            ),
            dry_run=flag("plan_only", self.plan_only),
            actor=actor_of(context),
        )


def _require_none_failed(outcome: RunOutcome, *, source_url: str) -> None:
    """Fail the task when a backup could not be copied, or in a dry run could not be.

    :raises IntegrityError: names the first few, with their reasons.
    """
    if failed := outcome.failed:
        names = "; ".join(f"{each.decision.backup_id} of {each.decision.source}: {each.reason}" for each in failed[:5])
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise IntegrityError(
            f"{len(failed)} of {len(outcome.planned)} backups in {source_url} could not be copied, the others were "
            f"tried: {names}{more}"
        )


def _summary(outcome: RunOutcome, *, source_url: str, target_url: str, dry_run: bool) -> CopySummary:
    if dry_run:
        done = {"copy": "copied", "finish": "finished"}
        states = [(each, done.get(each.state, each.state)) for each in outcome.planned]
    else:
        states = [(each.decision, str(each.state)) for each in outcome.results]
    counts = Counter(state for _, state in states)
    return CopySummary(
        repository=source_url,
        target_repository=target_url,
        copied=counts["copied"],
        copied_ids=[each.backup_id for each, state in states if state == "copied"][:100],
        finished=counts["finished"],
        already=counts["already"],
        skipped=counts["skipped"],
        new_bytes=sum(each.new_bytes for each in outcome.results),
        dry_run=dry_run,
        audit_head=outcome.audit_head,
    )
