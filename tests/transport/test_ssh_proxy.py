# SPDX-License-Identifier: Apache-2.0
"""A ``ProxyCommand`` that ends, hangs or never begins, between us and a real sshd."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.exceptions import ConfigurationError, TransientError
from airflow_provider_dockerbackup.transport import ssh_proxy
from airflow_provider_dockerbackup.transport.ssh import SshSession, SshTimeouts
from airflow_provider_dockerbackup.transport.ssh_config import ssh_client_factory
from airflow_provider_dockerbackup.transport.ssh_proxy import ProxyProcess
from tests.lab import relay
from tests.lab.lab import Lab, LabHost
from tests.lab.processes import descendants, wait_until

# Longer than any test may take, as is paramiko's interval of keepalives: nothing but the end of the link tells of it.
PATIENT = SshTimeouts(stall_seconds=3600, first_byte_seconds=3600)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """A host with a real sshd."""
    with Lab.start(tmp_path_factory.mktemp("lab")) as lab:
        yield lab.hosts[0]


class Way:
    """A way to a host through a relay of which each process leaves its number in a folder."""

    def __init__(self, host: LabHost, folder: Path, *, words: str = "", command: str = "") -> None:
        self._pids = folder / "pids"
        self._pids.mkdir()
        through = [sys.executable, relay.__file__, host.address, str(host.ssh_port), str(self._pids), words]
        lines = [
            f"Host web\nHostName {host.address}\nPort {host.ssh_port}\nUser {host.user}",
            f"IdentityFile {host.private_key_path}\nUserKnownHostsFile {host.known_hosts_path}",
            f"ProxyCommand {command or shlex.join(through)}\n",
        ]
        config = folder / "config"
        config.write_text("\n".join(lines), encoding="utf-8")
        self.session = SshSession(ssh_client_factory("web", config_path=config), where="web", timeouts=PATIENT)

    def pids(self) -> list[int]:
        """Return the numbers of all processes there were."""
        return [int(each.name) for each in self._pids.iterdir()]

    def there(self) -> list[int]:
        """Return those of the processes that are there, if only as zombies."""
        return [pid for pid in self.pids() if Path(f"/proc/{pid}").exists()]


@pytest.mark.timeout(20)
def test_a_stream_ends_when_the_process_dies(host: LabHost, tmp_path: Path) -> None:
    """At once, not when the stream was silent for too long; the next command goes through a new process."""
    way = Way(host, tmp_path)
    with way.session as session:
        assert session.run("echo 1").stdout == b"1\n"
        stream = session.stream_out("echo begun; exec sleep 3600", explain=RuntimeError, what="a stream")  # type: ignore[arg-type]
        chunks = iter(stream)
        assert next(chunks) == b"begun\n"
        assert len(way.pids()) == 2
        for pid in way.pids():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(TransientError):
            next(chunks)
        assert session.run("echo 2").stdout == b"2\n"
        assert len(way.pids()) == 3
    assert wait_until(lambda: not way.there(), seconds=20)


@pytest.mark.timeout(20)
def test_no_process_is_left_when_its_connection_is_closed(host: LabHost, tmp_path: Path) -> None:
    """Not even a zombie, and not one that takes no SIGTERM."""
    way = Way(host, tmp_path, words="deaf")
    with way.session as session:
        assert session.run("echo 1").stdout == b"1\n"
        assert session.stream_in("cat", [b"data"]).stdout == b"data"
        assert way.there()
    assert len(way.pids()) == 2
    assert wait_until(lambda: not way.there(), seconds=20)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("command", ["false", "sh -c 'read version; exit 1'", "sh -c 'exec >&-; exec sleep 1000'"])
def test_a_process_that_ends_the_link_at_once_is_told_at_once(host: LabHost, tmp_path: Path, command: str) -> None:
    """Before any banner could be late; also when it lives on."""
    with Way(host, tmp_path, command=command).session as session, pytest.raises(TransientError, match="web"):
        session.run("echo 1")


@pytest.mark.parametrize("command", ["no-such-program %h", "/etc/passwd", "sh -c 'unclosed"])
def test_a_command_that_cannot_be_run_is_an_error_of_the_configuration(
    host: LabHost, tmp_path: Path, command: str
) -> None:
    """The message says what could not be run, and where that stands."""
    with (
        Way(host, tmp_path, command=command).session as session,
        pytest.raises(ConfigurationError, match=r"ProxyCommand cannot be run: .*SSH configuration"),
    ):
        session.run("echo 1")


@pytest.mark.timeout(20)
def test_what_the_process_says_is_logged_and_never_stops_it(
    host: LabHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """More than a pipe holds."""
    way = Way(host, tmp_path, words="talks")
    with way.session as session:
        assert session.run("echo 1").stdout == b"1\n"
    told = [record.getMessage() for record in caplog.records if record.name == ssh_proxy.__name__]
    assert told[0] == "ProxyCommand: about to connect"
    assert len(told) == 5001


@pytest.mark.timeout(20)
def test_what_the_process_started_ends_with_its_input() -> None:
    """A shell around the program that relays passes no signal on."""
    proxy = ProxyProcess("sh -c 'cat; true'")
    assert wait_until(lambda: bool(descendants(proxy.process.pid)), seconds=10)
    children = descendants(proxy.process.pid)
    proxy.close()
    assert wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in children), seconds=10)


@pytest.mark.timeout(20)
def test_a_write_says_how_much_of_it_was_taken_when_a_signal_comes_amid_it(tmp_path: Path) -> None:
    """What is said to be sent and is not would be missing in the middle of the link."""
    proxy = ProxyProcess(f"sh -c 'sleep 1; exec cat > {tmp_path}/got'")
    data, sent = os.urandom(300_000), 0
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.3, 0.1)
    try:
        sent = proxy.send(data)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 0 < sent < len(data)
    assert wait_until(lambda: (tmp_path / "got").exists() and (tmp_path / "got").stat().st_size == sent, seconds=10)
    proxy.close()
    with pytest.raises(BrokenPipeError):
        proxy.send(b"more")


@pytest.mark.timeout(20)
def test_a_process_of_another_user_ends_with_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that sudo runs, which may not be sent a signal."""

    def refused() -> None:
        raise PermissionError

    proxy = ProxyProcess("cat")
    for name in ("terminate", "kill"):
        monkeypatch.setattr(proxy.process, name, refused)
    proxy.close()
    assert proxy.closed


def test_reading_waits_no_longer_than_it_may_and_gives_what_is_there(tmp_path: Path) -> None:
    """Less than was asked for is enough; after the end there is nothing."""
    proxy = ProxyProcess("sh -c 'read line; echo $line; read line'")
    proxy.settimeout(0.05)
    with pytest.raises(TimeoutError):
        proxy.recv(100)
    proxy.settimeout(3600)
    proxy.send(b"some\n")
    assert proxy.recv(3) == b"som"
    assert proxy.recv(100) == b"e\n"
    proxy.send(b"more\n")
    assert proxy.recv(100) == b""
    proxy.close()
    proxy.close()
    assert proxy.closed
