# SPDX-License-Identifier: Apache-2.0
"""A repository with something of everything, and its conversion."""

from __future__ import annotations

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.bringing.run import RunOutcome
from airflow_provider_dockerbackup.core.convert import ConvertRequest, convert
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from tests.core.bringing import ACTOR, Bringing
from tests.core.world import TickingClock, World, assert_all_whole

OTHER = {"archive": "layers", "layers": "archive"}


class Conversion(Bringing):
    """A source world, and a target that it is converted into.

    :param layout: of the source.
    :param source: where it is; made unless it is there.
    """

    done = "converted"

    def __init__(
        self,
        layout: str = "archive",
        *,
        source: Storage | None = None,
        target: Storage | None = None,
        clock: TickingClock | None = None,
    ) -> None:
        clock = clock or TickingClock()
        super().__init__(World(storage=source or MemoryStorage(clock=clock), clock=clock, layout=layout), target=target)
        self.layout = layout

    def anew(self, target: Storage | None = None) -> Conversion:
        """Return the conversion of the same source into another target."""
        return Conversion(layout=self.layout, source=self.world.storage, target=target, clock=self.clock)

    def back(self) -> Conversion:
        """Return the conversion of the target into a third repository, of the layout that the source has."""
        return Conversion(layout=OTHER[self.layout], source=self.target, clock=self.clock)

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
