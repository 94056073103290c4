# SPDX-License-Identifier: Apache-2.0
"""Choose backups for a restore drill."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.sample import Pick, SampleRequest, draw_sample
from airflow_provider_dockerbackup.core.since import Level
from airflow_provider_dockerbackup.exceptions import ConfigurationError, NotFoundError
from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator, actor_of
from airflow_provider_dockerbackup.operators.rendered import whole_number
from airflow_provider_dockerbackup.operators.summary import SampledBackup

if TYPE_CHECKING:
    from airflow.sdk import Context


class DockerBackupSampleOperator(DockerBackupBaseOperator):
    """Choose backups of a repository, to ``expand`` verifications over: the newest, the oldest, and some at random.

    Backups that look damaged, by their record or by the sizes of their files, are always chosen besides.

    :param repository: URL of the repository. (templated)
    :param newest: how many of the newest captures. (templated)
    :param oldest: how many of the oldest captures. (templated)
    :param random: how many of the others. (templated)
    :param seed: decides the random ones; the same seed chooses the same among the same backups. (templated)
    :param hosts: shell patterns of Docker hosts, by their name in the repository. (templated)
    :param names: shell patterns of image references and container names. (templated)
    :param run_names: shell patterns of the names whose backups are verified at level ``run``; all others at level
        ``load``, because not every program works without network and capabilities. (templated)
    :param allow_empty: return an empty list when there is no backup to choose; else that is an error.
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :return: a list of :class:`~airflow_provider_dockerbackup.operators.summary.SampledBackup`.
    """

    template_fields: Sequence[str] = (
        "repository",
        "newest",
        "oldest",
        "random",
        "seed",
        "hosts",
        "names",
        "run_names",
        "repository_conn_id",
    )

    def __init__(
        self,
        *,
        repository: str,
        newest: int | str = 1,
        oldest: int | str = 1,
        random: int | str = 1,
        seed: str = "{{ run_id }}",
        hosts: Sequence[str] = ("*",),
        names: Sequence[str] = ("*",),
        run_names: Sequence[str] = (),
        allow_empty: bool = False,
        repository_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=False, **kwargs)
        self.repository = repository
        self.newest = newest
        self.oldest = oldest
        self.random = random
        self.seed = seed
        self.hosts = hosts
        self.names = names
        self.run_names = run_names
        self.allow_empty = allow_empty
        self.repository_conn_id = repository_conn_id

    def work(self, context: Context) -> list[SampledBackup]:
        """Choose."""
        from airflow_provider_dockerbackup.hooks.storage import existing_repository

        if isinstance(self.run_names, str):
            raise ConfigurationError(f"run_names: expected a list of patterns, got {self.run_names!r}")
        request = SampleRequest(
            newest=whole_number("newest", self.newest),
            oldest=whole_number("oldest", self.oldest),
            random=whole_number("random", self.random),
            seed=str(self.seed),
            hosts=self.hosts,
            names=self.names,
            actor=actor_of(context),
        )
        request.check()
        repository = existing_repository(self.repository, conn_id=self.repository_conn_id)
        sample = draw_sample(repository, request, progress=self.progress)
        if not sample.picks and not self.allow_empty:
            raise NotFoundError(
                f"no backup in {self.repository} matches hosts {list(self.hosts)} and names {list(self.names)}, so "
                "nothing can be drilled; if that may be, set allow_empty=True"
            )
        if repository.audit_head is not None:
            context["ti"].xcom_push(key="audit_head", value=repository.audit_head)
        chosen = [_sampled(pick, level=self._level(pick)) for pick in sample.picks]
        for each in chosen:
            self.log.info(
                "%(reason)s: %(backup_id)s of %(host)s %(kind)s %(source)s, to be verified at level %(level)s", each
            )
        self.log.info("%d of %d backups, seed %r", len(chosen), sample.population, sample.seed)
        return chosen

    def _level(self, pick: Pick) -> Level:
        return "run" if any(fnmatchcase(pick.backup.source.name, each) for each in self.run_names) else "load"


def _sampled(pick: Pick, *, level: Level) -> SampledBackup:
    source = pick.backup.source
    return SampledBackup(
        backup_id=pick.backup.backup_id,
        host=source.host,
        kind=source.kind.value,
        source=source.name,
        reason=pick.reason,
        level=level,
    )
