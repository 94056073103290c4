# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.exceptions import ConfigurationError, TransientError
from airflow_provider_dockerbackup.transport.ssh import SshSession
from airflow_provider_dockerbackup.transport.ssh_config import SshTarget, ssh_client_factory
from tests.lab.faults import FaultProxy
from tests.lab.lab import Lab, LabHost


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """A host with a real sshd."""
    with Lab.start(tmp_path_factory.mktemp("lab")) as lab:
        yield lab.hosts[0]


def other_key(directory: Path) -> Path:
    """Give a key that nobody knows."""
    path = directory / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def config(host: LabHost, directory: Path, *lines: str, name: str = "web") -> Path:
    """Write a configuration with one section for a host, in which later lines of ours come first."""
    path = directory / "config"
    ours = [f"HostName {host.address}", f"Port {host.ssh_port}", f"User {host.user}"]
    ours += [f"IdentityFile {host.private_key_path}", f"UserKnownHostsFile {host.known_hosts_path}"]
    path.write_text("\n".join([f"Host {name}", *lines, *ours]) + "\n", encoding="utf-8")
    return path


def reach(factory_target: str, **options: object) -> str:
    """Connect, run a command, and return the address that was reached."""
    factory = ssh_client_factory(factory_target, **options)  # type: ignore[arg-type]
    with SshSession(factory, where=factory_target) as ssh:
        assert ssh.run("echo here").stdout == b"here\n"
        return ssh.peer()["address"]


def test_host_is_reached_by_its_section_when_named(host: LabHost, tmp_path: Path) -> None:
    """Host name, port, user, key and known hosts come from the user's configuration."""
    assert reach("web", config_path=config(host, tmp_path)) == f"127.0.0.1:{host.ssh_port}"


def test_host_is_reached_by_url_when_there_is_no_configuration(host: LabHost, tmp_path: Path) -> None:
    """A URL, a key and a known hosts file are enough."""
    reached = reach(
        f"ssh://{host.user}@127.0.0.1:{host.ssh_port}",
        identity_file=host.private_key_path,
        known_hosts=host.known_hosts_path,
        config_path=tmp_path / "missing",
    )
    assert reached == f"127.0.0.1:{host.ssh_port}"


def test_arguments_win_when_the_configuration_says_otherwise(host: LabHost, tmp_path: Path) -> None:
    """User and port of the call come before those of target and configuration."""
    path = config(host, tmp_path, "Port 1", "User nobody")
    assert reach("ssh://someone@web:2", user=host.user, port=host.ssh_port, config_path=path)


def test_host_key_is_found_under_its_alias_when_there_is_one(host: LabHost, tmp_path: Path) -> None:
    """HostKeyAlias names the entry of known_hosts."""
    known = tmp_path / "known"
    known.write_text(f"web-alias {host.host_key}\n", encoding="ascii")
    assert reach("web", config_path=config(host, tmp_path, "HostKeyAlias web-alias", f"UserKnownHostsFile {known}"))


def test_host_is_reached_through_another_when_the_configuration_says_so(host: LabHost, tmp_path: Path) -> None:
    """ProxyJump goes through one host, or several."""
    path = config(host, tmp_path, "ProxyJump jump")
    jump = config(host, tmp_path, name="jump other").read_text(encoding="utf-8")
    path = config(host, tmp_path, "ProxyJump jump,other")
    path.write_text(path.read_text(encoding="utf-8") + jump, encoding="utf-8")
    factory = ssh_client_factory("web", config_path=path)
    with SshSession(factory, where="web") as ssh:
        assert ssh.run("echo here").stdout == b"here\n"
        assert b"".join(ssh.stream_out("head -c 3000000 /dev/zero", explain=RuntimeError)) == bytes(3_000_000)  # type: ignore[arg-type]


def test_going_round_in_circles_is_refused(host: LabHost, tmp_path: Path) -> None:
    """A host that is reached through itself is an error of the configuration."""
    with pytest.raises(ConfigurationError, match="ProxyJump"):
        reach("web", config_path=config(host, tmp_path, "ProxyJump web"))


@pytest.mark.skipif(shutil.which("nc") is None and shutil.which("ssh") is None, reason="no proxy program here")
def test_host_is_reached_by_a_proxy_command_when_the_configuration_says_so(host: LabHost, tmp_path: Path) -> None:
    """The command's standard input and output are the link."""
    proxy = f"ProxyCommand ssh -F {host.ssh_config_path} -W %h:%p {host.name}"
    assert reach("web", config_path=config(host, tmp_path, proxy)) == "through a proxy"


