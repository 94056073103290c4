# SPDX-License-Identifier: Apache-2.0
"""See that every source has a fresh backup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, get_args

from airflow_provider_dockerbackup.core.freshness import Rpo, SourceFreshness, Trust, freshness
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.exceptions import ConfigurationError, StaleError
from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator
from airflow_provider_dockerbackup.operators.rendered import columns
from airflow_provider_dockerbackup.operators.summary import FreshnessSummary, StaleSource

if TYPE_CHECKING:
    from airflow.sdk import Context


class DockerBackupFreshnessOperator(DockerBackupBaseOperator):
    """Fail when a source of a repository has no backup within its recovery point objective (RPO).

    It reads records, not Airflow's history: a backup DAG that is paused, deleted or never ran is noticed too. Give it a
    schedule of its own.

    :param repository: URL of the repository. (templated)
    :param rpo: how old the newest backup of a source may be: ``36h``, ``7d``. (templated)
    :param rpo_by_source: shell patterns of ``host kind name`` or of the name → another such limit. (templated)
    :param trust: which backups count: ``verified`` ones, or ``any`` that did not fail a verification. (templated)
    :param required: sources that must have one, so that one that was never backed up is noticed: ``HOST KIND NAME``, or
        mappings with ``host``, ``kind`` and ``source``, such as summaries of backups. (templated)
    :param fail: whether a source without a fresh backup fails the task; else it is returned only.
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :return: a :class:`~airflow_provider_dockerbackup.operators.summary.FreshnessSummary`.
    """

    template_fields: Sequence[str] = (
        "repository",
        "rpo",
        "rpo_by_source",
        "trust",
        "required",
        "repository_conn_id",
    )
    metric = "freshness"

    def __init__(
        self,
        *,
        repository: str,
        rpo: str = "36h",
        rpo_by_source: Mapping[str, str] | None = None,
        trust: str = "verified",
        required: Sequence[str | Mapping[str, Any]] = (),
        fail: bool = True,
        repository_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repository = repository
        self.rpo = rpo
        self.rpo_by_source = rpo_by_source
        self.trust = trust
        self.required = required
        self.fail = fail
        self.repository_conn_id = repository_conn_id

    def work(self, context: Context) -> FreshnessSummary:
        """Look at each source."""
        from airflow_provider_dockerbackup.hooks.storage import existing_repository
        from airflow_provider_dockerbackup.operators.metrics import tell_age, tell_stale

        if self.trust not in get_args(Trust):
            raise ConfigurationError(f"trust: expected one of {', '.join(get_args(Trust))}, got {self.trust!r}")
        rpo = Rpo.parse(self.rpo, self.rpo_by_source or {})
        required = [_source(each) for each in self.required]
        repository = existing_repository(self.repository, conn_id=self.repository_conn_id)
        found = freshness(
            repository.catalog.each(),
            rpo=rpo,
            now=repository.clock.now(),
            trust=cast("Trust", self.trust),
            required=required,
        )
        table = [(str(each.source), _age(each), str(each.limit), each.state) for each in found]
        for line in columns(("SOURCE", "NEWEST", "LIMIT", "STATE"), table):
            self.log.info("%s", line)
        late = [each for each in found if each.state != "ok"]
        for each in found:
            if each.age_seconds is not None:
                tell_age(each.source, each.age_seconds)
        tell_stale(len(late), repository=repository.storage.url, context=context)
        if late and self.fail:
            names = "; ".join(f"{each.source} ({_age(each)}, limit {each.limit})" for each in late[:20])
            more = f" and {len(late) - 20} more" if len(late) > 20 else ""
            raise StaleError(
                f"{len(late)} of {len(found)} sources in {repository.storage.url} have no fresh backup: {names}{more}; "
                "see whether their DAG is paused or fails, and whether verifications run"
            )
        return FreshnessSummary(
            repository=repository.storage.url,
            sources=len(found),
            stale=[
                StaleSource(
                    host=each.source.host,
                    kind=each.source.kind.value,
                    source=each.source.name,
                    state=each.state,
                    age_seconds=each.age_seconds,
                    limit=str(each.limit),
                )
                for each in late[:100]
            ],
        )


def _source(given: str | Mapping[str, Any]) -> Source:
    try:
        if isinstance(given, str):
            return Source.parse(given)
        return Source(host=given["host"], kind=SourceKind(given["kind"]), name=given["source"])
    except (KeyError, TypeError, ValueError) as err:
        raise ConfigurationError(
            f"required: expected 'HOST image|container NAME', or host, kind and source, of each, got {given!r}"
        ) from err


def _age(each: SourceFreshness) -> str:
    if each.age_seconds is None:
        return "none"
    hours = each.age_seconds / 3600
    return f"{hours:.1f} h ago" if hours < 72 else f"{hours / 24:.1f} days ago"
