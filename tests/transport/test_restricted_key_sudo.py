# SPDX-License-Identifier: Apache-2.0
"""A restricted key of a user who reaches Docker by sudo alone: a real sshd, sudo and dockerd."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.cli.options import HostOptions
from airflow_provider_dockerbackup.core.export import ExportRequest, export_container
from airflow_provider_dockerbackup.core.layers.choice import CaptureChoice
from airflow_provider_dockerbackup.core.model import Consistency, SourceKind
from airflow_provider_dockerbackup.core.record import BackupRecord
from airflow_provider_dockerbackup.core.repository import Layout, Repository
from airflow_provider_dockerbackup.core.save import SaveRequest, save_image
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError
from airflow_provider_dockerbackup.transport import commands
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from airflow_provider_dockerbackup.transport.forced_command import Action
from airflow_provider_dockerbackup.transport.forced_script import REFUSED
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.core.world import Notes
from tests.lab.images import APP, APP_CONTAINER, BASE, COMMITTED
from tests.lab.install import require_program
from tests.lab.lab import Lab, LabHost
from tests.operators.moving import key_of
from tests.transport.forced_lab import SUDO_UID, restricted_by_sudo


@pytest.fixture(scope="module")
def limited(lab: Lab) -> Iterator[LabHost]:
    """The first host by a key that may do all that any restricted one may, of a user with sudo."""
    with restricted_by_sudo(lab.hosts[0], actions=set(Action)) as host:
        yield host


def repository(tmp_path: Path, layout: Layout) -> Repository:
    """Return an empty repository."""
    return Repository.open_or_create(
        storage_from_url(f"file://{tmp_path}/{layout}"), clock=SystemClock(), layout=layout
    )


@contextmanager
def docker_on(host: LabHost, *, command: str = "sudo -n docker") -> Iterator[SshDockerHost]:
    """Give the host, on which docker is called so."""
    options = HostOptions(
        target=host.name,
        name="web",
        identity=None,
        ssh_config=host.ssh_config_path,
        docker_command=command,
        docker_socket=host.daemon.docker_host,
    )
    with options.connected() as docker:
        yield docker


def save(host: LabHost, into: Repository, *, image: str = APP, capture: CaptureChoice = "auto") -> BackupRecord:
    """Save an image."""
    with docker_on(host) as docker:
        request = SaveRequest(key=key_of(docker, SourceKind.IMAGE, image), capture=capture, force=True)
        return save_image(request, host=docker, repository=into, progress=Notes()).backup.whole()


def things(host: LabHost) -> list[str]:
    """Return what there is in the daemon."""
    listed = host.daemon.docker("image", "ls", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").stdout
    listed += host.daemon.docker("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}").stdout
    return sorted(listed.decode().splitlines())


def ssh(host: LabHost, line: str) -> subprocess.CompletedProcess[bytes]:
    """Ask for a line with OpenSSH's own client."""
    command = [str(require_program("ssh")), "-F", str(host.ssh_config_path), host.name, line]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)


