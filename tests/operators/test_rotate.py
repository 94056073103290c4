# SPDX-License-Identifier: Apache-2.0
"""Rotation and checkpoints as tasks, with a signing key from Airflow's configuration, on a real repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.core.audit.proof import Anchor, prove
from airflow_provider_dockerbackup.core.audit.reading import stored_events
from airflow_provider_dockerbackup.core.audit.signature import keyring
from airflow_provider_dockerbackup.operators.checkpoint import DockerBackupCheckpointOperator
from airflow_provider_dockerbackup.operators.rotate import DockerBackupRotateOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from airflow_provider_dockerbackup.transport.signing_key import make_signing_key, read_public_key
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.operators.context import context


def save(repository: str, *, run: int) -> str:
    """Save the image in one run."""
    operator = DockerSaveOperator(
        task_id="save", dockerbackup_conn_id="docker_host_1", image="lab/app:1", repository=repository, force=True
    )
    summary = operator.execute(context(task_id="save", run_id=f"run-{run}"))
    return str(summary["backup_id"])


@pytest.mark.usefixtures("connections")
def test_a_rotation_keeps_the_verified_one_and_the_signed_trail_proves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three saves, the first verified: of the others the older goes; every event is signed, every head is an anchor."""
    make_signing_key(tmp_path / "audit.key")
    monkeypatch.setenv("AIRFLOW__DOCKERBACKUP__SIGNING_KEY_FILE", str(tmp_path / "audit.key"))
    repository = f"file://{tmp_path}/repository"
    first, second, third = (save(repository, run=number) for number in range(3))
    verify = DockerBackupVerifyOperator(task_id="verify", backup_id=first, repository=repository, level="load")
    heads = [verify.execute(context(task_id="verify"))["audit_head"]]
    policy = {"keep_last": 1, "min_verified": 1}
    with pytest.raises(AirflowFailException, match="unknown keep_lst"):
        DockerBackupRotateOperator(task_id="rotate", repository=repository, policy={"keep_lst": 1}).execute(
            context(task_id="rotate")
        )
    planning = DockerBackupRotateOperator(task_id="rotate", repository=repository, policy=policy, plan_only="true")
    planned = planning.execute(context(task_id="rotate"))
    assert (planned["removed_ids"], planned["audit_head"], planned["dry_run"]) == ([second], None, True)
    rotating = DockerBackupRotateOperator(task_id="rotate", repository=repository, policy=policy)
    capsys.readouterr()
    done = rotating.execute(context(task_id="rotate"))
    log = capsys.readouterr().out
    assert (done["removed_ids"], done["kept"]) == ([second], 2)
    assert re.search(rf"remove +\S+ image lab/app:1 +{second} +not verified +no rule keeps it", log)
    assert re.search(rf"keep +\S+ image lab/app:1 +{first} +verified +newest verified", log)
    assert third in log
    checkpoint = DockerBackupCheckpointOperator(task_id="checkpoint", repository=repository)
    made = checkpoint.execute(context(task_id="checkpoint"))
    assert (made["made"], made["sequence"], made["left_out"]) == (True, 1, [])
    heads += [done["audit_head"], made["audit_head"]]
    keys = keyring([read_public_key(tmp_path / "audit.key.pub")])
    proof = prove(
        stored_events(storage_from_url(repository), keys=keys),
        keys_given=True,
        anchors=[Anchor(digest=head) for head in heads],
    )
    assert proof.intact, proof.findings
    assert proof.heads == (made["audit_head"],)


@pytest.mark.usefixtures("connections")
def test_a_rotation_follows_a_source_own_policy_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log names the source and its policy."""
    repository = f"file://{tmp_path}/repository"
    for number in range(3):
        DockerSaveOperator(
            task_id="save",
            dockerbackup_conn_id="docker_host_1",
            image="lab/app:1",
            repository=repository,
            force=True,
            retention="keep_last=2",
        ).execute(context(task_id="save", run_id=f"run-{number}"))
    rotate: dict[str, Any] = {
        "task_id": "rotate",
        "repository": repository,
        "policy": {"keep_last": 1},
        "max_removed_share": 1,
    }
    ignoring = DockerBackupRotateOperator(**rotate, own_policies="false", plan_only=True)
    assert ignoring.execute(context(task_id="rotate"))["removed"] == 2
    capsys.readouterr()
    assert DockerBackupRotateOperator(**rotate).execute(context(task_id="rotate"))["removed"] == 1
    assert "image lab/app:1 has a policy of its own: keep_last=2" in capsys.readouterr().out


@pytest.mark.usefixtures("connections")
def test_a_checkpoint_leaves_a_damaged_event_out_and_fails(tmp_path: Path) -> None:
    """The task is red, and the trail says at which object."""
    repository = f"file://{tmp_path}/repository"
    save(repository, run=1)
    event = next(iter((tmp_path / "repository" / "audit").rglob("*.json")))
    event.chmod(0o600)
    event.write_bytes(event.read_bytes().replace(b'"success"', b'"failure"').replace(b'"intent"', b'"success"'))
    checkpoint = DockerBackupCheckpointOperator(task_id="checkpoint", repository=repository)
    with pytest.raises(AirflowFailException, match=event.name):
        checkpoint.execute(context(task_id="checkpoint"))


@pytest.mark.usefixtures("connections")
def test_a_signing_key_that_others_may_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is captured."""
    make_signing_key(tmp_path / "audit.key")
    (tmp_path / "audit.key").chmod(0o644)
    monkeypatch.setenv("AIRFLOW__DOCKERBACKUP__SIGNING_KEY_FILE", str(tmp_path / "audit.key"))
    with pytest.raises(AirflowFailException, match="chmod 600"):
        save(f"file://{tmp_path}/repository", run=1)
    assert not (tmp_path / "repository" / "backups").exists()