def test_unknown_host_key_is_refused(host: LabHost, tmp_path: Path) -> None:
    """Also when the configuration would rather not check; the message says what to do."""
    known = tmp_path / "known"
    known.touch()
    path = config(host, tmp_path, "StrictHostKeyChecking no", f"UserKnownHostsFile {known}")
    with pytest.raises(ConfigurationError, match=r"host key is not known.*ssh-keyscan"):
        reach("web", config_path=path)


def test_changed_host_key_is_refused(host: LabHost, tmp_path: Path) -> None:
    """The message has both fingerprints and warns."""
    known = tmp_path / "known"
    key = " ".join(other_key(tmp_path).with_suffix(".pub").read_text(encoding="ascii").split()[:2])
    known.write_text(f"[127.0.0.1]:{host.ssh_port} {key}\n", encoding="ascii")
    with pytest.raises(ConfigurationError, match=r"host key changed from SHA256:\S+ to SHA256:\S+"):
        reach("web", config_path=config(host, tmp_path, f"UserKnownHostsFile {known}"))


def test_unknown_user_is_refused(host: LabHost, tmp_path: Path) -> None:
    """A login that fails is not tried again."""
    with pytest.raises(ConfigurationError, match="login refused"):
        reach("nobody-here@web", config_path=config(host, tmp_path))


def test_wrong_key_is_refused(host: LabHost, tmp_path: Path) -> None:
    """Only the key that was given is tried."""
    with pytest.raises(ConfigurationError, match="authorized_keys"):
        reach("web", identity_file=other_key(tmp_path), config_path=config(host, tmp_path))


def test_missing_files_are_named(host: LabHost, tmp_path: Path) -> None:
    """Files that were asked for must be there."""
    missing = tmp_path / "missing"
    for option in ("identity_file", "known_hosts"):
        with pytest.raises(ConfigurationError, match=str(missing)):
            reach("web", config_path=config(host, tmp_path), **{option: missing})


def test_key_files_of_the_configuration_may_be_missing(host: LabHost, tmp_path: Path) -> None:
    """OpenSSH skips them too."""
    assert reach("web", config_path=config(host, tmp_path, f"IdentityFile {tmp_path}/missing"))


def test_closed_port_and_silent_server_are_transient(host: LabHost, tmp_path: Path) -> None:
    """Restarting hosts refuse, overloaded ones do not greet: both may work in a minute."""
    with FaultProxy(host.address, host.ssh_port) as proxy:
        port = proxy.port
    with pytest.raises(TransientError, match="cannot connect"):
        reach("web", port=port, config_path=config(host, tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TransientError, match="cannot connect"):
        reach("web", port=silent.getsockname()[1], config_path=config(host, tmp_path), connect_timeout=1)


def test_unknown_host_name_is_transient() -> None:
    """Name services fail now and then."""
    with pytest.raises(TransientError, match="cannot connect"):
        reach("no-such-host.invalid", config_path=None)


def test_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The message names the file."""
    path = tmp_path / "config"
    path.write_text("Host web\n  =\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=str(path)):
        ssh_client_factory("web", config_path=path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web", SshTarget(host="web")),
        ("ops@web-1.example.org", SshTarget(host="web-1.example.org", user="ops")),
        ("ssh://web", SshTarget(host="web")),
        ("ssh://ops@web:2222", SshTarget(host="web", user="ops", port=2222)),
        ("ssh://ops@[::1]:2222/", SshTarget(host="::1", user="ops", port=2222)),
        ("10.0.0.1", SshTarget(host="10.0.0.1")),
        ("::1", SshTarget(host="::1")),
    ],
)
def test_target_is_read_when_it_is_a_name_or_url(text: str, expected: SshTarget) -> None:
    """Names, ``user@name`` and URLs."""
    assert SshTarget.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "@", "ops@", "@web", "-oProxyCommand=id", "web;id", "web id", "web\n", "$(id)", "ssh://", "ssh://web:x",
     "ssh://web:99999", "ssh://ops:secret@web", "ssh://web/path", "ssh://web?x", "http://web", "-x@web", "we\0b"],
)  # fmt: skip
def test_target_is_refused_when_it_is_anything_else(text: str) -> None:
    """The message says what is accepted."""
    with pytest.raises(ConfigurationError, match="USER@NAME"):
        SshTarget.parse(text)
