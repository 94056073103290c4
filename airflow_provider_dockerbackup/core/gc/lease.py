# SPDX-License-Identifier: Apache-2.0
"""The lease of which one sweeper at most holds one, without a lock server.

Leases have numbers and are create-only, so of several that want the next number one gets it. Whoever took one looks
again before it relies on it: of two that took leases at once at least one sees the other. The highest number stays when
its lease is over, so that no number comes twice. The holder keeps its lease open with a storage writer; a lease is over
when it is released, when its writer is gone, or, where there are no locks, when it is old by the storage's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Self

from airflow_provider_dockerbackup.core.gc.documents import (
    LEASE_PATH,
    LEASES,
    LeaseDocument,
    ReleaseDocument,
    lease_path,
    release_path,
)
from airflow_provider_dockerbackup.core.ports import Clock, Progress
from airflow_provider_dockerbackup.core.retention.removal import CLOCK_TOLERANCE_SECONDS
from airflow_provider_dockerbackup.core.storage import ObjectWriter, Storage
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    NotFoundError,
    TransientError,
)

# A sweeper takes nothing away any more when its lease is older than LEASE - MARGIN, by its own clocks; nobody takes it
# for dead before LEASE + MARGIN, by the storage's clock. A step may hang for twice the margin without harm.
LEASE_SECONDS: Final = 900.0
MARGIN_SECONDS: Final = 120.0


def is_live(storage: Storage, number: int) -> bool:
    """Tell whether the holder of this lease may still take blobs away."""
    path = lease_path(number)
    try:
        if storage.is_abandoned(path, older_than_seconds=LEASE_SECONDS + MARGIN_SECONDS):
            return False
    except NotFoundError:
        return False  # somebody with a later lease cleared it away
    try:
        storage.stat(release_path(number))
    except NotFoundError:
        return True
    return False


class Lease:
    """The right to take blobs away, for a quarter of an hour; a context that releases it.

    :param storage: the repository's storage.
    :param gc: name of the collection.
    :param actor: who collects: DAG run or user, and software versions.
    :param clock: measures its age.
    :param progress: told when it could not be released.
    """

    def __init__(
        self, storage: Storage, *, gc: str, actor: Mapping[str, str], clock: Clock, progress: Progress
    ) -> None:
        self._storage = storage
        self._gc = gc
        self._actor = dict(actor)
        self._clock = clock
        self._progress = progress
        self._writer: ObjectWriter | None = None
        self._began = (0.0, 0.0)
        self._written = clock.now()
        self._written_at = 0.0
        self.number = 0

    def __enter__(self) -> Self:
        """Take it."""
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release it."""
        self._release()

    @property
    def now(self) -> datetime:
        """The storage's own time, or a moment earlier."""
        return self._written + timedelta(seconds=self._clock.monotonic() - self._written_at)

    @property
    def age_seconds(self) -> float:
        """How long it has been held, by whichever of our clocks says more: one of them stops while a machine sleeps."""
        return max(self._clock.monotonic() - self._began[0], self._clock.now().timestamp() - self._began[1])

    def require(self) -> None:
        """Refuse the next step when the lease is near its end.

        :raises TransientError: when it is.
        """
        if self.age_seconds > LEASE_SECONDS - MARGIN_SECONDS:
            raise TransientError(
                f"{self._storage.url}: garbage collection {self._gc} was held up for {self.age_seconds:.0f} s and took "
                "nothing more away; collect again"
            )

    def require_there(self) -> None:
        """Refuse the next step when the lease is near its end, or gone.

        :raises TransientError: when it is.
        """
        self.require()
        try:
            self._storage.stat(lease_path(self.number))
        except NotFoundError as err:
            raise TransientError(
                f"{self._storage.url}/{lease_path(self.number)} is gone: another garbage collection took over; "
                "nothing more was taken away"
            ) from err

    def renew(self) -> None:
        """Let go of the lease and take the next one; nothing may be condemned meanwhile.

        :raises ConflictError: when another sweeper was faster.
        """
        self._release()
        self._take()

    def _take(self) -> None:
        if not self._storage.atomic_create:
            raise ConfigurationError(
                f"{self._storage.url}: this kind of storage cannot tell which of two tasks came first, so nothing can "
                "be removed safely; keep layout 'layers' on local disk or S3"
            )
        numbers = self._numbers()
        self._require_nobody(numbers)
        self.number = max(numbers, default=0) + 1
        self._write()
        try:
            self._require_create_only()
            others = self._numbers()
            others.pop(self.number, None)
            self._require_nobody(others)
            self._require_highest(others)
            self._require_clock()
            self._clear(others)
        except BaseException:
            self._release()
            raise

    def _write(self) -> None:
        self._began = (self._clock.monotonic(), self._clock.now().timestamp())
        document = LeaseDocument(gc=self._gc, taken_at=self._clock.now(), actor=self._actor)
        writer = self._storage.writer(lease_path(self.number))
        try:
            writer.write(document.to_bytes())
            writer.commit()
        except BaseException:
            writer.close()
            raise
        self._writer = writer
        self._written_at = self._clock.monotonic()

    def _require_create_only(self) -> None:
        """Try what two sweepers at once would try."""
        try:
            self._storage.create(lease_path(self.number), b"{}")
        except ConflictError:
            return
        raise ConfigurationError(
            f"{self._storage.url}: a second document replaced the first (this storage ignores If-None-Match), so "
            "nothing can be removed safely; 'dockerbackup probe' tells more"
        )

    def _require_clock(self) -> None:
        self._written = self._storage.stat(lease_path(self.number)).modified
        # The document was written between the two moments of ours that are farthest from the storage's.
        earliest = datetime.fromtimestamp(self._began[1], tz=self._written.tzinfo)
        skew = max((earliest - self._written).total_seconds(), (self._written - self._clock.now()).total_seconds())
        if skew > CLOCK_TOLERANCE_SECONDS:
            raise ConflictError(
                f"this machine's clock says {earliest:%Y-%m-%d %H:%M:%S} UTC, that of {self._storage.url} "
                f"{self._written:%Y-%m-%d %H:%M:%S}; nothing was removed. Set the clock right: ages are counted by it"
            )

    def _require_nobody(self, numbers: Mapping[int, bool]) -> None:
        for number, released in numbers.items():
            if not released and is_live(self._storage, number):
                raise ConflictError(
                    f"{self._storage.url}: another garbage collection is at work ({lease_path(number)}); nothing was "
                    "removed. Collect when it is done; one that died is out of the way "
                    f"{(LEASE_SECONDS + MARGIN_SECONDS) / 60:.0f} minutes later at most"
                )

    def _require_highest(self, others: Mapping[int, bool]) -> None:
        if max(others, default=0) > self.number:
            raise ConflictError(f"{self._storage.url}: another garbage collection took a lease at the same moment")

    def _numbers(self) -> dict[int, bool]:
        """Return each lease's number, and whether it was released."""
        taken: set[int] = set()
        released: set[int] = set()
        for info in self._storage.list(LEASES):
            match = LEASE_PATH.fullmatch(info.path)
            if match is not None:
                (released if match["released"] else taken).add(int(match["number"]))
        return {number: number in released for number in sorted(taken | released)}

    def _clear(self, numbers: Mapping[int, bool]) -> None:
        """Remove the leases before ours, all of which are over."""
        for number in numbers:
            self._storage.delete(lease_path(number))
            self._storage.delete(release_path(number))

    def _release(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        document = ReleaseDocument(lease=self.number, released_at=self._clock.now())
        try:
            self._storage.create(release_path(self.number), document.to_bytes())
        except DockerBackupError as err:
            self._progress.note(f"the lease {lease_path(self.number)} was not released, it ends by itself: {err}")
        finally:
            writer.close()
