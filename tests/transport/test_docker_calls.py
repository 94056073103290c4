# SPDX-License-Identifier: Apache-2.0
"""A command that fails, or prints what cannot be read, is named with its host; several are asked as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError, NotFoundError, TransientError
from airflow_provider_dockerbackup.transport.commands import IDS_PER_COMMAND
from airflow_provider_dockerbackup.transport.docker_calls import DockerCalls
from tests.lab.lab import Lab, LabHost
from tests.transport.ssh_lab import session

GONE = "echo 'Error: No such container: x' >&2; exit 1"
AWAY = "echo 'Cannot connect to the Docker daemon' >&2; exit 1"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """A host with a real sshd; what is run on it stands in for Docker's client."""
    with Lab.start(tmp_path_factory.mktemp("lab")) as lab:
        yield lab.hosts[0]


@pytest.fixture
def calls(host: LabHost) -> Iterator[DockerCalls]:
    """Calls on the host."""
    with session(host) as opened:
        yield DockerCalls(opened, name="web1")


def test_what_is_removed_may_be_gone_already_and_nothing_else_is_passed_over(calls: DockerCalls) -> None:
    """Somebody removed it before us, or the daemon is away."""
    calls.remove(GONE, what="docker rm x")
    with pytest.raises(TransientError, match=r"^docker rm x on web1 failed with exit code 1: Cannot connect"):
        calls.remove(AWAY, what="docker rm x")


def test_a_command_that_works_may_take_longer_than_one_that_asks(host: LabHost) -> None:
    """A commit writes for minutes; an inspect that takes so long hangs."""
    slow = "sleep 6; echo done"
    with session(host, command_seconds=4) as opened:
        calls = DockerCalls(opened, name="web1")
        assert calls.work(slow, what="docker commit x").stdout == b"done\n"
        with pytest.raises(TransientError):
            calls.run(slow, what="docker inspect x")


def test_secrets_of_a_command_are_in_no_error(calls: DockerCalls) -> None:
    """Neither of one that works nor of one that makes something."""
    line = "echo 'bad ENV TOKEN=hunter2' >&2; exit 1"
    for act in (calls.run, calls.work, calls.make):
        with pytest.raises(DockerBackupError, match=r"\*\*\*") as caught:
            act(line, what="docker commit", secrets=["ENV TOKEN=hunter2"])
        assert "hunter2" not in str(caught.value)


def test_the_id_of_what_was_made_is_returned(calls: DockerCalls) -> None:
    """Another answer is an error that says of what, and where."""
    made = "sha256:" + "1" * 64
    assert calls.make(f"echo {made}", what="docker commit x") == made
    with pytest.raises(DockerBackupError, match=r"^docker commit x on web1: "):
        calls.make("echo welcome", what="docker commit x")


@pytest.mark.parametrize("printed", ["[]", '[{"Id": "a"}, {"Id": "b"}]'])
def test_an_inspect_that_finds_none_or_two_is_refused(calls: DockerCalls, printed: str) -> None:
    """A short name may be that of several objects."""
    assert calls.inspect_one("""echo '[{"Id": "a"}]'""", what="docker inspect a") == {"Id": "a"}
    with pytest.raises(ConflictError, match=r"^docker inspect a on web1 found [02] objects"):
        calls.inspect_one(f"echo '{printed}'", what="docker inspect a")


def test_many_are_inspected_in_few_commands_and_what_vanished_is_left_out(calls: DockerCalls) -> None:
    """The engine prints those that are there, and fails because of the one that is not."""
    batches: list[int] = []

    def builder(names: Sequence[str]) -> str:
        batches.append(len(names))
        documents = ",".join(f'{{"Id": "{name}"}}' for name in names if name != "7")
        return f"echo '[{documents}]'; {GONE if '7' in names else 'exit 0'}"

    names = [str(number) for number in range(IDS_PER_COMMAND + 1)]
    assert [each["Id"] for each in calls.inspect_all(names, builder)] == [name for name in names if name != "7"]
    assert batches == [IDS_PER_COMMAND, 1]
    with pytest.raises(TransientError, match=r"^docker inspect of 1 objects on web1 failed"):
        calls.inspect_all(["1"], lambda _: AWAY)


def test_a_stream_that_fails_says_what_it_was(calls: DockerCalls) -> None:
    """Its bytes came, and no reader takes them for whole."""
    with pytest.raises(NotFoundError, match=r"^docker save x on web1 failed with exit code 1"):
        list(calls.stream(f"echo bytes; {GONE}", what="docker save x"))
