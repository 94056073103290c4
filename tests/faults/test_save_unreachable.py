# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.bench import FAULTY, Bench, connect, fails, recovers
from tests.lab.lab import LabHost
from tests.lab.sshd import free_port


def test_save_is_refused_when_the_host_key_changed(
    bench: Bench, host: LabHost, target: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another key may mean another machine: both fingerprints and the way to compare them are told."""
    connect(monkeypatch, host, conn_id=FAULTY, host_key=target.host_key)
    said = fails(bench, r"host-1 .*host key changed from SHA256:.* to SHA256:", permanent=True, begun=False)
    assert "ssh-keygen" in said
    assert "host_key" in said
    recovers(bench)


def test_save_is_refused_when_the_host_key_is_unknown(
    bench: Bench, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that nobody vouched for is not spoken to, and the message says how to change that."""
    monkeypatch.setenv("HOME", str(tmp_path))
    connect(monkeypatch, host, conn_id=FAULTY, host_key=None)
    fails(bench, r"host-1 .*host key is not known.*ssh-keyscan.*known_hosts", permanent=True, begun=False)
    recovers(bench)


def test_save_is_refused_when_the_key_opens_no_session(
    bench: Bench, host: LabHost, target: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is not in authorized_keys stays a wrong key: no retry, and the place to look."""
    connect(monkeypatch, host, conn_id=FAULTY, key_file=str(target.private_key_path))
    said = fails(bench, r"host-1 .*login refused.*authorized_keys", permanent=True, begun=False)
    assert "PRIVATE KEY" not in said
    recovers(bench)


def test_save_is_transient_when_nothing_listens_on_the_port(
    bench: Bench, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that is down may come back."""
    port = free_port()
    connect(monkeypatch, host, conn_id=FAULTY, port=port)
    fails(bench, rf"host-1 .*{port}.*cannot connect.*sshd runs", permanent=False, begun=False)
    recovers(bench)


def test_save_is_transient_when_sshd_restarts_just_then(
    bench: Bench, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While sshd is down a save fails and touches nothing; when it is up again the same run succeeds."""
    connect(monkeypatch, host, conn_id=FAULTY)
    host.stop_sshd()
    try:
        fails(bench, r"host-1 .*cannot connect", permanent=False, begun=False)
    finally:
        host.start_sshd()
    recovers(bench)
