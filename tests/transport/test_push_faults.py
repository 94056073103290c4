# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a push from a real host, who may not take part in it, and what stays afterwards: nothing."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.exceptions import PushUnavailableError, TransientError
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from airflow_provider_dockerbackup.transport.memory import MemoryPushTarget
from airflow_provider_dockerbackup.transport.push import push_ports
from tests.lab.faults import FaultProxy
from tests.lab.images import APP, BASE, build_app
from tests.lab.lab import Lab, LabHost
from tests.transport.push_lab import HeldTarget, Running, directories, names, push, wait_for
from tests.transport.ssh_lab import session

FORWARDING = "AllowTcpForwarding yes"
NONE = f"sha256:{'0' * 64}"
NAMES = {"repository": "nightly", "attempt": "a1"}
PORTS = push_ports("web-1", "nightly")


@pytest.fixture(scope="module")
def lab_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """A host whose sshd and daemon are ours to break."""
    with Lab.start(tmp_path_factory.mktemp("lab")) as lab:
        build_app(lab.hosts[0].daemon)
        yield lab.hosts[0]


@pytest.fixture
def new_host(lab_host: LabHost) -> Iterator[Callable[..., SshDockerHost]]:
    """Open the host, with timeouts or another client; nothing of ours is on it afterwards."""
    opened: list[SshDockerHost] = []

    def new(*, command: DockerCommand | None = None, port: int | None = None, **timeouts: float) -> SshDockerHost:
        opened.append(SshDockerHost(session(lab_host, port=port, **timeouts), name="web-1", command=command))
        return opened[-1]

    yield new
    for host in opened:
        host.close()
    assert wait_for(lambda: (names(lab_host.daemon), directories()) == ([], []), seconds=60)


@pytest.fixture
def host(new_host: Callable[..., SshDockerHost]) -> SshDockerHost:
    """The host as the port has it."""
    return new_host()


@contextmanager
def sshd_with(lab_host: LabHost, *lines: str) -> Iterator[None]:
    """Run sshd with other lines about forwarding."""
    path = lab_host.sshd.directory / "sshd_config"
    before = path.read_text(encoding="utf-8")
    assert FORWARDING in before
    path.write_text(before.replace(FORWARDING, "\n".join(lines)), encoding="utf-8")
    lab_host.stop_sshd()
    lab_host.start_sshd()
    try:
        yield
    finally:
        path.write_text(before, encoding="utf-8")
        lab_host.stop_sshd()
        lab_host.start_sshd()


@contextmanager
def held(host: SshDockerHost, target: HeldTarget) -> Iterator[Running]:
    """Be in the midst of a push; at the end it goes on and is waited for."""
    running = Running(lambda: push(host, APP, target))
    try:
        assert target.held.wait(60), running.error
        yield running
    finally:
        target.go_on.set()
        running.join()


def tag(lab_host: LabHost) -> str:
    """Give the name of the image that is pushed now."""
    (found,) = names(lab_host.daemon)
    return found


def port_of(name: str) -> int:
    """Give the port in a name."""
    return int(name.split("/", maxsplit=1)[0].split(":")[1])


@pytest.mark.parametrize(
    "lines",
    [
        ("AllowTcpForwarding no",),
        ("AllowTcpForwarding local",),
        ("AllowTcpForwarding yes", "PermitListen none"),
        ("AllowTcpForwarding yes", "DisableForwarding yes"),
    ],
    ids=lambda lines: lines[-1],
)
def test_forwarding_that_is_forbidden_is_told_apart(lab_host: LabHost, host: SshDockerHost, lines: tuple[str]) -> None:
    """With what sshd needs, so that the caller can save instead."""
    with sshd_with(lab_host, *lines), pytest.raises(PushUnavailableError, match="AllowTcpForwarding remote"):
        push(host, APP, MemoryPushTarget())


@pytest.mark.parametrize(
    "lines",
    [
        ("AllowTcpForwarding remote",),
        ("AllowTcpForwarding yes", f"PermitListen 127.0.0.1:{PORTS[2]}"),
        ("AllowTcpForwarding yes", "GatewayPorts clientspecified"),
    ],
    ids=lambda lines: lines[-1],
)
def test_forwarding_of_one_port_is_enough(lab_host: LabHost, host: SshDockerHost, lines: tuple[str]) -> None:
    """Of any that we try."""
    with sshd_with(lab_host, *lines):
        assert push(host, APP, MemoryPushTarget()).uploaded_blobs > 0


@contextmanager
def key_with(lab_host: LabHost, options: str) -> Iterator[None]:
    """Let the key do only so much."""
    path = lab_host.sshd.directory / "authorized_keys"
    before = path.read_text(encoding="ascii")
    path.write_text(f"{options} {before}", encoding="ascii")
    try:
        yield
    finally:
        path.write_text(before, encoding="ascii")


