# SPDX-License-Identifier: Apache-2.0
"""Runs of operators against a repository, and what must be true of it after each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.hooks.storage import existing_repository
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from tests.lab.lab import LabHost
from tests.operators.context import context

IMAGE = "faults/image:1"
IMAGE_BYTES = 24_000_000
CLEAN = "docker_host_1"
FAULTY = "faulty"


def connect(patch: pytest.MonkeyPatch, host: LabHost, *, conn_id: str = CLEAN, **changes: Any) -> str:
    """Announce a connection to a host and give its id.

    :param changes: fields of the connection (``port``, ``login``, ``host``, ``conn_type``), else its extras; an extra
        that is None is left out.
    """
    connection = json.loads(host.airflow_connection())
    for name, value in changes.items():
        part = connection if name in {"port", "login", "host", "conn_type"} else connection["extra"]
        part[name] = value
    connection["extra"] = {name: value for name, value in connection["extra"].items() if value is not None}
    patch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    return conn_id


class Bench:
    """A repository, and the operators that work on it.

    :param url: of the repository.
    :param conn_id: connection with the storage's credentials.
    """

    def __init__(self, url: str, *, conn_id: str | None = None) -> None:
        self.url = url
        self.conn_id = conn_id

    @property
    def repository(self) -> Repository:
        """The repository, opened anew."""
        return existing_repository(self.url, conn_id=self.conn_id)

    @property
    def backup_ids(self) -> set[str]:
        """Ids of the backups in the catalog; each must be readable."""
        return {backup.whole().backup_id for backup in self.repository.catalog.backups()}

    def options(self, *, docker: str = CLEAN, **options: Any) -> dict[str, Any]:
        """Give the arguments of an operator that writes to this repository."""
        return {
            "dockerbackup_conn_id": docker,
            "repository": self.url,
            "repository_conn_id": self.conn_id,
            **options,
        }

    def save(self, *, docker: str = CLEAN, run_id: str = "run-1", image: str = IMAGE, **options: Any) -> dict[str, Any]:
        """Save an image, also when nothing changed."""
        given = self.options(docker=docker, image=image, force=True, **options)
        summary: dict[str, Any] = DockerSaveOperator(task_id="save", **given).execute(
            context(run_id=run_id, task_id="save")
        )
        return summary

    def export(self, container: str, *, docker: str = CLEAN, run_id: str = "run-1", **options: Any) -> dict[str, Any]:
        """Export a container."""
        given = self.options(docker=docker, container=container, **options)
        summary: dict[str, Any] = DockerExportOperator(task_id="export", **given).execute(
            context(run_id=run_id, task_id="export")
        )
        return summary

    def verify(self, backup_id: str, *, level: str = "digests", **options: Any) -> dict[str, Any]:
        """Verify a backup."""
        operator = DockerBackupVerifyOperator(
            task_id="verify",
            backup_id=backup_id,
            repository=self.url,
            repository_conn_id=self.conn_id,
            level=level,  # type: ignore[arg-type]  # some tests give a wrong one
            **options,
        )
        summary: dict[str, Any] = operator.execute(context(task_id="verify"))
        return summary

    def events(self, beginning: str) -> list[dict[str, Any]]:
        """Return the audit events whose type begins so, oldest first."""
        storage = self.repository.storage
        found = [json.loads(storage.read(info.path)) for info in storage.list("audit")]
        chosen = [event for event in found if event["type"].startswith(beginning)]
        return sorted(chosen, key=lambda event: str(event["time"]))

    def leftovers(self) -> set[str]:
        """Return the paths of all files, unfinished ones too, that neither a record nor the repository needs."""
        needed = {"repository.json"}
        for backup in self.repository.catalog.backups():
            record = backup.whole()
            needed |= {backup.path + "backup.json", backup.path + record.archive_file.name}
            if record.container is not None:
                needed.add(backup.path + record.container.configuration_file.name)
        paths = {path for path in self._paths() if not path.startswith("audit/")}
        missing = needed - paths
        assert not missing, f"records name files that are not there: {missing}"
        known = ("confirmed-", "verification-")
        return {path for path in paths - needed if not path.rpartition("/")[2].startswith(known)}

    def _paths(self) -> set[str]:
        if not self.url.startswith("file://"):
            return {info.path for info in self.repository.storage.list("")}
        root = Path(self.url.removeprefix("file://"))
        return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def fails(
    bench: Bench, match: str, *, permanent: bool, docker: str = FAULTY, begun: bool = True, **options: Any
) -> str:
    """See a save fail as it must, then succeed when the fault is gone, and return the error's message.

    Failing, it leaves nothing behind, hides no earlier backup, and tells the audit trail.

    :param match: what the message must match.
    :param permanent: whether Airflow must not try again.
    :param begun: whether the backup began before the fault struck.
    """
    before = bench.backup_ids
    with pytest.raises(AirflowFailException if permanent else TransientError, match=match) as caught:
        bench.save(docker=docker, run_id="fault", **options)
    unharmed(bench, before)
    told = [event["type"] for event in bench.events("backup.") if event["actor"]["run_id"] == "fault"]
    assert told == (["backup.started", "backup.failed"] if begun else [])
    return str(caught.value)


def unharmed(bench: Bench, before: set[str]) -> None:
    """See that the catalog is what it was, that its backups are whole, and that nothing else is there."""
    assert bench.backup_ids == before
    assert bench.leftovers() == set()
    for backup_id in before:
        assert bench.verify(backup_id)["verification"] == "passed"


def recovers(bench: Bench, **options: Any) -> str:
    """See the same run succeed without the fault, leave one more backup and nothing else, and return its id."""
    before = bench.backup_ids
    summary = bench.save(run_id="fault", **options)
    assert summary["status"] == "committed"
    unharmed(bench, before | {summary["backup_id"]})
    assert summary["backup_id"] not in before
    return str(summary["backup_id"])
