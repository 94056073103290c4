# SPDX-License-Identifier: Apache-2.0
"""Shell completion: the protocol that the scripts speak, and the script for bash in a real bash."""

from __future__ import annotations

import os
import pty
import re
import select
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.cli.test_verbs import PROGRAM, run
from tests.core.world import World
from tests.lab.s3 import LabS3


def offered(line: str, *, shell: str = "bash", environment: Mapping[str, str] | None = None) -> list[str]:
    """Return what is offered at the end of a line, by the protocol of the scripts."""
    words = line.split(" ")
    told = {"COMP_WORDS": line, "COMP_CWORD": words[-1] if shell == "fish" else str(len(words) - 1)}
    found = run(environment={**told, "_DOCKERBACKUP_COMPLETE": f"{shell}_complete", **(environment or {})})
    assert found.stderr == b""
    lines = found.stdout.decode().removesuffix("\n").split("\n")
    if shell == "zsh":  # kind, value and help on a line each
        return lines[1::3] if lines[0] else []
    return [each.split(",", 1)[1].split("\t")[0] for each in lines if each]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A repository on disk with three backups, one of them in quarantine."""
    made = World(storage=LocalStorage(tmp_path))
    folders = [made.backup(number).backup.path for number in range(3)]
    (tmp_path / folders[1] / "quarantined-20261123T210400.000000Z.json").write_text("{}")
    return made


@pytest.fixture
def ids(world: World) -> list[str]:
    """The ids that are to be offered."""
    found = sorted(each.backup_id for each in world.repository.catalog.backups())
    assert len(found) == 2
    return found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_verbs_options_and_values_are_offered(shell: str) -> None:
    """In each shell's protocol."""
    assert offered("dockerbackup rest", shell=shell) == ["restore", "restore-container"]
    assert "--repository" in offered("dockerbackup list --", shell=shell)
    assert offered("dockerbackup save app:1 --compression z", shell=shell) == ["zstd"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_ids_come_from_the_repository_on_the_line_or_in_the_environment(
    shell: str, tmp_path: Path, ids: list[str]
) -> None:
    """However the repository is written; what is in quarantine is left out."""
    for given in (f"-r {tmp_path}", f"--repository=file://{tmp_path}", f"-r 'file://{tmp_path}'"):
        assert offered(f"dockerbackup show {given} ", shell=shell) == ids, given
    assert offered("dockerbackup show 1999", shell=shell, environment={"DOCKERBACKUP_REPOSITORY": str(tmp_path)}) == []


def test_every_verb_that_takes_an_id_offers_those_that_begin_so(tmp_path: Path, ids: list[str]) -> None:
    """One that the line has already is not offered again."""
    environment = {"DOCKERBACKUP_REPOSITORY": str(tmp_path)}
    for verb in ("show", "history", "files", "cat", "restore", "restore-container", "rollback app:1", "verify", "hold"):
        assert offered(f"dockerbackup {verb} {ids[0][:-1]}", environment=environment) == ids[:1], verb
    assert offered(f"dockerbackup verify {ids[0]} ", environment=environment) == ids[1:]


def test_ids_come_from_names_alone(tmp_path: Path, ids: list[str]) -> None:
    """No record is read: ids are offered when none can be."""
    for record in tmp_path.rglob("*.json"):
        record.write_bytes(b"no document")
    assert offered(f"dockerbackup show -r {tmp_path} ") == ids


def test_ids_come_from_s3(s3: LabS3, tmp_path: Path, ids: list[str]) -> None:
    """By one listing, as from disk."""
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3.endpoint_url,
    }
    import fsspec

    bucket = s3.new_bucket()
    fsspec.filesystem("s3", **s3.storage_options).put(f"{tmp_path}/backups", f"{bucket}/", recursive=True)
    assert offered(f"dockerbackup show -r s3://{bucket} ", environment=environment) == ids


@pytest.mark.parametrize("repository", ["", "-r", "-r gopher://x/y", "-r /no/such/folder", "-r file://[", "-r 'open"])
def test_nothing_is_offered_and_nothing_said_when_there_is_no_repository(repository: str) -> None:
    """An error message would land in the line that somebody types."""
    assert offered(f"dockerbackup show {repository} ", environment={"DOCKERBACKUP_REPOSITORY": ""}) == []


def test_a_storage_that_does_not_answer_is_not_waited_for() -> None:
    """A server that accepts and says nothing costs seconds, not minutes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        begun = time.monotonic()
        assert offered("dockerbackup show -r s3://bucket/x ", environment=environment) == []
        assert time.monotonic() - begun < 30
        silent.setblocking(False)
        silent.accept()[0].close()  # it was asked


def test_the_tab_key_completes_an_id_in_a_real_bash(tmp_path: Path, ids: list[str]) -> None:
    """With the script loaded, in a terminal, from a URL with a colon, which bash takes for the end of a word."""
    line = f"dockerbackup sho\t-r file://{tmp_path} {ids[0][:-3]}\t--json"
    # Control-A goes to the beginning: the line is shown as it was completed, not run.
    shown = shown_by_bash("source <(dockerbackup completion bash)\n", f"{line}\x01echo LINE: \n")
    assert shown == f"dockerbackup show -r file://{tmp_path} {ids[0]} --json"


def shown_by_bash(*lines: str) -> str:
    """Return what an interactive bash echoes behind ``LINE:`` after lines were typed, each at a new prompt."""
    environment = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "PS1": "READY>", "TERM": "dumb"}
    environment.pop("DOCKERBACKUP_REPOSITORY", None)
    master, terminal = pty.openpty()
    command = ["bash", "--norc", "--noprofile", "-i"]
    bash = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True
    )
    os.close(terminal)
    screen, deadline = "", time.monotonic() + 60

    def seen(pattern: str) -> str:
        nonlocal screen
        while not (match := re.match(pattern, screen, re.DOTALL | re.MULTILINE)):
            assert select.select([master], [], [], max(0, deadline - time.monotonic()))[0], screen
            screen += os.read(master, 65536).decode()
        return match[1]

    try:
        for number, line in enumerate(lines, 1):
            seen(rf"((?:.*?READY>){{{number}}})")
            os.write(master, line.encode())
        return seen(r".*^LINE: (.*?)\r?\n")
    finally:
        bash.kill()
        bash.wait()
        os.close(master)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_verb_prints_what_click_prints(shell: str) -> None:
    """Both ways to get the script give the same one."""
    script = run("completion", shell).stdout
    assert script == run(environment={"_DOCKERBACKUP_COMPLETE": f"{shell}_source"}).stdout
    assert b"dockerbackup" in script
    assert run("completion", "tcsh", check=False).returncode == 2
