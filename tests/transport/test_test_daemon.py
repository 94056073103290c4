# SPDX-License-Identifier: Apache-2.0
"""A test daemon that somebody else runs: how it is reached, and what it tells when it fails."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.ports import TestDaemon
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.test_daemon import SdkTestDaemon
from airflow_provider_dockerbackup.transport.throwaway_daemon import throwaway_daemon
from tests.contract.archives import docker_archive, layer


@pytest.fixture
def socket_url() -> Iterator[str]:
    """The socket of a daemon that runs."""
    if os.geteuid() != 0:
        pytest.skip("a daemon of our own needs root")
    with throwaway_daemon() as daemon:
        yield f"unix://{Path(daemon.engine().data_root).parent}/docker.sock"


def test_given_daemon_is_not_disposable(socket_url: str) -> None:
    """What somebody else runs may hold images that must stay."""
    with SdkTestDaemon.connect(socket_url) as daemon:
        connected: TestDaemon = daemon
        assert not connected.disposable
        assert connected.image_ids() == frozenset()


def test_name_that_is_taken_is_a_conflict(socket_url: str) -> None:
    """Two verifications at once must not share a container."""
    with SdkTestDaemon.connect(socket_url) as daemon:
        daemon.load([docker_archive([layer(a="b")], tags=["drill:1"])])
        daemon.create_container("drill:1", name="drill")
        with pytest.raises(ConflictError):
            daemon.create_container("drill:1", name="drill")
        with pytest.raises(ConflictError):
            daemon.remove_image(daemon.inspect_image("drill:1").id)


def test_refusal_says_what_the_engine_said(socket_url: str) -> None:
    """The engine's own words are in the message."""
    archive = docker_archive([layer(a="b")], tags=["drill:1"], broken=0)
    with SdkTestDaemon.connect(socket_url) as daemon, pytest.raises(IntegrityError, match="invalid diffID for layer 0"):
        daemon.load([archive])


def test_mistake_of_the_caller_is_no_verdict_on_the_backup(socket_url: str) -> None:
    """Only what concerns the archive may fail a backup's verification."""
    with SdkTestDaemon.connect(socket_url) as daemon:
        daemon.load([docker_archive([layer(a="b")], tags=["drill:1"])])
        with pytest.raises(DockerBackupError, match="Invalid container name") as caught:
            daemon.create_container("drill:1", name="x")
    assert not isinstance(caught.value, IntegrityError)


def test_missing_socket_is_a_matter_of_configuration(tmp_path: Path) -> None:
    """A socket that is not there will not come by trying again."""
    with (
        pytest.raises(ConfigurationError, match="no such socket"),
        SdkTestDaemon.connect(f"unix://{tmp_path}/none.sock"),
    ):
        pass


def test_daemon_that_does_not_listen_is_transient() -> None:
    """A daemon that restarts comes back."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        pytest.raises(TransientError, match="nothing answers"),
        SdkTestDaemon.connect(f"tcp://127.0.0.1:{port}"),
    ):
        pass


def test_nonsense_url_is_a_matter_of_configuration() -> None:
    """A URL that is none is said to be so."""
    with pytest.raises(ConfigurationError, match="unix:///"), SdkTestDaemon.connect("nonsense://x"):
        pass
