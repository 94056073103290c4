# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.archive.compression import zstd_frame
from airflow_provider_dockerbackup.transport import commands
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.load_script import PROBED
from tests.lab.install import require_program

# A client that does what a test wants with its input.
FAKE_DOCKER = """#!/bin/sh
printf '%s\\n' "$@" >"$FAKE/called"
. "$FAKE/then"
"""
LOADS = "cat >\"$FAKE/taken\"; echo 'Loaded image: lab/app:1'; echo 'a warning' >&2"
PIECES = (b"head", b"", b"x" * 3_000_000, b"tail")
FRAMES = b"".join(map(zstd_frame, PIECES))


@dataclass(frozen=True)
class Host:
    """A directory that plays a Docker host."""

    directory: Path

    def run(self, line: str, data: bytes = b"", *, then: str = LOADS) -> tuple[int, bytes, str]:
        """Run a line as sshd does, and return exit status, output and messages."""
        (self.directory / "then").write_text(then, encoding="ascii")
        done = subprocess.run(
            ["/usr/bin/env", "--default-signal=PIPE,TERM", str(self.directory / "bin" / "sh"), "-c", line],
            env={"PATH": str(self.directory / "bin"), "FAKE": str(self.directory)},
            input=data,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr.decode()

    def load(self, data: bytes, *, then: str = LOADS) -> tuple[int, bytes, str]:
        """Run the line that loads zstd frames."""
        return self.run(commands.load_zstd(DockerCommand()), data, then=then)

    def put(self, name: str, script: str) -> None:
        """Replace a program by a script."""
        program = self.directory / "bin" / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
        program.chmod(0o755)


@pytest.fixture(params=["dash", "bash", "busybox"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    """A host with one of the shells."""
    return made(tmp_path, request.param, "zstd")


def made(directory: Path, shell: str, *programs: str) -> Host:
    """Return a host with a shell, env, cat and more programs."""
    (directory / "bin").mkdir()
    for name in ("env", "cat", "head", *programs):
        (directory / "bin" / name).symlink_to(require_program(name))
    (directory / "bin" / "sh").symlink_to(require_program(shell))
    made_host = Host(directory)
    made_host.put("docker", FAKE_DOCKER)
    return made_host


def test_the_client_reads_what_all_frames_hold(host: Host) -> None:
    """And what it says is the output; it is called as for a plain archive."""
    status, out, err = host.load(FRAMES)
    assert (status, out, err) == (0, b"Loaded image: lab/app:1\n", "a warning\n")
    assert (host.directory / "taken").read_bytes() == b"".join(PIECES)
    assert (host.directory / "called").read_text().split() == ["image", "load"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda frames: frames[:-1],
        lambda frames: frames + b"\xff" * 1280,
        lambda frames: frames[:-3] + bytes([frames[-3] ^ 1]) + frames[-2:],
        lambda frames: b"\xff" * len(frames),
    ],
    ids=["cut", "spoilt", "flipped", "garbage"],
)
def test_what_does_not_decompress_to_its_end_fails_whatever_the_client_made_of_it(
    host: Host, damage: Callable[[bytes], bytes]
) -> None:
    """The message says which of the two failed."""
    status, _, err = host.load(damage(FRAMES))
    assert status == 75
    assert "dockerbackup: the archive could not be decompressed (zstd exit status 1)" in err


def test_the_client_decides_how_it_failed(host: Host) -> None:
    """Its exit status and its messages are those of the line, though zstd failed with it."""
    status, out, err = host.load(FRAMES, then="head -c 10 >/dev/null; echo 'invalid diffID' >&2; exit 3")
    assert (status, out) == (3, b"")
    assert err.startswith("invalid diffID\n")
    assert "could not be decompressed" not in err


def test_a_client_that_does_not_read_all_has_not_loaded_all(host: Host) -> None:
    """Though it says so."""
    status, _, err = host.load(FRAMES, then="head -c 10 >/dev/null; echo 'Loaded image: lab/app:1'")
    assert status == 75
    assert "could not be decompressed" in err


@pytest.mark.parametrize("victim", ["zstd", "docker"])
def test_a_part_that_is_killed_is_a_failure(host: Host, victim: str) -> None:
    """By signal 9, as when memory runs out."""
    if victim == "zstd":
        host.put("zstd", "cat; kill -9 $$")
        status, _, err = host.load(FRAMES)
        assert (status, "(zstd exit status 137)" in err) == (75, True)
    else:
        status, _, _ = host.load(FRAMES, then="kill -9 $$")
        assert status == 137


def test_the_probe_tells_a_zstd_that_reads_a_series_of_frames(host: Host) -> None:
    """That is what archives are sent as."""
    status, out, _ = host.run(commands.probe_zstd())
    assert (status, out) == (0, PROBED.encode())


def test_the_probe_tells_that_there_is_no_zstd_or_none_that_works(host: Host) -> None:
    """Then archives are sent uncompressed."""
    host.put("zstd", "exit 1")
    assert host.run(commands.probe_zstd())[0] == 1
    (host.directory / "bin" / "zstd").unlink()
    assert host.run(commands.probe_zstd())[:2] == (127, b"")


def test_the_words_that_call_the_client_are_passed_as_they_are() -> None:
    """Also sudo and a path."""
    line = commands.load_zstd(DockerCommand.parse("sudo -n -u backup /opt/docker", socket="unix:///run/d.sock"))
    assert line.endswith(" dockerbackup sudo -n -u backup /opt/docker -H unix:///run/d.sock")
