# SPDX-License-Identifier: Apache-2.0
"""One push of one image: a registry in this process, a forwarded port on the host, and a script there."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from airflow_provider_dockerbackup.core.push import PushResult, PushTarget, check_names
from airflow_provider_dockerbackup.exceptions import DockerBackupError, PushUnavailableError
from airflow_provider_dockerbackup.transport import commands
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.docker_errors import docker_error, one_line
from airflow_provider_dockerbackup.transport.registry import PushRegistry
from airflow_provider_dockerbackup.transport.registry_access import Activity, Credential
from airflow_provider_dockerbackup.transport.registry_http import serve
from airflow_provider_dockerbackup.transport.ssh import CommandResult, SshSession
from airflow_provider_dockerbackup.transport.ssh_forward import LOOPBACK, ForwardedCommand, ForwardedConnection

# Below the ports that systems give to outgoing connections, above those of well-known services.
_FIRST_PORT: Final = 24000
_PORTS: Final = 8000
_TRIES: Final = 4
_NAMESPACE: Final = "dockerbackup"
_CANNOT: Final = 78
# What engines say when they cannot reach the port, or speak with something else there.
_UNREACHABLE = re.compile(
    r"connection refused|proxyconnect|no route to host|i/o timeout|server gave HTTP response to HTTPS client"
    r"|no basic auth credentials|unauthorized|Error loading config file|network is unreachable|bad gateway"
    r"|deadline exceeded|insufficient_scope",
    re.IGNORECASE,
)
# Engines before 27 push all that an index names, or nothing; clients before 27 know no single platform.
_PARTIAL = re.compile(r"missing content: |unknown flag: --platform", re.IGNORECASE)


def push_ports(host: str, repository: str) -> tuple[int, ...]:
    """Return the ports of a host to try for a repository, in order; always the same.

    Engines remember what they pushed by the registry's address, port and name.
    """
    seed = hashlib.sha256(f"{host}/{repository}".encode()).digest()
    numbers = (int.from_bytes(seed[at : at + 4], "big") for at in range(0, 4 * _TRIES, 4))
    return tuple(dict.fromkeys(_FIRST_PORT + number % _PORTS for number in numbers))


def push_image(
    session: SshSession,
    docker: DockerCommand,
    *,
    host: str,
    image_id: str,
    target: PushTarget,
    repository: str,
    attempt: str,
    platform: str | None = None,
) -> PushResult:
    """Let a host push an image to ``target`` and return what came.

    :param session: leads to the host.
    :param docker: how the Docker client is called there.
    :param host: the host's name.
    :param repository: the repository's name; one component of a registry's name.
    :param attempt: the attempt's name; lower-case letters and digits.
    :param platform: the only one to push of an image for several; None for all.
    :raises PushUnavailableError: when this host cannot push at all, or not this image.
    :raises DockerBackupError: what the target raised, else what the host says.
    """
    check_names(image_id, repository=repository, attempt=attempt)
    _check_reading(docker, host=host)
    name = f"{_NAMESPACE}/{repository}"
    activity, credential = Activity(), Credential()
    registry = PushRegistry(target, name=name, attempt=attempt, credential=credential, activity=activity)

    def command(port: int) -> ForwardedCommand:
        beat = max(1, min(10, int(session.timeouts.stall_seconds / 3)))
        line = commands.push(
            docker,
            image_id,
            port=port,
            repository=name,
            attempt=attempt,
            platform=platform,
            beat_seconds=beat,
        )
        return ForwardedCommand(line=line, input=credential.client_configuration(f"{LOOPBACK}:{port}") + b"\n")

    def answer(connection: ForwardedConnection) -> None:
        serve(connection, registry.answer, activity=activity)

    what = f"docker push of {image_id}"
    try:
        ports = push_ports(host, repository)
        result = session.run_forwarding(command, answer, ports=ports, activity=activity, what=what)
    except DockerBackupError as err:
        if registry.fatal is not None:
            raise registry.fatal from err
        raise
    finally:
        registry.close()
    return _result(result, registry, activity, what=what, host=host)


def _result(result: CommandResult, registry: PushRegistry, activity: Activity, *, what: str, host: str) -> PushResult:
    if result.exit_status != 0:
        error = registry.fatal or registry.refused
        raise error or _failure(result, reached=registry.admitted > 0, what=what, host=host)
    if registry.pushed is None:
        raise DockerBackupError(
            f"{what} on {host} ended with exit code 0, but no manifest came; see the Docker daemon's log on the host"
        )
    return PushResult(
        manifest=registry.pushed,
        received_bytes=activity.received_bytes,
        uploaded_blobs=registry.uploaded_blobs,
        uploaded_bytes=registry.uploaded_bytes,
    )


def _failure(result: CommandResult, *, reached: bool, what: str, host: str) -> DockerBackupError:
    said = one_line(result.stderr)
    if result.exit_status == _CANNOT:
        reason = said.rpartition("dockerbackup: ")[2]
        return PushUnavailableError(f"{what} on {host} is not possible: {reason}; back up by save instead")
    if not reached and _UNREACHABLE.search(said):
        return PushUnavailableError(
            f"{what} on {host}: its Docker daemon did not reach the port that sshd forwards to us: {said}; is it in "
            "another network namespace (rootless, Docker Desktop), or can its client not read the temporary "
            "configuration (snap)? back up by save instead"
        )
    if _PARTIAL.search(said):
        return PushUnavailableError(
            f"{what} on {host}: the engine cannot push an image of which it has one platform only: {said}; back up by "
            "save instead"
        )
    return docker_error(result, what=what, host=host)


def _check_reading(docker: DockerCommand, *, host: str) -> None:
    if docker.docker[:3] == ("sudo", "-n", "-u") and docker.docker[3] not in {"root", "#0"}:
        raise PushUnavailableError(
            f"docker push on {host}: Docker runs there as {docker.docker[3]}, who cannot read the temporary "
            "configuration that holds the credential; use 'sudo -n docker', or back up by save instead"
        )