@pytest.mark.parametrize("options", ["no-port-forwarding", "restrict", 'permitlisten="127.0.0.1:1"'])
def test_a_key_may_forbid_the_forwarding(lab_host: LabHost, host: SshDockerHost, options: str) -> None:
    """As sshd may."""
    with key_with(lab_host, options), pytest.raises(PushUnavailableError, match="no-port-forwarding"):
        push(host, APP, MemoryPushTarget())


def test_a_key_that_may_do_nothing_else_is_enough(lab_host: LabHost, host: SshDockerHost) -> None:
    """The options that the documentation shows."""
    page = Path(__file__).parent.parent.parent / "docs" / "how-to" / "connect-to-a-host.md"
    options = re.findall(r'^from="10\.0\.0\.5",(\S+) ssh-', page.read_text(encoding="utf-8"), re.MULTILINE)
    with key_with(lab_host, options[0]):
        assert push(host, APP, MemoryPushTarget()).uploaded_blobs > 0


def test_a_port_that_sshd_opens_to_the_network_is_not_used(lab_host: LabHost, host: SshDockerHost) -> None:
    """``GatewayPorts yes`` overrides what we ask for."""
    target = MemoryPushTarget()
    with sshd_with(lab_host, FORWARDING, "GatewayPorts yes"), pytest.raises(PushUnavailableError, match="GatewayPorts"):
        push(host, APP, target)
    assert (target.asked, target.uploads) == ([], [])


def test_the_port_is_always_the_same(lab_host: LabHost, host: SshDockerHost) -> None:
    """The next one when somebody has it; another repository has others."""
    for taken in (0, 1):
        with contextlib.ExitStack() as stack:
            if taken:
                stack.enter_context(socket.create_server(("127.0.0.1", PORTS[0])))
            stack.enter_context(held(host, HeldTarget()))
            assert port_of(tag(lab_host)) == PORTS[taken]
    assert not set(PORTS) & set(push_ports("web-1", "weekly"))
    assert not set(PORTS) & set(push_ports("web-2", "nightly"))
    assert len(PORTS) >= 3


def test_two_pushes_at_once_do_not_disturb_each_other(
    lab_host: LabHost, new_host: Callable[..., SshDockerHost]
) -> None:
    """Of the same image to the same repository: another port, another tag. The engine sends five layers at once.

    So the second may have to wait for the first for longer than a link may be silent.
    """
    first, second = HeldTarget(), MemoryPushTarget()
    with held(new_host(), first) as one:
        other = Running(lambda: push(new_host(stall_seconds=6), APP, second))
        assert wait_for(lambda: {port_of(name) for name in names(lab_host.daemon)} == set(PORTS[:2]))
        time.sleep(9)
        first.go_on.set()
        assert (one.join(), other.join()) == (None, None)
    assert set(first.blobs) == set(second.blobs)


def test_nobody_else_on_the_host_can_write(lab_host: LabHost, host: SshDockerHost) -> None:
    """Another user reaches the port, but has no credential, and cannot read ours; neither can a listing show it."""
    target = HeldTarget()
    with held(host, target):
        asked = len(target.asked)
        name = tag(lab_host)
        base = f"http://{name.partition('/')[0]}/v2/"
        repository = name.partition("/")[2].rpartition(":")[0]
        for method, path in (
            ("GET", ""),
            ("POST", f"{repository}/blobs/uploads/"),
            ("PUT", f"{repository}/manifests/x"),
        ):
            for login in ((), ("--user", "dockerbackup:guess")):
                assert as_nobody("curl", *login, "-X", method, "-d", "x", base + path) == "401"
        (directory,) = directories()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        configuration = (directory / "config.json").read_text(encoding="ascii")
        secret = json.loads(configuration)["auths"][name.partition("/")[0]]["auth"]
        assert as_nobody("cat", str(directory / "config.json")) == ""
        assert not shown_by_proc(secret.encode())
        assert len(target.asked) == asked
    assert secret not in lab_host.daemon.log_path.read_text(encoding="utf-8", errors="replace")


def as_nobody(*command: str) -> str:
    """Run something as another user; of curl give the status alone."""
    options = ("--silent", "--output", "/dev/null", "--write-out", "%{http_code}") if command[0] == "curl" else ()
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", command[0], *options, *command[1:]]
    return subprocess.run(words, capture_output=True, check=False, text=True).stdout


