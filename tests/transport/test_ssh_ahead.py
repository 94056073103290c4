# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import paramiko
import pytest

from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.transport import ssh_ahead
from airflow_provider_dockerbackup.transport.ssh import SshSession
from tests.lab.faults import FaultProxy
from tests.lab.lab import Lab, LabHost
from tests.transport.ssh_lab import factory, read_all, session


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """A host with a real sshd."""
    with Lab.start(tmp_path_factory.mktemp("lab")) as lab:
        yield lab.hosts[0]


@pytest.fixture
def proxy(host: LabHost) -> Iterator[FaultProxy]:
    """A proxy in front of the host's sshd."""
    with FaultProxy(host.address, host.ssh_port) as opened:
        yield opened


class _Counting:
    """A factory that counts, and keeps what it made; each client takes a while, or fails."""

    def __init__(self, host: LabHost, *, fails_from: int = 1000) -> None:
        self.made: list[paramiko.SSHClient] = []
        self.tries = 0
        self._make = factory(host)
        self._fails_from = fails_from

    def __call__(self) -> paramiko.SSHClient:
        """Return a new client."""
        self.tries += 1
        time.sleep(0.3)
        if self.tries >= self._fails_from:
            raise EOFError("refused by the test")
        self.made.append(self._make())
        return self.made[-1]

    @property
    def open(self) -> int:
        """How many of its clients are connected."""
        return sum(
            transport is not None and transport.is_active()
            for transport in (each.get_transport() for each in self.made)
        )


def test_a_stream_takes_the_connection_that_was_made_ahead(host: LabHost, proxy: FaultProxy) -> None:
    """It makes none of its own; the next stream does."""
    with session(host, port=proxy.port) as ssh:
        ssh.connect()
        ssh.expect_stream()
        _wait_for(lambda: proxy.connections == 2)
        assert read_all(ssh, "head -c 100000 /dev/zero") == 100_000
        assert proxy.connections == 2
        assert read_all(ssh, "head -c 5 /dev/zero") == 5
        assert proxy.connections == 3


def test_a_stream_waits_for_a_connection_that_is_being_made(host: LabHost) -> None:
    """There are never two for one stream, however early it comes and however often it was announced."""
    making = _Counting(host)
    with SshSession(making, where="host-1") as ssh:
        ssh.connect()
        for _ in range(3):
            ssh.expect_stream()
        assert ssh.stream_in("cat", [b"x" * 1000]).stdout == b"x" * 1000
        assert making.tries == 2


def test_nothing_is_made_ahead_before_the_host_let_us_in_once(host: LabHost) -> None:
    """A login that is refused is tried once, not twice: some hosts lock accounts for it."""
    making = _Counting(host)
    with SshSession(making, where="host-1") as ssh:
        ssh.expect_stream()
        assert ssh.run("echo 1").stdout == b"1\n"
        assert making.tries == 1


def test_what_went_wrong_ahead_is_told_by_the_stream_and_not_tried_again(host: LabHost) -> None:
    """The one try that it would have made itself was made."""
    making = _Counting(host, fails_from=2)
    with SshSession(making, where="host-1") as ssh:
        ssh.connect()
        ssh.expect_stream()
        with pytest.raises(TransientError, match="refused by the test"):
            ssh.stream_in("cat", [b"x"])
        assert making.tries == 2


@pytest.mark.parametrize("fails_from", [2, 1000])
def test_a_connection_that_is_too_old_is_not_used(
    host: LabHost, monkeypatch: pytest.MonkeyPatch, fails_from: int
) -> None:
    """A firewall may have forgotten it; nor does an old failure say anything of now."""
    making = _Counting(host, fails_from=fails_from)
    with SshSession(making, where="host-1") as ssh:
        ssh.connect()
        ssh.expect_stream()
        _wait_for(lambda: making.tries == 2 and (fails_from == 2 or making.open == 2))
        monkeypatch.setattr(ssh_ahead, "_FRESH_SECONDS", 0.0)
        making._fails_from = 1000
        assert ssh.stream_in("cat", [b"x"]).stdout == b"x"
        assert making.tries == 3
    _wait_for(lambda: making.open == 0)


def test_a_connection_that_died_meanwhile_is_replaced(host: LabHost) -> None:
    """As if it had never been made."""
    making = _Counting(host)
    with SshSession(making, where="host-1") as ssh:
        ssh.connect()
        ssh.expect_stream()
        _wait_for(lambda: making.open == 2)
        host.kill_sessions()
        _wait_for(lambda: making.open == 0)
        assert ssh.stream_in("cat", [b"x"]).stdout == b"x"


@pytest.mark.parametrize("made", [True, False])
def test_a_connection_that_no_stream_took_is_closed_with_the_session(host: LabHost, *, made: bool) -> None:
    """Also when it is still being made then; no connection and no thread stays."""
    making = _Counting(host)
    with SshSession(making, where="host-1") as ssh:
        ssh.connect()
        ssh.expect_stream()
        if made:
            _wait_for(lambda: making.open == 2)
    _wait_for(lambda: making.tries == 2 and making.open == 0)
    _wait_for(lambda: not any("connect-ahead" in each.name for each in threading.enumerate()))


def _wait_for(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)
