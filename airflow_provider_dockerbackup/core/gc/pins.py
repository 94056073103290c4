# SPDX-License-Identifier: Apache-2.0
"""Keep blobs that a try relies on, from the moment it looks for them until its record names them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from airflow_provider_dockerbackup.core.gc.documents import (
    CONDEMNED,
    CONDEMNED_PATH,
    CondemnedDocument,
    PinDocument,
    batched,
    pin_path,
)
from airflow_provider_dockerbackup.core.gc.lease import LEASE_SECONDS, MARGIN_SECONDS, is_live
from airflow_provider_dockerbackup.core.ports import Clock, Progress
from airflow_provider_dockerbackup.core.repository import ABANDONED_AFTER_SECONDS, Repository
from airflow_provider_dockerbackup.core.storage import Storage
from airflow_provider_dockerbackup.exceptions import DockerBackupError, NotFoundError, TransientError

FRESH_SECONDS: Final = ABANDONED_AFTER_SECONDS / 2
LONGEST_WAIT_SECONDS: Final = LEASE_SECONDS + 3 * MARGIN_SECONDS
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 15.0


class Pins:
    """A context in which blobs stay that were pinned, whatever garbage collections run.

    :param where: the repository, or its storage.
    :param attempt: random name of the try, as its files carry it.
    :param clock: measures the pins' age, and waits.
    :param progress: told when it waits, and what could not be cleaned up.
    """

    def __init__(self, where: Repository | Storage, *, attempt: str, clock: Clock, progress: Progress) -> None:
        self._storage = where.storage if isinstance(where, Repository) else where
        self._attempt = attempt
        self._clock = clock
        self._progress = progress
        self._paths: list[str] = []
        self._writers = ExitStack()
        self._pinned: set[str] = set()
        self._began: tuple[float, float] | None = None

    def __enter__(self) -> Self:
        """Return the pins; there are none yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove them."""
        self.close()

    def protect(self, digests: Iterable[str]) -> None:
        """Pin blobs, whether they exist or not; those that exist when this returns stay until :meth:`close`.

        Whoever looked for a blob before this must look again. Digests that are pinned already cost nothing.

        :param digests: ``sha256:<hex>``.
        :raises TransientError: when a garbage collection does not let go of one of them, or the storage fails.
        """
        wanted = [digest for digest in dict.fromkeys(digests) if digest not in self._pinned]
        for batch in batched(wanted):
            self._write(batch)
        if wanted:
            self._await_acquittal(frozenset(wanted))
            self._pinned.update(wanted)

    def require_fresh(self) -> None:
        """Make sure that nobody can have taken the pins' writer for dead so far; call it just before the record.

        :raises TransientError: when the pins are old, or gone: what they kept may be gone as well.
        """
        if self._began is None:
            return
        age = max(self._clock.monotonic() - self._began[0], self._clock.now().timestamp() - self._began[1])
        if age > FRESH_SECONDS:
            raise TransientError(
                f"{self._storage.url}: this try has been at work for {age / 3600:.1f} hours, longer than garbage "
                f"collection is sure to wait ({FRESH_SECONDS / 3600:.0f} hours); nothing was recorded. Try again: what "
                "was stored already is not sent again"
            )
        for path in self._paths:
            try:
                self._storage.stat(path)
            except NotFoundError as err:
                raise TransientError(
                    f"{self._storage.url}/{path} is gone, so blobs that this try counts on may be gone as well; "
                    "nothing was recorded. Try again"
                ) from err

    def close(self) -> None:
        """Remove the pins; those that cannot be removed go with the next garbage collection."""
        paths, self._paths = self._paths, []
        try:
            for path in paths:
                self._storage.delete(path)
        except DockerBackupError as err:
            self._progress.note(f"pins of try {self._attempt} stay for garbage collection to remove: {err}")
        finally:
            self._writers.close()
            self._pinned.clear()
            self._began = None

    def _write(self, digests: tuple[str, ...]) -> None:
        path = pin_path(self._attempt, len(self._paths))
        # The storage's time of the document is later than this: our count is never the shorter one.
        if self._began is None:
            self._began = (self._clock.monotonic(), self._clock.now().timestamp())
        document = PinDocument(attempt=self._attempt, pinned_at=self._clock.now(), digests=digests)
        writer = self._storage.writer(path)
        self._writers.callback(writer.close)
        self._paths.append(path)
        writer.write(document.to_bytes())
        writer.commit()

    def _await_acquittal(self, digests: frozenset[str]) -> None:
        """Return when no live collection has condemned any of ``digests``; our pins stand, so none will anew."""
        began = self._clock.monotonic()
        pause = _FIRST_PAUSE_SECONDS
        harmless: set[str] = set()
        while (mark := self._mark_on(digests, harmless)) is not None:
            waited = self._clock.monotonic() - began
            if waited > LONGEST_WAIT_SECONDS:
                raise TransientError(
                    f"{self._storage.url}: a garbage collection has held blobs that this try needs for {waited:.0f} s "
                    f"({mark}); try again. If none runs any more, remove that file"
                )
            if pause == _FIRST_PAUSE_SECONDS:
                self._progress.note("waiting for a garbage collection to let go of blobs that are needed")
            self._clock.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _mark_on(self, digests: frozenset[str], harmless: set[str]) -> str | None:
        """Return the path of a live condemnation of one of ``digests``, or None.

        :param harmless: paths of condemnations of others, not to be read again; grows.
        """
        for info in self._storage.list(CONDEMNED):
            if info.path in harmless or not CONDEMNED_PATH.fullmatch(info.path):
                continue
            try:
                data = self._storage.read(info.path)
            except NotFoundError:
                continue  # cleared meanwhile
            document = CondemnedDocument.from_bytes(data, where=f"{self._storage.url}/{info.path}")
            if not digests.isdisjoint(document.digests) and is_live(self._storage, document.lease):
                return info.path
            harmless.add(info.path)
        return None
