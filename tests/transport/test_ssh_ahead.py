# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import paramiko
import pytest

from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.transport import ssh_ahead
from airflow_provider_dockerbackup.transport.ssh import SshSession
from tests.lab.faults import FaultProxy
from tests.lab.lab import Lab, LabHost
from tests.lab.processes import wait_until
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
        self.fails_from = fails_from

    def __call__(self) -> paramiko.SSHClient:
        """Return a new client."""
        self.tries += 1
        time.sleep(0.3)
        if self.tries >= self.fails_from:
            raise EOFError("refused by the test")
        self.made.append(self._make())
        return self.made[-1]

    @property
    def open(self) -> int:
        """How many of its clients are connected."""
        return sum(map(ssh_ahead.is_alive, self.made))


@contextmanager
def _expecting(making: _Counting) -> Iterator[SshSession]:
    """Give a session that is connected, and was told that a stream follows."""
    with SshSession(making, where="host-1") as ssh:
        ssh.connect()
        ssh.expect_stream()
        yield ssh


def test_a_stream_takes_the_connection_that_was_made_ahead(host: LabHost, proxy: FaultProxy) -> None:
    """It makes none of its own; the next stream does."""
    with session(host, port=proxy.port) as ssh:
        ssh.connect()
        ssh.expect_stream()
        assert wait_until(lambda: proxy.connections == 2, seconds=10)
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
    with _expecting(making) as ssh:
        with pytest.raises(TransientError, match="refused by the test"):
            ssh.stream_in("cat", [b"x"])
        assert making.tries == 2


def test_a_failure_of_long_ago_says_nothing_of_now(host: LabHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream tries by itself then."""
    monkeypatch.setattr(ssh_ahead, "_FRESH_SECONDS", 0.0)
    making = _Counting(host, fails_from=2)
    with _expecting(making) as ssh:
        assert wait_until(lambda: _threads() == 0, seconds=10)
        making.fails_from = 1000
        assert ssh.stream_in("cat", [b"x"]).stdout == b"x"
        assert making.tries == 3


def test_a_connection_that_no_stream_takes_for_long_is_closed(host: LabHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for hours holds none, and a firewall may have forgotten it; the stream makes another one."""
    monkeypatch.setattr(ssh_ahead, "_FRESH_SECONDS", 0.5)
    making = _Counting(host)
    with _expecting(making) as ssh:
        assert wait_until(lambda: making.tries == 2 and making.open == 1 and _threads() == 0, seconds=10)
        assert ssh.stream_in("cat", [b"x"]).stdout == b"x"
        assert making.tries == 3
    assert wait_until(lambda: making.open == 0, seconds=10)


def test_one_that_failed_is_forgotten_when_the_next_stream_is_announced(host: LabHost) -> None:
    """What went wrong for one piece of work is not told by the next."""
    making = _Counting(host, fails_from=2)
    with _expecting(making) as ssh:
        assert wait_until(lambda: _threads() == 0, seconds=10)
        making.fails_from = 1000
        ssh.expect_stream()
        assert ssh.stream_in("cat", [b"x"]).stdout == b"x"
        assert making.tries == 3


def test_nothing_is_made_ahead_once_the_control_connection_is_dead(host: LabHost) -> None:
    """Whoever is not let in any more is refused once."""
    making = _Counting(host, fails_from=2)
    with SshSession(making, where="host-1") as ssh:
        ssh.connect()
        host.kill_sessions()
        assert wait_until(lambda: making.open == 0, seconds=10)
        ssh.expect_stream()
        with pytest.raises(TransientError, match="refused by the test"):
            ssh.connect()
        assert making.tries == 2


def test_announcing_a_stream_neither_waits_nor_raises(host: LabHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while somebody else connects, and not when there can be no further thread; the stream comes all the same."""
    making = _Counting(host)
    with SshSession(making, where="host-1") as ssh:
        ssh.connect()
        with ssh._lock:
            announcing = threading.Thread(target=ssh.expect_stream, daemon=True)
            announcing.start()
            announcing.join(10)
            assert not announcing.is_alive()

        def refuse(_: object) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            ssh.expect_stream()
        assert making.tries == 1
        assert ssh.stream_in("cat", [b"x"]).stdout == b"x"


def test_who_is_interrupted_while_it_waits_leaves_no_connection(host: LabHost) -> None:
    """As by a task's time limit, which is raised by a signal's handler."""
    making = _Counting(host)

    def interrupt(*_: object) -> None:
        raise TimeoutError("the task's time is over")

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with _expecting(making) as ssh:
            main = threading.main_thread().ident
            assert main is not None
            threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGUSR1)).start()
            with pytest.raises(TimeoutError):
                ssh.stream_in("cat", [b"x"])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert wait_until(lambda: len(making.made) == 2 and making.open == 0 and _threads() == 0, seconds=10)


def test_a_connection_that_died_meanwhile_is_replaced(host: LabHost) -> None:
    """As if it had never been made."""
    making = _Counting(host)
    with _expecting(making) as ssh:
        assert wait_until(lambda: making.open == 2, seconds=10)
        host.kill_sessions()
        assert wait_until(lambda: making.open == 0, seconds=10)
        assert ssh.stream_in("cat", [b"x"]).stdout == b"x"


@pytest.mark.parametrize("made", [True, False])
def test_a_connection_that_no_stream_took_is_closed_with_the_session(host: LabHost, *, made: bool) -> None:
    """Also when it is still being made then; no connection and no thread stays."""
    making = _Counting(host)
    with _expecting(making):
        if made:
            assert wait_until(lambda: making.open == 2, seconds=10)
    assert wait_until(lambda: making.tries == 2 and making.open == 0, seconds=10)
    assert wait_until(lambda: _threads() == 0, seconds=10)


def _threads() -> int:
    """How many connections are being made ahead, or wait for a stream."""
    return sum("connect-ahead" in each.name for each in threading.enumerate())