def test_the_user_reaches_no_docker_without_sudo(limited: LabHost) -> None:
    """Else the other tests would show nothing."""
    docker = ["docker", "-H", limited.daemon.docker_host, "version"]
    as_user = ["setpriv", f"--reuid={SUDO_UID}", f"--regid={SUDO_UID}", "--clear-groups", *docker]
    environment = limited.daemon.environment() | {"DOCKER_CONFIG": "/"}
    done = subprocess.run(as_user, env=environment, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"permission denied" in done.stderr.lower()


def test_images_are_saved_as_archives_and_as_layers(limited: LabHost, tmp_path: Path) -> None:
    """Whole, by push, and without the layers that are held; nothing is left on the host."""
    before = things(limited)
    whole = save(limited, repository(tmp_path, "archive"))
    layers = repository(tmp_path, "layers")
    pushed = save(limited, layers, capture="push")
    assert (whole.capture, pushed.capture) == ("save", "push")
    assert pushed.diff_ids == whole.diff_ids
    filtered = save(limited, layers, image=COMMITTED, capture="save")
    assert filtered.blobs is not None
    assert filtered.blobs.received_bytes < filtered.size_bytes / 2
    assert things(limited) == before


@pytest.mark.parametrize(("consistency", "said"), [("snapshot", "snapshot"), ("pause", "paused"), ("none", "crash")])
def test_containers_are_exported_and_nothing_is_left(
    limited: LabHost, tmp_path: Path, consistency: Consistency, said: str
) -> None:
    """In every way; the container runs afterwards."""
    before = things(limited)
    with docker_on(limited) as docker:
        request = ExportRequest(key=key_of(docker, SourceKind.CONTAINER, APP_CONTAINER), consistency=consistency)
        into = repository(tmp_path, "archive")
        record = export_container(request, host=docker, repository=into, progress=Notes()).backup.whole()
    assert record.consistency == said
    assert things(limited) == before


def test_a_container_runs_again_when_the_link_is_cut(limited: LabHost) -> None:
    """Although what sudo started takes no signal from the user."""
    daemon = limited.daemon
    script = "head -c 90000000 /dev/urandom >/d; sleep 99"
    daemon.docker("run", "--detach", "--name", "cut", BASE, "/bin/sh", "-c", script)

    def state() -> str:
        return daemon.docker("inspect", "--format", "{{.State.Status}}", "cut").stdout.decode().strip()

    try:
        time.sleep(1.5)
        with docker_on(limited) as docker:
            pieces = iter(docker.export_paused("cut", limit_seconds=90))
            next(pieces)
            assert state() == "paused"
            limited.kill_sessions()
            with pytest.raises(DockerBackupError):
                for _ in pieces:
                    pass
        end = time.monotonic() + 30
        while state() != "running":
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        daemon.docker("rm", "--force", "cut")


def test_another_way_to_call_docker_is_refused_and_says_to_make_the_script_anew(limited: LabHost) -> None:
    """The script is for one way, sudo and socket included."""
    for command in ("docker", "/usr/bin/docker", "sudo -n /usr/bin/docker"):
        with docker_on(limited, command=command) as docker, pytest.raises(ConfigurationError, match="make it anew"):
            docker.engine()


def test_sudo_gives_nothing_that_the_script_does_not_allow(limited: LabHost) -> None:
    """Neither another program nor docker's other commands, nor another daemon, user or option."""
    socket = limited.daemon.docker_host
    docker = DockerCommand.parse("sudo -n docker", socket=socket)
    saving = commands.save(docker, APP)
    lines = (
        *("sudo -n sh", "sudo -n id", "sudo -l", "sudo -n -i", "sudo -n -u root sh", "sudoedit /etc/passwd"),
        *(
            f"sudo -n docker -H {socket} {each}"
            for each in ("run -v /:/x x sh", "ps", "exec lab-app id", "image ls -q")
        ),
        *(
            commands.load(docker),
            commands.remove_image(docker, APP),
            commands.run_in_container(docker, "lab-app", ["id"]),
        ),
        *(saving.replace("sudo -n ", "sudo -n -E "), saving.replace("sudo -n ", "sudo -n -u root ")),
        *(saving.replace("sudo -n ", ""), saving.replace(socket, "unix:///var/run/docker.sock")),
        *(saving.replace("sudo -n docker", "sudo -n -- docker"), f"{saving};sudo -n sh", f"{saving} $(sudo -n id)"),
    )
    before = things(limited)
    for line in lines:
        done = ssh(limited, line)
        assert (done.returncode, done.stdout) == (REFUSED, b""), line
        assert b"dockerbackup-ssh: refused: " in done.stderr, line
    assert ssh(limited, commands.version(docker)).returncode == 0
    assert things(limited) == before
