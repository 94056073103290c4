# SPDX-License-Identifier: Apache-2.0
"""The repositories that the page shows, and their indexes, kept up to date in the background while somebody looks."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from airflow.providers.common.compat.sdk import conf

from airflow_provider_dockerbackup.core.freshness import Rpo
from airflow_provider_dockerbackup.core.page.index import Index
from airflow_provider_dockerbackup.core.page.refresh import refresh
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, NotFoundError
from airflow_provider_dockerbackup.hooks.storage import storage_of, without_userinfo
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.index_file import IndexFile

_LOG = logging.getLogger(__name__)
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.*)")
# Answers wait for a refresh until it is so old, unless the last one took longer: small repositories are then always up
# to date, large ones delay nothing.
_WAIT_SECONDS: Final = 0.2
_REFRESH_SECONDS: Final = 15.0
# A refresh that takes long takes turns with making pages: it has at most one part in this many of the time.
_REFRESH_SHARE: Final = 10.0
SECTION: Final = "dockerbackup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far an index is up to date, as text for people.

    :param busy: what is being read just now; empty when nothing is.
    :param problem: why the latest refresh failed; empty when it did not.
    """

    busy: str
    problem: str


class ShownRepository:
    """One repository of the page.

    :param name: in the page and its addresses.
    :param url: as configured, maybe with a connection id in it.
    :param folder: of indexes.
    """

    def __init__(self, name: str, url: str, *, folder: Path) -> None:
        self.name = name
        self.shown_url = without_userinfo(url)
        self._url = url
        self._file = IndexFile(folder, url=url)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._due = float("-inf")
        self._started = 0.0
        self._took = 0.0
        self._busy = ""
        self._problem = ""

    @property
    def standing(self) -> Standing:
        """How far the index is up to date."""
        return Standing(busy=self._busy, problem=self._problem)

    def is_at(self, text: str) -> bool:
        """Tell whether this is the repository of this name or URL."""
        return text == self.name or _plain(text) == _plain(self.shown_url)

    def open(self) -> Repository:
        """Return the repository itself, without any private key.

        :raises NotFoundError: when there is none.
        """
        return Repository.open(storage_of(self._url), clock=SystemClock())

    @contextmanager
    def index(self) -> Iterator[Index]:
        """Give the index; a refresh that is due is begun first, and waited for a moment.

        :raises ConfigurationError: when its folder cannot be used.
        :raises TransientError: when it is damaged.
        """
        thread = self._begun()
        if thread is not None and self._took <= _WAIT_SECONDS:
            thread.join(max(0.0, self._started + _WAIT_SECONDS - time.monotonic()))
        with self._file.reading() as index:
            yield index

    def wait(self) -> None:
        """Return when no refresh is under way."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _begun(self) -> threading.Thread | None:
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return self._thread
            if time.monotonic() < self._due:
                return None
            self._started = time.monotonic()
            self._thread = threading.Thread(target=self._refresh, name="dockerbackup-page", daemon=True)
            self._thread.start()
            return self._thread

    def _refresh(self) -> None:
        try:
            with self._file.writing() as connection:
                if connection is None:  # another process of the API server is at it
                    return
                refresh(connection, self.open(), told=self._tell)
            self._problem = ""
        except DockerBackupError as err:
            self._problem = str(err)
        except Exception as err:  # noqa: BLE001
            # Nobody waits for this thread: without this line the page would grow old in silence.
            _LOG.exception("the index of %s was not refreshed", self.shown_url)
            self._problem = f"{type(err).__name__}; see the log of the API server"
        finally:
            ended = time.monotonic()
            self._took = ended - self._started
            self._due = ended + max(_REFRESH_SECONDS, _REFRESH_SHARE * self._took)
            if self._thread is threading.current_thread():
                self._busy = ""

    def _tell(self, what: str, done: int, total: int) -> None:
        self._busy = f"{what}: {done:,} of {total:,}" if total else f"{what}: {done:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """All that the page shows."""

    repositories: tuple[ShownRepository, ...]
    rpo: Rpo

    def named(self, text: str) -> ShownRepository:
        """Return the repository of this name or URL.

        :raises NotFoundError: when the page does not show it.
        """
        for each in self.repositories:
            if each.is_at(text):
                return each
        raise NotFoundError(
            f"this page does not show a repository {text!r}; it shows those in option repositories of section "
            f"[{SECTION}] of Airflow's configuration"
        )


def configured() -> Shown:
    """Return what Airflow's configuration says.

    :raises ConfigurationError: names the option.
    """
    return _shown(*(conf.get(SECTION, option, fallback="") or "" for option in _OPTIONS))


_OPTIONS: Final = ("repositories", "page_rpo", "page_rpo_by_source", "page_index_folder")


@lru_cache(maxsize=4)
def _shown(repositories: str, rpo: str, rpo_by_source: str, index_folder: str) -> Shown:
    folder = Path(index_folder) if index_folder else _home() / "dockerbackup"
    named = [_named(item) for item in _items(repositories)]
    names = [name for name, _ in named]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"[{SECTION}] repositories: {', '.join(twice)} is there twice")
    limits = {}
    for item in _items(rpo_by_source):
        pattern, _, duration = item.rpartition("=")
        if not pattern:
            raise ConfigurationError(f"[{SECTION}] page_rpo_by_source: expected PATTERN=DURATION, got {item!r}")
        limits[pattern.strip()] = duration.strip()
    return Shown(
        repositories=tuple(ShownRepository(name, url, folder=folder) for name, url in named),
        rpo=Rpo.parse(rpo or "36h", limits, names=(f"[{SECTION}] page_rpo", f"[{SECTION}] page_rpo_by_source")),
    )


def _items(text: str) -> Sequence[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _named(item: str) -> tuple[str, str]:
    match = _NAMED.fullmatch(item)
    return (match[1], match[2].strip()) if match else (without_userinfo(item), item)


def _plain(url: str) -> str:
    return url.removeprefix("file://").rstrip("/")


def _home() -> Path:
    from airflow.configuration import AIRFLOW_HOME

    return Path(AIRFLOW_HOME)
