# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.exceptions import ConfigurationError, TransientError
from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook
from tests.lab import relay as lab_relay
from tests.lab.daemon import LabDaemon
from tests.lab.faults import FaultProxy
from tests.lab.lab import Lab, LabHost
from tests.lab.processes import command_line, descendants, pids, wait_until
from tests.lab.sshd import LabSshd, free_port

CONN_ID = "hooked"
STARTUPS = 4
Connect = Callable[..., DockerBackupHook]


@pytest.fixture
def connect(host: LabHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Make hooks on the first host; keyword arguments change fields of the connection, or else its extras."""
    made: list[DockerBackupHook] = []

    def hook(**changes: Any) -> DockerBackupHook:
        connection = json.loads(host.airflow_connection())
        for name, value in changes.items():
            part = connection if name in {"conn_type", "host", "port", "login"} else connection["extra"]
            part[name] = value
        connection["extra"] = {name: value for name, value in connection["extra"].items() if value is not None}
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(connection))
        made.append(DockerBackupHook(dockerbackup_conn_id=CONN_ID))
        return made[-1]

    yield hook
    for each in made:
        each.close()


def script(path: Path, body: str) -> str:
    """Write an executable shell script that stands in for a program of the host."""
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def refusal(hook: DockerBackupHook) -> str:
    """Return why a connection does not pass its test; one line."""
    passed, said = hook.test_connection()
    assert not passed
    assert "\n" not in said
    assert "PRIVATE KEY" not in said
    return said


@pytest.mark.parametrize("conn_type", ["dockerbackup", "ssh"])
def test_connection_test_names_the_engine_when_all_is_well(conn_type: str, connect: Connect) -> None:
    """A connection made for this provider passes, and so does one that was there for SSH already."""
    passed, said = connect(conn_type=conn_type).test_connection()
    assert passed
    assert re.fullmatch(r"Docker Engine [0-9.]+\S* \((graphdriver|containerd)/\S+\) on host-1", said)


def test_host_is_named_by_its_address_when_the_connection_gives_no_name(connect: Connect, host: LabHost) -> None:
    """An SSH connection that knows nothing of this provider still gives backups a name that stays the same."""
    assert connect(conn_type="ssh", host_name=None).settings.host_name == f"127.0.0.1:{host.ssh_port}"


def test_connection_test_says_where_nobody_answers(connect: Connect) -> None:
    """Host and port are named, and what to look at."""
    port = free_port()
    assert re.search(rf"host-1 \(.*:{port}\).*cannot connect.*sshd runs", refusal(connect(port=port)))


def test_connection_test_shows_both_fingerprints_when_the_host_key_differs(connect: Connect, lab: Lab) -> None:
    """The key that was expected and the key that came, as ssh-keygen shows them."""
    said = refusal(connect(host_key=lab.hosts[1].host_key))
    assert len(re.findall(r"SHA256:[\w+/]{43}", said)) == 2
    assert "ssh-keygen" in said


def test_connection_test_says_how_to_add_a_host_key_when_none_is_known(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key in the connection or in known_hosts nobody is spoken to."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert re.search(r"not known.*ssh-keyscan.*known_hosts.*host_key", refusal(connect(host_key=None)))


def test_connection_test_says_where_to_look_when_the_key_is_refused(connect: Connect, lab: Lab) -> None:
    """User, key and authorized_keys."""
    said = refusal(connect(key_file=str(lab.hosts[1].private_key_path)))
    assert re.search(r"login refused.*user name and key.*authorized_keys", said)


def test_connection_test_says_what_to_install_when_the_host_has_no_docker(connect: Connect) -> None:
    """SSH works, and nothing is called docker there."""
    assert re.search(
        r"docker version on host-1 .*no-such-docker.*to the full path",
        refusal(connect(docker_command="no-such-docker")),
    )


def test_connection_test_says_that_the_daemon_is_down(connect: Connect, tmp_path: Path) -> None:
    """The client is there, its daemon is not."""
    said = refusal(connect(docker_socket=f"unix://{tmp_path}/none.sock"))
    assert re.search(r"host-1 .*[Cc]annot connect to the Docker daemon.*systemctl status docker", said)


def test_connection_test_says_how_to_get_the_right_to_the_socket(
    connect: Connect, host: LabHost, tmp_path: Path
) -> None:
    """The user may log in but not use Docker."""
    host.daemon.socket_path.chmod(0o600)
    docker = script(tmp_path / "docker", 'exec setpriv --reuid=65534 --clear-groups docker "$@"')
    assert re.search(r"permission denied.*group 'docker'.*sudo -n docker", refusal(connect(docker_command=docker)))


def test_sudo_is_used_when_the_connection_says_so(connect: Connect, tmp_path: Path) -> None:
    """What is called is sudo without a prompt, and its refusal is explained."""
    words = tmp_path / "words"
    bin_path = tmp_path / "sudo-n"
    script(bin_path, f'printf "%s " "$@" >>{words}\nexec docker "$@"')
    assert connect(docker_command=str(bin_path)).test_connection()[0]
    assert "version --format" in words.read_text(encoding="utf-8")
    assert connect(docker_command="sudo -n docker").settings.command.docker == ("sudo", "-n", "docker")
    asks = script(tmp_path / "asks", "echo 'sudo: a password is required' >&2; exit 1")
    assert "NOPASSWD" in refusal(connect(docker_command=asks))


@pytest.mark.parametrize("asked", ["true", "false"])
def test_ssh_does_not_compress_and_uses_gcm_whatever_the_connection_says(asked: str, connect: Connect) -> None:
    """Compression in SSH costs five sixths of the speed, and AES-GCM is by far the fastest cipher."""
    hook = connect(compress=asked, conn_type="ssh")
    assert hook.compress is False
    client = hook._connected_client()
    try:
        transport: Any = client.get_transport()
        assert transport.local_cipher.endswith("-gcm@openssh.com")
        assert transport.remote_cipher.endswith("-gcm@openssh.com")
        assert (transport.local_compression, transport.remote_compression) == ("none", "none")
    finally:
        client.close()


def test_access_says_how_the_host_was_reached_and_that_its_key_was_verified(connect: Connect, host: LabHost) -> None:
    """Records and audit events carry this, and no secret."""
    with connect().docker_host() as docker_host:
        access = docker_host.access
    assert access["host_key_verified"] == "true"
    assert access["user"] == host.user
    assert access["address"] == f"127.0.0.1:{host.ssh_port}"
    assert re.fullmatch(r"SHA256:[\w+/]{43}", access["host_key"])
    assert set(access) == {"user", "address", "host_key", "cipher", "host_key_verified"}


@pytest.mark.parametrize("extra", ["no_host_key_check", "allow_host_key_change"])
def test_access_says_that_the_host_key_was_not_verified_when_the_connection_skips_that(
    extra: str, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skipping the check is allowed, never silent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").touch()
    hook = connect(host_key=None, no_host_key_check="true", **({} if extra == "no_host_key_check" else {extra: "true"}))
    with hook.docker_host() as docker_host:
        assert docker_host.access["host_key_verified"] == "false"


def test_login_is_tried_once_when_it_is_refused(connect: Connect, host: LabHost, lab: Lab) -> None:
    """Every further try of a wrong key counts against the user where fail2ban or sshd watch."""
    with FaultProxy(host.address, host.ssh_port) as proxy:
        hook = connect(port=proxy.port, key_file=str(lab.hosts[1].private_key_path))
        with pytest.raises(ConfigurationError, match="login refused"), hook.docker_host() as docker_host:
            docker_host.engine()
        assert proxy.connections == 1


def test_connecting_is_tried_four_times_when_the_link_is_closed_at_once(connect: Connect, host: LabHost) -> None:
    """A refusal that may pass is given a few chances, with pauses between, and then reported as such."""
    with FaultProxy(host.address, host.ssh_port) as proxy:
        proxy.cut_after(0)
        hook = connect(port=proxy.port)
        with pytest.raises(TransientError, match=r"host-1 .*cannot connect"), hook.docker_host() as docker_host:
            docker_host.engine()
        assert proxy.connections == 4


@contextmanager
def busy_sshd(host: LabHost, directory: Path) -> Iterator[LabSshd]:
    """An sshd that takes but a few connections at a time that have not logged in, in front of the host's daemon."""
    sshd = LabSshd("busy", directory=directory / "ssh", run_directory=directory / "run", port=free_port())
    daemon: LabDaemon = host.daemon
    sshd.prepare(session_environment={"DOCKER_HOST": daemon.docker_host, "PATH": os.environ["PATH"]})
    configuration = sshd.directory / "sshd_config"
    text = configuration.read_text(encoding="utf-8")
    configuration.write_text(text.replace("MaxStartups 100", f"MaxStartups {STARTUPS}"), encoding="utf-8")
    try:
        sshd.start()
        yield sshd
    finally:
        sshd.stop()


def test_connecting_succeeds_in_the_end_when_sshd_is_busy(connect: Connect, host: LabHost, tmp_path: Path) -> None:
    """One of many tasks that start together meets MaxStartups; sshd has room a moment later."""
    with busy_sshd(host, tmp_path) as sshd, ExitStack() as blockers:
        # Those that sshd turned away meanwhile are closed at once; so many others hold all places.
        held = 0
        while held < STARTUPS:
            blocker = blockers.enter_context(socket.create_connection(("127.0.0.1", sshd.port), timeout=5))
            held += blocker.recv(4) == b"SSH-"
        log_from = sshd.log_path.stat().st_size
        hook = connect(port=sshd.port, host_key=sshd.host_key, key_file=str(sshd.private_key_path))

        def refusals() -> int:
            return sshd.log_path.read_text(encoding="utf-8", errors="replace")[log_from:].count("past MaxStartups")

        def make_room() -> None:
            wait_until(lambda: refusals() > 0, seconds=20)
            blockers.close()

        thread = threading.Thread(target=make_room)
        thread.start()
        began = time.monotonic()
        passed, said = hook.test_connection()
        thread.join()
        assert passed, said
        assert refusals() >= 1
        assert time.monotonic() - began < 30


def test_hook_connects_anew_when_its_host_was_given_back(connect: Connect) -> None:
    """A closed hook can be used again."""
    hook = connect()
    for _ in range(2):
        with hook.docker_host() as docker_host:
            assert docker_host.engine().version


@pytest.fixture
def relay(host: LabHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A program that the user's SSH configuration names as the way to every host; gives what marks its processes."""
    folder = tmp_path / ".ssh"
    folder.mkdir()
    line = f"ProxyCommand {sys.executable} {lab_relay.__file__} 127.0.0.1 {host.ssh_port} {folder}"
    (folder / "config").write_text(f"Host *\n  {line}\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    return str(folder)


def ways(relay: str) -> list[int]:
    """Return the processes of the relay."""
    return [pid for pid in pids() if relay in command_line(pid)]


def test_each_connection_through_a_proxy_command_has_a_process_of_its_own(connect: Connect, relay: str) -> None:
    """As a user's SSH configuration names it: commands and streams beside each other, made ahead or not."""
    before = descendants(os.getpid())
    hook = connect()
    assert relay in (hook.host_proxy_cmd or "")
    session = hook._session
    assert session.run("echo 1").stdout == b"1\n"
    session.expect_stream()
    assert session.run("echo 2").stdout == b"2\n"
    for data in (b"x" * 1_000_000, b"y"):
        assert session.stream_in("cat", [data]).stdout == data
    assert session.run("echo 3").stdout == b"3\n"
    for pid in ways(relay):
        os.kill(pid, signal.SIGKILL)
    assert session.run("echo 4").stdout == b"4\n", "a connection whose way is gone is not taken for alive"
    hook.close()
    assert wait_until(lambda: not ways(relay) and not descendants(os.getpid()) - before, seconds=20)


def test_no_process_of_a_proxy_command_stays_when_the_host_refuses(connect: Connect, relay: str) -> None:
    """The connection failed, so nobody else would end it."""
    before = descendants(os.getpid())
    hook = connect(login="nobody-here")
    passed, said = hook.test_connection()
    assert not passed
    assert "login refused" in said
    assert not descendants(os.getpid()) - before, "not even a zombie"
