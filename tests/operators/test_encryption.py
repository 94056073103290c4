# SPDX-License-Identifier: Apache-2.0
"""Encrypted backups by operators: made with public keys, proven and restored with a private one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.operators.restore import DockerBackupRestoreOperator
from airflow_provider_dockerbackup.operators.restore_container import DockerContainerRestoreOperator
from airflow_provider_dockerbackup.operators.rollback import DockerBackupRollbackOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from tests.core.encryption.keys import KeyPair, age_pair, ssh_ed25519_pair
from tests.lab.lab import LabHost
from tests.lab.s3 import LabS3
from tests.operators.context import context
from tests.operators.test_main_job import export, image_of, restore, save, verify

pytestmark = pytest.mark.usefixtures("connections")
ANN, BEN = age_pair(), ssh_ed25519_pair()
RECIPIENTS = [f"ann={ANN.public}", BEN.public]


def hold(pair: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this worker have a private key, as a connection's password."""
    connection = {"conn_type": "generic", "password": pair.private.decode()}
    monkeypatch.setenv("AIRFLOW_CONN_BACKUP_KEY", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__DOCKERBACKUP__IDENTITY_CONN_ID", "backup_key")


def objects(url: str) -> dict[str, bytes]:
    """Return all files of a repository."""
    root = Path(url.removeprefix("file://"))
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("layout", "capture"), [("archive", "auto"), ("layers", "save"), ("layers", "push")])
def test_an_encrypted_image_is_proven_and_comes_back(
    layout: str,
    capture: str,
    host: LabHost,
    target: LabHost,
    repository_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task that saves has public keys; the tasks that read have the private key of the second recipient."""
    backup = save(repository_url, layout=layout, capture=capture, compression="zstd", recipients=RECIPIENTS)
    assert save(repository_url, run_id="run-2")["status"] == "unchanged"
    hold(BEN, monkeypatch)
    verified = verify(repository_url, backup["backup_id"])
    assert (verified["verification"], verified["trust"]) == ("passed", "verified")
    assert restore(repository_url, backup["backup_id"], recorded_tags=True)["identical"]
    before, after = image_of(host, "lab/app:1"), image_of(target, "lab/app:1")
    assert (after["Id"], after["Config"]) == (before["Id"], before["Config"])


@pytest.mark.parametrize("layout", ["archive", "layers"])
def test_an_encrypted_repository_on_s3_reads_back(layout: str, s3: LabS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads are named by what they hold when they end."""
    monkeypatch.setenv("AIRFLOW_CONN_BACKUPS", s3.airflow_connection)
    where = {"repository": f"s3://{s3.new_bucket()}/docker", "repository_conn_id": "backups"}
    backup = save(layout=layout, recipients=RECIPIENTS, **where)
    hold(BEN, monkeypatch)
    assert verify(backup_id=backup["backup_id"], level="digests", **where)["verification"] == "passed"


@pytest.mark.parametrize("layout", ["archive", "layers"])
def test_an_encrypted_container_is_made_anew(
    layout: str, target: LabHost, repository_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its filesystem and its configuration were encrypted."""
    backup = export(repository_url, layout=layout, recipients=RECIPIENTS)
    stored = {
        path: data
        for path, data in objects(repository_url).items()
        if path.startswith("blobs/") or path.rpartition("/")[2].startswith(("rootfs-", "container-"))
    }
    assert len(stored) == (2 if layout == "archive" else 4)
    assert all(data.startswith(b"age-encryption.org/v1\n") for data in stored.values())
    hold(ANN, monkeypatch)
    assert verify(repository_url, backup["backup_id"])["verification"] == "passed"
    operator = DockerContainerRestoreOperator(
        task_id="anew",
        dockerbackup_conn_id="docker_host_2",
        backup_id=backup["backup_id"],
        repository=repository_url,
        name="lab-decrypted",
        network="none",
    )
    try:
        assert operator.execute(context(task_id="anew"))["status"] == "created"
        state = target.daemon.docker("inspect", "-f", "{{.State.Running}}", "lab-decrypted").stdout
        assert state.strip() == b"true"
    finally:
        target.daemon.docker("rm", "-f", "-v", "lab-decrypted", check=False)


@pytest.mark.parametrize("pair", [None, age_pair()], ids=["missing", "wrong"])
def test_without_the_right_key_no_task_begins(
    pair: KeyPair | None, repository_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a test daemon nor a host is reached, nothing is written, and Airflow does not try again."""
    backup_id = save(repository_url, recipients=RECIPIENTS)["backup_id"]
    if pair is not None:
        hold(pair, monkeypatch)
    before = objects(repository_url)
    where: dict[str, Any] = {"repository": repository_url, "backup_id": backup_id}
    nowhere = {"dockerbackup_conn_id": "docker_host_2", **where}
    monkeypatch.setenv("PATH", "/nonexistent")  # no dockerd could be started
    for operator in (
        DockerBackupVerifyOperator(task_id="a", **where),
        DockerBackupVerifyOperator(task_id="b", level="digests", **where),
        DockerBackupRestoreOperator(task_id="c", **nowhere),
        DockerBackupRollbackOperator(task_id="d", tag="lab/app:1", **nowhere),
    ):
        with pytest.raises(AirflowFailException, match=ANN.recipient.fingerprint[:23]):
            operator.execute(context())
    assert objects(repository_url) == before


def test_recipients_are_checked_before_a_repository_is_made(repository_url: str) -> None:
    """One recipient is not enough unless allowed, a mistyped one is none, and others are refused later."""
    root = Path(repository_url.removeprefix("file://"))
    for recipients, message in (
        ([ANN.public], "only one"),
        ([ANN.public, ANN.public], "given twice"),
        ([ANN.public, "age1mistyped"], "expected age1"),
        (ANN.public, "expected a list"),
    ):
        with pytest.raises(AirflowFailException, match=message):
            save(repository_url, recipients=recipients)
        assert not root.exists()
    save(repository_url, recipients=[ANN.public], allow_single_recipient="true")
    with pytest.raises(AirflowFailException, match=r"recipients are fixed"):
        save(repository_url, run_id="run-2", recipients=RECIPIENTS)


def test_a_key_file_that_others_may_read_is_refused(
    repository_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a signing key is; with mode 0600 it is used, and a second setting beside it is one too many."""
    backup_id = save(repository_url, recipients=RECIPIENTS)["backup_id"]
    key = tmp_path / "identity"
    key.write_bytes(ANN.private)
    key.chmod(0o640)
    monkeypatch.setenv("AIRFLOW__DOCKERBACKUP__IDENTITY_FILE", str(key))
    with pytest.raises(AirflowFailException, match=r"chmod 600"):
        verify(repository_url, backup_id, level="digests")
    key.chmod(0o600)
    assert verify(repository_url, backup_id, level="digests")["verification"] == "passed"
    hold(ANN, monkeypatch)
    with pytest.raises(AirflowFailException, match=r"both set"):
        verify(repository_url, backup_id, level="digests")
