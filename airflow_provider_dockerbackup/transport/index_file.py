# SPDX-License-Identifier: Apache-2.0
"""The file of a repository's index: read by many, written by one, made anew when it is damaged.

Messages are shown to whoever may see the page: they name the option, not the folder.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

from airflow_provider_dockerbackup.core.page.index import SCHEMA, VERSION, Index
from airflow_provider_dockerbackup.exceptions import ConfigurationError, TransientError

_WAIT_SECONDS = 5.0


class IndexFile:
    """A SQLite database below a folder that is this user's alone.

    :param folder: made with mode 0700 if it is not there.
    :param url: the repository's, which names the file.
    """

    def __init__(self, folder: Path, *, url: str) -> None:
        self._folder = folder
        self.path = folder / f"page-{VERSION}-{sha256(url.encode()).hexdigest()[:16]}.sqlite"

    @contextmanager
    def reading(self) -> Iterator[Index]:
        """Give the index as it is now, while it is written to or not.

        :raises ConfigurationError: when the folder cannot be used.
        :raises TransientError: when the file is damaged; it is made anew by the next refresh.
        """
        self._require_folder()
        try:
            with closing(self._connected()) as connection:
                # One state for all that a page asks.
                connection.execute("BEGIN")
                yield Index(connection)
        except sqlite3.DatabaseError as err:
            if _damaged(err):
                self._remove_unless_written()
            raise TransientError(f"the page's index cannot be read ({err}); try again in a minute") from err

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection | None]:
        """Give the database to the only writer; None when another process or thread writes.

        :raises ConfigurationError: when the folder cannot be used.
        :raises TransientError: when the disk is full or fails, or the file is damaged; a damaged one is removed.
        """
        self._require_folder()
        with self._locked() as mine:
            if not mine:
                yield None
                return
            try:
                with closing(self._connected()) as connection:
                    yield connection
            except sqlite3.DatabaseError as err:
                if _damaged(err):
                    self._remove()
                raise TransientError(f"the page's index cannot be written in page_index_folder: {err}") from err

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_WAIT_SECONDS)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # It is derived: what a power cut takes is read again.
            connection.execute("PRAGMA synchronous = OFF")
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)

    def _remove_unless_written(self) -> None:
        with self._locked() as mine:
            if mine:
                self._remove()

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _require_folder(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self._folder.stat().st_uid
        except OSError as err:
            raise ConfigurationError(
                f"the folder of the page's index cannot be used ({err.strerror}); set page_index_folder in section "
                "[dockerbackup] to one that the API server may write to"
            ) from err
        if owner != os.geteuid():
            raise ConfigurationError(
                "the folder of the page's index belongs to another user; set page_index_folder in section "
                "[dockerbackup] to one of the API server's own"
            )


def _damaged(err: sqlite3.DatabaseError) -> bool:
    return getattr(err, "sqlite_errorcode", None) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
