# SPDX-License-Identifier: Apache-2.0
"""A real sshd and dockerd with a restricted key as the only way in: backups are made, and nothing else is done."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.export import ExportRequest, export_container
from airflow_provider_dockerbackup.core.model import Consistency, SourceKind
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands
from airflow_provider_dockerbackup.core.record import BackupRecord
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.restore import RestoreRequest, restore_backup
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, PushUnavailableError
from airflow_provider_dockerbackup.hooks.async_ssh import connected
from airflow_provider_dockerbackup.transport import commands
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.forced_command import Action
from airflow_provider_dockerbackup.transport.forced_script import REFUSED
from airflow_provider_dockerbackup.transport.ssh_command import CommandResult
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.core.world import Notes
from tests.lab.daemon import LabDaemon
from tests.lab.images import APP, APP_CONTAINER, BASE, COMMITTED
from tests.lab.install import require_program
from tests.lab.lab import Lab, LabHost
from tests.operators.moving import docker_on, key_of, save_from
from tests.transport.forced_lab import WAYS, restricted

DOCKER = DockerCommand()


@pytest.fixture(scope="module", params=WAYS)
def everything(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """The first host by a key that may do all that any may."""
    directory = tmp_path_factory.mktemp("all")
    with restricted(lab.hosts[0], directory, actions=set(Action), way=request.param) as limited:
        yield limited


@pytest.fixture(scope="module", params=WAYS)
def saving(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """The first host by a key that may save images and no more."""
    directory = tmp_path_factory.mktemp("save")
    with restricted(lab.hosts[0], directory, actions={Action.SAVE}, way=request.param) as limited:
        yield limited


@pytest.fixture
def layers(tmp_path: Path) -> Repository:
    """An empty repository of layout layers."""
    return Repository.open_or_create(storage_from_url(f"file://{tmp_path}/r"), clock=SystemClock(), layout="layers")


@pytest.fixture
def archives(tmp_path: Path) -> Repository:
    """An empty repository of layout archive."""
    return Repository.open_or_create(storage_from_url(f"file://{tmp_path}/a"), clock=SystemClock(), layout="archive")


def export_from(
    host: LabHost,
    repository: Repository,
    *,
    consistency: Consistency = "snapshot",
    commands: QuiesceCommands | None = None,
) -> BackupRecord:
    """Export the lab's container and return its record."""
    with docker_on(host, name="web") as docker:
        request = ExportRequest(
            key=key_of(docker, SourceKind.CONTAINER, APP_CONTAINER),
            consistency=consistency,
            commands=commands or QuiesceCommands(),
        )
        outcome = export_container(request, host=docker, repository=repository, progress=Notes())
        return outcome.backup.whole()


