# SPDX-License-Identifier: Apache-2.0
"""Whether a storage keeps the promises that a repository rests on, found out by trying."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from airflow_provider_dockerbackup.core.ports import Clock, Storage
from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError, NotFoundError

MAX_SKEW_SECONDS: Final = 300.0
_LARGE_BYTES: Final = 17 * 1024 * 1024 + 1  # more than one part of any multipart upload
_FIRST: Final = b"first"
_SECOND: Final = b"second"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeCheck:
    """One promise and whether it was kept.

    :param name: the promise, in a few words.
    :param detail: what was seen; for a broken promise also what to do.
    """

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What :func:`probe` found.

    :param url: the storage, without credentials.
    :param checks: in the order in which they were made; those that could not be made are not in it.
    :param skew_seconds: this machine's clock minus the storage's; None when it could not be measured.
    """

    url: str
    checks: tuple[ProbeCheck, ...]
    skew_seconds: float | None

    @property
    def ok(self) -> bool:
        """Whether all promises were kept."""
        return all(check.ok for check in self.checks)


class _Broken(Exception):  # noqa: N818 - a verdict, caught in this module
    """A promise was broken; the text says what was seen and what to do."""


def probe(storage: Storage, *, clock: Clock) -> ProbeReport:
    """Return which promises ``storage`` keeps. A broken one raises nothing; what is written is removed again.

    It writes about 70 MiB below ``probe/<random>/``. If nothing can be written there, no more is tried.

    :param clock: this machine's clock, to compare the storage's with.
    """
    run = _Probe(storage, clock, f"probe/{secrets.token_hex(8)}")
    checks: list[ProbeCheck] = []
    try:
        for name, check in run.checks():
            checks.append(_checked(name, check))
            if name == "writable" and not checks[0].ok:
                break
    finally:
        checks.append(_checked("cleaned up", run.clean_up))
    return ProbeReport(url=storage.url, checks=tuple(checks), skew_seconds=run.skew_seconds)


def _checked(name: str, check: Callable[[], str]) -> ProbeCheck:
    try:
        return ProbeCheck(name=name, ok=True, detail=check())
    except (_Broken, DockerBackupError) as err:
        return ProbeCheck(name=name, ok=False, detail=str(err))


