# SPDX-License-Identifier: Apache-2.0
"""Every engine against every other: saved there, loaded here, compared.

``python -m tests.operators.engine_matrix`` prints the tables of ``docs/reference/engines.md``, with ``--write`` it
fills them. A test measures all but most restores from layout ``layers``, and compares.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from airflow_provider_dockerbackup.core.fidelity import TIMES_OF_DOCKER
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.lab.engines import Engine
from tests.lab.images import APP, build_app
from tests.lab.lab import Lab, LabHost
from tests.operators.layers_matrix import LayersMatrix, build_own_app, markdown, measure_layers
from tests.operators.moving import Outcome, archived, exported, moved, save_from

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "reference" / "engines.md"
ENGINES: Final = (
    Engine(version="20.10"),
    Engine(version="26"),
    Engine(version="26", containerd_store=True),
    Engine(version="28"),
    Engine(version="28", containerd_store=True),
)
_BEGIN, _END = "<!-- measured -->", "<!-- end of measured -->"


@dataclass(slots=True, kw_only=True)
class Matrix:
    """What was measured.

    :param versions: of each engine, by its name here.
    :param images: by source and target engine.
    :param exports: by engine: the image from a container's export, exported and restored there.
    :param trees: by engine: paths that differ between the export and one of a container made from what it became,
        with what differs of each.
    :param layers: the same in layout ``layers``.
    """

    versions: dict[str, str] = field(default_factory=dict)
    images: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    exports: dict[str, Outcome] = field(default_factory=dict)
    trees: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    layers: LayersMatrix = field(default_factory=LayersMatrix)


def name_of(engine: Engine) -> str:
    """Return an engine's name in the tables."""
    return f"{engine.version} {'containerd' if engine.containerd_store else 'classic'}"


def measure(directory: Path, *, full: bool = False) -> Matrix:
    """Start all engines side by side, save and export on each, load on each, compare.

    :param full: in layout ``layers`` restore to every engine, not only to one of the others.
    """
    matrix = Matrix()
    clock = SystemClock()
    archives = Repository.open_or_create(storage_from_url(f"file://{directory}/archives"), clock=clock)
    layers = Repository.open_or_create(storage_from_url(f"file://{directory}/layers"), clock=clock, layout="layers")
    with ExitStack() as stack:
        hosts = _hosts(stack, directory)
        for name, host in hosts.items():
            matrix.versions[name] = (
                host.daemon.docker("version", "--format", "{{.Server.Version}}").stdout.decode().strip()
            )
        for name, source in hosts.items():
            backup, original = save_from(source, archives, name=name), archived(source.daemon, APP)
            for target_name, target in hosts.items():
                matrix.images[name, target_name] = moved(source, target, archives, backup, original)
            found = exported(source, archives, name=name, targets={name: source})
            matrix.exports[name], matrix.trees[name] = found[name]
        matrix.layers = measure_layers(hosts, layers, full=full)
    return matrix


def _hosts(stack: ExitStack, directory: Path) -> dict[str, LabHost]:
    """Start a host for each engine, all at once, each with the applications; the stack stops them."""

    def start(number: int) -> LabHost:
        lab = stack.enter_context(Lab.start(directory / f"engine-{number}", engine=ENGINES[number]))
        build_app(lab.hosts[0].daemon)
        build_own_app(lab.hosts[0], name_of(ENGINES[number]))
        return lab.hosts[0]

    with ThreadPoolExecutor() as pool:
        return dict(zip(map(name_of, ENGINES), pool.map(start, range(len(ENGINES))), strict=True))


def tables(matrix: Matrix) -> str:
    """Return what stands between the marks of the page."""
    names = list(matrix.versions)
    lines = ["Engines: " + ", ".join(f"{name} ({version})" for name, version in matrix.versions.items()) + ".", ""]
    lines += markdown(["saved on ↓, loaded on →", *names], ([each, *_row(matrix, each)] for each in names))
    lines += ["", "Exported from a container and restored there:", ""]
    lines += markdown(
        ["engine", "configuration and layer", "files of a container made from it"],
        ([each, str(matrix.exports[each]), _paths(matrix.trees[each])] for each in names),
    )
    return "\n".join([*lines, "", *matrix.layers.lines(names)])


def _row(matrix: Matrix, source: str) -> list[str]:
    return [str(matrix.images[source, target]) for target in matrix.versions]


def _paths(tree: Mapping[str, tuple[str, ...]]) -> str:
    """Return what differs besides the times of what Docker makes anew in every container."""
    others = {path: how for path, how in tree.items() if path not in TIMES_OF_DOCKER or how != ("time",)}
    return ", ".join(f"`{path}` ({', '.join(how)})" for path, how in others.items()) or "equal"


def measured_in(page: str) -> str:
    """Return what a page says was measured."""
    return page.partition(_BEGIN)[2].partition(_END)[0].strip()


def without_versions(text: str) -> str:
    """Return the tables without full versions, which move with Debian's suites."""
    return re.sub(r"^Engines: .*$", "", text, flags=re.MULTILINE)


def main() -> int:
    """Measure, print the tables, and write them if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="fill the tables of the page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as directory:  # a short name: sockets live below it
        found = tables(measure(Path(directory), full=True))
    sys.stdout.write(found + "\n")
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        head, _, rest = page.partition(_BEGIN)
        PAGE.write_text(f"{head}{_BEGIN}\n{found}\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
