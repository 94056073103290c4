# SPDX-License-Identifier: Apache-2.0
"""An index on disk, brought up to date and asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_dockerbackup.core.page.index import Index
from airflow_provider_dockerbackup.core.page.refresh import refresh
from airflow_provider_dockerbackup.core.page.rows import SourceRow
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.index_file import IndexFile

TEST_URL = "memory://repository"


def quiet(what: str, done: int, total: int) -> None:
    """Tell nobody."""


class Known:
    """The index of a repository below a folder."""

    def __init__(self, folder: Path) -> None:
        self.file = IndexFile(folder / "index", url=TEST_URL)

    def refresh(self, repository: Repository, *, told: Callable[[str, int, int], None] = quiet) -> None:
        """Bring it up to date."""
        with self.file.writing() as connection:
            assert connection is not None
            refresh(connection, repository, told=told)

    @contextmanager
    def asked(self) -> Iterator[Index]:
        """Give it for questions."""
        with self.file.reading() as index:
            yield index

    def source(self, source: Source) -> SourceRow:
        """Return what it says of a source."""
        with self.asked() as index:
            found = index.source(source)
        assert found is not None
        return found
