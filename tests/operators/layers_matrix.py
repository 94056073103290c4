# SPDX-License-Identifier: Apache-2.0
"""Layout ``layers`` on every engine: what changed is fetched by each way, verified, and restored elsewhere."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, get_args

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.fidelity import TIMES_OF_DOCKER
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import Level
from airflow_provider_dockerbackup.core.verify import VerifyRequest, verify_backup
from airflow_provider_dockerbackup.transport.throwaway_daemon import throwaway_daemon
from tests.core.world import Notes
from tests.lab.builder import add_random, build_layers
from tests.lab.images import build_app
from tests.lab.install import require_program
from tests.lab.lab import LabHost
from tests.lab.layers import Entry, base_entries, tar_of
from tests.operators.moving import Outcome, archived, exported, moved, save_from

Way = Literal["push", "save"]
Cells = dict[tuple[str, str], str]
WAYS: Final[tuple[Way, ...]] = get_args(Way)
NOT_MEASURED: Final = "not measured"
NEW_LAYER_BYTES: Final = 400_000
_GENERATIONS: Final = 2
_IMAGE: Final = "matrix/layers:1"
_OWN_BASE: Final = "matrix/own-base:1"
_OWN_APP: Final = "matrix/own-app:1"
_LEVELS: Final[tuple[Level, ...]] = ("digests", "load")
_NEW, _PROVEN = "second generation", "verified"
# What may come besides the new layer: the share it may grow when another compressor had it, and documents.
_GROWTH: Final = 1.1
_DOCUMENTS_BYTES: Final = 64 * 1024


@dataclass(slots=True, kw_only=True)
class LayersMatrix:
    """What was measured in layout ``layers``, by row and column.

    :param images: rows are source and way of capture; columns what came, how it was verified, and targets.
    :param exports: rows are sources, columns are targets.
    """

    images: Cells = field(default_factory=dict)
    exports: Cells = field(default_factory=dict)

    def lines(self, names: list[str]) -> Iterator[str]:
        """Yield the tables.

        :param names: of the engines.
        """
        yield from (
            "In layout `layers`: an image whose top layer changed, captured by each way, restored to other engines,",
            "and a container run from it:",
            "",
        )
        rows = [_row(name, way) for name in names for way in WAYS]
        yield from _rendered("captured on ↓ by, restored on →", rows, [_NEW, _PROVEN, *names], self.images)
        yield from ("", "Exports in layout `layers`, configuration, layer and files of a container made from it:", "")
        yield from _rendered("exported on ↓, restored on →", names, names, self.exports)


def build_own_app(host: LabHost, name: str) -> None:
    """Build an application of which no other engine has a layer, so that a restore must bring all of them.

    Its lowest layer is its own; engines know layers by those below them, too.
    """
    entries = [*base_entries(require_program("busybox").read_bytes()), Entry(name="matrix", data=name.encode())]
    host.daemon.docker("import", "-", _OWN_BASE, input=tar_of(entries))
    build_app(host.daemon, reference=_OWN_APP, base=_OWN_BASE)


def measure_layers(hosts: Mapping[str, LabHost], repository: Repository, *, full: bool) -> LayersMatrix:
    """Capture on every engine and restore to others.

    :param hosts: by the engine's name; they have the lab's application and :func:`build_own_app`'s.
    :param repository: of layout ``layers``.
    :param full: restore to all others, not to one.
    """
    matrix = LayersMatrix()
    for number, (name, source) in enumerate(hosts.items()):
        for step, way in enumerate(WAYS):
            row = _row(name, way)
            backup = _captured(source, repository, name=name, way=way, first=step * _GENERATIONS)
            matrix.images[row, _NEW] = _what_came(backup)
            matrix.images[row, _PROVEN] = _verified(repository, backup)
            original = archived(source.daemon, _IMAGE)
            targets = _targets(hosts, number, step=step + 1, full=full)
            for other, target in targets.items():
                outcome = moved(source, target, repository, backup, original, image=_IMAGE, run=True)
                matrix.images[row, other] = str(outcome)
        # To itself, too: a container's layer is in no image of its own engine either.
        chosen = hosts if full else _targets(hosts, number, step=3, full=False)
        for other, found in exported(source, repository, name=name, targets=chosen).items():
            matrix.exports[name, other] = _of_export(*found)
    return matrix


def _row(name: str, way: Way) -> str:
    return f"{name}, {way}"


def _targets(hosts: Mapping[str, LabHost], number: int, *, step: int, full: bool) -> dict[str, LabHost]:
    """Return the other engines, or the one that is some steps further."""
    names = list(hosts)
    others = [name for name in names if name != names[number]] if full else [names[(number + step) % len(names)]]
    return {name: hosts[name] for name in others}


def _captured(host: LabHost, repository: Repository, *, name: str, way: Way, first: int) -> Backup:
    """Capture some generations of an image and return the backup of the last."""
    backups = []
    for number in range(first, first + _GENERATIONS):
        fill = partial(
            add_random, stem="generation", size_bytes=NEW_LAYER_BYTES, seed=zlib.crc32(f"{name} {number}".encode())
        )
        build_layers(host.daemon, _IMAGE, base=_OWN_APP, layers=[fill])
        backups.append(save_from(host, repository, name=name, image=_IMAGE, capture=way))
    return backups[-1]


def _what_came(backup: Backup) -> str:
    """Return whether only the top layer crossed the wire and was stored."""
    blobs = backup.whole().blobs
    if blobs is None:
        return "**no blobs**"
    new = blobs.layers[-1].stored_size_bytes
    for what, size_bytes in (("received", blobs.received_bytes), ("stored", blobs.new_bytes)):
        if not new <= size_bytes <= _GROWTH * new + _DOCUMENTS_BYTES:
            return f"**{what} {size_bytes} bytes for a new layer of {new}**"
    return "its new layer alone"


def _verified(repository: Repository, backup: Backup) -> str:
    """Return the levels that the backup passes."""
    passed = []
    for level in _LEVELS:
        found = verify_backup(
            backup,
            VerifyRequest(level=level),
            repository=repository,
            test_daemon=throwaway_daemon,
            progress=Notes(),
        )
        if found.verification != "passed":
            return f"**{level}: {found.problem}**"
        passed.append(level)
    return ", ".join(passed)


def _of_export(outcome: Outcome, tree: Mapping[str, tuple[str, ...]]) -> str:
    others = [path for path, how in tree.items() if path not in TIMES_OF_DOCKER or how != ("time",)]
    return str(outcome) if outcome.differs or not others else "**differs:** " + ", ".join(others)


def _rendered(corner: str, rows: list[str], columns: list[str], cells: Cells) -> list[str]:
    lines = ([row, *(cells.get((row, column), _absent(row, column)) for column in columns)] for row in rows)
    return markdown([corner, *columns], lines)


def _absent(row: str, column: str) -> str:
    return "" if row.startswith(f"{column},") else NOT_MEASURED


def markdown(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Return a table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def differing_cells(found: str, page: str) -> list[tuple[str, str]]:
    """Return cells of tables that are not as a page has them, each with the page's; what was not measured is none."""
    lines = zip(found.splitlines(), page.splitlines(), strict=True)
    cells = (pair for each in lines for pair in zip(each[0].split(" | "), each[1].split(" | "), strict=True))
    return [(mine, theirs) for mine, theirs in cells if mine != theirs and mine.strip(" |") != NOT_MEASURED]
