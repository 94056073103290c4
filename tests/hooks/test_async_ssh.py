# SPDX-License-Identifier: Apache-2.0
"""Triggers reach a host as workers do: the same keys are believed, and no command counts as done that was not."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, TransientError
from airflow_provider_dockerbackup.hooks.async_ssh import connected, refuse_unless_for_triggers, target_of
from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook
from airflow_provider_dockerbackup.transport.ssh_command import CommandResult
from tests.lab.faults import FaultProxy
from tests.lab.lab import Lab, LabHost
from tests.lab.sshd import free_port

CONN_ID = "awaited"
Connection = Callable[..., dict[str, Any]]


@pytest.fixture
def connection(host: LabHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Connection:
    """Make the connection on the first host; keyword arguments change fields, or else extras; None takes one away."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def make(**changes: Any) -> dict[str, Any]:
        made = json.loads(host.airflow_connection())
        for name, value in changes.items():
            part = made if name in {"conn_type", "host", "port", "login", "password"} else made["extra"]
            part[name] = value
        made["extra"] = {name: value for name, value in made["extra"].items() if value is not None}
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(made))
        extra: dict[str, Any] = made["extra"]
        return extra

    return make


def run(command: str, **options: Any) -> CommandResult:
    """Run one command through a connection of its own."""

    async def once() -> CommandResult:
        async with connected(CONN_ID) as ssh:
            return await ssh.run(command, **options)

    return asyncio.run(once())


def known_hosts(home: Path, *lines: str) -> None:
    """Write the user's known_hosts."""
    (home / ".ssh").mkdir(exist_ok=True)
    (home / ".ssh" / "known_hosts").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("conn_type", ["dockerbackup", "ssh"])
def test_output_status_and_input_of_a_command_come_as_they_are(conn_type: str, connection: Connection) -> None:
    """Bytes stay bytes, and a failed command is no error of the link."""
    connection(conn_type=conn_type)
    result = run("cat; echo oops >&2; exit 7", stdin=b"\x00\xff\n")
    assert result == CommandResult(exit_status=7, stdout=b"\x00\xff\n", stderr=b"oops\n")


def test_one_connection_serves_many_commands(connection: Connection, host: LabHost) -> None:
    """A poll does not connect anew each time, and several may run at once."""

    async def many() -> list[bytes]:
        async with connected(CONN_ID) as ssh:
            results = await asyncio.gather(*(ssh.run(f"echo {number}") for number in range(5)))
            return [result.stdout for result in results] + [(await ssh.run("echo last")).stdout]

    with FaultProxy(host.address, host.ssh_port) as proxy:
        connection(port=proxy.port)
        assert asyncio.run(many()) == [b"0\n", b"1\n", b"2\n", b"3\n", b"4\n", b"last\n"]
        assert proxy.connections == 1


@pytest.mark.parametrize("signal", ["KILL", "TERM", "HUP"])
def test_a_command_that_a_signal_ended_is_never_a_success(signal: str, connection: Connection) -> None:
    """Asyncssh gives no exit status then; the SSH provider's hook makes 0 of that."""
    connection()
    with pytest.raises(TransientError, match="killed, before its end"):
        run(f"echo begun; kill -{signal} $$; sleep 60")


def test_a_lost_link_is_never_a_success(connection: Connection, host: LabHost) -> None:
    """The host is gone in the middle of an answer."""
    with FaultProxy(host.address, host.ssh_port) as proxy:
        connection(port=proxy.port)
        proxy.cut_after(20_000)
        with pytest.raises(TransientError, match=r"poll on host-1.*lost"):
            run("head -c 100000 /dev/zero", what="poll")


def test_a_command_that_does_not_end_is_given_up(connection: Connection) -> None:
    """The time limit covers all of a command."""
    connection()
    with pytest.raises(TransientError, match=r"was not done after 0\.5 s"):
        run("sleep 60", timeout_seconds=0.5)


def test_more_output_than_allowed_is_an_error_and_kept_nowhere(connection: Connection) -> None:
    """A host cannot fill the triggerer's memory."""
    connection()
    with pytest.raises(DockerBackupError, match="output is longer than 1000 bytes"):
        run("head -c 10000000 /dev/zero", max_output_bytes=1000)


def test_a_host_that_does_not_answer_is_worth_another_try(connection: Connection, host: LabHost) -> None:
    """Nobody listens, or the link is closed at once, or it swallows everything."""
    connection(port=free_port())
    with pytest.raises(TransientError, match="cannot connect"):
        run("true")
    for fault in ("cut_after", "black_hole_after"):
        with FaultProxy(host.address, host.ssh_port) as proxy:
            getattr(proxy, fault)(0)
            connection(port=proxy.port, conn_timeout=1)
            with pytest.raises(TransientError, match="cannot connect"):
                run("true")


