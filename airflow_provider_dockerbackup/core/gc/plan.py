# SPDX-License-Identifier: Apache-2.0
"""What a garbage collection finds: blobs that nobody needs, what names them, and what is left of the dead."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_dockerbackup.core.gc.documents import CLOSED_PATH, TRASH, TRASH_PATH, closed_path
from airflow_provider_dockerbackup.core.gc.references import References, digest_of, key_of
from airflow_provider_dockerbackup.core.gc.several import several
from airflow_provider_dockerbackup.core.layers.documents import HINTS_FOLDER, MAPS_FOLDER, LayerMap
from airflow_provider_dockerbackup.core.places import ATTEMPT_FILE, BLOBS_FOLDER, RECORD_FILE, blob_path
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.record import BackupRecord
from airflow_provider_dockerbackup.core.storage import Storage
from airflow_provider_dockerbackup.exceptions import IntegrityError, NotFoundError

_BLOB: Final = re.compile(rf"{BLOBS_FOLDER}/([0-9a-f]{{64}})")
_MAP: Final = re.compile(rf"{MAPS_FOLDER}/([0-9a-f]{{64}})\.json")
_HINT: Final = re.compile(rf"{HINTS_FOLDER}/[0-9a-f]{{16}}/([0-9a-f]{{64}})/[0-9a-f]{{64}}\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class GcPlan:
    """What is to be done.

    :param backups: how many backups count.
    :param blobs: how many blobs there are.
    :param garbage: size of each blob that nobody needs, by the 32 bytes of its digest.
    :param maps: layer maps that name a blob of ``garbage``.
    :param dangling: layer maps whose blob is not there.
    :param hints: engine hints of layers that are not there.
    :param ended: files of backups that were deleted for good, by folder.
    :param returning: needed objects that are in the trash: path → where they are.
    :param missing: digests that backups need and that are nowhere.
    :param expired: what leaves the trash for ever, with its size.
    :param unclosed: names of collections that died before they closed their trash.
    """

    backups: int
    blobs: int
    garbage: dict[bytes, int]
    maps: dict[bytes, tuple[str, ...]]
    dangling: tuple[str, ...]
    hints: tuple[str, ...]
    ended: dict[str, tuple[str, ...]]
    returning: dict[str, str]
    missing: tuple[str, ...]
    expired: dict[str, int]
    unclosed: tuple[str, ...]

    @property
    def garbage_bytes(self) -> int:
        """What the garbage takes."""
        return sum(self.garbage.values())

    @property
    def expired_bytes(self) -> int:
        """What leaves the trash."""
        return sum(self.expired.values())

    def summary(self) -> dict[str, Any]:
        """Return what the audit event says; one digest stands for the list of garbage, however long it is."""
        listed = b"".join(sorted(self.garbage))
        return {
            "backups": self.backups,
            "blobs": self.blobs,
            "garbage": len(self.garbage),
            "garbage_bytes": self.garbage_bytes,
            "garbage_digest": f"sha256:{hashlib.sha256(listed).hexdigest()}",
            "ended": sorted(path.rstrip("/").rpartition("/")[2] for path in self.ended),
            "returning": len(self.returning),
            "missing": len(self.missing),
            "purged": sum(1 for path in self.expired if not CLOSED_PATH.fullmatch(path)),
            "purged_bytes": self.expired_bytes,
        }


class Planner:
    """Looks at everything but what is needed, which :class:`References` knows.

    :param now: the storage's own time.
    :param grace: nothing younger is garbage.
    :param trash: how long the trash is kept.
    """

    def __init__(
        self,
        storage: Storage,
        references: References,
        *,
        now: datetime,
        grace: timedelta,
        trash: timedelta,
        progress: Progress,
        threads: int,
    ) -> None:
        self._storage = storage
        self._references = references
        self._now = now
        self._grace = grace
        self._trash = trash
        self._progress = progress
        self._threads = threads

    def plan(self) -> GcPlan:
        """Return what is to be done; :meth:`References.look` comes first.

        Maps are listed before blobs, and blobs after records: each names only what was there before it.
        """
        maps = dict(self._maps())
        sizes, garbage = self._blobs()
        ended = {path: found for path, names in self._references.gone.items() if (found := _own_files(names))}
        naming, dangling = self._naming(maps, sizes, garbage, self._documents(ended))
        missing = {digest_of(key) for key in self._references.blobs if key not in sizes}
        returning, expired, unclosed = self._trashed(missing)
        here = self._references.diff_ids | (maps.keys() - {maps_key(path) for path in dangling})
        here -= {maps_key(path) for paths in naming.values() for path in paths}
        return GcPlan(
            backups=self._references.backups,
            blobs=len(sizes),
            garbage=garbage,
            maps=naming,
            dangling=dangling,
            hints=tuple(self._hints(here)),
            ended=ended,
            returning=returning,
            missing=tuple(sorted(each for each in missing if blob_path(each) not in returning)),
            expired=expired,
            unclosed=unclosed,
        )

    def _blobs(self) -> tuple[set[bytes], dict[bytes, int]]:
        """Return all blobs, and the size of each that nobody needs and that is old enough."""
        present: set[bytes] = set()
        garbage = {}
        oldest = self._now - self._grace
        for info in self._storage.list(BLOBS_FOLDER):
            match = _BLOB.fullmatch(info.path)
            if match is None:
                continue  # not ours
            key = bytes.fromhex(match[1])
            present.add(key)
            if info.modified < oldest and not self._references.needs(key):
                garbage[key] = info.size_bytes
        return present, garbage

    def _maps(self) -> Iterator[tuple[bytes, str]]:
        for info in self._storage.list(MAPS_FOLDER):
            match = _MAP.fullmatch(info.path)
            if match is not None:
                yield bytes.fromhex(match[1]), info.path

    def _documents(self, ended: Iterable[str]) -> set[bytes]:
        """Return the blobs of ended backups that hold no layer, so that no map names them."""
        found: set[bytes] = set()
        for path in ended:
            try:
                where = f"{self._storage.url}/{path}{RECORD_FILE}"
                record = BackupRecord.from_bytes(self._storage.read(path + RECORD_FILE), where=where)
            except (IntegrityError, NotFoundError) as err:
                self._progress.note(f"the record of a deleted backup cannot be read: {err}")
                continue
            if record.blobs is not None:
                found |= {key_of(record.blobs.manifest.digest), key_of(record.blobs.config.digest)}
        return found

    def _naming(
        self, maps: dict[bytes, str], present: set[bytes], garbage: dict[bytes, int], documents: set[bytes]
    ) -> tuple[dict[bytes, tuple[str, ...]], tuple[str, ...]]:
        """Return the maps that name garbage, and those that name nothing; reads as few as it can.

        A layer that a backup needs has its map where it belongs, unless two writers stored it at once: then one of the
        two blobs may be garbage, and have the map.
        """
        naming: dict[bytes, list[str]] = defaultdict(list)
        dangling: list[str] = []

        def sort(chosen: Iterable[bytes]) -> None:
            for path, key in several(self._named_by, [maps[each] for each in chosen], threads=self._threads):
                if key in garbage:
                    naming[key].append(path)
                elif key is not None and key not in present:
                    dangling.append(path)

        sort(maps.keys() - self._references.diff_ids)
        if garbage.keys() - naming.keys() - documents:
            sort(maps.keys() & self._references.diff_ids)
        return {key: tuple(paths) for key, paths in naming.items()}, tuple(dangling)

    def _named_by(self, path: str) -> tuple[str, bytes | None]:
        """Return the path and the blob that the map there names; None when it is gone, or cannot be read."""
        try:
            return path, key_of(LayerMap.from_bytes(self._storage.read(path), where=path).digest)
        except NotFoundError:
            return path, None
        except IntegrityError as err:
            self._progress.note(f"WARNING: {err}; it is left alone, and its layer is stored anew when it comes again")
            return path, None

    def _hints(self, here: set[bytes]) -> Iterator[str]:
        """Yield the hints of layers that are not ``here``."""
        oldest = self._now - self._grace
        for info in self._storage.list(HINTS_FOLDER):
            match = _HINT.fullmatch(info.path)
            if match is not None and info.modified < oldest and bytes.fromhex(match[1]) not in here:
                yield info.path

    def _trashed(self, missing: set[str]) -> tuple[dict[str, str], dict[str, int], tuple[str, ...]]:
        """Return what must come back, what has been in the trash for long enough, and whose trash is not closed."""
        closed = {}
        kept: dict[str, dict[str, int]] = defaultdict(dict)
        returning: dict[str, str] = {}
        wanted = {blob_path(each) for each in missing}
        for info in self._storage.list(TRASH):
            if (match := CLOSED_PATH.fullmatch(info.path)) is not None:
                closed[match["gc"]] = info.modified
            elif (match := TRASH_PATH.fullmatch(info.path)) is not None:
                kept[match["gc"]][info.path] = info.size_bytes
                if match["path"] in wanted:
                    returning[match["path"]] = info.path
        coming = set(returning.values())
        expired: dict[str, int] = {}
        for gc, moment in closed.items():
            if self._now - moment > self._trash:
                expired |= {path: size for path, size in kept[gc].items() if path not in coming}
                expired[closed_path(gc)] = 0  # last: it says how old the others are
        return returning, expired, tuple(sorted(kept.keys() - closed.keys()))


def maps_key(path: str) -> bytes:
    """Return the 32 bytes of the diff_id in a map's path."""
    return bytes.fromhex(path.rpartition("/")[2].removesuffix(".json"))


def _own_files(names: Iterable[str]) -> tuple[str, ...]:
    """Return the files of a backup that are no documents about it."""
    return tuple(sorted(name for name in names if ATTEMPT_FILE.fullmatch(name)))