def shown_by_proc(secret: bytes) -> bool:
    """Tell whether any process, other than this one, has the secret in its arguments or its environment."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            for name in ("cmdline", "environ"):
                try:
                    if secret in (entry / name).read_bytes():
                        return True
                except OSError:
                    continue
    return False


def test_the_credential_is_not_logged(host: SshDockerHost, caplog: pytest.LogCaptureFixture) -> None:
    """Not even by paramiko at its most talkative."""
    caplog.set_level(logging.DEBUG)
    target = HeldTarget()
    with held(host, target):
        (directory,) = directories()
        (auth,) = json.loads((directory / "config.json").read_text(encoding="ascii"))["auths"].values()
    assert auth["auth"] not in caplog.text


def test_a_cut_link_leaves_nothing(lab_host: LabHost, host: SshDockerHost) -> None:
    """Neither here nor there, and the next push gets the image."""
    target = HeldTarget()
    with held(host, target) as running:
        assert (len(names(lab_host.daemon)), len(directories())) == (1, 1)
        lab_host.kill_sessions()
        assert wait_for(lambda: (names(lab_host.daemon), directories()) == ([], []), seconds=60)
    assert isinstance(running.error, TransientError)
    assert {upload.state for upload in target.uploads} == {"aborted"}
    assert (target.blobs, target.manifests) == ({}, {})
    again = MemoryPushTarget()
    assert push(host, APP, again).uploaded_blobs == len(again.blobs)


WORKER = """
import sys
from pathlib import Path
from tests.lab.images import APP
from tests.lab.lab import Lab
from tests.transport.push_lab import HeldTarget, push
from tests.transport.ssh_lab import session
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
push(SshDockerHost(session(Lab.open(Path(sys.argv[1])).hosts[0]), name="web-1"), APP, HeldTarget())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_worker_leaves_nothing(lab_host: LabHost, host: SshDockerHost, number: signal.Signals) -> None:
    """The host finds out by itself that nobody is there any more."""
    directory = lab_host.daemon.directory.parent
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(directory)], stderr=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: len(names(lab_host.daemon)) == 1, seconds=60)
        (left,) = names(lab_host.daemon)
        worker.send_signal(number)
        worker.wait()
        assert wait_for(lambda: names(lab_host.daemon) == [])
        assert wait_for(lambda: not list(Path("/tmp").glob(f"dockerbackup-push-{left.rpartition(':')[2]}.*")))
    finally:
        worker.kill()
        worker.wait()


def test_what_a_killed_script_leaves_goes_with_the_next_push(lab_host: LabHost, host: SshDockerHost) -> None:
    """SIGKILL runs no trap; the push of the killed one fails, and the next one cleans up after it."""
    target = HeldTarget()
    with held(host, target) as running:
        os.kill(int(tag(lab_host).split("_")[2]), signal.SIGKILL)
    assert isinstance(running.error, TransientError)
    assert (len(names(lab_host.daemon)), len(directories())) >= (1, 1)
    push(host, BASE, MemoryPushTarget())
    assert (names(lab_host.daemon), directories()) == ([], [])


def test_a_killed_engine_is_a_transient_error(lab_host: LabHost, host: SshDockerHost) -> None:
    """When it is back, the next push goes through, and takes away what it had not."""
    target = HeldTarget()
    with held(host, target) as running:
        lab_host.daemon.kill()
        target.go_on.set()
        assert isinstance(running.join(), TransientError)
    assert target.manifests == {}
    lab_host.daemon.restart()
    again = MemoryPushTarget()
    assert push(host, APP, again).uploaded_blobs == len(again.blobs)


def test_a_link_that_stalls_is_given_up(lab_host: LabHost, new_host: Callable[..., SshDockerHost]) -> None:
    """After the stall timeout, which the message names; the host is freed when its sshd notices."""
    with FaultProxy("127.0.0.1", lab_host.ssh_port) as proxy:
        stalling = new_host(port=proxy.port, stall_seconds=6)
        target = HeldTarget()
        with held(stalling, target) as running:
            proxy.black_hole_after(0)
            target.go_on.set()
            began = time.monotonic()
            assert isinstance(running.join(), TransientError)
            assert 4 < time.monotonic() - began < 60
        assert "the stall timeout" in str(running.error)


def test_an_engine_that_does_not_begin_is_given_up(lab_host: LabHost, new_host: Callable[..., SshDockerHost]) -> None:
    """After the first byte timeout."""
    patient = new_host(first_byte_seconds=3)
    os.kill(lab_host.daemon.pid, signal.SIGSTOP)
    try:
        running = Running(lambda: patient.push_image(NONE, target=MemoryPushTarget(), **NAMES))
        assert "the first byte timeout" in str(running.join())
    finally:
        os.kill(lab_host.daemon.pid, signal.SIGCONT)
    assert isinstance(running.error, TransientError)


def test_a_slow_target_is_not_a_stalled_link(new_host: Callable[..., SshDockerHost]) -> None:
    """It may work for longer than the link may be silent."""
    target = HeldTarget()
    with held(new_host(stall_seconds=6), target) as running:
        time.sleep(9)
        target.go_on.set()
        assert running.join() is None


