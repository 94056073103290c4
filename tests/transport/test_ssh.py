# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.common import cMSG_CHANNEL_EOF

from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, TransientError
from airflow_provider_dockerbackup.transport.ssh import SshSession, SshTimeouts
from airflow_provider_dockerbackup.transport.ssh_algorithms import (
    connect_preferring_gcm,
    gcm_only_disabled_algorithms,
    weak_disabled_algorithms,
)
from tests.lab.faults import FaultProxy
from tests.lab.lab import Lab, LabHost
from tests.transport.ssh_lab import CommandFailedError, factory, read_all, session

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """A host with a real sshd."""
    with Lab.start(tmp_path_factory.mktemp("lab")) as lab:
        yield lab.hosts[0]


@pytest.fixture
def ssh(host: LabHost) -> Iterator[SshSession]:
    """A session on the host."""
    with session(host) as opened:
        yield opened


@pytest.fixture
def proxy(host: LabHost) -> Iterator[FaultProxy]:
    """A proxy in front of the host's sshd."""
    with FaultProxy(host.address, host.ssh_port) as opened:
        yield opened


def test_run_returns_status_output_and_errors(ssh: SshSession) -> None:
    """All three come back, whatever the exit status."""
    result = ssh.run("cat; echo wrong >&2; exit 3", stdin=b"in \xff")
    assert (result.exit_status, result.stdout, result.stderr) == (3, b"in \xff", b"wrong\n")


def test_run_keeps_one_connection_for_several_commands(host: LabHost, proxy: FaultProxy) -> None:
    """Short commands share the control connection."""
    with session(host, port=proxy.port) as ssh:
        assert [ssh.run(f"echo {number}").stdout for number in range(5)] == [b"%d\n" % n for n in range(5)]
    assert proxy.connections == 1


def test_run_connects_again_when_the_connection_died_since(host: LabHost, ssh: SshSession) -> None:
    """A link that was cut between two commands costs a new connection, no error."""
    assert ssh.run("echo 1").stdout == b"1\n"
    host.kill_sessions()
    assert ssh.run("echo 2").stdout == b"2\n"


def test_run_fails_when_the_link_is_cut_while_it_runs(host: LabHost, ssh: SshSession) -> None:
    """The command may have done its work: it is not repeated."""
    ssh.run("true")
    threading.Timer(0.5, host.kill_sessions).start()
    with pytest.raises(TransientError, match=r"host-1.*link was lost"):
        ssh.run("sleep 20")


def test_run_fails_when_the_command_takes_too_long(ssh: SshSession) -> None:
    """The limit of time is that of the call, and the session can be used afterwards."""
    start = time.monotonic()
    with pytest.raises(TransientError, match="not done after 1 s"):
        ssh.run("sleep 20", timeout_seconds=1)
    assert time.monotonic() - start < 5
    assert ssh.run("echo on").stdout == b"on\n"


def test_a_command_that_ends_at_once_does_not_end_the_connection(ssh: SshSession) -> None:
    """Its channel is closed while we tell it that there is no input; what else runs there goes on."""
    ssh.connect()
    control: Any = ssh._control
    transport = control.get_transport()
    send = transport._send_user_message

    def slowly(message: paramiko.Message) -> None:
        if message.asbytes()[:1] == cMSG_CHANNEL_EOF:
            time.sleep(0.5)
        send(message)

    transport._send_user_message = slowly
    with ThreadPoolExecutor() as pool:
        other = pool.submit(ssh.run, "sleep 2; echo on")
        time.sleep(0.8)
        assert ssh.run("true").exit_status == 0
        assert other.result().stdout == b"on\n"
    assert ssh._control is control


def test_run_fails_when_the_command_is_killed(ssh: SshSession) -> None:
    """No exit status is no success."""
    with pytest.raises(TransientError, match="killed"):
        ssh.run("echo done; kill -9 $$")


def test_run_fails_when_the_output_is_too_long(ssh: SshSession) -> None:
    """Output is bounded; what is beyond is neither kept nor taken for all."""
    with pytest.raises(DockerBackupError, match="longer than 1000 bytes"):
        ssh.run("head -c 100000000 /dev/zero", max_output_bytes=1000)


def test_run_returns_when_a_large_input_is_not_read(ssh: SshSession) -> None:
    """A command that ends without reading its input does not block its caller."""
    assert ssh.run("exit 5", stdin=b"x" * 50 * MIB).exit_status == 5


