# SPDX-License-Identifier: Apache-2.0
"""What tests of conversions and of copies share: a repository with something of everything, and a target."""

from __future__ import annotations

from typing import ClassVar, Self

from airflow_provider_dockerbackup.core.audit.event import AuditEvent
from airflow_provider_dockerbackup.core.audit.reading import stored_events
from airflow_provider_dockerbackup.core.bringing.run import RunOutcome
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.hold import HoldRequest, hold_backup
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from tests.core.world import CONTAINER, World, app_archive, contents

ACTOR = {"user": "ops"}


class Bringing:
    """A source world, and a target into which one brings as often as one likes; both show the workers' time.

    :param world: the source.
    """

    done: ClassVar[str]
    """The state of a backup that was brought."""

    def __init__(self, world: World, *, target: Storage | None) -> None:
        self.world = world
        self.clock = world.clock
        self.target = target or MemoryStorage(clock=world.clock)

    @property
    def repository(self) -> Repository:
        """The target."""
        return Repository.open(self.target, clock=self.clock, identities=lambda: self.world.identities)

    def anew(self, target: Storage | None = None) -> Self:
        """Return one that brings the same source into another target."""
        raise NotImplementedError

    def run(self, *, source: Storage | None = None, target: Storage | None = None) -> RunOutcome:
        """Bring, by way of these storages."""
        raise NotImplementedError

    def assert_same(self) -> None:
        """Require that the target has every backup of the source, whole, and what goes with it."""
        raise NotImplementedError

    def fill(self, *, next_version: bool = True) -> Self:
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

    def pairs(self) -> list[tuple[Backup, Backup]]:
        """Return each backup as it is in both, the newest first."""
        before, after = self.world.repository.catalog.backups(), self.repository.catalog.backups()
        assert [each.path for each in before] == [each.path for each in after]
        return list(zip(before, after, strict=True))

    def everything(self) -> dict[str, bytes]:
        """Return every object of the source."""
        return contents(self.world.storage, "")

    def events(self, prefix: str) -> list[AuditEvent]:
        """Return the events in the target whose types begin so, in their order."""
        found = [each.event for each in stored_events(self.target, keys={}) if each.event is not None]
        return sorted((each for each in found if each.type.startswith(prefix)), key=lambda each: each.time)
