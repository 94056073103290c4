# SPDX-License-Identifier: Apache-2.0
"""A repository with something of everything, and a second site that it is copied to."""

from __future__ import annotations

from airflow_provider_dockerbackup.core.audit.event import AuditEvent
from airflow_provider_dockerbackup.core.audit.reading import stored_events
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.conversion.run import RunOutcome
from airflow_provider_dockerbackup.core.copies.copy import CopyRequest, copy, target_on
from airflow_provider_dockerbackup.core.encryption.identity import Identities
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient
from airflow_provider_dockerbackup.core.hold import HoldRequest, hold_backup
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from tests.core.world import CONTAINER, TickingClock, World, app_archive, assert_all_whole, contents

ACTOR = {"user": "ops"}


class Copies:
    """A source world, and a target that is copied into as often as one likes; both show the workers' time.

    :param layout: of the source.
    :param into: layout of the target.
    :param recipients: of the source.
    """

    def __init__(
        self,
        layout: str = "archive",
        *,
        into: str | None = None,
        source: Storage | None = None,
        target: Storage | None = None,
        clock: TickingClock | None = None,
        recipients: tuple[Recipient, ...] = (),
        identities: Identities | None = None,
    ) -> None:
        self.clock = clock or TickingClock()
        self.into = into or layout
        self.target = target or MemoryStorage(clock=self.clock)
        self.world = World(
            storage=source or MemoryStorage(clock=self.clock),
            clock=self.clock,
            layout=layout,
            recipients=recipients,
            identities=identities,
        )

    def anew(self, target: Storage | None = None) -> Copies:
        """Return copies of the same source in another target."""
        return Copies(self.world.layout, into=self.into, source=self.world.storage, target=target, clock=self.clock)

    @property
    def repository(self) -> Repository:
        """The target."""
        return Repository.open(self.target, clock=self.clock, identities=lambda: self.world.identities)

    def fill(self, *, next_version: bool = True) -> Copies:
        """Back up an image, its next version, and a container; hold the first one, and find the newest unchanged."""
        first = self.world.backup(1).backup
        if next_version:
            self.world.host.add_archive(app_archive("two"))
            self.world.backup(2)
        self.world.backup(3, CONTAINER)
        assert self.world.backup(4, force=False).status == "unchanged"
        request = HoldRequest(reason="claim 17", legal=True)
        hold_backup(self.world.repository, first, request, progress=self.world.progress)
        return self

    def run(
        self, request: CopyRequest | None = None, *, source: Storage | None = None, target: Storage | None = None
    ) -> RunOutcome:
        """Copy, by way of these storages."""
        asked = request or CopyRequest(layout=self.into, actor=ACTOR)
        opened = self.world.on(source or self.world.storage)
        into = target_on(target or self.target, asked, source=opened)
        return copy(asked, source=opened, target=into, progress=self.world.progress)

    def states(self, request: CopyRequest | None = None) -> list[str]:
        """Copy, and return what became of each backup, the newest first."""
        return [each.state for each in self.run(request).results]

    def pairs(self) -> list[tuple[Backup, Backup]]:
        """Return each backup as it is in both, the newest first."""
        before, after = self.world.repository.catalog.backups(), self.repository.catalog.backups()
        assert [each.path for each in before] == [each.path for each in after]
        return list(zip(before, after, strict=True))

    def assert_same(self) -> None:
        """Require that the target has every backup of the source, whole, with what goes with it, and nothing proven."""
        assert_all_whole(self.repository)
        for before, after in self.pairs():
            one, other = before.whole(), after.whole()
            changing = {"attempt", "committed_at", "archive", "blobs", "image", "container", "fidelity", "notes"}
            changing |= {"encryption", "recipients", "copied_from"}
            assert one.model_dump(exclude=changing) == other.model_dump(exclude=changing)
            assert (before.points, before.holds) == (after.points, after.holds)
            assert after.trust == "none"
            if self.into == self.world.layout:
                assert (one.fidelity, one.image) == (other.fidelity, other.image)

    def everything(self) -> dict[str, bytes]:
        """Return every object of the source."""
        return contents(self.world.storage, "")

    def events(self, prefix: str) -> list[AuditEvent]:
        """Return the events in the target whose types begin so, in their order."""
        found = [each.event for each in stored_events(self.target, keys={}) if each.event is not None]
        return sorted((each for each in found if each.type.startswith(prefix)), key=lambda each: each.time)
