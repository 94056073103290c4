# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport import commands
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from tests.transport.injection import CORPUS, IMPOSSIBLE

DOCKER = DockerCommand()
IMAGE_ID = "sha256:" + "0" * 64
RECORDING_DOCKER = """#!/bin/sh
for word; do printf '%s\\0' "$word"; done >>argv
"""
SHELLS = [
    pytest.param(shell, marks=pytest.mark.skipif(shutil.which(shell[0]) is None, reason=f"no {shell[0]} here"))
    for shell in (("dash",), ("bash",), ("busybox", "sh"))
]


def run_line(line: str, directory: Path, *, shell: tuple[str, ...]) -> list[str]:
    """Run a line as sshd would and return the arguments that docker got."""
    programs = directory / "bin"
    if not programs.exists():
        programs.mkdir()
        (programs / "docker").write_text(RECORDING_DOCKER, encoding="ascii")
        (programs / "docker").chmod(0o755)
    (directory / "argv").unlink(missing_ok=True)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(directory)}
    done = subprocess.run([*shell, "-c", line], cwd=directory, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    return (directory / "argv").read_bytes().decode("utf-8").split("\0")[:-1]


@pytest.mark.parametrize("shell", SHELLS)
def test_no_value_becomes_option_or_command_in_a_real_shell(tmp_path: Path, shell: tuple[str, ...]) -> None:
    """Whatever a value holds, docker gets it as one argument, and nothing else runs."""
    assert len(CORPUS) > 150
    for text in CORPUS:
        line = commands.commit(DOCKER, text, reference=text, message=text, author=text, changes=[text, text])
        about = ["--message=" + text, "--author=" + text] if text else []
        changes = ["--change=" + text, "--change=" + text]
        expected = ["container", "commit", "--pause=true", *changes, *about, "--", text, text]
        assert run_line(line, tmp_path, shell=shell) == expected, text
        assert not (tmp_path / "canary").exists(), text


@pytest.mark.parametrize("shell", SHELLS)
def test_no_label_becomes_option_or_command_in_a_real_shell(tmp_path: Path, shell: tuple[str, ...]) -> None:
    """Labels come from users as they are; each stays the value of its filter."""
    for text in CORPUS:
        expected = ["container", "ls", "--all", "--quiet", "--no-trunc", "--filter=label=" + text]
        line = commands.list_container_ids(DOCKER, labels=[text])
        assert run_line(line, tmp_path, shell=shell) == expected, text
        assert not (tmp_path / "canary").exists(), text


@pytest.mark.parametrize("text", IMPOSSIBLE, ids=range(len(IMPOSSIBLE)))
def test_value_that_no_command_line_can_carry_is_refused(text: str) -> None:
    """NUL would cut the line short, a lone surrogate cannot be sent, and the kernel limits one argument's length."""
    with pytest.raises(ConfigurationError):
        commands.save(DOCKER, text)
    with pytest.raises(ConfigurationError):
        commands.export_paused(DOCKER, text, limit_seconds=1)


def test_line_runs_docker_in_english_and_utc(tmp_path: Path) -> None:
    """Messages and times are parsed, so the environment is fixed, whatever the user's is."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").write_text('#!/bin/sh\necho "$LC_ALL $TZ $DOCKER_CLI_HINTS"\n', encoding="ascii")
    (programs / "docker").chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "LC_ALL": "de_DE.UTF-8", "TZ": "Europe/Berlin"}
    done = subprocess.run(["sh", "-c", commands.info(DOCKER)], env=environment, capture_output=True, check=True)
    assert done.stdout == b"C UTC0 false\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("docker", ("docker",)),
        (" docker ", ("docker",)),
        ("/usr/local/bin/docker", ("/usr/local/bin/docker",)),
        ("podman", ("podman",)),
        ("sudo -n docker", ("sudo", "-n", "docker")),
        ("sudo -n -u dockerops /usr/bin/docker", ("sudo", "-n", "-u", "dockerops", "/usr/bin/docker")),
    ],
)
def test_docker_command_is_accepted_when_it_names_a_client(text: str, expected: tuple[str, ...]) -> None:
    """A client by name or path, alone or behind sudo that never asks."""
    assert DockerCommand.parse(text).docker == expected


@pytest.mark.parametrize(
    "text",
    ["", " ", "docker ps", "docker -H tcp://x", "sudo docker", "sudo -n", "sudo -n -i docker", "sudo -S docker",
     "sh -c docker", "env A=b docker", "docker;id", "$(id)", "docker\nid", "-docker", "./docker", "../docker",
     "docker 'x", "sudo -n -u", "sudo -n -u root", "sudo -n -u -x docker", "do cker", "dockér", "~/docker",
     "sudo -n docker extra"],
)  # fmt: skip
def test_docker_command_is_refused_when_it_is_anything_else(text: str) -> None:
    """The message says what is accepted."""
    with pytest.raises(ConfigurationError, match="sudo -n docker"):
        DockerCommand.parse(text)


def test_socket_becomes_host_option_when_given() -> None:
    """A daemon other than the default one is named to the client itself, not through its environment."""
    docker = DockerCommand.parse("sudo -n docker", socket="unix:///run/user/1000/docker.sock")
    assert docker.docker == ("sudo", "-n", "docker", "-H", "unix:///run/user/1000/docker.sock")
    assert commands.load(docker).endswith(" sudo -n docker -H unix:///run/user/1000/docker.sock image load")


@pytest.mark.parametrize(
    "socket",
    ["tcp://127.0.0.1:2375", "ssh://host", "http://x", "/var/run/docker.sock", "unix://", "unix://relative/path",
     "unix:///with space", "unix:///x;id", "unix:///x\n", "fd://", "npipe:////./pipe/docker", ""],
)  # fmt: skip
def test_socket_is_refused_when_it_is_no_unix_socket(socket: str) -> None:
    """Nothing but a socket on the Docker host itself; TCP would bypass SSH."""
    with pytest.raises(ConfigurationError, match="unix:///path"):
        DockerCommand.parse("docker", socket=socket)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (commands.version(DOCKER), "version --format '{{json .}}'"),
        (commands.info(DOCKER), "info --format '{{json .}}'"),
        (commands.inspect_images(DOCKER, ["a:1", IMAGE_ID]), f"image inspect -- a:1 {IMAGE_ID}"),
        (commands.inspect_containers(DOCKER, ["web"]), "container inspect -- web"),
        (commands.list_image_ids(DOCKER), "image ls --quiet --no-trunc"),
        (commands.list_image_ids(DOCKER, labels=["a=b c"]), "image ls --quiet --no-trunc '--filter=label=a=b c'"),
        (commands.save(DOCKER, IMAGE_ID), f"image save -- {IMAGE_ID}"),
        (commands.export(DOCKER, "web"), "container export -- web"),
        (commands.commit(DOCKER, "web", reference="x:1", pause=False), "container commit --pause=false -- web x:1"),
        (
            commands.create(DOCKER, "x:1", name="t1"),
            "container create --pull=never --network=none --name=t1 -- x:1 /bin/true",
        ),
        (commands.remove_container(DOCKER, "web"), "container rm --volumes -- web"),
        (commands.remove_image(DOCKER, "x:1"), "image rm -- x:1"),
        (commands.tag(DOCKER, IMAGE_ID, reference="x:1"), f"image tag -- {IMAGE_ID} x:1"),
        (commands.load(DOCKER), "image load"),
        (
            commands.import_filesystem(DOCKER, reference="x:1", changes=['CMD ["a"]']),
            "image import '--change=CMD [\"a\"]' -- - x:1",
        ),
    ],
)
def test_line_is_the_documented_docker_command(line: str, words: str) -> None:
    """Each builder gives one Docker subcommand, quoted."""
    assert line == f"env LC_ALL=C TZ=UTC0 DOCKER_CLI_HINTS=false docker {words}"


def test_pause_limit_is_refused_when_it_is_not_positive() -> None:
    """A switch that fires at once would wake the container before its export."""
    with pytest.raises(ConfigurationError, match="limit_seconds"):
        commands.export_paused(DOCKER, "web", limit_seconds=0)


def test_five_hundred_ids_fit_one_line() -> None:
    """Listings inspect IDs in batches below the kernel's limit for one argument."""
    line = commands.inspect_images(DOCKER, [IMAGE_ID] * commands.IDS_PER_COMMAND)
    assert len(line) < commands.MAX_LINE_BYTES