def test_a_session_that_is_killed_ends_the_push(lab_host: LabHost) -> None:
    """As when Airflow ends a task."""
    ssh = session(lab_host)
    host = SshDockerHost(ssh, name="web-1")
    with held(host, HeldTarget()) as running:
        ssh.kill()
    assert isinstance(running.error, TransientError)
    assert wait_for(lambda: (names(lab_host.daemon), directories()) == ([], []), seconds=60)
    host.close()


def test_a_proxy_of_the_daemon_is_not_asked_for_loopback(
    lab_host: LabHost, host: SshDockerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines go to 127.0.0.0/8 themselves, whatever HTTP_PROXY says."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    lab_host.daemon.restart()
    try:
        assert push(host, APP, MemoryPushTarget()).uploaded_blobs > 0
    finally:
        monkeypatch.undo()
        lab_host.daemon.restart()


def client(path: Path, text: str) -> DockerCommand:
    """Write a program that stands in front of the Docker client."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
    path.chmod(0o755)
    return DockerCommand(docker=(str(path),))


@pytest.mark.parametrize(
    "said",
    [
        "Get http://127.0.0.1:1/v2/: dial tcp 127.0.0.1:1: connect: connection refused",
        "no basic auth credentials",
        "Get https://127.0.0.1:1/v2/: proxyconnect tcp: dial tcp: lookup proxy: no such host",
    ],
)
def test_an_engine_that_cannot_reach_us_is_told_apart(
    new_host: Callable[..., SshDockerHost], tmp_path: Path, said: str
) -> None:
    """Rootless ones live in another network namespace, a snap does not see the configuration."""
    command = client(
        tmp_path / "docker", f'case "$*" in *"image push"*) echo "{said}" >&2; exit 1;; esac; exec docker "$@"'
    )
    with pytest.raises(PushUnavailableError, match="did not reach the port"):
        push(new_host(command=command), APP, MemoryPushTarget())


def test_a_push_that_only_pretends_is_no_success(new_host: Callable[..., SshDockerHost], tmp_path: Path) -> None:
    """Exit code 0 is not enough: the manifest must have come."""
    command = client(tmp_path / "docker", 'case "$*" in *"image push"*) exit 0;; esac; exec docker "$@"')
    with pytest.raises(Exception, match="no manifest came"):
        push(new_host(command=command), APP, MemoryPushTarget())


def test_a_client_that_cannot_be_killed_ends_with_its_registry(
    lab_host: LabHost, new_host: Callable[..., SshDockerHost], tmp_path: Path
) -> None:
    """As through sudo, which takes no signals from the user; tag and configuration go at once."""
    command = client(tmp_path / "sudo", 'trap "" TERM HUP INT; exec docker "$@"')
    target = HeldTarget()
    with held(new_host(command=command), target) as running:
        lab_host.kill_sessions()
        assert wait_for(lambda: (names(lab_host.daemon), directories()) == ([], []), seconds=60)
    assert isinstance(running.error, TransientError)


def test_another_user_who_cannot_read_the_configuration_is_told(new_host: Callable[..., SshDockerHost]) -> None:
    """Before anything is done on the host."""
    host = new_host(command=DockerCommand.parse("sudo -n -u dockerops docker"))
    with pytest.raises(PushUnavailableError, match="dockerops"):
        host.push_image(NONE, target=MemoryPushTarget(), **NAMES)


def test_the_daemon_of_the_clients_context_pushes(
    lab_host: LabHost, new_host: Callable[..., SshDockerHost], tmp_path: Path
) -> None:
    """The temporary configuration names no context; a daemon elsewhere cannot push."""
    command = client(
        tmp_path / "docker", f'unset DOCKER_HOST; export HOME={tmp_path}; unset DOCKER_CONFIG; exec docker "$@"'
    )
    for name, address in (("lab", lab_host.daemon.docker_host), ("far", "tcp://192.0.2.1:2375")):
        run = [str(tmp_path / "docker"), "context", "create", name, "--docker", f"host={address}"]
        subprocess.run(run, check=True, capture_output=True, env=lab_host.daemon.environment())
    image = new_host().inspect_image(APP).id
    for name in ("lab", "far"):
        use = [str(tmp_path / "docker"), "context", "use", name]
        subprocess.run(use, check=True, capture_output=True, env=lab_host.daemon.environment())
        host = new_host(command=command)
        if name == "lab":
            assert push(host, APP, MemoryPushTarget()).uploaded_blobs > 0
        else:
            with pytest.raises(PushUnavailableError, match="daemon elsewhere"):
                host.push_image(image, target=MemoryPushTarget(), **NAMES)
