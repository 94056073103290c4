# SPDX-License-Identifier: Apache-2.0
"""The options of ``docker create`` that make a container anew, from what ``docker inspect`` said of it.

Pure. Command, entrypoint, environment, labels, user, working directory, exposed ports, health check, stop signal and
declared volumes are no options: they come with the image that the backup restores to, so no secret of them stands on a
command line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_dockerbackup.core.model import JsonObject

# Keys of HostConfig that say nothing on Linux, or that the engine fills in by itself.
_SILENT = frozenset({"ConsoleSize", "ContainerIDFile", "CpuCount", "CpuPercent", "IOMaximumBandwidth", "IOMaximumIOps"})
_SILENT_TOO = frozenset({"Isolation", "MaskedPaths", "ReadonlyPaths", "KernelMemory", "KernelMemoryTCP"})
# Keys that are carried over as they are: one option, one number or word.
_PLAIN = {
    "BlkioWeight": "blkio-weight",
    "CgroupParent": "cgroup-parent",
    "CgroupnsMode": "cgroupns",
    "CpuPeriod": "cpu-period",
    "CpuQuota": "cpu-quota",
    "CpuRealtimePeriod": "cpu-rt-period",
    "CpuRealtimeRuntime": "cpu-rt-runtime",
    "CpuShares": "cpu-shares",
    "CpusetCpus": "cpuset-cpus",
    "CpusetMems": "cpuset-mems",
    "Memory": "memory",
    "MemoryReservation": "memory-reservation",
    "MemorySwap": "memory-swap",
    "OomScoreAdj": "oom-score-adj",
    "PidsLimit": "pids-limit",
    "ShmSize": "shm-size",
    "UsernsMode": "userns",
    "UTSMode": "uts",
    "VolumeDriver": "volume-driver",
}
_FLAGS = {
    "Init": "init",
    "OomKillDisable": "oom-kill-disable",
    "Privileged": "privileged",
    "PublishAllPorts": "publish-all",
    "ReadonlyRootfs": "read-only",
}
_LISTS = {
    "CapAdd": "cap-add",
    "CapDrop": "cap-drop",
    "DeviceCgroupRules": "device-cgroup-rule",
    "Dns": "dns",
    "DnsOptions": "dns-option",
    "DnsSearch": "dns-search",
    "ExtraHosts": "add-host",
    "GroupAdd": "group-add",
}
_MAPS = {"StorageOpt": "storage-opt", "Sysctls": "sysctl"}
_NOT_CARRIED = {
    "Annotations": "annotations",
    "AutoRemove": "removal at its end (--rm)",
    "DeviceRequests": "device requests (GPUs)",
    "Links": "links to other containers",
    "VolumesFrom": "volumes taken from other containers",
}
_OWN_NETWORKS = frozenset({"", "default", "bridge", "host", "none"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOption:
    """One option of ``docker create``.

    :param name: without the dashes, such as ``restart``.
    :param value: secret-bearing unless ``secret`` is False.
    :param secret: whether the value must not be shown.
    """

    name: str
    value: str
    secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOptions:
    """How to make a container anew.

    :param options: what to give to ``docker create``, besides name and image.
    :param not_carried_over: what the new one will not have, by name and never by value.
    :param networks: networks of the host that it needs; ``container:…`` stands for another container's.
    """

    options: tuple[ContainerOption, ...]
    not_carried_over: tuple[str, ...]
    networks: tuple[str, ...]


class _Collected:
    def __init__(self) -> None:
        self.options: list[ContainerOption] = []
        self.lost: list[str] = []
        self.networks: list[str] = []

    def add(self, name: str, value: object, *, secret: bool = False) -> None:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        self.options.append(ContainerOption(name=name, value=text, secret=secret))


def container_options(container: JsonObject, *, network: str | None = None) -> ContainerOptions:
    """Return how to make a container anew.

    :param container: its inspect document.
    :param network: network mode or network to use instead of its own.
    """
    out = _Collected()
    host: JsonObject = container.get("HostConfig") or {}
    handlers = _handlers(container, network)
    for key, value in sorted(host.items()):
        if key in handlers:
            handlers[key](value, out)
        elif key in _NOT_CARRIED and value:
            out.lost.append(_NOT_CARRIED[key])
        elif not _general(key, value, out) and value and key not in _SILENT | _SILENT_TOO | _NOT_CARRIED.keys():
            out.lost.append(f"HostConfig.{key}")
    _of_config(container, network, out)
    _unconfined(host, out)
    _data(container, out)
    return ContainerOptions(
        options=tuple(out.options),
        not_carried_over=tuple(dict.fromkeys(out.lost)),
        networks=tuple(out.networks),
    )


def _general(key: str, value: Any, out: _Collected) -> bool:
    """Carry over what needs no thought; say whether ``key`` is of that kind."""
    if key in _PLAIN:
        if value not in {None, "", 0}:
            out.add(_PLAIN[key], value)
    elif key in _FLAGS:
        if value is True or (key == "Init" and value is False):
            out.add(_FLAGS[key], value)
    elif key in _LISTS:
        for each in value or ():
            out.add(_LISTS[key], each)
    elif key in _MAPS:
        for name, each in sorted((value or {}).items()):
            out.add(_MAPS[key], f"{name}={each}")
    else:
        return False
    return True


def _handlers(container: JsonObject, network: str | None) -> dict[str, Callable[[Any, _Collected], None]]:
    return {
        "Binds": lambda value, out: _each("volume", value, out),
        "BlkioWeightDevice": lambda value, out: _devices("blkio-weight-device", "Weight", value, out),
        "BlkioDeviceReadBps": lambda value, out: _devices("device-read-bps", "Rate", value, out),
        "BlkioDeviceReadIOps": lambda value, out: _devices("device-read-iops", "Rate", value, out),
        "BlkioDeviceWriteBps": lambda value, out: _devices("device-write-bps", "Rate", value, out),
        "BlkioDeviceWriteIOps": lambda value, out: _devices("device-write-iops", "Rate", value, out),
        "Devices": _device_files,
        "IpcMode": lambda value, out: _namespace("ipc", value, out),
        "LogConfig": _log,
        "MemorySwappiness": lambda value, out: _from_zero("memory-swappiness", value, out),
        "Mounts": _mounts,
        "NanoCpus": lambda value, out: out.add("cpus", f"{value / 1e9:.9f}".rstrip("0").rstrip(".")) if value else None,
        "NetworkMode": lambda value, out: _network(container, str(value or ""), network, out),
        "PidMode": lambda value, out: _namespace("pid", value, out),
        "PortBindings": _ports,
        "RestartPolicy": _restart,
        "Runtime": lambda value, out: out.add("runtime", value) if value and value != "runc" else None,
        "SecurityOpt": _security,
        "Tmpfs": _tmpfs,
        "Ulimits": _ulimits,
    }


def _each(name: str, values: Iterable[object] | None, out: _Collected) -> None:
    for value in values or ():
        out.add(name, value)


def _from_zero(name: str, value: int | None, out: _Collected) -> None:
    if value is not None and value >= 0:
        out.add(name, value)


def _devices(name: str, key: str, value: Iterable[JsonObject] | None, out: _Collected) -> None:
    _each(name, (f"{each['Path']}:{each[key]}" for each in value or ()), out)


def _device_files(value: Iterable[JsonObject] | None, out: _Collected) -> None:
    for each in value or ():
        parts = (each["PathOnHost"], each.get("PathInContainer") or each["PathOnHost"])
        out.add("device", ":".join((*parts, each.get("CgroupPermissions") or "rwm")))


def _namespace(name: str, value: str | None, out: _Collected) -> None:
    if value and value.startswith("container:"):
        out.lost.append(f"{name} namespace of another container")
    elif value:
        out.add(name, value)


def _log(value: JsonObject | None, out: _Collected) -> None:
    if value and value.get("Type"):
        out.add("log-driver", value["Type"])
        for name, each in sorted((value.get("Config") or {}).items()):
            out.add("log-opt", f"{name}={each}", secret=True)


def _restart(value: JsonObject | None, out: _Collected) -> None:
    name = (value or {}).get("Name") or "no"
    retries = (value or {}).get("MaximumRetryCount") or 0
    if name != "no":
        out.add("restart", f"{name}:{retries}" if name == "on-failure" and retries else name)


def _ulimits(value: Iterable[JsonObject] | None, out: _Collected) -> None:
    for each in value or ():
        out.add("ulimit", f"{each['Name']}={each['Soft']}:{each['Hard']}")


def _ports(value: Mapping[str, Iterable[JsonObject] | None] | None, out: _Collected) -> None:
    for port, bindings in sorted((value or {}).items()):
        for each in bindings or ():
            address, published = each.get("HostIp") or "", each.get("HostPort") or ""
            if address:
                out.add("publish", f"{f'[{address}]' if ':' in address else address}:{published}:{port}")
            else:
                out.add("publish", f"{published}:{port}" if published else port)


def _tmpfs(value: Mapping[str, str] | None, out: _Collected) -> None:
    for path, options in sorted((value or {}).items()):
        out.add("tmpfs", f"{path}:{options}" if options else path)


def _security(value: Iterable[str] | None, out: _Collected) -> None:
    for each in value or ():
        name, _, given = each.replace(":", "=", 1).partition("=") if "=" not in each else each.partition("=")
        # The client wants a file's name where the engine keeps the file's content.
        if name == "seccomp" and given not in {"unconfined", "builtin"}:
            out.lost.append("security option seccomp (a profile of its own)")
        else:
            out.add("security-opt", each)


def _unconfined(host: JsonObject, out: _Collected) -> None:
    """Carry over ``systempaths=unconfined``, which engines keep as two empty lists."""
    if host.get("MaskedPaths") == [] and host.get("ReadonlyPaths") == [] and not host.get("Privileged"):
        out.add("security-opt", "systempaths=unconfined")


def _mounts(value: Iterable[JsonObject] | None, out: _Collected) -> None:
    for mount in value or ():
        fields = [f"type={mount['Type']}", *([f"source={mount['Source']}"] if mount.get("Source") else [])]
        fields.append(f"target={mount['Target']}")
        if mount.get("ReadOnly"):
            fields.append("readonly")
        bind, volume, tmpfs = (mount.get(f"{kind}Options") or {} for kind in ("Bind", "Volume", "Tmpfs"))
        if bind.get("Propagation"):
            fields.append(f"bind-propagation={bind['Propagation']}")
        if volume.get("NoCopy"):
            fields.append("volume-nocopy")
        driver = volume.get("DriverConfig") or {}
        if driver.get("Name"):
            fields.append(f"volume-driver={driver['Name']}")
        fields += [f"volume-opt={name}={each}" for name, each in sorted((driver.get("Options") or {}).items())]
        fields += [f"volume-label={name}={each}" for name, each in sorted((volume.get("Labels") or {}).items())]
        if tmpfs.get("SizeBytes"):
            fields.append(f"tmpfs-size={tmpfs['SizeBytes']}")
        if tmpfs.get("Mode"):
            fields.append(f"tmpfs-mode={tmpfs['Mode']:o}")
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(fields)
        # Options of a volume's driver hold passwords of network shares.
        out.add("mount", line.getvalue(), secret=bool(driver.get("Options")))
        if (bind.keys() - {"Propagation", "CreateMountpoint"}) and any(
            bind[key] for key in bind if key != "Propagation"
        ):
            out.lost.append(f"options of the bind mount at {mount['Target']}")


def _network(container: JsonObject, own: str, instead: str | None, out: _Collected) -> None:
    mode = own if instead is None else instead
    attached: JsonObject = (container.get("NetworkSettings") or {}).get("Networks") or {}
    others = sorted(
        name for name in attached if name not in {mode, own} and not (own == "default" and name == "bridge")
    )
    out.lost += [f"network {name}" for name in others]
    if instead is not None and instead != own:
        out.lost.append(f"network mode {own}" if own in _OWN_NETWORKS else f"network {own}".split(":", 1)[0])
    if mode not in {"", "default"}:
        out.add("network", mode)
    if mode in _OWN_NETWORKS:
        return
    out.networks.append(mode)
    settings: JsonObject = attached.get(mode) or {}
    # Engines add the container's own short ID to its aliases.
    for alias in settings.get("Aliases") or ():
        if not str(container.get("Id", "")).startswith(alias):
            out.add("network-alias", alias)
    fixed = settings.get("IPAMConfig") or {}
    for key, name in (("IPv4Address", "ip"), ("IPv6Address", "ip6")):
        if fixed.get(key):
            out.add(name, fixed[key])
    if settings.get("Links"):
        out.lost.append("links to other containers")


def _of_config(container: JsonObject, network: str | None, out: _Collected) -> None:
    """Carry over what an image's configuration cannot hold."""
    config: JsonObject = container.get("Config") or {}
    mode = str((container.get("HostConfig") or {}).get("NetworkMode") or "")
    hostname = str(config.get("Hostname") or "")
    # Without one of its own it is the short ID; beside a shared network it is the host's or the other container's.
    shared = mode == "host" or mode.startswith("container:")
    if hostname and not shared and not str(container.get("Id", "")).startswith(hostname):
        out.add("hostname", hostname)
    if config.get("Domainname") and not shared:
        out.add("domainname", config["Domainname"])
    if config.get("MacAddress") and network in {None, mode}:
        out.add("mac-address", config["MacAddress"])
    if config.get("StopTimeout") is not None:
        out.add("stop-timeout", config["StopTimeout"])
    for key, name in (("Tty", "tty"), ("OpenStdin", "interactive")):
        if config.get(key):
            out.add(name, value=True)


def _data(container: JsonObject, out: _Collected) -> None:
    """Name what the mounts hold: a backup of a container has no data of volumes."""
    host: JsonObject = container.get("HostConfig") or {}
    given = {str(bind).split(":")[1] for bind in host.get("Binds") or () if ":" in str(bind)}
    given |= {str(mount.get("Target")) for mount in host.get("Mounts") or ()}
    for mount in container.get("Mounts") or ():
        where = mount.get("Destination")
        if mount.get("Type") == "volume" and where not in given:
            out.lost.append(f"data of the anonymous volume at {where}")
        elif mount.get("Type") in {"volume", "bind"}:
            out.lost.append(f"data of the {mount['Type']} at {where}")
