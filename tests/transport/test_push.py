# SPDX-License-Identifier: Apache-2.0
"""Ports and refusals of a push, decided before any host is asked."""

from __future__ import annotations

import pytest

from airflow_provider_dockerbackup.exceptions import PushUnavailableError
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from airflow_provider_dockerbackup.transport.memory import MemoryPushTarget
from airflow_provider_dockerbackup.transport.push import push_ports
from airflow_provider_dockerbackup.transport.ssh import SshSession


def test_ports_follow_from_the_names() -> None:
    """The same ones in each process, for ever: engines remember by them what they pushed."""
    assert push_ports("web-1", "nightly") == (26054, 25139, 30684, 31819)
    found = {push_ports(f"web-{number}", "nightly") for number in range(200)}
    assert len(found) == 200
    assert all(24000 <= port < 32000 for ports in found for port in ports)


def unreachable() -> SshSession:
    """A session on a host that must not be asked."""

    def connect() -> None:
        raise AssertionError("nothing may be connected")

    return SshSession(connect, where="web-1")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["sudo -n -u dockerops docker", "sudo -n -u #1000 /usr/bin/docker"])
def test_who_cannot_read_the_configuration_cannot_push(text: str) -> None:
    """It is in a directory of the SSH user, and root alone reads that too."""
    host = SshDockerHost(unreachable(), name="web-1", command=DockerCommand.parse(text))
    with pytest.raises(PushUnavailableError, match="cannot read the temporary configuration"):
        host.push_image(f"sha256:{'0' * 64}", target=MemoryPushTarget(), repository="nightly", attempt="a1")
