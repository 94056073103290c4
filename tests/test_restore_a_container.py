# SPDX-License-Identifier: Apache-2.0
"""What the how-to on containers that somebody deleted shows is run, from top to bottom."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.daemon import LabDaemon
from tests.lab.images import APP
from tests.lab.lab import Lab
from tests.pages import console_lines
from tests.test_readme import Machine, remove_images

PAGE = Path(__file__).parent.parent / "docs/how-to/restore-a-container.md"
VOLUME = "/var/lib/app"


@pytest.fixture
def machine(lab: Lab, tmp_path: Path) -> Iterator[Machine]:
    """A machine with a backup of the container ``app`` of ``web1``, which was deleted since."""
    source, target = (host.daemon for host in lab.hosts)
    before = {daemon: _volumes(daemon) for daemon in (source, target)}
    run = ("run", "--detach", "--network", "none", "--name", "app", "--restart", "unless-stopped")
    source.docker(*run, "--volume", "app-data:/srv/data", "--env", "COLOUR=blue", APP)
    source.docker("exec", "app", "touch", "/tmp/kept")
    made = Machine(tmp_path, lab)
    made.run("dockerbackup export app --host web1 --repository file:///srv/dockerbackup")
    source.docker("rm", "--force", "app")
    yield made
    shutil.rmtree(tmp_path / "dockerbackup", ignore_errors=True)
    target.docker("rm", "--force", "--volumes", "app", check=False)
    for daemon, there in before.items():
        daemon.docker("volume", "rm", *(_volumes(daemon) - there))
    remove_images(lab.hosts[1])


def _volumes(daemon: LabDaemon) -> set[str]:
    return set(daemon.docker("volume", "ls", "--quiet").stdout.decode().split())


def test_what_the_page_shows_brings_a_deleted_container_back_and_its_volume(machine: Machine, lab: Lab) -> None:
    """Listed, tried, restored to another host and running; what a volume held is copied as shown."""
    *restore, copy = console_lines(PAGE)
    outputs = [machine.run(line) for line in restore]
    assert [line.split()[:2] for line in restore[1:]] == [
        ["dockerbackup", "list"],
        *2 * [["dockerbackup", "restore-container"]],
    ]
    assert "not carried over: data of the volume at /srv/data" in outputs[2]
    target = lab.hosts[1].daemon
    (found,) = json.loads(target.docker("container", "inspect", "app").stdout)
    assert (found["State"]["Running"], found["HostConfig"]["RestartPolicy"]["Name"]) == (True, "unless-stopped")
    assert "COLOUR=blue" in found["Config"]["Env"]
    target.docker("exec", "app", "test", "-e", "/tmp/kept")

    (volume,) = [each["Name"] for each in found["Mounts"] if each["Destination"] == VOLUME]
    fill = ("--volume", "left:/left", "--entrypoint", "touch", found["Image"], "/left/precious")
    target.docker("run", "--rm", "--user", "0", "--network", "none", *fill)
    target.docker("stop", "app")
    for written, real in (("OLD:", "left:"), ("NEW:", f"{volume}:"), (" IMAGE ", f" {found['Image']} ")):
        machine.replace(written, real)
    machine.run(copy.replace("docker run", "docker run --network none"))
    target.docker("start", "app")
    target.docker("exec", "app", "test", "-e", f"{VOLUME}/precious")
