# SPDX-License-Identifier: Apache-2.0
"""The lab is real, keeps its parts apart and leaves nothing behind."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs

from tests.lab.builder import has_image
from tests.lab.daemon import temporary_daemon
from tests.lab.engines import Engine
from tests.lab.errors import LabError
from tests.lab.faults import FaultProxy, small_disk
from tests.lab.images import (
    APP,
    BASE,
    COMMITTED,
    GREETING,
    LARGE,
    build_app,
    build_base,
    build_committed,
    build_large,
    build_random,
    run_app_container,
    wait_healthy,
)
from tests.lab.lab import Lab, LabHost
from tests.lab.layers import LONG_NAME, LONG_PATH, NOT_UTF8
from tests.lab.mounts import mounts_under
from tests.lab.processes import command_line, pids, program
from tests.lab.s3 import s3_server

_PROGRAMS = ("dockerd", "containerd", "containerd-shim-runc-v2", "sshd")
_PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of two hosts."""
    with Lab.start(tmp_path_factory.mktemp("lab"), hosts=2) as lab:
        yield lab


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    """A host that has the application."""
    host = lab.hosts[0]
    build_app(host.daemon)
    return host


def _inspect(host: LabHost, reference: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(host.daemon.docker("image", "inspect", reference).stdout)
    return found[0]


def _saved_layers(host: LabHost, reference: str) -> dict[str, list[tarfile.TarInfo]]:
    """Each layer's members by diff_id; whatever the archive's layout, a layer hashes to its diff_id."""
    wanted = set(_inspect(host, reference)["RootFS"]["Layers"])
    layers: dict[str, list[tarfile.TarInfo]] = {}
    with tarfile.open(fileobj=io.BytesIO(host.daemon.docker("save", reference).stdout)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            data = b"" if file is None else file.read()
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            if digest in wanted:
                with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as layer:
                    layers[digest] = layer.getmembers()
    return layers


def _processes_of(directory: Path) -> list[str]:
    return [line for pid in pids() if program(pid) in _PROGRAMS and str(directory) in (line := command_line(pid))]


def _run_lab(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.lab", *arguments]
    return subprocess.run(command, cwd=_PROJECT, check=check, capture_output=True, text=True)


def test_a_session_sees_its_own_hosts_daemon_and_no_other(lab: Lab, host: LabHost) -> None:
    """Plain `docker` in a session talks to the daemon of that host."""
    listing = ("docker", "images", "--format", "'{{.Repository}}:{{.Tag}}'")
    here, there = host.ssh(*listing), lab.hosts[1].ssh(*listing)
    assert APP in here.stdout.decode().split()
    assert there.returncode == 0, there.stderr
    assert there.stdout == b""
    assert len({daemon.pid for daemon in lab.daemons}) == 3


def test_a_session_has_the_client_that_came_with_the_engine(host: LabHost) -> None:
    """What a fleet's host would have, not what happens to be first in PATH."""
    done = host.ssh("docker", "version", "--format", "'{{.Client.Version}} {{.Server.Version}}'")
    client, server = done.stdout.decode().split()
    assert client == server


def test_a_client_that_knows_another_key_for_the_host_is_refused(host: LabHost, tmp_path: Path) -> None:
    """The known_hosts file is what lets a client in."""
    other = tmp_path / "known_hosts"
    other.write_text(host.known_hosts_path.read_text(encoding="ascii")[:-10] + "AAAAAAAAA\n", encoding="ascii")
    config = ["ssh", "-F", str(host.ssh_config_path), "-o", f"UserKnownHostsFile={other}", host.name, "true"]
    assert subprocess.run(config, check=False, capture_output=True).returncode == 255
    assert host.ssh("true").returncode == 0


def test_sftp_copies_a_file_when_asked_for_the_subsystem(host: LabHost, tmp_path: Path) -> None:
    """The sftp subsystem is there, as on a usual host."""
    (tmp_path / "here").write_bytes(b"some bytes")
    batch = f'put "{tmp_path}/here" "{tmp_path}/there"\n'.encode()
    command = ["sftp", "-q", "-b", "-", "-F", str(host.ssh_config_path), host.name]
    subprocess.run(command, input=batch, check=True, capture_output=True)
    assert (tmp_path / "there").read_bytes() == b"some bytes"


def test_sshd_comes_back_on_its_port_after_a_stop(host: LabHost) -> None:
    """A host that was down is the same host afterwards."""
    before = (host.ssh_port, host.host_key)
    host.stop_sshd()
    assert host.ssh("true").returncode == 255
    host.start_sshd()
    assert (host.ssh_port, host.host_key) == before
    assert host.ssh("true").returncode == 0


def test_killing_sessions_cuts_a_stream_and_sshd_goes_on(host: LabHost) -> None:
    """The link breaks in mid-stream; the next session is fine."""
    command = ["ssh", "-F", str(host.ssh_config_path), host.name, "cat /dev/zero"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        assert len(client.stdout.read(1_000_000)) == 1_000_000
        host.kill_sessions()
        client.stdout.read()
    assert client.returncode == 255
    assert host.ssh("true").returncode == 0


def test_images_survive_when_a_daemon_is_killed_and_started(lab: Lab) -> None:
    """After SIGKILL the daemon starts again on its data."""
    daemon = lab.hosts[1].daemon
    build_base(daemon)
    first = daemon.pid
    daemon.kill()
    assert not daemon.running
    with pytest.raises(LabError, match="does not run"):
        _ = daemon.pid
    daemon.start()
    assert daemon.pid != first
    assert has_image(daemon, BASE)
    daemon.docker("image", "rm", BASE)


def test_the_application_image_has_every_configuration_key(host: LabHost) -> None:
    """What a restore has to bring back."""
    config = _inspect(host, APP)["Config"]
    assert f"GREETING={GREETING}" in config["Env"]
    assert config["Labels"]["lab.odd"] == "sp ace \"q\" = 'x' ü"
    assert config["Entrypoint"] == ["/srv/app/start"]
    assert config["Cmd"][1] == "httpd"
    assert set(config["ExposedPorts"]) == {"8080/tcp", "5353/udp"}
    assert set(config["Volumes"]) == {"/var/lib/app", "/var/cache/with space"}
    assert config["User"] == "app:app"
    assert config["WorkingDir"] == "/srv/app"
    assert config["Healthcheck"]["Test"][0] == "CMD-SHELL"
    assert config["StopSignal"] == "SIGINT"
    assert config["Shell"] == ["/bin/sh", "-eu", "-c"]
    assert config["OnBuild"] == ["RUN echo built upon"]


def test_the_application_image_has_the_promised_layers_and_files(host: LabHost) -> None:
    """What breaks careless tools is there, and survived the build."""
    order = _inspect(host, APP)["RootFS"]["Layers"]
    assert len(order) >= 8
    assert len(order) == len(set(order)) + 1, "one layer is there twice"
    history = host.daemon.docker("history", "--quiet", APP).stdout.split()
    assert len(history) > len(order) + 8, "empty layers"
    members = {member.name: member for layer in _saved_layers(host, APP).values() for member in layer}
    assert {f"odd/{LONG_NAME}", f"odd/{LONG_PATH}", NOT_UTF8, "odd/größe-世界-🐳", "odd/new\nline"} <= set(members)
    assert [members[f"odd/{name}"].islnk() for name in ("hard-1", "hard-2", "original")].count(True) == 2
    assert members["odd/dangling"].linkname == "../no/where"
    assert members["odd/setuid"].mode & 0o7777 == 0o4755
    assert members["odd/sticky"].mode & 0o7777 == 0o1777
    assert members["odd/fifo"].isfifo()
    assert members["odd/empty"].isdir()
    assert members["odd/high-owner"].uid == 3_000_000
    assert "SCHILY.xattr.security.capability" in members["opt/capable"].pax_headers
    assert {"doomed/.wh.file", "doomed/.wh.directory", "doomed/replaced/.wh..wh..opq"} <= set(members)


def test_the_application_becomes_healthy_without_a_network(host: LabHost) -> None:
    """It runs as verification will run it, and says what its inspection should show."""
    container = run_app_container(host.daemon)
    wait_healthy(host.daemon, container)
    assert run_app_container(host.daemon) == container
    found = json.loads(host.daemon.docker("container", "inspect", container).stdout)[0]
    assert found["HostConfig"]["NetworkMode"] == "none"
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert "STAGE=lab" in found["Config"]["Env"]
    assert found["Config"]["Labels"]["lab.container"] == "yes"
    assert {mount["Destination"] for mount in found["Mounts"]} == {"/var/lib/app", "/var/cache/with space"}
    strict = ("--network", "none", "--cap-drop", "ALL", "--read-only", "--name", "strict")
    host.daemon.docker("run", "--detach", *strict, APP)
    wait_healthy(host.daemon, "strict")
    host.daemon.docker("rm", "--force", "--volumes", "strict")


def test_the_committed_image_adds_a_layer_with_message_and_author(host: LabHost) -> None:
    """The change made by hand is one layer upon the application."""
    build_committed(host.daemon)
    committed, application = _inspect(host, COMMITTED), _inspect(host, APP)
    assert committed["RootFS"]["Layers"][:-1] == application["RootFS"]["Layers"]
    assert (committed["Comment"], committed["Author"]) == ("release 3, by hand", "Lab <lab@example.org>")
    assert committed["Config"]["Cmd"] == application["Config"]["Cmd"]
    assert committed["Config"]["User"] == "app:app"


def test_a_random_image_has_the_same_layers_when_built_twice(lab: Lab, host: LabHost) -> None:
    """The seed decides."""
    first = build_random(host.daemon, "lab/random:1", size_mb=4, layers=2, seed=7)
    layers = _inspect(host, first)["RootFS"]["Layers"]
    build_random(lab.hosts[1].daemon, first, size_mb=4, layers=2, seed=7)
    assert _inspect(lab.hosts[1], first)["RootFS"]["Layers"][1:] == layers[1:]
    assert len(layers) == 3


def test_the_large_image_has_five_layers_of_the_size_asked_for(host: LabHost) -> None:
    """Its size is a parameter, so that this test is quick; the default is 512."""
    build_large(host.daemon, size_mb=60)
    found = _inspect(host, LARGE)
    assert len(found["RootFS"]["Layers"]) == 6
    assert 55_000_000 < found["Size"] < 70_000_000


def test_the_proxy_cuts_a_session_after_exactly_so_many_bytes(host: LabHost) -> None:
    """Both sides see a reset connection; healed, it forwards again."""
    with FaultProxy(host.address, host.ssh_port) as proxy:
        through = ["-o", f"HostKeyAlias=[{host.address}]:{host.ssh_port}", "-p", str(proxy.port)]
        stream = ["ssh", "-F", str(host.ssh_config_path), *through, host.name, "head -c 20000000 /dev/zero"]
        whole = subprocess.run(stream, check=True, capture_output=True)
        assert len(whole.stdout) == 20_000_000
        proxy.cut_after(5_000_000)
        before = proxy.forwarded_bytes
        cut = subprocess.run(stream, check=False, capture_output=True)
        assert cut.returncode == 255
        assert proxy.forwarded_bytes - before == 5_000_000
        assert proxy.cuts == 1
        proxy.heal()
        assert subprocess.run(stream, check=True, capture_output=True).stdout == whole.stdout


def test_the_proxy_swallows_without_closing_and_goes_on_when_healed(host: LabHost) -> None:
    """In a black hole nothing comes and nothing ends."""
    with FaultProxy(host.address, host.ssh_port) as proxy:
        proxy.black_hole_after(4)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.5) as client:
            assert client.recv(100) == b"SSH-"
            with pytest.raises(TimeoutError):
                client.recv(100)
            proxy.heal()
            assert client.recv(100).startswith(b"2.0-")


def test_the_proxy_delays_answers(host: LabHost) -> None:
    """The first bytes come late."""
    with FaultProxy(host.address, host.ssh_port) as proxy:
        proxy.delay(0.4)
        begun = time.monotonic()
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client:
            assert client.recv(4) == b"SSH-"
        assert time.monotonic() - begun >= 0.4


def test_a_daemon_on_a_small_disk_runs_out_of_space(host: LabHost) -> None:
    """Loading what does not fit fails for want of space, and the disk is gone afterwards."""
    build_random(host.daemon, "lab/random:40", size_mb=40)
    archive = host.daemon.docker("save", "lab/random:40").stdout
    with small_disk(50_000_000) as disk:
        with temporary_daemon(disk) as daemon:
            loaded = daemon.docker("load", input=archive, check=False)
            assert loaded.returncode == 1
            assert b"no space left on device" in loaded.stderr
        assert not mounts_under(disk / "daemon")
    assert not disk.exists()


def test_the_s3_server_keeps_an_object_in_its_fresh_bucket() -> None:
    """A real server, not a patched library."""
    with s3_server() as server:
        storage = s3fs.S3FileSystem(**server.storage_options, skip_instance_cache=True)
        storage.pipe_file(f"{server.bucket}/key", b"object")
        assert storage.cat_file(f"{server.bucket}/key") == b"object"
        assert storage.ls(server.new_bucket()) == []
        assert json.loads(server.airflow_connection)["extra"]["endpoint_url"] == server.endpoint_url
        assert server.storage_options["client_kwargs"]["endpoint_url"].startswith("http://127.0.0.1:")


def test_starting_a_lab_where_one_runs_is_refused(lab: Lab) -> None:
    """Two labs in one directory would overwrite each other."""
    with pytest.raises(LabError, match="runs in"):
        Lab.start(lab.directory)
    assert lab.running


def test_a_lab_that_fails_to_start_leaves_nothing(tmp_path: Path) -> None:
    """The daemon's own words are in the error, and what was started is stopped."""
    directory = tmp_path / "lab"
    (directory / "test").mkdir(parents=True)
    (directory / "test" / "data").write_text("in the way of the data directory", encoding="ascii")
    with pytest.raises(LabError, match=r"the daemon test .* did not come up") as caught:
        Lab.start(directory)
    assert "dockerd.log" in str(caught.value)
    assert Lab.open(directory) is None
    assert _processes_of(directory) == []
    assert mounts_under(directory) == ()


def test_an_engine_without_the_store_asked_for_is_refused() -> None:
    """20.10 has no containerd image store."""
    with pytest.raises(ValueError, match="containerd_store"):
        Engine(version="20.10", containerd_store=True)


def test_down_cleans_up_after_a_lab_whose_daemons_were_killed(tmp_path: Path) -> None:
    """From the command line: up, up again, a crash with a container running, down from another process."""
    directory = tmp_path / "it's a lab"
    _run_lab("up", "--dir", str(directory))
    assert "runs already" in _run_lab("up", "--dir", str(directory), "--images", "none").stdout
    assert "run `down` first" in _run_lab("up", "--dir", str(directory), "--hosts", "2", check=False).stderr
    exports = shlex.split(_run_lab("env", "--dir", str(directory)).stdout)
    name, _, value = exports[1].partition("=")
    crashed = Lab.open(directory)
    assert crashed is not None
    assert name == "AIRFLOW_CONN_DOCKER_HOST_1"
    assert json.loads(value)["port"] == crashed.hosts[0].ssh_port
    container = crashed.hosts[0].daemon.docker("inspect", "--format", "{{.State.Pid}}", "lab-app").stdout
    for daemon in crashed.daemons:
        os.kill(daemon.pid, signal.SIGKILL)
    assert mounts_under(directory) != ()
    assert _run_lab("status", "--dir", str(directory), check=False).returncode == 1
    _run_lab("down", "--dir", str(directory))
    assert _processes_of(directory) == _processes_of(crashed.hosts[0].daemon.run_directory) == []
    assert command_line(int(container)) == ""
    assert mounts_under(directory) == mounts_under(crashed.hosts[0].daemon.run_directory) == ()
    assert list(directory.iterdir()) == []
    assert "no lab" in _run_lab("down", "--dir", str(directory)).stdout