def test_a_wrong_pin_is_refused_whatever_known_hosts_says(
    connection: Connection, host: LabHost, tmp_path: Path
) -> None:
    """The connection's key is a pin."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    known_hosts(tmp_path, f"[{host.address}]:{host.ssh_port} {host.host_key}")
    connection(host_key=(tmp_path / "other.pub").read_text().rsplit(" ", 1)[0])
    with pytest.raises(ConfigurationError, match="host key is not the expected one"):
        run("true")


def test_without_a_pin_only_the_key_in_known_hosts_is_believed(
    connection: Connection, host: LabHost, lab: Lab, tmp_path: Path
) -> None:
    """Nothing is trusted on first use; an entry for another port is another host."""
    connection(host_key=None)
    with pytest.raises(ConfigurationError, match="not known"):
        run("true")
    for line in (f"[{host.address}]:{host.ssh_port} {lab.hosts[1].host_key}", f"{host.address} {host.host_key}"):
        known_hosts(tmp_path, line)
        with pytest.raises(ConfigurationError, match="not known"):
            run("true")
    known_hosts(tmp_path, f"[{host.address}]:{host.ssh_port} {host.host_key}")
    assert run("echo in").stdout == b"in\n"


@pytest.mark.filterwarnings("ignore:The `ignore_hostkey_verification` connection extra is deprecated")
@pytest.mark.parametrize("name", ["no_host_key_check", "ignore_hostkey_verification"])
def test_an_unverified_host_is_reached_unless_its_known_key_changed(
    name: str, connection: Connection, host: LabHost, lab: Lab, tmp_path: Path
) -> None:
    """As in a worker: skipping the check takes an unknown host, not a changed one."""
    connection(host_key=None, **{name: "true"})
    assert run("echo in").stdout == b"in\n"
    known_hosts(tmp_path, f"[{host.address}]:{host.ssh_port} {lab.hosts[1].host_key}")
    with pytest.raises(ConfigurationError, match="host key"):
        run("true")
    assert DockerBackupHook(CONN_ID).settings.verified is False


def test_the_users_ssh_configuration_cannot_loosen_what_is_believed(
    connection: Connection, host: LabHost, tmp_path: Path
) -> None:
    """Asyncssh would read ~/.ssh/config by itself."""
    known_hosts(tmp_path)
    (tmp_path / "other").write_text(f"[{host.address}]:{host.ssh_port} {host.host_key}\n")
    (tmp_path / ".ssh" / "config").write_text(
        f"Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile {tmp_path}/other\n"
    )
    connection(host_key=None)
    with pytest.raises(ConfigurationError, match="host key"):
        run("true")


def test_a_refused_key_says_where_to_look(connection: Connection, lab: Lab) -> None:
    """It is no matter of trying again."""
    connection(key_file=str(lab.hosts[1].private_key_path), look_for_keys="false")
    with pytest.raises(ConfigurationError, match=r"login refused.*authorized_keys"):
        run("true")


def test_the_key_may_be_in_the_connection_with_a_passphrase(
    connection: Connection, host: LabHost, tmp_path: Path
) -> None:
    """As PEM, as the form stores it; a wrong passphrase is named and not shown."""
    key = tmp_path / "key"
    key.write_bytes(host.private_key_path.read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "sesame-open", "-f", key], check=True)
    connection(key_file=None, private_key=key.read_text(), private_key_passphrase="sesame-open")
    assert run("echo in").stdout == b"in\n"
    assert "sesame" not in repr(asyncio.run(target_of(CONN_ID)))
    connection(key_file=None, private_key=key.read_text(), private_key_passphrase="guessed-wrong")
    with pytest.raises(ConfigurationError, match="private key cannot be") as error:
        run("true")
    assert "guessed" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ciphers", ["aes256-ctr"]),
        ("disabled_algorithms", {"keys": ["rsa-sha2-256"]}),
        ("allow_host_key_change", "true"),
    ],
)
def test_extras_that_a_trigger_cannot_keep_are_refused_before_and_in_it(
    name: str, value: Any, connection: Connection
) -> None:
    """Passing over them in silence would speak to a host otherwise than the connection says."""
    extra = connection(**{name: value})
    with pytest.raises(ConfigurationError, match=f"trigger cannot use its extra {name}"):
        run("true")
    with pytest.raises(ConfigurationError, match=f"trigger cannot use its extra {name}"):
        refuse_unless_for_triggers(DockerBackupHook(CONN_ID), extra)


def test_a_proxy_command_or_key_of_the_ssh_configuration_is_refused_before_deferring(
    connection: Connection, host: LabHost, tmp_path: Path
) -> None:
    """Workers read them from ~/.ssh/config; the trigger would connect to another place, or with other keys."""
    extra = connection()
    refuse_unless_for_triggers(DockerBackupHook(CONN_ID), extra)
    (tmp_path / ".ssh").mkdir()
    configuration = tmp_path / ".ssh" / "config"
    configuration.write_text("Host *\n  ProxyCommand nc %h %p\n")
    with pytest.raises(ConfigurationError, match="ProxyCommand"):
        refuse_unless_for_triggers(DockerBackupHook(CONN_ID), extra)
    configuration.write_text(f"Host *\n  IdentityFile {host.private_key_path}\n")
    extra = connection(key_file=None)
    with pytest.raises(ConfigurationError, match=r"key comes from ~/\.ssh/config"):
        refuse_unless_for_triggers(DockerBackupHook(CONN_ID), extra)


def test_a_connection_that_is_not_there_or_of_another_type_is_named(connection: Connection) -> None:
    """The same words as in a worker."""

    async def reach(conn_id: str) -> None:
        async with connected(conn_id):
            pass

    with pytest.raises(ConfigurationError, match="there is no connection 'nowhere'"):
        asyncio.run(reach("nowhere"))
    connection(conn_type="http")
    with pytest.raises(ConfigurationError, match="has type 'http'"):
        asyncio.run(reach(CONN_ID))


def test_polling_does_not_fill_the_log(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """Asyncssh tells of each channel at level INFO."""
    connection()
    with caplog.at_level(logging.INFO):
        run("true")
    assert not [record for record in caplog.records if record.name.startswith("asyncssh")]
