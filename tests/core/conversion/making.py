# SPDX-License-Identifier: Apache-2.0
"""A repository with something of everything, and its conversion."""

from __future__ import annotations

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.conversion.convert import ConvertRequest, convert
from airflow_provider_dockerbackup.core.conversion.run import RunOutcome
from airflow_provider_dockerbackup.core.hold import HoldRequest, hold_backup
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from tests.core.world import CONTAINER, TickingClock, World, app_archive, assert_all_whole, contents

ACTOR = {"user": "ops"}
OTHER = {"archive": "layers", "layers": "archive"}


class Conversion:
    """A source world, and a target that is converted into as often as one likes; both show the workers' time.

    :param layout: of the source.
    :param source: where it is; made unless it is there.
    """

    def __init__(
        self,
        *,
        layout: str = "archive",
        source: Storage | None = None,
        target: Storage | None = None,
        clock: TickingClock | None = None,
    ) -> None:
        self.layout = layout
        self.clock = clock or TickingClock()
        self.target = target or MemoryStorage(clock=self.clock)
        self.world = World(storage=source or MemoryStorage(clock=self.clock), clock=self.clock, layout=layout)

    def anew(self, target: Storage | None = None) -> Conversion:
        """Return the conversion of the same source into another target."""
        return Conversion(layout=self.layout, source=self.world.storage, target=target, clock=self.clock)

    def back(self) -> Conversion:
        """Return the conversion of the target into a third repository, of the layout that the source has."""
        return Conversion(layout=OTHER[self.layout], source=self.target, clock=self.clock)

    @property
    def repository(self) -> Repository:
        """The target."""
        return Repository.open(self.target, clock=self.clock)

    def fill(self, *, next_version: bool = True) -> None:
        """Back up an image, its next version, and a container; hold the first one, and find the newest unchanged."""
        first = self.world.backup(1).backup
        if next_version:
            self.world.host.add_archive(app_archive("two"))
            self.world.backup(2)
        self.world.backup(3, CONTAINER)
        assert self.world.backup(4, force=False).status == "unchanged"
        request = HoldRequest(reason="claim 17", legal=True)
        hold_backup(self.world.repository, first, request, progress=self.world.progress)

    def run(
        self,
        *,
        source: Storage | None = None,
        target: Storage | None = None,
        compression: Compression | None = None,
        dry_run: bool = False,
    ) -> RunOutcome:
        """Convert, by way of these storages."""
        into = Repository.open_or_create(target or self.target, clock=self.clock, layout=OTHER[self.layout])
        request = ConvertRequest(layout=OTHER[self.layout], compression=compression, dry_run=dry_run, actor=ACTOR)
        return convert(
            request, source=self.world.on(source or self.world.storage), target=into, progress=self.world.progress
        )

    def pairs(self) -> list[tuple[Backup, Backup]]:
        """Return each backup as it is in both, the newest first."""
        before, after = self.world.repository.catalog.backups(), self.repository.catalog.backups()
        assert [each.path for each in before] == [each.path for each in after]
        return list(zip(before, after, strict=True))

    def assert_same(self) -> None:
        """Require that the target has every backup of the source, whole, read back, and with what goes with it."""
        assert_all_whole(self.repository)
        for before, after in self.pairs():
            one, other = before.whole(), after.whole()
            changing = {"attempt", "committed_at", "archive", "blobs", "image", "container", "fidelity", "notes"}
            assert one.model_dump(exclude=changing) == other.model_dump(exclude=changing)
            assert before.points == after.points
            assert before.holds == after.holds
            assert after.trust in {"checked", "failed"}
            if one.image is not None and other.image is not None:
                moved = {"layers", "known_ids", "others"}
                assert one.image.model_dump(exclude=moved) == other.image.model_dump(exclude=moved)
                assert set(one.image.known_ids) <= set(other.image.known_ids)
            if one.container is not None and other.container is not None:
                moved = {"configuration_file"}
                assert one.container.model_dump(exclude=moved) == other.container.model_dump(exclude=moved)

    def everything(self) -> dict[str, bytes]:
        """Return every object of the source."""
        return contents(self.world.storage, "")
