# SPDX-License-Identifier: Apache-2.0
"""List what is due for a backup on the hosts of a fleet, as the labels of its containers say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypedDict

from airflow_provider_dockerbackup.core.fleet import Selection, Wanted, due
from airflow_provider_dockerbackup.exceptions import ConfigurationError, NotFoundError, TransientError
from airflow_provider_dockerbackup.operators.fleet import DockerFleetOperator, HostListing
from airflow_provider_dockerbackup.operators.rendered import columns, flag, whole_number

if TYPE_CHECKING:
    from airflow.sdk import Context


_NEVER = datetime.min.replace(tzinfo=UTC)


class DueSource(TypedDict):
    """One source that is due, as ``DockerCaptureOperator`` takes it by ``expand_kwargs``.

    Commands are not in it: they may hold passwords, and XCom hides none.
    """

    dockerbackup_conn_id: str
    host: str
    kind: str
    source: str
    retention: str
    problem: str


class DockerListDueOperator(DockerFleetOperator):
    """Return the sources of a fleet that are due for a backup, to ``expand_kwargs`` ``DockerCaptureOperator`` over.

    A source is due when its newest backup that counts is older than its schedule says; one without any always is. One
    whose labels are wrong is returned as well, and its own task fails with what is wrong. A host that cannot be listed
    is logged, and hinders no other; ``DockerFleetFreshnessOperator`` names it at the end.

    :param limit: how many are returned at most; the rest is due in the next run. Airflow maps over no more than its
        setting ``[core] max_map_length``. (templated)
    :param allow_empty: accept that no container asks for a backup; else that is an error. (templated)
    :return: a list of :class:`DueSource`: first the source of each host whose newest backup is oldest, then the second
        of each, and so on, so that what runs at once is spread over the hosts; those with wrong labels last.
    """

    template_fields: Sequence[str] = (*DockerFleetOperator.template_fields, "limit", "allow_empty")

    def __init__(self, *, limit: int = 1000, allow_empty: bool = False, **kwargs: Any) -> None:
        super().__init__(multiple_outputs=False, **kwargs)
        self.limit = limit
        self.allow_empty = allow_empty

    def work(self, context: Context) -> list[DueSource]:
        """List what is due."""
        selection = self.selection()
        limit = whole_number("limit", self.limit)
        if limit < 1:
            raise ConfigurationError(f"limit: expected a number from 1 on, got {limit}")
        listings = self.listings(selection, self.existing())
        self._tell(listings, selection, at=context["dag_run"].run_after)
        _require_some(listings, allow_empty=flag("allow_empty", self.allow_empty))
        found = _spread(listings, selection, at=context["dag_run"].run_after)
        if len(found) > limit:
            self.log.warning("%d sources are due; %d of them are taken, the rest in the next run", len(found), limit)
        return found[:limit]

    def _tell(self, listings: Sequence[HostListing], selection: Selection, *, at: datetime) -> None:
        rows = []
        for listing in listings:
            for each in listing.wanted:
                newest = listing.newest[each.source]
                state = "due" if due(each, newest, at=at, selection=selection) else "not due"
                shown = f"{newest:%Y-%m-%d %H:%M} UTC" if newest else "none"
                rows.append((str(each.source), str(each.schedule), shown, "wrong labels" if each.problem else state))
        for line in columns(("SOURCE", "SCHEDULE", "NEWEST RUN", "STATE"), rows):
            self.log.info("%s", line)
        for listing in listings:
            if listing.error is not None:
                self.log.error("%s was not listed: %s", listing.conn_id, listing.error)


def _spread(listings: Sequence[HostListing], selection: Selection, *, at: datetime) -> list[DueSource]:
    """Return what is due, in the order in which it is to be taken; what is due in every run hinders nothing else."""
    ranked = []
    for listing in listings:
        ages = ((listing.newest[each.source] or _NEVER, each) for each in listing.wanted)
        overdue = [
            (newest, each)
            for newest, each in sorted(ages, key=lambda pair: (bool(pair[1].problem), pair[0]))
            if due(each, listing.newest[each.source], at=at, selection=selection)
        ]
        ranked += [(rank, newest, _entry(listing, each)) for rank, (newest, each) in enumerate(overdue)]
    return [entry for _, _, entry in sorted(ranked, key=lambda each: each[:2])]


def _entry(listing: HostListing, each: Wanted) -> DueSource:
    return DueSource(
        dockerbackup_conn_id=listing.conn_id,
        host=each.source.host,
        kind=each.source.kind.value,
        source=each.source.name,
        retention=each.retention,
        problem=each.problem,
    )


def _require_some(listings: Sequence[HostListing], *, allow_empty: bool) -> None:
    """Refuse a fleet of which nothing could be listed, or that asks for nothing: it would succeed without a backup."""
    errors = [each.error for each in listings if each.error is not None]
    if len(errors) == len(listings):
        kind = TransientError if any(isinstance(each, TransientError) for each in errors) else ConfigurationError
        raise kind(f"no host could be listed; the first: {errors[0]}")
    if not allow_empty and not any(each.wanted for each in listings):
        raise NotFoundError(
            "no container asks for a backup; label some with dockerbackup.enable=true, or set select='all'; if that "
            "may be, set allow_empty=True"
        )
