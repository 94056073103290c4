# SPDX-License-Identifier: Apache-2.0
"""Streams over SSH whose command tells more on its standard error: how long it paused, what it left out."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_dockerbackup.core.model import FilteredBy
from airflow_provider_dockerbackup.transport import docker_output
from airflow_provider_dockerbackup.transport.ssh import SshRemoteStream


class _SshToldStream:
    def __init__(self, stream: SshRemoteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        """Yield the output, as the stream does."""
        return iter(self._stream)

    def close(self) -> None:
        """End the command and its connection."""
        self._stream.close()


class SshPausedStream(_SshToldStream):
    """A :class:`~airflow_provider_dockerbackup.core.ports.PausedStream` over SSH."""

    @property
    def pause_seconds(self) -> float | None:
        """How long the container was paused by us; None before the end, and when it was not."""
        return docker_output.pause_seconds(self._stream.stderr)


class SshFilteredStream(_SshToldStream):
    """A :class:`~airflow_provider_dockerbackup.core.ports.FilteredStream` over SSH."""

    @property
    def filtered_by(self) -> FilteredBy | None:
        """What left members out; None before the end, and when there was nothing to leave out."""
        return docker_output.filtered_by(self._stream.stderr)
