# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup audit``: look at the audit trail, prove it, and make checkpoints and keys."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from airflow_provider_dockerbackup.cli.audit_options import anchors_of, anchors_option, key_option
from airflow_provider_dockerbackup.cli.audit_report import report
from airflow_provider_dockerbackup.cli.options import actor, json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json, print_table
from airflow_provider_dockerbackup.core.audit.checkpoint import CheckpointRequest, make_checkpoint
from airflow_provider_dockerbackup.core.audit.event import AuditEvent
from airflow_provider_dockerbackup.core.audit.proof import TrailProof, prove
from airflow_provider_dockerbackup.core.audit.reading import StoredEvent, stored_events
from airflow_provider_dockerbackup.core.audit.signature import keyring
from airflow_provider_dockerbackup.core.document import utc_text
from airflow_provider_dockerbackup.exceptions import IntegrityError
from airflow_provider_dockerbackup.transport.signing_key import make_signing_key, read_public_key


@click.group()
def audit() -> None:
    """Look at the audit trail of a repository, and prove that nobody edited it."""


@audit.command()
@repository_option
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Only events of this day (UTC) and later.")
@click.option("--type", "prefix", default="", metavar="PREFIX", help="Only types that begin so, such as 'backup.'.")
@click.option("--source", default="", metavar="NAME", help="Only events about this image or container.")
@json_option
def log(*, repository: str, since: datetime | None, prefix: str, source: str, as_json: bool) -> None:
    """List events, oldest first.

    \b
    Example:
      dockerbackup audit log -r /srv/backups --type backup.deleted --since 2026-11-01
    """
    day = since.date() if since else None
    found = []
    unreadable = 0
    for each in stored_events(open_repository(repository).storage, keys={}, since=day):
        if each.event is None:
            unreadable += 1
        elif _is_wanted(each.event, since, prefix, source):
            found.append((each, each.event))
    found.sort(key=lambda pair: (pair[1].time, pair[0].digest))
    if as_json:
        print_json([{"digest": stored.digest, **event.model_dump(mode="json")} for stored, event in found])
    else:
        rows = [_row(stored, event) for stored, event in found]
        print_table(["TIME", "TYPE", "OUTCOME", "SOURCE", "BACKUP", "WHO", "EVENT"], rows)
    if unreadable:
        raise IntegrityError(f"{unreadable} objects of the trail are no readable events; 'audit verify' names them")


def _is_wanted(event: AuditEvent, since: datetime | None, prefix: str, source: str) -> bool:
    late = since is None or event.time >= since.replace(tzinfo=UTC)
    return late and event.type.startswith(prefix) and (not source or source in event.source.split(" ", 2))


def _row(stored: StoredEvent, event: AuditEvent) -> tuple[str, ...]:
    who = event.actor.get("run_id") or event.actor.get("user", "")
    dag = event.actor.get("dag_id", "")
    return (
        f"{event.time:%Y-%m-%d %H:%M:%S}",
        event.type,
        event.outcome,
        event.source,
        str(event.object.get("backup_id", "")),
        f"{dag} {who}".strip(),
        stored.digest.removeprefix("sha256:")[:12],
    )


@audit.command()
@repository_option
@key_option
@anchors_option
@json_option
def verify(*, repository: str, key_files: tuple[Path, ...], anchors_file: Path | None, as_json: bool) -> None:
    """Prove that no event was edited, removed or put in.

    Each line of the anchors file is a digest with anything behind it, as task logs show it after 'audit head', or a
    JSON object with audit_head. Exit code 5 when something is wrong, the first bad event first, and also while events
    that are older than the key have no signed checkpoint over them.

    \b
    Example:
      dockerbackup audit verify -r /srv/backups --public-key audit.key.pub --anchors anchors.txt
    """
    opened = open_repository(repository)
    keys = keyring(read_public_key(each) for each in key_files)
    anchors = anchors_of(anchors_file)
    proof = prove(
        stored_events(opened.storage, keys=keys),
        keys_given=bool(keys),
        repository_id=opened.document.repository_id,
        anchors=anchors,
    )
    if as_json:
        print_json(_proof_json(proof))
    else:
        _tell(proof)
    if not proof.intact:
        raise IntegrityError(proof.problem)


def _tell(proof: TrailProof) -> None:
    click.echo(f"{proof.events} events, {proof.checkpoints} of them checkpoints")
    signed = "checked" if proof.signatures_checked else "NOT checked: no public key was given"
    click.echo(f"signatures {signed}; {proof.anchors} anchors compared")
    if not proof.anchors:
        click.echo("without anchors a cut end of the trail is not seen")
    if proof.not_signed:
        click.echo(proof.not_signed)
    for each in proof.findings:
        if each.kind != "older-than-key":
            click.echo(plain(f"{each.kind}: {each.event} {each.detail}"))
    if proof.intact:
        click.echo("intact")


def _proof_json(proof: TrailProof) -> dict[str, Any]:
    return {
        "intact": proof.intact,
        "state": proof.state,
        "events": proof.events,
        "checkpoints": proof.checkpoints,
        "signatures_checked": proof.signatures_checked,
        "signed_since": utc_text(proof.signed_since) if proof.signed_since else None,
        "anchors": proof.anchors,
        "heads": list(proof.heads),
        "findings": [
            {
                "kind": each.kind,
                "event": each.event,
                "detail": each.detail,
                "time": utc_text(each.time) if each.time else None,
            }
            for each in proof.findings
        ],
    }


@audit.command()
@repository_option
@key_option
@json_option
def checkpoint(*, repository: str, key_files: tuple[Path, ...], as_json: bool) -> None:
    """Make one event that names every event which no other names yet, and print its digest: keep it as an anchor.

    Signed with the key in the file that DOCKERBACKUP_SIGNING_KEY names; a new key signs also when there is no new
    event. Exit code 5 when something had to be left out.

    \b
    Example:
      dockerbackup audit checkpoint -r /srv/backups >> anchors.txt
    """
    opened = open_repository(repository)
    keys = [read_public_key(each) for each in key_files]
    made = make_checkpoint(opened, CheckpointRequest(keys=keys, actor=actor()), progress=BarProgress())
    if as_json:
        print_json(
            {
                "made": made.made,
                "sequence": made.sequence,
                "events": made.events,
                "left_out": list(made.left_out),
                "reconciled": made.reconciled,
                "audit_head": made.audit_head,
            }
        )
    elif made.audit_head is None:
        click.echo("# there is no event yet")
    else:
        click.echo(f"{made.audit_head} checkpoint {made.sequence}, {made.events} new events")
    if made.left_out:
        raise IntegrityError(f"{len(made.left_out)} objects of the trail are damaged or not signed by a trusted key")


@audit.command()
@click.argument("file", type=click.Path(path_type=Path))
def keygen(*, file: Path) -> None:
    """Write a new Ed25519 signing key to FILE, mode 0600, and its public half to FILE.pub.

    \b
    Example:
      dockerbackup audit keygen /etc/airflow/audit.key
    """
    key = make_signing_key(file)
    click.echo(plain(f"{file} signs, {file}.pub checks; key id {key.key_id}"))


audit.add_command(report)
