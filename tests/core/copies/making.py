# SPDX-License-Identifier: Apache-2.0
"""A repository with something of everything, and a second site that it is copied to."""

from __future__ import annotations

from airflow_provider_dockerbackup.core.bringing.run import RunOutcome
from airflow_provider_dockerbackup.core.copies.copy import CopyRequest, copy, target_on
from airflow_provider_dockerbackup.core.encryption.identity import Identities
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from tests.core.bringing import ACTOR, Bringing
from tests.core.world import TickingClock, World, assert_all_whole


class Copies(Bringing):
    """A source world, and a target that is copied into.

    :param layout: of the source.
    :param into: layout of the target.
    :param recipients: of the source.
    """

    done = "copied"

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
        clock = clock or TickingClock()
        world = World(
            storage=source or MemoryStorage(clock=clock),
            clock=clock,
            layout=layout,
            recipients=recipients,
            identities=identities,
        )
        super().__init__(world, target=target)
        self.into = into or layout

    def anew(self, target: Storage | None = None) -> Copies:
        """Return copies of the same source in another target."""
        return Copies(self.world.layout, into=self.into, source=self.world.storage, target=target, clock=self.clock)

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