def test_run_answers_when_input_and_output_are_large(ssh: SshSession) -> None:
    """Output is read while input is written: neither side waits for the other."""
    data = b"0123456789abcdef" * (MIB // 2)
    result = ssh.run("tee /dev/stderr", stdin=data)
    assert result.stdout == data
    assert result.stderr == data[-64 * 1024 :]


def test_peer_says_how_the_host_was_reached(host: LabHost, ssh: SshSession) -> None:
    """User, address, host key fingerprint as OpenSSH shows it, and an AES-GCM cipher."""
    listed = host.sshd.run("ssh-keygen", "-lf", str(host.sshd.directory / "ssh_host_ed25519_key.pub"))
    peer = ssh.peer()
    assert peer["user"] == host.user
    assert peer["address"] == f"127.0.0.1:{host.ssh_port}"
    assert peer["host_key"] == listed.stdout.decode().split()[1]
    assert peer["cipher"] == "aes128-gcm@openssh.com"


def test_sound_ciphers_are_used_when_sshd_has_no_gcm() -> None:
    """The second try offers everything but CBC and 3DES, and is made only after the peers found nothing in common."""
    tried: list[dict[str, list[str]]] = []

    def connect(disabled: dict[str, list[str]]) -> paramiko.SSHClient:
        tried.append(disabled)
        if len(tried) == 1:
            raise paramiko.ssh_exception.IncompatiblePeer("no acceptable ciphers")
        return paramiko.SSHClient()

    connect_preferring_gcm(connect)
    assert tried == [gcm_only_disabled_algorithms(), weak_disabled_algorithms()]
    assert "aes128-ctr" in tried[0]["ciphers"]
    assert "aes128-ctr" not in tried[1]["ciphers"]
    assert {"aes128-cbc", "3des-cbc"} <= set(tried[1]["ciphers"])
    assert not any("gcm" in name for names in (tried[0], tried[1]) for name in names["ciphers"])


def test_stream_yields_pieces_of_at_most_a_mebibyte(ssh: SshSession) -> None:
    """All bytes come, in order, in bounded pieces."""
    command = "i=0; while [ $i -lt 30 ]; do head -c 1000003 /dev/zero | tr '\\0' \"$((i % 10))\"; i=$((i+1)); done"
    pieces = list(ssh.stream_out(command, explain=CommandFailedError))
    assert max(map(len, pieces)) <= MIB
    assert b"".join(pieces) == b"".join(b"%d" % (number % 10) * 1000003 for number in range(30))


def test_stream_is_the_same_bytes_when_they_are_random(ssh: SshSession, tmp_path: Path) -> None:
    """What arrives has the digest of what was sent."""
    file = tmp_path / "random"
    with file.open("wb") as out:
        for seed in range(40):
            out.write(hashlib.shake_256(b"%d" % seed).digest(3 * MIB + seed))
    digest = hashlib.sha256()
    for piece in ssh.stream_out(f"cat {file}", explain=CommandFailedError):
        digest.update(piece)
    assert digest.hexdigest() == hashlib.sha256(file.read_bytes()).hexdigest()


def test_stream_is_empty_when_the_command_prints_nothing(ssh: SshSession) -> None:
    """No output and exit status 0 is a whole stream."""
    assert list(ssh.stream_out("true", explain=CommandFailedError)) == []


def test_nothing_is_connected_when_a_stream_is_not_read(host: LabHost, proxy: FaultProxy) -> None:
    """Connection and command start with the first piece."""
    with session(host, port=proxy.port) as ssh:
        stream = ssh.stream_out("true", explain=CommandFailedError)
        pieces = iter(stream)
        assert proxy.connections == 0
        assert list(pieces) == []
        assert proxy.connections == 1


@pytest.mark.parametrize("size_bytes", [535_500_000, 536_000_000, 536_200_000, 536_300_000, 536_870_912])
def test_stream_is_whole_when_it_ends_where_paramiko_would_rekey(ssh: SshSession, size_bytes: int) -> None:
    """Streams near 512 MiB, where paramiko's rekeying met the close of the channel, end at once."""
    assert read_all(ssh, f"head -c {size_bytes} /dev/zero") == size_bytes


def test_stream_is_whole_when_sshd_rekeys_in_the_middle(host: LabHost) -> None:
    """Rekeying by the server every few megabytes does no harm."""
    configuration = host.sshd.directory / "sshd_config"
    text = configuration.read_text(encoding="utf-8")
    host.stop_sshd()
    try:
        configuration.write_text("RekeyLimit 4M\n" + text, encoding="utf-8")
        host.start_sshd()
        with session(host) as ssh:
            assert [read_all(ssh, f"head -c {n} /dev/zero") for n in (4 * MIB, 8 * MIB - 7, 64 * MIB)] == [
                4 * MIB,
                8 * MIB - 7,
                64 * MIB,
            ]
    finally:
        host.stop_sshd()
        configuration.write_text(text, encoding="utf-8")
        host.start_sshd()


def test_stream_fails_when_the_command_fails_after_its_output(ssh: SshSession) -> None:
    """The exit status and the end of standard error reach the caller's error."""
    with pytest.raises(CommandFailedError) as caught:
        read_all(ssh, "head -c 5000000 /dev/zero; echo broke >&2; exit 3")
    assert caught.value.result.exit_status == 3
    assert caught.value.result.stderr == b"broke\n"


def test_stream_fails_when_the_command_is_killed(ssh: SshSession) -> None:
    """A signal leaves a clean end of file and no exit status: that is no success."""
    with pytest.raises(TransientError, match=r"killed.*5000000 bytes received"):
        read_all(ssh, "head -c 5000000 /dev/zero; kill -9 $$")


@pytest.mark.parametrize("after_bytes", [0, 1, 100_000, 3_000_000, 60_000_000, 190_000_000])
def test_stream_fails_when_the_session_is_killed(host: LabHost, ssh: SshSession, after_bytes: int) -> None:
    """A killed sshd looks like a clean end of file to paramiko; the error says how much came."""
    received = 0
    command = "sleep 0.3; head -c 200000000 /dev/zero; sleep 5" if after_bytes else "sleep 20"
    with pytest.raises(TransientError, match="bytes received"):  # noqa: PT012
        killed = threading.Timer(0.6, host.kill_sessions)
        if after_bytes == 0:
            killed.start()
        for piece in ssh.stream_out(command, explain=CommandFailedError):
            received += len(piece)
            if 0 < after_bytes <= received:
                host.kill_sessions()
                after_bytes = 0
    assert received < 200_000_000


@pytest.mark.parametrize("cut_bytes", [5_000, 20_000, 100_000, 1_000_000, 10_000_000, 49_000_000, 50_000_000])
def test_stream_fails_when_the_link_is_reset(host: LabHost, proxy: FaultProxy, cut_bytes: int) -> None:
    """A reset at any point raises, also one after the last byte and before the exit status."""
    proxy.cut_after(cut_bytes)
    with session(host, port=proxy.port) as ssh, pytest.raises(TransientError):
        read_all(ssh, "head -c 50000000 /dev/zero; sleep 1")
    assert proxy.cuts == 1


def test_stream_fails_after_the_stall_timeout_when_the_link_goes_dead(host: LabHost, proxy: FaultProxy) -> None:
    """A link that swallows everything raises no error by itself."""
    proxy.black_hole_after(5_000_000)
    start = time.monotonic()
    with (
        session(host, port=proxy.port, stall_seconds=2) as ssh,
        pytest.raises(TransientError, match=r"no data came for 2 s \(the stall timeout\)"),
    ):
        read_all(ssh, "head -c 50000000 /dev/zero")
    assert 2 <= time.monotonic() - start < 7


def test_stream_fails_when_the_link_goes_dead_before_the_command_starts(host: LabHost, proxy: FaultProxy) -> None:
    """Starting a command takes no timeout in paramiko; ours holds."""
    start = time.monotonic()
    with session(host, port=proxy.port, command_seconds=2) as ssh:
        ssh.run("true")
        proxy.black_hole_after(0)
        with pytest.raises(TransientError):
            ssh.run("true")
    assert time.monotonic() - start < 12


def test_stream_waits_longer_for_its_first_byte_than_for_the_next(host: LabHost) -> None:
    """Docker spools a whole image before the first byte: that is no stall."""
    with session(host, stall_seconds=1, first_byte_seconds=20) as ssh:
        assert read_all(ssh, "sleep 2.5; echo data") == 5


@pytest.mark.parametrize("pauses", [True, False])
def test_a_stream_may_pause_in_the_middle_if_it_is_known_to(host: LabHost, pauses: bool) -> None:
    """Nothing comes while the host leaves a large layer out."""
    with session(host, stall_seconds=1, first_byte_seconds=20) as ssh:
        stream = ssh.stream_out("echo one; sleep 3; echo two", explain=CommandFailedError, pauses=pauses)
        if pauses:
            assert b"".join(stream) == b"one\ntwo\n"
        else:
            with pytest.raises(TransientError, match=r"no data came for 1 s \(the stall timeout\)"):
                list(stream)


def test_stream_fails_when_its_first_byte_never_comes(host: LabHost) -> None:
    """The message says which limit it was and how long it is."""
    with (
        session(host, first_byte_seconds=1) as ssh,
        pytest.raises(TransientError, match=r"no data came for 1 s \(the first byte timeout\)"),
    ):
        read_all(ssh, "sleep 20")


def test_stream_fails_at_the_deadline_when_it_merely_trickles(host: LabHost) -> None:
    """A stream that never stalls and never ends is ended."""
    start = time.monotonic()
    with (
        session(host, deadline_seconds=2) as ssh,
        pytest.raises(TransientError, match=r"not done after 2 s \(the deadline\)"),
    ):
        read_all(ssh, "while :; do echo x; sleep 0.1; done")
    assert 2 <= time.monotonic() - start < 6


def test_slow_reader_is_no_stall(host: LabHost) -> None:
    """Only waiting for the remote side counts; a sink may take its time."""
    with session(host, stall_seconds=1, first_byte_seconds=1) as ssh:
        received = 0
        for number, piece in enumerate(ssh.stream_out("head -c 8000000 /dev/zero", explain=CommandFailedError)):
            received += len(piece)
            if number in {0, 2}:
                time.sleep(2)
    assert received == 8_000_000


def test_stream_is_whole_when_standard_error_is_flooded(ssh: SshSession) -> None:
    """100 MB of errors beside the data neither block it nor stay in memory."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    command = "(head -c 50000000 /dev/zero >&2) & head -c 50000000 /dev/zero; head -c 50000000 /dev/zero >&2; wait"
    assert read_all(ssh, command) == 50_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 40 * 1024


def test_command_ends_when_the_stream_is_closed_early(ssh: SshSession, tmp_path: Path) -> None:
    """A reader that stops leaves no command behind that still writes."""
    mark = tmp_path / "alive"
    command = f"while echo x; do touch {mark}; sleep 0.1; done"
    stream = ssh.stream_out(command, explain=CommandFailedError)
    for _ in stream:
        break
    stream.close()
    stream.close()
    time.sleep(0.5)
    mark.unlink()
    time.sleep(0.5)
    assert not mark.exists()


def test_stream_fails_when_it_is_closed_by_another_thread(ssh: SshSession) -> None:
    """A closed stream never looks like one that ended."""
    stream = ssh.stream_out("echo x; sleep 20", explain=CommandFailedError)
    threading.Timer(0.5, stream.close).start()
    start = time.monotonic()
    with pytest.raises(TransientError, match="closed"):
        for _ in stream:
            pass
    assert time.monotonic() - start < 5


def test_stream_is_refused_when_it_is_read_again_or_after_close(ssh: SshSession) -> None:
    """A second reading would run the command a second time."""
    stream = ssh.stream_out("echo x", explain=CommandFailedError)
    assert b"".join(stream) == b"x\n"
    with pytest.raises(DockerBackupError):
        iter(stream)
    started = ssh.stream_out("echo x", explain=CommandFailedError)
    pieces = iter(started)
    with pytest.raises(ValueError, match="once"):
        iter(started)
    assert b"".join(pieces) == b"x\n"


def test_packet_limits_are_raised_on_the_streams_transport_only(host: LabHost) -> None:
    """Other paramiko users in the process keep paramiko's own limits."""
    client = factory(host)()
    try:
        assert client.get_transport().packetizer.REKEY_BYTES == 1 << 29  # type: ignore[union-attr]
    finally:
        client.close()


def test_input_reaches_the_command_whole(ssh: SshSession) -> None:
    """All chunks arrive in order, of whatever size, and the command sees the end."""
    chunks = [b"a" * 10, b"", b"b" * 3 * MIB, b"c" * 1_000_001, b"d"] * 5
    result = ssh.stream_in("sha256sum; echo note >&2", iter(chunks))
    assert result.stdout.split()[0].decode() == hashlib.sha256(b"".join(chunks)).hexdigest()
    assert (result.exit_status, result.stderr, result.input_taken) == (0, b"note\n", True)


def test_input_and_output_of_a_stream_do_not_block_each_other(ssh: SshSession) -> None:
    """A command that answers while it reads is drained on both channels."""
    result = ssh.stream_in("tee /dev/stderr", (b"x" * MIB for _ in range(40)))
    assert len(result.stdout) == 40 * MIB


def test_input_is_spoilt_when_chunks_raise(ssh: SshSession, tmp_path: Path) -> None:
    """The command gets what makes it refuse the whole, and the exception is passed on."""
    file = tmp_path / "file"

    def chunks() -> Iterator[bytes]:
        yield b"x" * MIB
        raise KeyError("bad digest")

    with pytest.raises(KeyError, match="bad digest"):
        ssh.stream_in(f"cat > {file}", chunks(), spoil=lambda sent_bytes: b"spoilt after %d" % sent_bytes)
    time.sleep(0.5)
    assert file.read_bytes().endswith(b"xspoilt after 1048576")


def test_status_is_returned_when_the_command_ends_before_its_input(ssh: SshSession) -> None:
    """A command that refuses its input says so itself; the rest is not consumed."""
    consumed = 0

    def chunks() -> Iterator[bytes]:
        nonlocal consumed
        for _ in range(500):
            consumed += 1
            yield b"x" * MIB

    result = ssh.stream_in("head -c 100 >/dev/null; echo refused >&2; exit 4", chunks())
    assert (result.exit_status, result.stderr, result.input_taken) == (4, b"refused\n", False)
    assert consumed < 50


def test_input_fails_when_the_command_takes_none(host: LabHost) -> None:
    """A command that stopped reading is a stall."""
    with (
        session(host, stall_seconds=1) as ssh,
        pytest.raises(TransientError, match=r"no data was taken for 1 s \(the stall timeout\)"),
    ):
        ssh.stream_in("sleep 30", (b"x" * MIB for _ in range(100)))


def test_input_fails_when_the_link_goes_dead(host: LabHost, proxy: FaultProxy) -> None:
    """Writing into a dead link blocks in the kernel, where paramiko has no timeout; ours holds."""

    def chunks() -> Iterator[bytes]:
        for number in range(200):
            if number == 5:
                proxy.black_hole_after(0)
            yield b"x" * MIB

    start = time.monotonic()
    with session(host, port=proxy.port, stall_seconds=2) as ssh, pytest.raises(TransientError, match="for 2 s"):
        ssh.stream_in("cat >/dev/null", chunks())
    assert time.monotonic() - start < 10


def test_input_fails_when_the_link_is_reset(host: LabHost, proxy: FaultProxy) -> None:
    """A cut link is an error of the link, whatever the command thought of its input."""

    def chunks() -> Iterator[bytes]:
        for number in range(100):
            if number == 5:
                proxy.cut_after(1)
            yield b"x" * MIB

    with session(host, port=proxy.port) as ssh, pytest.raises(TransientError):
        ssh.stream_in("cat >/dev/null; sleep 1", chunks())


def test_input_fails_when_the_answer_never_comes(host: LabHost) -> None:
    """The silent work after the last byte has the limit of the first byte of a stream."""
    with (
        session(host, first_byte_seconds=1) as ssh,
        pytest.raises(TransientError, match=r"no answer came for 1 s \(the first byte timeout\)"),
    ):
        ssh.stream_in("cat >/dev/null; sleep 20", [b"x"])


def test_slow_chunks_are_no_stall(host: LabHost) -> None:
    """Only waiting for the remote side counts; storage may take its time."""

    def chunks() -> Iterator[bytes]:
        yield b"a"
        time.sleep(2)
        yield b"b"

    with session(host, stall_seconds=1) as ssh:
        assert ssh.stream_in("cat", chunks()).stdout == b"ab"


@pytest.mark.parametrize("name", ["command_seconds", "first_byte_seconds", "stall_seconds", "deadline_seconds"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_timeouts_are_refused_when_not_positive(name: str, seconds: float) -> None:
    """The message names the field and the value."""
    with pytest.raises(ValueError, match=name):
        SshTimeouts(**{name: seconds})


def test_no_thread_is_left_when_streams_end(host: LabHost) -> None:
    """Watches, drains and transports of many streams, whole or cut short, are gone."""
    with session(host) as ssh:
        before = threading.active_count()
        for number in range(8):
            for _ in ssh.stream_out("head -c 3000000 /dev/zero", explain=CommandFailedError):
                if number % 2:
                    break
            ssh.stream_in("cat", [b"x"])
            ssh.run("true")
        end = time.monotonic() + 10
        while threading.active_count() > before + 1 and time.monotonic() < end:
            time.sleep(0.1)
        assert threading.active_count() <= before + 1


def test_error_says_what_to_do_when_nothing_listens(host: LabHost) -> None:
    """A refused connection may be a restart: transient."""
    with FaultProxy("127.0.0.1", 9) as closed:
        port = closed.port
    with session(host, port=port) as ssh, pytest.raises(TransientError, match=r"host-1|127.0.0.1"):
        ssh.run("true")


def test_factory_errors_of_any_kind_are_ours() -> None:
    """Whatever a factory raises arrives as an error of this package, with its cause."""

    def broken() -> paramiko.SSHClient:
        raise RuntimeError("no such setting")

    with pytest.raises(ConfigurationError, match="no such setting") as caught:
        SshSession(broken, where="web-1").run("true")
    assert isinstance(caught.value.__cause__, RuntimeError)
