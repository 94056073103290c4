# SPDX-License-Identifier: Apache-2.0
"""A storage that fails at a chosen call, and a process that dies there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import TypeVar

from airflow_provider_dockerbackup.core.model import ObjectInfo
from airflow_provider_dockerbackup.core.ports import ObjectWriter, StagedWriter, Storage
from airflow_provider_dockerbackup.exceptions import DockerBackupError, TransientError

T = TypeVar("T")
NEVER = 0


class Fault(StrEnum):
    """What happens at the chosen call."""

    REFUSED = "refused"  # nothing was done, and the caller is told so
    UNTOLD = "untold"  # it was done, and the caller gets an error all the same
    DEATH = "death"  # the process ends before the call
    DEATH_AFTER = "death-after"  # the process ends when the call was done


class Death(BaseException):
    """The process is gone: like a kill, no ``except Exception`` sees it, and nothing after it works."""


class Plan:
    """Counts the calls through several ports, and fails one of them.

    :param at: number of the call that fails, from 1; :data:`NEVER` only counts.
    :param fault: how it fails.
    """

    def __init__(self, at: int = NEVER, fault: Fault = Fault.REFUSED) -> None:
        self.at = at
        self.fault = fault
        self.calls: list[str] = []
        self.dead = False

    def call(self, name: str, action: Callable[[], T]) -> T:
        """Do ``action``, or fail instead, or fail after it."""
        if self.dead:
            raise Death
        self.calls.append(name)
        chosen = len(self.calls) == self.at
        if chosen and self.fault is Fault.DEATH:
            self.dead = True
            raise Death
        if chosen and self.fault is Fault.REFUSED:
            raise TransientError(f"injected: {name} was refused")
        if not chosen:
            return action()
        with suppress(DockerBackupError):  # whatever the answer was, it does not arrive
            action()
        self.dead = self.fault is Fault.DEATH_AFTER
        raise Death if self.dead else TransientError(f"injected: nobody knows whether {name} was done")


class FaultyStorage:
    """A storage behind a plan.

    :param inner: the real one.
    :param piece_bytes: size of the pieces in which :meth:`chunks` gives objects.
    """

    def __init__(self, inner: Storage, plan: Plan, *, piece_bytes: int = 1024 * 1024) -> None:
        self._inner = inner
        self._plan = plan
        self._piece_bytes = piece_bytes

    @property
    def url(self) -> str:
        """Where it is."""
        return self._inner.url

    @property
    def atomic_create(self) -> bool:
        """Whether creation is atomic."""
        return self._inner.atomic_create

    def create(self, path: str, data: bytes) -> None:
        """Write a document."""
        self._plan.call(f"create {path}", lambda: self._inner.create(path, data))

    def writer(self, path: str) -> ObjectWriter:
        """Begin an object."""
        return FaultyWriter(self._plan.call(f"writer {path}", lambda: self._inner.writer(path)), self._plan)

    def staged(self, folder: str) -> StagedWriter:
        """Begin an object that gets its name at its end."""
        writer = self._plan.call(f"staged {folder}", lambda: self._inner.staged(folder))
        return FaultyStagedWriter(writer, folder, self._plan)

    def read(self, path: str, *, max_bytes: int = 64 * 1024 * 1024) -> bytes:
        """Return a document."""
        return self._plan.call(f"read {path}", lambda: self._inner.read(path, max_bytes=max_bytes))

    @contextmanager
    def chunks(self, path: str) -> Iterator[Iterator[bytes]]:
        """Stream an object; each piece is a call."""
        with self._inner.chunks(path) as raw:
            self._plan.call(f"chunks {path}", lambda: None)
            yield self._pieces(raw, path)

    def _pieces(self, raw: Iterator[bytes], path: str) -> Iterator[bytes]:
        for chunk in raw:
            for at in range(0, len(chunk), self._piece_bytes):
                self._plan.call(f"piece of {path}", lambda: None)
                yield chunk[at : at + self._piece_bytes]

    def stat(self, path: str) -> ObjectInfo:
        """Return size and time of an object."""
        return self._plan.call(f"stat {path}", lambda: self._inner.stat(path))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects below a folder."""
        yield from self._plan.call(f"list {prefix}", lambda: tuple(self._inner.list(prefix)))

    def delete(self, path: str) -> None:
        """Remove an object."""
        self._plan.call(f"delete {path}", lambda: self._inner.delete(path))

    def move(self, path: str, *, to: str) -> None:
        """Give an object another path."""
        self._plan.call(f"move {path} to {to}", lambda: self._inner.move(path, to=to))

    def reap(self, prefix: str, *, older_than_seconds: float) -> tuple[str, ...]:
        """Remove what dead writers left."""
        return self._plan.call(
            f"reap {prefix}", lambda: self._inner.reap(prefix, older_than_seconds=older_than_seconds)
        )

    def is_abandoned(self, path: str, *, older_than_seconds: float) -> bool:
        """Tell whether an object's writer is gone."""
        return self._plan.call(
            f"is_abandoned {path}", lambda: self._inner.is_abandoned(path, older_than_seconds=older_than_seconds)
        )


class FaultyWriter:
    """A writer behind a plan; its ``close()`` raises nothing, but does nothing once the process is dead."""

    def __init__(self, inner: ObjectWriter, plan: Plan) -> None:
        self._inner = inner
        self._plan = plan

    @property
    def path(self) -> str:
        """Path of the object."""
        return self._inner.path

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``."""
        self._plan.call(f"write {self.path}", lambda: self._inner.write(data))

    def commit(self) -> None:
        """Make the object visible."""
        self._plan.call(f"commit {self.path}", self._inner.commit)

    def close(self) -> None:
        """Release everything."""
        if not self._plan.dead:
            self._inner.close()


class FaultyStagedWriter:
    """As :class:`FaultyWriter`, for an object that gets its name at its end."""

    def __init__(self, inner: StagedWriter, folder: str, plan: Plan) -> None:
        self._inner = inner
        self._folder = folder
        self._plan = plan

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``."""
        self._plan.call(f"write {self._folder}/?", lambda: self._inner.write(data))

    def commit(self, name: str) -> None:
        """Make the object visible."""
        self._plan.call(f"commit {self._folder}/{name}", lambda: self._inner.commit(name))

    def close(self) -> None:
        """Release everything."""
        if not self._plan.dead:
            self._inner.close()