class _Probe:
    def __init__(self, storage: Storage, clock: Clock, folder: str) -> None:
        self._storage = storage
        self._clock = clock
        self._folder = folder
        self._document = f"{folder}/a folder/document%20.json"
        self._archive = f"{folder}/archive"
        self.skew_seconds: float | None = None

    def checks(self) -> Iterator[tuple[str, Callable[[], str]]]:
        yield "writable", self._writable
        yield "create-only documents", self._create_only
        yield "read back equal", self._read_back
        yield "create-only archives", self._writer_create_only
        yield "aborted archives leave nothing", self._aborted
        yield "objects named at their end", self._staged
        yield "moves", self._moved
        yield "listing is up to date", self._listing
        yield "clocks agree", self._clocks

    def _writable(self) -> str:
        self._storage.create(self._document, _FIRST)
        return "a document was written"

    def _create_only(self) -> str:
        try:
            self._storage.create(self._document, _SECOND)
        except ConflictError:
            return "a second document under the same name was refused"
        raise _Broken(
            "a second document replaced the first: this storage ignores conditional writes (If-None-Match); "
            "use one that knows them, or let only one task at a time write to this repository"
        )

    def _read_back(self) -> str:
        if self._storage.read(self._document) not in {_FIRST, _SECOND}:
            raise _Broken("a document came back changed: do not use this storage")
        self._write(self._archive, _LARGE_BYTES, byte=b"1")
        with self._storage.chunks(self._archive) as chunks:
            seen = b"".join(chunks)
        if seen != b"1" * _LARGE_BYTES or self._storage.stat(self._archive).size_bytes != _LARGE_BYTES:
            raise _Broken(f"an archive of {_LARGE_BYTES} bytes came back changed: do not use this storage")
        return f"a document and an archive of {_LARGE_BYTES} bytes came back as written"

    def _writer_create_only(self) -> str:
        try:
            self._write(self._archive, _LARGE_BYTES, byte=b"2")
        except ConflictError:
            with self._storage.chunks(self._archive) as chunks:
                if next(chunks)[:1] == b"1":
                    return "a second archive under the same name was refused"
        raise _Broken(
            "a second archive replaced the first: this storage ignores conditional completion of uploads; "
            "use another one, or let only one task at a time write to this repository"
        )

    def _aborted(self) -> str:
        path = f"{self._folder}/aborted"
        writer = self._storage.writer(path)
        try:
            writer.write(b"3" * _LARGE_BYTES)
        finally:
            writer.close()
        if path in self._listed():
            raise _Broken("an archive that was not committed became visible: do not use this storage")
        return "an archive that was given up did not appear"

    def _staged(self) -> str:
        folder = f"{self._folder}/staged"
        for last in (False, True):
            writer = self._storage.staged(folder)
            try:
                writer.write((b"5" if last else b"4") * _LARGE_BYTES)
                writer.commit("object")
            except ConflictError:
                if last and self._content(f"{folder}/object") == b"4" * _LARGE_BYTES:
                    return f"{_LARGE_BYTES} bytes got their name at their end, a second object was refused it"
            finally:
                writer.close()
        raise _Broken(
            "an object that got its name at its end was not as written, or replaced the first of that name: "
            "do not keep layout 'layers' here"
        )

    def _moved(self) -> str:
        old, new = f"{self._folder}/staged/object", f"{self._folder}/moved/object"
        self._storage.move(old, to=new)
        if {old, new} & self._listed() != {new} or self._content(new) != b"4" * _LARGE_BYTES:
            raise _Broken("an object did not survive its move: never let garbage collection run here")
        self._storage.create(old, _FIRST)
        try:
            self._storage.move(old, to=new)
        except ConflictError:
            return f"an object of {_LARGE_BYTES} bytes was moved, and a second one not over it"
        raise _Broken("a move replaced an object: never let garbage collection run here")

    def _content(self, path: str) -> bytes:
        with self._storage.chunks(path) as chunks:
            return b"".join(chunks)

    def _listing(self) -> str:
        path = f"{self._folder}/listed"
        self._storage.create(path, _FIRST)
        if path not in self._listed():
            raise _Broken("a new document is missing from the listing: use a storage with consistent listings")
        self._storage.delete(path)
        if path in self._listed():
            raise _Broken("a removed document is still listed: use a storage with consistent listings")
        try:
            self._storage.stat(path)
        except NotFoundError:
            return "a new document was listed at once, a removed one no longer"
        raise _Broken("a removed document can still be read: use a storage with consistent reads")

    def _clocks(self) -> str:
        path = f"{self._folder}/clock"
        before = self._clock.now()
        self._storage.create(path, _FIRST)
        after = self._clock.now()
        modified = self._storage.stat(path).modified
        skew = ((before - modified).total_seconds() + (after - modified).total_seconds()) / 2
        self.skew_seconds = round(skew, 3)
        if abs(skew) > MAX_SKEW_SECONDS:
            raise _Broken(
                f"this machine's clock differs by {skew:+.0f} s from the storage's, more than {MAX_SKEW_SECONDS:.0f}: "
                "let NTP set both; until then nothing may be deleted here"
            )
        return f"this machine's clock differs by {skew:+.1f} s from the storage's"

    def clean_up(self) -> str:
        """Remove what was written and say so."""
        for path in self._listed():
            self._storage.delete(path)
        left = self._listed()
        if left:
            raise _Broken(
                f"{len(left)} objects stay below {self._folder}/: grant the right to delete, then remove them"
            )
        return f"nothing is left below {self._folder}/"

    def _listed(self) -> frozenset[str]:
        return frozenset(info.path for info in self._storage.list(self._folder))

    def _write(self, path: str, size: int, *, byte: bytes) -> None:
        writer = self._storage.writer(path)
        try:
            writer.write(byte * size)
            writer.commit()
        finally:
            writer.close()