def things(daemon: LabDaemon) -> list[str]:
    """Return what there is in a daemon: names and IDs of images and containers, and what containers do."""
    listed = daemon.docker("image", "ls", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").stdout
    listed += daemon.docker("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}").stdout
    return sorted(listed.decode().splitlines())


def ssh(host: LabHost, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run OpenSSH's client with options of its own."""
    command = [str(require_program("ssh")), "-F", str(host.ssh_config_path), *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)


def test_images_are_saved_as_archives_and_as_layers(
    everything: LabHost, archives: Repository, layers: Repository
) -> None:
    """Whole, by push, and without the layers that are held."""
    whole = save_from(everything, archives, name="web", image=APP).whole()
    assert whole.capture == "save"
    pushed = save_from(everything, layers, name="web", image=APP, capture="push").whole()
    assert pushed.capture == "push"
    assert pushed.diff_ids == whole.diff_ids
    filtered = save_from(everything, layers, name="web", image=COMMITTED, capture="save").whole()
    assert filtered.blobs is not None
    assert filtered.blobs.received_bytes < filtered.size_bytes / 2


@pytest.mark.parametrize("consistency", ["snapshot", "pause", "none"])
def test_containers_are_exported_and_nothing_is_left(
    everything: LabHost, archives: Repository, consistency: Consistency
) -> None:
    """In every way; the container runs afterwards."""
    before = things(everything.daemon)
    record = export_from(everything, archives, consistency=consistency)
    assert record.consistency == {"snapshot": "snapshot", "pause": "paused", "none": "crash"}[consistency]
    assert things(everything.daemon) == before


def test_sources_are_listed(everything: LabHost) -> None:
    """By label as well, with what is known of engine, time and history."""
    with docker_on(everything, name="web") as docker:
        assert APP in {each.reference for each in docker.list_images()}
        assert docker.list_images(labels=["no.such/label=x"]) == ()
        assert APP_CONTAINER in {each.name for each in docker.list_containers()}
        assert docker.list_containers(labels=["no.such/label=x"]) == ()
        assert docker.engine().version
        assert docker.now().year > 2000
        assert docker.image_history(APP)


def test_a_container_runs_again_when_the_link_is_cut(everything: LabHost) -> None:
    """The script takes the place of the shell that sshd starts: so the host can tell that the connection is gone."""
    daemon = everything.daemon
    daemon.docker(
        "run", "--detach", "--name", "cut", BASE, "/bin/sh", "-c", "head -c 90000000 /dev/urandom >/d; sleep 99"
    )
    try:
        time.sleep(1.5)
        with docker_on(everything, name="web") as docker:
            pieces = iter(docker.export_paused("cut", limit_seconds=90))
            next(pieces)
            assert state(daemon, "cut") == "paused"
            everything.kill_sessions()
            with pytest.raises(DockerBackupError):
                for _ in pieces:
                    pass
        end = time.monotonic() + 30
        while state(daemon, "cut") != "running":
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        daemon.docker("rm", "--force", "cut")


def state(daemon: LabDaemon, name: str) -> str:
    """Return what a container does."""
    return daemon.docker("inspect", "--format", "{{.State.Status}}", name).stdout.decode().strip()


def test_what_is_not_allowed_says_how_to_allow_it(saving: LabHost, archives: Repository) -> None:
    """Nothing is tried again, nothing is changed."""
    before = things(saving.daemon)
    with pytest.raises(ConfigurationError, match=r"this key may only save there; .* --allow list"):
        export_from(saving, archives)
    with (
        docker_on(saving, name="web") as docker,
        pytest.raises(ConfigurationError, match=r"docker export .* --allow export"),
    ):
        list(docker.export_container(APP_CONTAINER))
    assert things(saving.daemon) == before


def test_a_restore_says_that_it_needs_another_key_and_of_no_name_that_it_stays(
    saving: LabHost, archives: Repository, layers: Repository
) -> None:
    """In both layouts, whichever of its lines is refused first: none was made."""
    before = things(saving.daemon)
    for repository in (archives, layers):
        backup = save_from(saving, repository, name="web", capture="save")
        notes = Notes()
        with (
            docker_on(saving, name="target") as docker,
            pytest.raises(
                ConfigurationError, match=r"^docker load.* what restores, .* needs a connection with another"
            ),
        ):
            restore_backup(
                backup, RestoreRequest(tags=("lab/new:1",)), host=docker, repository=repository, progress=notes
            )
        assert not [note for note in notes.notes if "stay" in note]
    assert things(saving.daemon) == before


def test_a_command_in_a_container_is_not_run(everything: LabHost, archives: Repository) -> None:
    """Whatever else is allowed: it may be any command."""
    with pytest.raises(ConfigurationError, match="no restricted key may do this"):
        export_from(everything, archives, commands=QuiesceCommands.of(["touch", "/canary"], None, timeout_seconds=10))
    assert b"No such file" in everything.daemon.docker("exec", APP_CONTAINER, "ls", "/canary", check=False).stderr


def test_an_image_that_may_not_be_pushed_is_saved(saving: LabHost, layers: Repository) -> None:
    """Unless a push was asked for."""
    with pytest.raises(PushUnavailableError):
        save_from(saving, layers, name="web", capture="push")
    assert save_from(saving, layers, name="web").whole().capture == "save"


@pytest.mark.parametrize("line", [commands.list_container_ids(DOCKER), commands.load(DOCKER), "id"])
def test_a_trigger_is_told_as_well(saving: LabHost, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """It reaches hosts by another library."""
    monkeypatch.setenv("AIRFLOW_CONN_LIMITED", saving.airflow_connection())

    async def once(asked: str) -> CommandResult:
        async with connected("LIMITED") as link:
            return await link.run(asked)

    assert asyncio.run(once(commands.inspect_images(DOCKER, [APP]))).exit_status == 0
    with pytest.raises(ConfigurationError, match="the host refuses it: this key may only save there"):
        asyncio.run(once(line))


def test_a_script_of_another_version_says_to_make_it_anew(lab: Lab, archives: Repository, tmp_path: Path) -> None:
    """Whichever line has changed since; here the one that waits for its turn, which gives no exit status of its own."""
    with restricted(lab.hosts[0], tmp_path, actions={Action.SAVE}) as limited:
        path = limited.sshd.directory.parent / "dockerbackup-ssh"
        path.write_text(path.read_text(encoding="ascii").replace("echo wait", "echo queued"), encoding="ascii")
        with pytest.raises(ConfigurationError, match=r"in the words of dockerbackup .* make it anew"):
            save_from(limited, archives, name="web")


HOSTILE = (
    "", "sh", "sh -i", "bash -c id", "id", "cat /etc/shadow", "docker ps", "docker run -v /:/x lab/base:1 /bin/sh",
    "docker exec lab-app id", "docker rm -f lab-app", "docker image rm -f lab/app:1", "docker image load",
    "docker system dial-stdio", "docker cp lab-app:/etc/passwd -", "docker kill lab-app", "docker tag lab/app:1 x:1",
    "docker save lab/app:1", "docker save -o /tmp/canary lab/app:1", "docker -H tcp://127.0.0.1:1 ps",
    "docker --config /tmp image ls", "docker context ls", "docker plugin ls", "docker volume ls",
    f"{DOCKER.line('image', 'save')} -- lab/app:1 -o canary", f"{DOCKER.line('image', 'save')} -o canary -- lab/app:1",
    f"{DOCKER.line('image', 'save')} --output=canary", f"{DOCKER.line('image', 'save')} -- --output=canary",
    f"{commands.save(DOCKER, 'lab/app:1')};touch canary", f"{commands.save(DOCKER, 'lab/app:1')}\ntouch canary",
    f"{commands.save(DOCKER, 'lab/app:1')}\n", f"{commands.save(DOCKER, 'lab/app:1')}|sh",
    f"{commands.save(DOCKER, 'lab/app:1')} $(touch canary)", f"{commands.save(DOCKER, 'lab/app:1')}`touch canary`",
    f"{commands.save(DOCKER, 'lab/app:1')} >canary", f"touch canary;{commands.save(DOCKER, 'lab/app:1')}",
    f"DOCKER_HOST=tcp://x {commands.save(DOCKER, 'lab/app:1')}", f"env A=1 {commands.save(DOCKER, 'lab/app:1')}",
    f"PATH=. {commands.save(DOCKER, 'lab/app:1')}", f"exec {commands.save(DOCKER, 'lab/app:1')}",
    commands.save(DOCKER, "lab/app:1").replace("TZ=UTC0", "TZ=UTC1"),
    commands.save(DOCKER, "lab/app:1").replace("TZ=UTC0 ", "TZ=UTC0 LD_PRELOAD=/tmp/x "),
    commands.save(DOCKER, "lab/app:1").replace(" -- ", " "), commands.save(DOCKER, "lab/app:1").replace(" ", "\t"),
    commands.save(DOCKER, "lab/app:1").replace("save", "load"), commands.save(DOCKER, "'lab/app:1'"),
    commands.save(DOCKER, "lab/*"), commands.save(DOCKER, "$HOME"), commands.save(DOCKER, "x" * 100_000),
    commands.hold_place(2).replace("exec cat", "exec sh"), commands.epoch().replace("date -d", "date -s"),
    commands.export_paused(DOCKER, "lab-app", limit_seconds=9).replace("container export", "container rm -f"),
    commands.export_temporary(DOCKER, "lab-app", image="lab/app:1"), commands.remove_image(DOCKER, "lab/app:1"),
    commands.remove_container(DOCKER, "lab-app"), commands.run_in_container(DOCKER, "lab-app", ["id"]),
    "internal-sftp", "/usr/lib/openssh/sftp-server", "scp -t /tmp/canary", "rsync --server . /tmp",
    "\x1b]0;x\x07", "grüße", "a\\\nb", "()", "() { :;}; touch canary",
)  # fmt: skip


def test_no_hostile_line_runs_anything(everything: LabHost) -> None:
    """Asked for with OpenSSH's own client; the host has the same images, containers and files as before."""
    before = things(everything.daemon)
    for line in HOSTILE[1:]:
        done = ssh(everything, everything.name, line, data=b"touch canary\n")
        assert (done.returncode, done.stdout) == (REFUSED, b""), line[:200]
        assert b"dockerbackup-ssh: refused: " in done.stderr, line[:200]
    assert things(everything.daemon) == before
    assert not list(Path(everything.daemon.directory / "client").rglob("canary"))


def test_neither_a_shell_nor_a_terminal_nor_files_can_be_had(everything: LabHost) -> None:
    """Nor does the client's environment get to the script."""
    for arguments, status in (((), REFUSED), (("-A",), REFUSED), (("-tt",), 255)):  # the client gives up without one
        done = ssh(everything, *arguments, everything.name, data=b"touch canary\n")
        assert (done.returncode, done.stdout) == (status, b""), arguments
    sftp = ssh(everything, "-s", everything.name, "sftp")
    assert (sftp.returncode, sftp.stdout) == (REFUSED, b"")
    told = ssh(everything, "-o", "SetEnv=DOCKER_HOST=tcp://127.0.0.1:1", everything.name, commands.version(DOCKER))
    assert told.returncode == 0


def forwards(host: LabHost, *options: str) -> subprocess.Popen[bytes]:
    """Start a client that only forwards."""
    command = [str(require_program("ssh")), "-F", str(host.ssh_config_path), "-N", *options, host.name]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def answers(path: str) -> bytes:
    """Return what comes of asking Docker's API for a sign of life through a socket; nothing, if it was closed."""
    end = time.monotonic() + 10
    while not Path(path).exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(path)
        try:
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return connection.recv(1000)
        except (BrokenPipeError, ConnectionResetError):
            return b""


def test_dockers_socket_cannot_be_reached_around_the_script(
    host: LabHost, everything: LabHost, saving: LabHost, tmp_path: Path
) -> None:
    """Whoever may forward a port may forward sockets as well, unless sshd is told otherwise."""
    target = host.daemon.docker_host.removeprefix("unix://")
    found = {}
    for name, reached in (("free", host), ("push", everything), ("save", saving)):
        local = str(tmp_path / f"{name}.sock")
        client = forwards(reached, "-L", f"{local}:{target}")
        try:
            found[name] = answers(local)
        finally:
            client.kill()
            client.communicate()
    assert b"200 OK" in found["free"]
    assert (found["push"], found["save"]) == (b"", b"")


def test_no_port_of_the_host_can_be_reached_or_taken_but_for_pushes(everything: LabHost, saving: LabHost) -> None:
    """A key that may push listens on loopback and connects to nothing; another does neither."""
    assert b"forwarding" in refusal_of(saving, "-R", "127.0.0.1:24003:127.0.0.1:1")
    for limited in (everything, saving):
        assert ssh(limited, "-W", f"127.0.0.1:{limited.ssh_port}", limited.name).stdout == b""
        assert b"forwarding" in refusal_of(limited, "-R", "/tmp/dockerbackup-canary.sock:127.0.0.1:1")
        assert not Path("/tmp/dockerbackup-canary.sock").exists()


def refusal_of(host: LabHost, *options: str) -> bytes:
    """Return what OpenSSH says when a forward is refused."""
    client = forwards(host, "-o", "ExitOnForwardFailure=yes", *options)
    try:
        return client.communicate(timeout=20)[1]
    finally:
        client.kill()


def test_the_first_lines_of_the_script_hold_the_options_of_the_key(everything: LabHost, saving: LabHost) -> None:
    """As they are used here."""
    options = []
    for limited in (everything, saving):
        text = (limited.sshd.directory.parent / "dockerbackup-ssh").read_text(encoding="ascii")
        options += [line.split(",command=")[0] for line in text.splitlines() if ",command=" in line]
    assert options == ['# restrict,port-forwarding,permitlisten="127.0.0.1:*"', "# restrict"]
