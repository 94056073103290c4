# SPDX-License-Identifier: Apache-2.0
"""Back up on one engine, restore on another, and say what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from airflow_provider_dockerbackup.cli.options import HostOptions
from airflow_provider_dockerbackup.core.archive.docker_archive import ArchivedImage, DockerArchiveScanner
from airflow_provider_dockerbackup.core.attempt import BackupKey
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.export import ExportRequest, export_container
from airflow_provider_dockerbackup.core.layers.choice import CaptureChoice
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.reading import archive_stream
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.restore import RestoreRequest, restore_backup
from airflow_provider_dockerbackup.core.save import SaveRequest, save_image
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from tests.core.world import Notes
from tests.lab.daemon import LabDaemon
from tests.lab.images import APP
from tests.lab.lab import LabHost
from tests.operators.trees import tree_differences

KEYS: Final = (
    *("Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "Shell", "StopSignal", "User"),
    *("Volumes", "WorkingDir"),
)
_CONTAINER = "lab-matrix"
_TAG = "matrix/app:1"
_EXPORTED = "matrix/exported:1"
_MULTI_LINE = "first 'line'\nsecond \"line\"\n\ttab $(id) `id`"
_RUN = ("run", "--rm", "--pull", "never", "--network", "none", "--entrypoint", "/bin/busybox")


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


@contextmanager
def docker_on(host: LabHost, *, name: str) -> Iterator[SshDockerHost]:
    """Give a host over SSH.

    :param name: under which its backups are kept.
    """
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


def key_of(host: SshDockerHost, kind: SourceKind, source: str) -> BackupKey:
    """Return the key of a piece of work that was never done before."""
    now = datetime.now(UTC)
    return BackupKey.of(
        Source(host=host.name, kind=kind, name=source), run_time=now, work=("matrix", host.name, now.isoformat())
    )


def save_from(
    host: LabHost, repository: Repository, *, name: str, image: str = APP, capture: CaptureChoice = "auto"
) -> Backup:
    """Save an image of a host."""
    with docker_on(host, name=name) as docker:
        request = SaveRequest(key=key_of(docker, SourceKind.IMAGE, image), capture=capture, force=True)
        return save_image(request, host=docker, repository=repository, progress=Notes()).backup


def restore_to(host: LabHost, repository: Repository, backup: Backup, *, tag: str) -> None:
    """Restore a backup to a host."""
    with docker_on(host, name="target") as docker:
        request = RestoreRequest(tags=(tag,))
        restore_backup(backup, request, host=docker, repository=repository, progress=Notes())


def archived(daemon: LabDaemon, reference: str) -> ArchivedImage:
    """Return what the engine's own ``docker save`` gives: the one view that does not depend on its store."""
    scanner = DockerArchiveScanner()
    scanner.feed(daemon.docker("save", reference).stdout)
    return scanner.finish().image


def inspected(daemon: LabDaemon, kind: str, reference: str) -> dict[str, Any]:
    """Return what the engine says of an image or a container."""
    document: dict[str, Any] = json.loads(daemon.docker(kind, "inspect", reference).stdout)[0]
    return document


def moved(
    source: LabHost,
    target: LabHost,
    repository: Repository,
    backup: Backup,
    original: ArchivedImage,
    *,
    image: str = APP,
    run: bool = False,
) -> Outcome:
    """Restore an image's backup to an engine and compare what that engine saves with what the source's saves.

    :param original: the image as the source's engine saves it.
    :param image: its name there.
    :param run: run a container of it, too.
    """
    restore_to(target, repository, backup, tag=_TAG)
    try:
        found = archived(target.daemon, _TAG)
        pairs: dict[str, tuple[Any, Any]] = {
            "configuration digest": (original.config_digest, found.config_digest),
            "configuration": (original.config, found.config),
            "layers": (original.diff_ids, found.diff_ids),
            "history": (original.history, found.history),
            "docker history": (_history(source.daemon, image), _history(target.daemon, _TAG)),
        }
        if run:
            pairs["run"] = (0, target.daemon.docker(*_RUN, _TAG, "true", check=False).returncode)
        ids = {inspected(source.daemon, "image", image)["Id"], inspected(target.daemon, "image", _TAG)["Id"]}
    finally:
        target.daemon.docker("rmi", _TAG)
    return Outcome(differs=_differing(pairs), same_id=len(ids) == 1)


def _history(daemon: LabDaemon, reference: str) -> list[str]:
    """Return the commands as ``docker history --no-trunc`` shows them."""
    shown = daemon.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", reference)
    return shown.stdout.decode().splitlines()


def exported(
    source: LabHost, repository: Repository, *, name: str, targets: Mapping[str, LabHost]
) -> dict[str, tuple[Outcome, dict[str, tuple[str, ...]]]]:
    """Export a container, restore it on other engines, and compare configuration, layer and files.

    :param targets: by name.
    :return: for each of them what differs, and which paths do and how.
    """
    options = ["--name", _CONTAINER, "--network", "none", "--env", f"MULTI={_MULTI_LINE}", "--label", "note=a b"]
    source.daemon.docker("create", *options, APP)
    try:
        with docker_on(source, name=name) as docker:
            request = ExportRequest(key=key_of(docker, SourceKind.CONTAINER, _CONTAINER))
            backup = export_container(request, host=docker, repository=repository, progress=Notes()).backup
        container = inspected(source.daemon, "container", _CONTAINER)
    finally:
        source.daemon.docker("rm", "--force", "--volumes", _CONTAINER, check=False)
    return {each: _brought_back(container, backup, repository, target) for each, target in targets.items()}


def _brought_back(
    container: Mapping[str, Any], backup: Backup, repository: Repository, target: LabHost
) -> tuple[Outcome, dict[str, tuple[str, ...]]]:
    docker = target.daemon.docker
    restore_to(target, repository, backup, tag=_EXPORTED)
    try:
        image = inspected(target.daemon, "image", _EXPORTED)
        pairs: dict[str, tuple[Any, Any]] = {
            key: (container["Config"].get(key) or None, image["Config"].get(key) or None) for key in KEYS
        }
        pairs["layer"] = (list(backup.whole().diff_ids), image["RootFS"]["Layers"])
        docker("create", "--name", f"{_CONTAINER}-again", "--network", "none", _EXPORTED)
        with archive_stream(repository, backup) as tar:
            archive = b"".join(tar)
        again = docker("export", f"{_CONTAINER}-again").stdout
        return Outcome(differs=_differing(pairs)), tree_differences(archive, again)
    finally:
        docker("rm", "--force", "--volumes", f"{_CONTAINER}-again", check=False)
        docker("rmi", _EXPORTED, check=False)


def _differing(pairs: Mapping[str, tuple[Any, Any]]) -> tuple[str, ...]:
    return tuple(name for name, (first, second) in pairs.items() if first != second)
