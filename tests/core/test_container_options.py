# SPDX-License-Identifier: Apache-2.0
"""What of an inspect document becomes an option of ``docker create``, and what is named as lost."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.container_options import ContainerOption, container_options
from airflow_provider_dockerbackup.transport import commands
from airflow_provider_dockerbackup.transport.commands import DockerCommand

ID = "0123456789ab" + "c" * 52


def options(host: dict[str, Any], *, network: str | None = None, **document: Any) -> list[str]:
    """Return the options of a container as words."""
    found = container_options({"Id": ID, "HostConfig": host, **document}, network=network)
    return [f"--{option.name}={option.value}" for option in found.options]


def lost(host: dict[str, Any], *, network: str | None = None, **document: Any) -> list[str]:
    """Return what is named as not carried over."""
    return list(container_options({"Id": ID, "HostConfig": host, **document}, network=network).not_carried_over)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}}, ["--publish=8080:80/tcp"]),
        ({"PortBindings": {"80/tcp": [{"HostIp": "::1", "HostPort": "8080"}]}}, ["--publish=[::1]:8080:80/tcp"]),
        ({"PortBindings": {"53/udp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}}, ["--publish=127.0.0.1::53/udp"]),
        ({"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": ""}]}}, ["--publish=80/tcp"]),
        ({"Binds": ["data:/data:ro", "/a b:/c"]}, ["--volume=data:/data:ro", "--volume=/a b:/c"]),
        ({"Tmpfs": {"/run": "size=1m", "/tmp": ""}}, ["--tmpfs=/run:size=1m", "--tmpfs=/tmp"]),
        (
            {"Mounts": [{"Type": "bind", "Source": "/a,b", "Target": "/x", "ReadOnly": True}]},
            ['--mount=type=bind,"source=/a,b",target=/x,readonly'],
        ),
        (
            {"Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 0o1777}}]},
            ["--mount=type=tmpfs,target=/t,tmpfs-size=4096,tmpfs-mode=1777"],
        ),
        ({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}, ["--restart=on-failure:3"]),
        ({"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}}, []),
        ({"Memory": 67108864, "MemorySwap": -1}, ["--memory=67108864", "--memory-swap=-1"]),
        ({"NanoCpus": 1500000000, "PidsLimit": 100}, ["--cpus=1.5", "--pids-limit=100"]),
        ({"PidsLimit": None, "MemorySwappiness": None, "Init": None, "OomKillDisable": False}, []),
        ({"MemorySwappiness": 0}, ["--memory-swappiness=0"]),
        ({"Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}]}, ["--ulimit=nofile=10:20"]),
        (
            {"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}},
            ["--log-driver=json-file", "--log-opt=max-size=1m"],
        ),
        ({"CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"]}, ["--cap-add=NET_ADMIN", "--cap-drop=ALL"]),
        ({"SecurityOpt": ["no-new-privileges"]}, ["--security-opt=no-new-privileges"]),
        ({"MaskedPaths": [], "ReadonlyPaths": []}, ["--security-opt=systempaths=unconfined"]),
        (
            {"Privileged": True, "ReadonlyRootfs": True, "Init": True},
            ["--init=true", "--privileged=true", "--read-only=true"],
        ),
        ({"Dns": ["1.1.1.1"], "ExtraHosts": ["db:10.0.0.1"]}, ["--dns=1.1.1.1", "--add-host=db:10.0.0.1"]),
        ({"Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b"}]}, ["--device=/dev/a:/dev/b:rwm"]),
        ({"NetworkMode": "default"}, []),
        ({"NetworkMode": "none"}, ["--network=none"]),
        ({"IpcMode": "host", "PidMode": "host"}, ["--ipc=host", "--pid=host"]),
    ],
)
def test_a_setting_becomes_its_option(host: dict[str, Any], expected: list[str]) -> None:
    """Each setting of the host's part comes over as the option that made it, and nothing is lost."""
    assert sorted(options(host)) == sorted(expected)
    assert lost(host) == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({"AutoRemove": True}, ["removal at its end (--rm)"]),
        ({"SecurityOpt": ['seccomp={"a":"secret"}']}, ["security option seccomp (a profile of its own)"]),
        ({"PidMode": "container:abc"}, ["pid namespace of another container"]),
        ({"Links": ["/db:/web/db"]}, ["links to other containers"]),
        ({"Novelty": {"key": "secret"}}, ["HostConfig.Novelty"]),
        ({"Novelty": None, "ConsoleSize": [1, 2]}, []),
    ],
)
def test_what_has_no_option_is_named_without_its_value(host: dict[str, Any], expected: list[str]) -> None:
    """Nothing is lost in silence, also of settings that a later engine brings."""
    assert lost(host) == expected
    assert options(host) == []


def test_a_network_of_its_own_comes_with_aliases_and_address() -> None:
    """The engine's own alias stays behind; a second network is named as lost; the first must be on the host."""
    networks = {
        "front": {"Aliases": ["web", ID[:12]], "IPAMConfig": {"IPv4Address": "10.1.0.5"}},
        "back": {"Aliases": ["web"]},
    }
    document = {"Id": ID, "HostConfig": {"NetworkMode": "front"}, "NetworkSettings": {"Networks": networks}}
    found = container_options(document)
    words = [f"--{option.name}={option.value}" for option in found.options]
    assert words == ["--network=front", "--network-alias=web", "--ip=10.1.0.5"]
    assert found.not_carried_over == ("network back",)
    assert found.networks == ("front",)
    instead = container_options(document, network="none")
    assert [f"--{option.name}={option.value}" for option in instead.options] == ["--network=none"]
    assert (instead.networks, instead.not_carried_over) == ((), ("network back", "network front"))


def test_settings_that_an_image_cannot_hold_come_over() -> None:
    """A hostname that is the container's own short ID is none."""
    config = {"Hostname": "web", "Domainname": "example.com", "StopTimeout": 0, "Tty": True}
    expected = ["--domainname=example.com", "--hostname=web", "--stop-timeout=0", "--tty=true"]
    assert sorted(options({}, Config=config)) == expected
    assert options({}, Config={"Hostname": ID[:12], "Env": ["A=secret"]}) == []


def test_data_of_mounts_is_named() -> None:
    """Volumes and binds are mounted again, but what they held is not in a backup."""
    mounts = [
        {"Type": "volume", "Name": "f" * 64, "Destination": "/cache"},
        {"Type": "volume", "Name": "data", "Destination": "/data"},
    ]
    expected = ["data of the anonymous volume at /cache", "data of the volume at /data"]
    assert lost({"Binds": ["data:/data"]}, Mounts=mounts) == expected


def test_values_of_several_lines_survive_the_shell() -> None:
    """Whatever a value holds stays one word."""
    given = [ContainerOption(name="label", value="a=line one\nline '$(two)' -- \"x\"")]
    line = commands.create_from_options(DockerCommand(), "app:1", name="web", options=given)
    assert shlex.split(line)[-6:] == [
        "create",
        "--pull=never",
        "--name=web",
        f"--label={given[0].value}",
        "--",
        "app:1",
    ]
