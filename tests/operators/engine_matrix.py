# SPDX-License-Identifier: Apache-2.0
"""Every engine against every other: saved there, loaded here, compared.

``python -m tests.operators.engine_matrix`` prints the tables of ``docs/reference/engines.md``, with ``--write`` it
fills them; a test compares these with what it measures.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from airflow_provider_dockerbackup.cli.options import HostOptions
from airflow_provider_dockerbackup.core.archive.docker_archive import ArchivedImage, DockerArchiveScanner
from airflow_provider_dockerbackup.core.attempt import BackupKey
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.export import ExportRequest, export_container
from airflow_provider_dockerbackup.core.fidelity import TIMES_OF_DOCKER
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.reading import archive_stream
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.restore import RestoreRequest, restore_backup
from airflow_provider_dockerbackup.core.save import SaveRequest, save_image
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.core.world import Notes
from tests.lab.daemon import LabDaemon
from tests.lab.engines import Engine
from tests.lab.images import APP, build_app
from tests.lab.lab import Lab, LabHost
from tests.operators.trees import tree_differences

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "reference" / "engines.md"
ENGINES: Final = (
    Engine(version="20.10"),
    Engine(version="26"),
    Engine(version="26", containerd_store=True),
    Engine(version="28"),
    Engine(version="28", containerd_store=True),
)
KEYS: Final = (
    *("Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "Shell", "StopSignal", "User"),
    *("Volumes", "WorkingDir"),
)
_CONTAINER = "lab-matrix"
_TAG = "matrix/app:1"
_EXPORTED = "matrix/exported:1"
_MULTI_LINE = "first 'line'\nsecond \"line\"\n\ttab $(id) `id`"
_BEGIN, _END = "<!-- measured -->", "<!-- end of measured -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What differs, by name; nothing when all is equal.

    :param same_id: whether ``.Id`` is the source's, too.
    """

    differs: tuple[str, ...]
    same_id: bool = False

    def __str__(self) -> str:
        """Give the cell of a table."""
        if self.differs:
            return "**differs:** " + ", ".join(self.differs)
        return "equal, same ID" if self.same_id else "equal"


@dataclass(slots=True, kw_only=True)
class Matrix:
    """What was measured.

    :param versions: of each engine, by its name here.
    :param images: by source and target engine.
    :param exports: by engine: the image from a container's export, exported and restored there.
    :param trees: by engine: paths that differ between the export and one of a container made from what it became,
        with what differs of each.
    """

    versions: dict[str, str] = field(default_factory=dict)
    images: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    exports: dict[str, Outcome] = field(default_factory=dict)
    trees: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)


def name_of(engine: Engine) -> str:
    """Return an engine's name in the tables."""
    return f"{engine.version} {'containerd' if engine.containerd_store else 'classic'}"


def measure(directory: Path) -> Matrix:
    """Start all engines side by side, save and export on each, load on each, compare."""
    matrix = Matrix()
    repository = Repository.open_or_create(storage_from_url(f"file://{directory}/repository"), clock=SystemClock())
    with ExitStack() as stack:
        hosts = {
            name_of(engine): stack.enter_context(Lab.start(directory / f"engine-{number}", engine=engine)).hosts[0]
            for number, engine in enumerate(ENGINES)
        }
        for name, host in hosts.items():
            matrix.versions[name] = (
                host.daemon.docker("version", "--format", "{{.Server.Version}}").stdout.decode().strip()
            )
            build_app(host.daemon)
        for source_name, source in hosts.items():
            backup = _save(source, repository, name=source_name)
            original = _archived(source.daemon, APP)
            for target_name, target in hosts.items():
                matrix.images[source_name, target_name] = _moved(source, target, backup, original, repository)
            matrix.exports[source_name], matrix.trees[source_name] = _exported(source, repository, name=source_name)
    return matrix


@contextmanager
def _docker(host: LabHost, *, name: str) -> Iterator[SshDockerHost]:
    options = HostOptions(
        target=host.name,
        name=name.replace(" ", "-"),
        identity=None,
        ssh_config=host.ssh_config_path,
        docker_command="docker",
        docker_socket=None,
    )
    with options.connected() as docker:
        yield docker


def _key(host: SshDockerHost, kind: SourceKind, source: str) -> BackupKey:
    return BackupKey.of(
        Source(host=host.name, kind=kind, name=source), run_time=datetime.now(UTC), work=("matrix", host.name)
    )


def _save(host: LabHost, repository: Repository, *, name: str) -> Backup:
    with _docker(host, name=name) as docker:
        request = SaveRequest(key=_key(docker, SourceKind.IMAGE, APP))
        return save_image(request, host=docker, repository=repository, progress=Notes()).backup


def _restore(backup: Backup, host: LabHost, repository: Repository, *, tag: str) -> None:
    with _docker(host, name="target") as docker:
        request = RestoreRequest(tags=(tag,))
        restore_backup(backup, request, host=docker, repository=repository, progress=Notes())


