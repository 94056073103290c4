# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.bench import FAULTY, IMAGE, IMAGE_BYTES, Bench, connect, fails, recovers
from tests.faults.gate import Gate, docker_script
from tests.lab.daemon import LabDaemon, temporary_daemon
from tests.lab.faults import FaultProxy, small_disk
from tests.lab.images import build_random
from tests.lab.lab import LabHost
from tests.lab.mounts import unmount_under

MEGABYTE = 1_000_000


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Act in another thread while the body runs, and see that it did so without an error."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as err:  # noqa: BLE001 - raised again in the test's own thread
            errors.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
    assert not errors, errors


@pytest.mark.parametrize("percent", [0, 1, 25, 50, 99])
def test_save_is_transient_and_leaves_nothing_when_the_session_is_killed(
    percent: int, bench: Bench, gate: Gate, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut link looks like the end of the stream; it is not taken for one, wherever it happens."""
    connect(
        monkeypatch,
        host,
        conn_id=FAULTY,
        docker_command=gate.docker(after_bytes=percent * IMAGE_BYTES // 100),
    )

    def cut() -> None:
        gate.wait()
        host.kill_sessions()

    with meanwhile(cut):
        fails(bench, r"docker save sha256:[0-9a-f]{64} on host-1 .*bytes received.*try again", permanent=False)
    recovers(bench)


def test_save_is_transient_and_leaves_nothing_when_the_link_is_reset(
    bench: Bench, host: LabHost, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reset by something in between ends the save, and says where and how far it was."""
    connect(monkeypatch, host, conn_id=FAULTY, port=proxy.port)
    proxy.cut_after(IMAGE_BYTES // 2)
    fails(bench, r"docker save .* on host-1 .*bytes received.*try again", permanent=False)
    assert proxy.cuts == 1
    recovers(bench)


def test_save_touches_nothing_when_links_are_reset_before_login(
    bench: Bench, host: LabHost, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may be a busy sshd is tried again a few times, then reported as worth a retry."""
    connect(monkeypatch, host, conn_id=FAULTY, port=proxy.port)
    proxy.cut_after(1)
    fails(bench, r"host-1 .*cannot connect.*(sshd|MaxStartups).*", permanent=False, begun=False)
    assert proxy.connections == 4
    recovers(bench)


def test_save_gives_up_after_the_stall_timeout_when_the_link_goes_dead(
    bench: Bench, host: LabHost, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A black hole tells nobody anything: only a limit of time ends the wait, and the message names it."""
    connect(monkeypatch, host, conn_id=FAULTY, port=proxy.port, stall_timeout=1)
    proxy.black_hole_after(IMAGE_BYTES // 2)
    began = time.monotonic()
    fails(bench, r"docker save .* on host-1 .*no data came for 1 s \(the stall timeout\).*raise", permanent=False)
    # All of it: connecting, the stream up to the fault, the limit, and two verifications' reading.
    assert time.monotonic() - began < 8
    recovers(bench)


def test_save_is_transient_when_dockerd_is_killed_and_succeeds_once_it_is_back(
    bench: Bench, gate: Gate, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that dies in mid-stream closes its end of the stream; that is no end of the image."""
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=gate.docker(after_bytes=2 * MEGABYTE))

    def crash() -> None:
        gate.wait()
        host.daemon.kill()
        gate.open()

    try:
        with meanwhile(crash):
            fails(bench, r"docker save .* on host-1 failed.*exit code 1.*(daemon|link).*", permanent=False)
    finally:
        host.daemon.start()
    recovers(bench)


def test_save_is_transient_when_the_repositorys_disk_is_full(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, host: LabHost
) -> None:
    """The message says which disk, and the space that was taken is given back."""
    with small_disk(40 * MEGABYTE) as disk:
        shutil.copytree(bench.url.removeprefix("file://"), disk / "repository")
        full = Bench(f"file://{disk}/repository")
        connect(monkeypatch, host, conn_id=FAULTY)
        free = shutil.disk_usage(disk).free
        said = fails(full, r"cannot write .*image-.*No space left.*free space or rotate", permanent=False)
        assert str(disk) in said
        assert shutil.disk_usage(disk).free > free - MEGABYTE


@pytest.fixture(scope="module")
def cramped() -> Iterator[tuple[LabDaemon, Path]]:
    """A daemon on a small disk with the image, and a file on that disk by which it can be filled."""
    with small_disk(120 * MEGABYTE) as disk, temporary_daemon(disk) as daemon:
        build_random(daemon, IMAGE, size_mb=24, layers=3)
        yield daemon, disk / "filler"
        unmount_under(daemon.data_root)


def test_save_is_transient_when_the_hosts_disk_is_full(
    bench: Bench, host: LabHost, cramped: tuple[LabDaemon, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command writes the image to the daemon's disk first; the message says whose disk is full."""
    daemon, filler = cramped
    free = shutil.disk_usage(filler.parent).free
    connect(monkeypatch, host, conn_id=FAULTY, docker_socket=daemon.docker_host)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - 8 * MEGABYTE)
    try:
        fails(bench, r"docker save .* host-1 .*no space left.*free space on the host.*Docker's data", permanent=False)
    finally:
        filler.unlink()
    # What docker spooled is gone as well.
    assert abs(shutil.disk_usage(filler.parent).free - free) < MEGABYTE
    recovers(bench, docker=FAULTY)


def before_save(path: Path, act: str) -> str:
    """Give a docker command that does something else just before it saves."""
    return docker_script(path, f'case "$*" in *"image save"*) {act} >&2 ;; esac\nexec docker "$@"')


def test_save_is_permanent_when_the_image_is_deleted_between_inspect_and_save(
    bench: Bench, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the image that is gone, and how to see what is there."""
    host.daemon.docker("tag", IMAGE, "faults/doomed:1")
    host.daemon.docker("build", "-q", "-t", "faults/doomed:1", "-", input=f"FROM {IMAGE}\nLABEL a=b\n".encode())
    docker = before_save(tmp_path / "docker", "docker rmi faults/doomed:1")
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=docker)
    fails(bench, r"NotFoundError: docker save .* host-1 .*docker image ls", permanent=True, image="faults/doomed:1")
    recovers(bench)


def test_save_holds_the_inspected_image_when_its_tag_moves_before_the_save(
    bench: Bench, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is saved by its ID: the backup is what the record says, not what the tag came to mean."""
    host.daemon.docker("tag", IMAGE, "faults/moving:1")
    docker = before_save(tmp_path / "docker", "docker tag lab/base:1 faults/moving:1")
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=docker)
    try:
        summary = bench.save(docker=FAULTY, image="faults/moving:1")
    finally:
        host.daemon.docker("rmi", "faults/moving:1")
    listed = host.daemon.docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", IMAGE).stdout.decode()
    assert [layer in listed for layer in summary["diff_ids"]] == [True] * 4
    assert bench.verify(summary["backup_id"])["verification"] == "passed"
    assert bench.leftovers() == set()


def test_save_is_refused_when_the_stream_is_another_image(
    bench: Bench, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole and sound archive with exit status 0 is still not the image that was announced."""
    docker = docker_script(
        tmp_path / "docker", 'case "$*" in *"image save"*) exec docker image save lab/base:1 ;; esac\nexec docker "$@"'
    )
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=docker)
    fails(bench, r"IntegrityError: .*sha256:", permanent=True)
    recovers(bench)


def test_save_is_transient_when_the_remote_docker_is_killed_after_the_last_byte(
    bench: Bench, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bytes came, but no exit status: nobody said that this was all."""
    script = 'docker "$@"\ncase "$*" in *"image save"*) kill -KILL $$ ;; esac'
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=docker_script(tmp_path / "docker", script))
    fails(bench, r"docker save .* on host-1 .*(killed|lost).*try again", permanent=False)
    recovers(bench)


def test_save_fails_when_docker_exits_with_an_error_after_the_last_byte(
    bench: Bench, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole archive does not count when the command that made it says that it failed."""
    script = 'docker "$@"\ncase "$*" in *"image save"*) echo "something odd" >&2; exit 1 ;; esac'
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=docker_script(tmp_path / "docker", script))
    fails(bench, r"docker save .* host-1 .*exit code 1: something odd; .*journalctl", permanent=True)
    recovers(bench)


def test_save_is_refused_when_the_remote_shell_prints_text_before_the_stream(
    bench: Bench, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A greeting in front of the archive is named as what it is, not stored."""
    script = 'echo "Welcome to web-1, last login yesterday"\nexec docker "$@"'
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=docker_script(tmp_path / "docker", script))
    fails(bench, r"ConfigurationError: docker save .*begins with text.*Welcome to web-1.*bashrc", permanent=True)
    recovers(bench)


def test_save_is_refused_when_text_follows_the_stream(
    bench: Bench, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after the end of the archive is not part of it."""
    script = 'docker "$@" || exit\ncase "$*" in *"image save"*) echo "Good bye" ;; esac'
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=docker_script(tmp_path / "docker", script))
    fails(bench, r"IntegrityError: .*(byte|end)", permanent=True)
    recovers(bench)
