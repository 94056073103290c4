# SPDX-License-Identifier: Apache-2.0
"""The connection's ``host_key`` is a pin: no other key will do, whoever else vouches for it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook
from tests.lab.lab import LabHost


@pytest.fixture
def known(host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose known_hosts has the host's true key."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(f"[{host.address}]:{host.ssh_port} {host.host_key}\n")
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_wrong_pin_is_refused_even_when_known_hosts_has_the_hosts_key(
    known: None, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paramiko asks known_hosts first; that must not overrule the connection."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    connection = json.loads(host.airflow_connection())
    connection["extra"]["host_key"] = (tmp_path / "other.pub").read_text().rsplit(" ", 1)[0]
    monkeypatch.setenv("AIRFLOW_CONN_PINNED", json.dumps(connection))
    with DockerBackupHook("pinned").docker_host() as docker, pytest.raises(ConfigurationError, match="host key"):
        docker.engine()


def test_the_right_pin_and_known_hosts_alone_are_both_enough(
    known: None, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the true key in the connection, or with none and the key in known_hosts, the host is reached."""
    connection = json.loads(host.airflow_connection())
    for extra in (connection["extra"], {"key_file": connection["extra"]["key_file"]}):
        monkeypatch.setenv("AIRFLOW_CONN_PINNED", json.dumps({**connection, "extra": extra}))
        ok, says = DockerBackupHook("pinned").test_connection()
        assert ok, says


def test_a_deadline_longer_than_leftovers_are_kept_is_refused(host: LabHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream must end before another run takes its files for left behind."""
    connection = json.loads(host.airflow_connection())
    connection["extra"]["deadline"] = 100_000
    monkeypatch.setenv("AIRFLOW_CONN_PINNED", json.dumps(connection))
    with pytest.raises(ConfigurationError, match="deadline: expected seconds > 0 and at most 72000"):
        DockerBackupHook("pinned")