def _archived(daemon: LabDaemon, reference: str) -> ArchivedImage:
    """Return what the engine's own ``docker save`` gives: the one view that does not depend on its store."""
    scanner = DockerArchiveScanner()
    scanner.feed(daemon.docker("save", reference).stdout)
    return scanner.finish().image


def _inspected(daemon: LabDaemon, kind: str, reference: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(daemon.docker(kind, "inspect", reference).stdout)[0]
    return document


def _moved(
    source: LabHost, target: LabHost, backup: Backup, original: ArchivedImage, repository: Repository
) -> Outcome:
    """Restore an image's backup to an engine and compare what that engine saves with what the source's saves."""
    _restore(backup, target, repository, tag=_TAG)
    try:
        found = _archived(target.daemon, _TAG)
        pairs = {
            "configuration digest": (original.config_digest, found.config_digest),
            "layers": (original.diff_ids, found.diff_ids),
            "history": (original.history, found.history),
            "docker history": (_history(source.daemon, APP), _history(target.daemon, _TAG)),
        }
        ids = {_inspected(source.daemon, "image", APP)["Id"], _inspected(target.daemon, "image", _TAG)["Id"]}
    finally:
        target.daemon.docker("rmi", _TAG)
    return Outcome(differs=_differing(pairs), same_id=len(ids) == 1)


def _history(daemon: LabDaemon, reference: str) -> list[str]:
    """Return the commands as ``docker history --no-trunc`` shows them."""
    shown = daemon.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", reference)
    return shown.stdout.decode().splitlines()


def _exported(host: LabHost, repository: Repository, *, name: str) -> tuple[Outcome, dict[str, tuple[str, ...]]]:
    """Export a container, restore it on the same engine, and compare configuration, layer and files."""
    daemon = host.daemon
    options = ["--name", _CONTAINER, "--network", "none", "--env", f"MULTI={_MULTI_LINE}", "--label", "note=a b"]
    daemon.docker("create", *options, APP)
    try:
        with _docker(host, name=name) as docker:
            request = ExportRequest(key=_key(docker, SourceKind.CONTAINER, _CONTAINER))
            backup = export_container(request, host=docker, repository=repository, progress=Notes()).backup
        _restore(backup, host, repository, tag=_EXPORTED)
        container, image = _inspected(daemon, "container", _CONTAINER), _inspected(daemon, "image", _EXPORTED)
        pairs: dict[str, tuple[Any, Any]] = {
            key: (container["Config"].get(key) or None, image["Config"].get(key) or None) for key in KEYS
        }
        pairs["layer"] = (list(backup.whole().diff_ids), image["RootFS"]["Layers"])
        daemon.docker("create", "--name", f"{_CONTAINER}-again", "--network", "none", _EXPORTED)
        with archive_stream(repository, backup) as tar:
            archive = b"".join(tar)
        again = daemon.docker("export", f"{_CONTAINER}-again").stdout
        return Outcome(differs=_differing(pairs)), tree_differences(archive, again)
    finally:
        daemon.docker("rm", "--force", "--volumes", _CONTAINER, f"{_CONTAINER}-again", check=False)
        daemon.docker("rmi", _EXPORTED, check=False)


def _differing(pairs: Mapping[str, tuple[Any, Any]]) -> tuple[str, ...]:
    return tuple(name for name, (first, second) in pairs.items() if first != second)


def tables(matrix: Matrix) -> str:
    """Return what stands between the marks of the page."""
    names = list(matrix.versions)
    lines = ["Engines: " + ", ".join(f"{name} ({version})" for name, version in matrix.versions.items()) + ".", ""]
    lines += _table(["saved on ↓, loaded on →", *names], ([each, *_row(matrix, each)] for each in names))
    lines += ["", "Exported from a container and restored there:", ""]
    lines += _table(
        ["engine", "configuration and layer", "files of a container made from it"],
        ([each, str(matrix.exports[each]), _paths(matrix.trees[each])] for each in names),
    )
    return "\n".join(lines)


def _row(matrix: Matrix, source: str) -> list[str]:
    return [str(matrix.images[source, target]) for target in matrix.versions]


def _paths(tree: Mapping[str, tuple[str, ...]]) -> str:
    """Return what differs besides the times of what Docker makes anew in every container."""
    others = {path: how for path, how in tree.items() if path not in TIMES_OF_DOCKER or how != ("time",)}
    return ", ".join(f"`{path}` ({', '.join(how)})" for path, how in others.items()) or "equal"


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


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
        found = tables(measure(Path(directory)))
    sys.stdout.write(found + "\n")
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        head, _, rest = page.partition(_BEGIN)
        PAGE.write_text(f"{head}{_BEGIN}\n{found}\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
