# SPDX-License-Identifier: Apache-2.0
"""See that every source that a fleet's labels ask for has a fresh backup, and that every host could be asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from airflow_provider_dockerbackup.core.catalog import Catalog
from airflow_provider_dockerbackup.core.fleet import Selection, Wanted, due
from airflow_provider_dockerbackup.core.freshness import Rpo, freshness
from airflow_provider_dockerbackup.core.retention.duration import Duration
from airflow_provider_dockerbackup.exceptions import StaleError
from airflow_provider_dockerbackup.operators.fleet import DockerFleetOperator, HostListing
from airflow_provider_dockerbackup.operators.rendered import columns, flag

if TYPE_CHECKING:
    from airflow.sdk import Context

_SHOWN = 20


class NotFresh(TypedDict):
    """One source without a fresh backup; ``newest_run`` is None when it has none that counts."""

    host: str
    kind: str
    source: str
    newest_run: str | None
    problem: str


class NotListed(TypedDict):
    """One host that could not be listed; ``host`` is empty when its connection cannot be read."""

    dockerbackup_conn_id: str
    host: str
    problem: str


class FleetFreshnessSummary(TypedDict):
    """What a look at a fleet found; ``sources`` is how many there are, the lists have the first hundred each."""

    hosts: int
    sources: int
    stale: list[NotFresh]
    unlisted: list[NotListed]


class DockerFleetFreshnessOperator(DockerFleetOperator):
    """Fail when a source that labels ask for has no fresh backup, or when a host could not be listed.

    It asks the hosts and the repository again, not Airflow's history, so it is right whatever happened to other tasks:
    give it ``trigger_rule="all_done"`` at the end of a DAG, or a DAG of its own. A source is fresh when it is not due:
    the run has left a backup of it, or none was needed yet. A backup need not be verified for that.

    :param grace: how long after its time a backup may come: ``2h``. At the end of the DAG that makes the backups there
        is no need for it. (templated)
    :param rpo: of a host that cannot be listed: how old the newest backup of what is recorded of it may be. (templated)
    :param fail: whether the task fails then; else what was found is returned only. (templated)
    :return: a :class:`FleetFreshnessSummary`.
    """

    template_fields: Sequence[str] = (*DockerFleetOperator.template_fields, "grace", "rpo", "fail")
    metric = "freshness"

    def __init__(self, *, grace: str | None = None, rpo: str = "36h", fail: bool | str = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grace = grace
        self.rpo = rpo
        self.fail = fail

    def work(self, context: Context) -> FleetFreshnessSummary:
        """Look at each source."""
        from airflow_provider_dockerbackup.operators.metrics import tell_stale

        selection, rpo, fail = self.selection(), Rpo.parse(self.rpo, {}), flag("fail", self.fail)
        at = context["dag_run"].run_after
        if self.grace:
            at = Duration.parse(self.grace, what="grace").before(at, selection.zone)
        repository = self.existing()
        listings = self.listings(selection, repository)
        stale = [each for listing in listings for each in _not_fresh(listing, selection, at=at)]
        unlisted = [_not_listed(each) for each in listings if each.error is not None]
        if repository is not None:
            for each in unlisted:
                stale += _recorded(each["host"], repository.catalog, rpo, now=repository.clock.now())
        tell_stale(len(stale), repository=self.repository_url(repository), context=context)
        self._tell(stale, unlisted)
        sources = sum(len(each.wanted) for each in listings)
        if fail and (stale or unlisted):
            raise StaleError(_message(stale, unlisted, sources=sources, hosts=len(listings)))
        return FleetFreshnessSummary(hosts=len(listings), sources=sources, stale=stale[:100], unlisted=unlisted[:100])

    def _tell(self, stale: Sequence[NotFresh], unlisted: Sequence[NotListed]) -> None:
        rows = [
            (f"{each['host']} {each['kind']} {each['source']}", each["newest_run"] or "none", each["problem"])
            for each in stale
        ]
        for line in columns(("NO FRESH BACKUP", "NEWEST RUN", "WHY"), rows):
            self.log.info("%s", line)
        for each in unlisted:
            self.log.error("%s was not listed: %s", each["dockerbackup_conn_id"], each["problem"])


def _not_fresh(listing: HostListing, selection: Selection, *, at: datetime) -> Iterator[NotFresh]:
    for each in listing.wanted:
        newest = listing.newest[each.source]
        if due(each, newest, at=at, selection=selection):
            yield _stale(each, newest)


def _stale(each: Wanted, newest: datetime | None) -> NotFresh:
    return NotFresh(
        host=each.source.host,
        kind=each.source.kind.value,
        source=each.source.name,
        newest_run=_shown(newest),
        problem=each.problem or f"due: {each.schedule}",
    )


def _recorded(host: str, catalog: Catalog, rpo: Rpo, *, now: datetime) -> Iterator[NotFresh]:
    """Yield what the repository knows of a host that could not be asked, as far as it is not fresh."""
    for each in freshness(catalog.each(host=host), rpo=rpo, now=now, trust="any") if host else ():
        if each.state != "ok":
            yield NotFresh(
                host=each.source.host,
                kind=each.source.kind.value,
                source=each.source.name,
                newest_run=_shown(each.newest),
                problem=f"older than {each.limit}, and its host was not listed",
            )


def _not_listed(listing: HostListing) -> NotListed:
    return NotListed(dockerbackup_conn_id=listing.conn_id, host=listing.host, problem=str(listing.error))


def _message(stale: Sequence[NotFresh], unlisted: Sequence[NotListed], *, sources: int, hosts: int) -> str:
    parts = []
    if stale:
        names = [
            f"{each['host']} {each['kind']} {each['source']} (newest {each['newest_run'] or 'none'}; {each['problem']})"
            for each in stale
        ]
        parts.append(f"{len(stale)} sources have no fresh backup (hosts list {sources}): {_first(names)}")
    if unlisted:
        names = [f"{each['dockerbackup_conn_id']} ({each['problem']})" for each in unlisted]
        parts.append(f"{len(unlisted)} of {hosts} hosts could not be listed: {_first(names)}")
    return ". ".join(parts)


def _first(names: Sequence[str]) -> str:
    return "; ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _shown(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else None
