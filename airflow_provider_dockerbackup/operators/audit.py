# SPDX-License-Identifier: Apache-2.0
"""Report on the backups of a repository, and fail when a control does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.audit.proof import Anchor
from airflow_provider_dockerbackup.core.audit.signature import PublicKey, keyring
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.freshness import Rpo
from airflow_provider_dockerbackup.core.report.build import build_report, live_things
from airflow_provider_dockerbackup.core.report.controls import NAMES
from airflow_provider_dockerbackup.core.report.model import LiveThing, Report, ReportRequest
from airflow_provider_dockerbackup.core.report.output import to_csv, to_dict, to_html
from airflow_provider_dockerbackup.core.retention.duration import Duration
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError
from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator, actor_of
from airflow_provider_dockerbackup.operators.rendered import columns, number
from airflow_provider_dockerbackup.operators.summary import AuditSummary

if TYPE_CHECKING:
    from airflow.sdk import Context


class DockerBackupAuditOperator(DockerBackupBaseOperator):
    """Say what is covered, how fresh and how proven it is, what was deleted and by which rule, and check the trail.

    Evaluates the controls of AWS Backup Audit Manager that have a meaning here.

    :param repository: URL of the repository. (templated)
    :param hosts: connection ids of the Docker hosts whose live images and containers are compared. (templated)
    :param rpo: how old the newest verified backup of a source may be: ``36h``, ``7d``. (templated)
    :param rpo_by_source: shell patterns of ``host kind name`` or of the name → another such limit. (templated)
    :param rto_minutes: how long a test restore may take. (templated)
    :param min_retention_days: how old a backup must be when it is deleted. (templated)
    :param max_interval: how far apart two points of a source may be. (templated)
    :param period: how far back jobs, drills, deletions and overrides are looked at. (templated)
    :param public_keys: trusted Ed25519 public keys, PEM or OpenSSH; none leaves signatures unchecked. (templated)
    :param anchors: digests of audit events that must be in the trail. (templated)
    :param output_folder: folder of the worker where ``report.html``, ``report.json`` and ``report.csv`` are written;
        None writes none. (templated)
    :param fail_on: names of controls, or ``trail``, that fail the task; after the report was written. (templated)
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :return: an :class:`~airflow_provider_dockerbackup.operators.summary.AuditSummary`.
    """

    template_fields: Sequence[str] = (
        "repository",
        "hosts",
        "rpo",
        "rpo_by_source",
        "rto_minutes",
        "min_retention_days",
        "max_interval",
        "period",
        "public_keys",
        "anchors",
        "output_folder",
        "fail_on",
        "repository_conn_id",
    )

    metric = "audit"

    def __init__(
        self,
        *,
        repository: str,
        hosts: Sequence[str] = (),
        rpo: str = "36h",
        rpo_by_source: Mapping[str, str] | None = None,
        rto_minutes: float | str = 720,
        min_retention_days: float | str = 35,
        max_interval: str = "36h",
        period: str = "7d",
        public_keys: Sequence[str] = (),
        anchors: Sequence[str] = (),
        output_folder: str | None = None,
        fail_on: Sequence[str] = (),
        repository_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repository = repository
        self.hosts = hosts
        self.rpo = rpo
        self.rpo_by_source = rpo_by_source
        self.rto_minutes = rto_minutes
        self.min_retention_days = min_retention_days
        self.max_interval = max_interval
        self.period = period
        self.public_keys = public_keys
        self.anchors = anchors
        self.output_folder = output_folder
        self.fail_on = fail_on
        self.repository_conn_id = repository_conn_id

    def work(self, context: Context) -> AuditSummary:
        """Make the report."""
        from airflow_provider_dockerbackup.hooks.storage import existing_repository

        request = self._request()
        if unknown := sorted(set(self.fail_on) - {*NAMES, "trail"}):
            raise ConfigurationError(f"fail_on: unknown {', '.join(unknown)}; known are {', '.join(NAMES)} and trail")
        keys = keyring(PublicKey.parse(each.encode(), where="public_keys") for each in self.public_keys)
        repository = existing_repository(self.repository, conn_id=self.repository_conn_id)
        names, live = self._live()
        report = build_report(
            repository,
            request,
            live=live,
            live_hosts=names,
            keys=keys,
            anchors=[Anchor(digest=each.split()[0], what="anchors") for each in self.anchors],
        )
        data = json.dumps(to_dict(report), indent=2, sort_keys=True).encode()
        if self.output_folder:
            self._write(Path(self.output_folder), report, data)
        table = [(each.name, each.status, each.detail) for each in report.controls]
        for line in columns(("CONTROL", "RESULT", "WHY"), table):
            self.log.info("%s", line)
        repository.trail(actor_of(context)).tell(
            "report.made",
            progress=self.progress,
            outcome="success",
            subject={"report": sha256_of(data), "controls": {each.name: each.status for each in report.controls}},
        )
        if failed := report.failed(tuple(self.fail_on)):
            raise IntegrityError("; ".join(f"{each.name}: {each.detail}" for each in failed))
        return AuditSummary(
            repository=repository.storage.url,
            controls={each.name: each.status for each in report.controls},
            sources=len(report.sources),
            breaches=[str(each.source) for each in report.sources if each.freshness != "ok"][:100],
            unprotected=[str(each.thing.source) for each in report.coverage if each.how == "unprotected"][:100],
            trail_intact=report.trail.intact,
            report=sha256_of(data),
            audit_head=repository.audit_head,
        )

    def _request(self) -> ReportRequest:
        return ReportRequest(
            period=Duration.parse(self.period, what="period"),
            rpo=Rpo.parse(self.rpo, self.rpo_by_source or {}),
            rto_minutes=number("rto_minutes", self.rto_minutes),
            min_retention_days=number("min_retention_days", self.min_retention_days),
            max_interval=Duration.parse(self.max_interval, what="max_interval"),
        )

    def _live(self) -> tuple[list[str], list[LiveThing]]:
        from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook

        names: list[str] = []
        things: list[LiveThing] = []
        for conn_id in self.hosts:
            with DockerBackupHook(dockerbackup_conn_id=conn_id).docker_host() as host:
                names.append(host.name)
                things.extend(live_things(host))
        return names, things

    def _write(self, folder: Path, report: Report, data: bytes) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "report.json").write_bytes(data)
            (folder / "report.csv").write_text(to_csv(report), encoding="utf-8", newline="")
            (folder / "report.html").write_text(to_html(report), encoding="utf-8")
        except OSError as err:
            raise ConfigurationError(
                f"output_folder {folder}: the report cannot be written there: {err.strerror}"
            ) from err
        self.log.info("report written to %s", folder)
