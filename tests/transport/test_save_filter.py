# SPDX-License-Identifier: Apache-2.0
"""The script that leaves members out of an archive on the Docker host, in the shells and with the tools it meets."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_dockerbackup.core.archive.compression import Compression, decompressed
from airflow_provider_dockerbackup.core.archive.docker_archive import DockerArchiveScanner
from airflow_provider_dockerbackup.core.model import FilteredBy
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError
from airflow_provider_dockerbackup.transport import commands, docker_output
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.memory_images import without_members
from airflow_provider_dockerbackup.transport.save_filter import name_list
from tests.core.archive.making import GOLDEN, IMAGES, Entry, scan, tar_of
from tests.lab.install import require_program

# A client that prints a file, tells what it was called with, and then does what a test wants.
FAKE_DOCKER = """#!/bin/sh
printf '%s\\n' "$@" >"$FAKE/called"
echo 'a warning' >&2
cat "$FAKE/archive"
. "$FAKE/then"
"""
IMAGE = f"sha256:{'1' * 64}"
_GNU_TOOLS = ("env", "cat", "dd", "od", "tr")
_PACKERS = {"bash": ("gzip",), "dash-zstd": ("gzip", "zstd")}


def blob(letter: str) -> str:
    """Return the name of a blob."""
    return f"blobs/sha256/{letter * 64}"


def legacy(letter: str) -> str:
    """Return the name of a layer as engines before 25.0 write it."""
    return f"{letter * 64}/layer.tar"


@dataclass
class Host:
    """A directory that plays a Docker host: its tools, its shell, a docker that prints an archive.

    :param way: how archives are filtered there.
    :param packs: how they are compressed there when they were filtered.
    """

    directory: Path
    shell: tuple[str, ...]
    way: FilteredBy
    packs: Compression = Compression.NONE
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, archive: bytes | Path, names: Collection[str], *, then: str = "") -> subprocess.Popen[bytes]:
        """Run the line as sshd does: in a session of its own, with pipes.

        :param then: what the client does after the archive, in shell.
        """
        target = self.directory / "archive"
        target.unlink(missing_ok=True)
        if isinstance(archive, Path):
            target.symlink_to(archive)
        else:
            target.write_bytes(archive)
        (self.directory / "then").write_text(then, encoding="ascii")
        line = commands.save_filtered(DockerCommand(), IMAGE, without=names)
        child = subprocess.Popen(
            ["/usr/bin/env", "--default-signal=PIPE,TERM", *self.shell, "-c", line],
            env={"PATH": str(self.directory / "bin"), "FAKE": str(self.directory), "TMPDIR": str(self.directory)},
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.children.append(child)
        return child

    def run(self, archive: bytes | Path, names: Collection[str], *, then: str = "") -> tuple[int, bytes, str]:
        """Run the line to its end and return exit status, output and messages."""
        child = self.start(archive, names, then=then)
        out, err = child.communicate(timeout=120)
        return child.returncode, out, err.decode()

    def filtered(self, archive: bytes, names: Collection[str]) -> bytes:
        """Return what comes of an archive, which must succeed."""
        status, out, err = self.run(archive, names)
        assert (status, docker_output.filtered_by(err.encode())) == (0, self.way), err
        return self.unpacked(out)

    def unpacked(self, out: bytes) -> bytes:
        """Return the archive in the output, which must be compressed as this host can."""
        assert Compression.of(out) is self.packs
        return b"".join(decompressed([out], self.packs)) if out else b""

    def processes(self) -> list[int]:
        """Give the processes of this host that are alive."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and f"FAKE={self.directory}\0".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


def tools(directory: Path, kind: str) -> tuple[str, ...]:
    """Link the tools of one kind of host and return its login shell."""
    bin_directory = directory / "bin"
    bin_directory.mkdir(parents=True)
    (bin_directory / "docker").write_text(FAKE_DOCKER, encoding="ascii")
    (bin_directory / "docker").chmod(0o755)
    shell = require_program("busybox" if kind == "busybox" else kind.partition("-")[0])
    (bin_directory / "sh").symlink_to(shell)
    if kind == "busybox":
        for applet in (*_GNU_TOOLS, "printf", "gzip"):
            (bin_directory / applet).symlink_to(shell)
        return (str(bin_directory / "sh"),)
    for name in (*_GNU_TOOLS, *_PACKERS.get(kind, ())):
        if not (kind.endswith("-bare") and name in {"dd", "od"}):
            (bin_directory / name).symlink_to(require_program(name))
    return (str(bin_directory / "sh"),)


WAYS: dict[str, FilteredBy] = {"dash": "sh", "bash": "sh", "busybox": "sh", "dash-zstd": "sh", "dash-bare": "none"}
FILTERING = [kind for kind, way in WAYS.items() if way != "none"]
PACKS = {"bash": Compression.GZIP, "busybox": Compression.GZIP, "dash-zstd": Compression.ZSTD}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Host]]:
    """Hosts with GNU's tools, two shells, and all or none of what compresses; busybox alone; less than it takes."""
    made = {}
    for kind, way in WAYS.items():
        directory = tmp_path_factory.mktemp("host")
        made[kind] = Host(directory, tools(directory, kind), way, PACKS.get(kind, Compression.NONE))
    yield made
    for host in made.values():
        for child in host.children:
            child.kill()
            child.communicate()
        for pid in host.processes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def host(hosts: dict[str, Host], request: pytest.FixtureRequest) -> Host:
    """The host of the kind that the test is parametrized with."""
    return hosts[request.param]


def expected(archive: bytes, names: Collection[str], *, way: FilteredBy) -> bytes:
    """Return what must come: the members that are not named, each byte as it was."""
    return archive if way == "none" else without_members(archive, names)


@pytest.mark.parametrize("host", WAYS, indirect=True)
@pytest.mark.parametrize("name", [name for name in IMAGES if "podman" not in name])
def test_archives_of_real_engines_come_without_the_members_named(host: Host, name: str) -> None:
    """Whatever is left out, all else is the same, in the same order."""
    archive = (GOLDEN / name).read_bytes()
    with tarfile.open(GOLDEN / name) as tar:
        layers = [
            member.name
            for member in tar
            if member.name.startswith("blobs/sha256/") or member.name.endswith("layer.tar")
        ]
    for chosen in (layers, layers[:1], layers[::2], [*layers[-2:], blob("0")], [blob("0"), legacy("0")]):
        assert host.filtered(archive, chosen) == expected(archive, chosen, way=host.way)


@pytest.mark.parametrize("host", ["dash", "dash-bare"], indirect=True)
def test_the_client_is_called_as_for_a_whole_save(host: Host) -> None:
    """The image is named by ID, behind the options' end."""
    archive = tar_of([Entry(blob("a"), b"x")])
    host.filtered(archive, [blob("a")])
    assert (host.directory / "called").read_text().splitlines() == ["image", "save", "--", IMAGE]


def odd_entries(size_bytes: int) -> list[Entry]:
    """Return members with all kinds of headers and contents, the layers between them."""
    every_byte = bytes(range(256)) * 5
    return [
        Entry("blobs/", kind=tarfile.DIRTYPE),
        Entry("n" * 180, every_byte),
        Entry(blob("a"), every_byte),
        Entry("ü %s \\n " + "x" * 90, b"%s%d\\141\\\0"),
        Entry(blob("b"), b"\xff" * size_bytes, extra={"pax_headers": {"comment": "9 size=7\n"}}),
        Entry(legacy("c"), every_byte * 400),
        Entry(legacy("d"), kind=tarfile.SYMTYPE, link=f"../{legacy('c')}"),
        Entry(legacy("e"), kind=tarfile.LNKTYPE, link=legacy("c")),
        Entry("link", kind=tarfile.SYMTYPE, link="y" * 200),
        Entry(blob("f"), b"" if size_bytes % 2 else b"z"),
        Entry("manifest.json", b"[]"),
    ]


LAYERS = (blob("a"), blob("b"), legacy("c"), legacy("d"), legacy("e"), blob("f"))


@pytest.mark.parametrize("host", FILTERING, indirect=True)
@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.sets(st.sampled_from(LAYERS), min_size=1), size_bytes=st.integers(0, 200_000))
def test_any_members_may_be_left_out(host: Host, tar_format: int, chosen: set[str], size_bytes: int) -> None:
    """Long names, links, extended headers and bodies of any bytes and lengths come through unchanged."""
    entries = odd_entries(size_bytes)
    if tar_format == tarfile.USTAR_FORMAT:
        entries = [entry for entry in entries if len(entry.name) <= 100 and len(entry.link) <= 100]
    archive = tar_of(entries, tar_format=tar_format)  # type: ignore[arg-type]
    assert host.filtered(archive, chosen) == expected(archive, chosen, way=host.way)


def binary_size(name: str, body: bytes) -> bytes:
    """Return a member whose size is written in GNU's binary way, whatever it is."""
    header = bytearray(tar_of([Entry(name, body)])[:512])
    header[124:136] = b"\x80" + len(body).to_bytes(11, "big")
    return with_checksum(header) + body + bytes(-len(body) % 512)


def pax_size(name: str, body: bytes, *, size_bytes: int | None = None) -> bytes:
    """Return a member whose size only a PAX header tells, as Go writes it from 8 GiB on."""
    size_bytes = len(body) if size_bytes is None else size_bytes
    text = f"size={size_bytes:010}\n"
    record = f"{len(text) + 3} {text}".encode()
    extension = tar_of([Entry("PaxHeaders.0/x", record, kind=tarfile.XHDTYPE)])[:1024]
    return extension + tar_of([Entry(name)])[:512] + body + bytes(-len(body) % 512)


def with_checksum(header: bytearray) -> bytes:
    """Return a header with the right sum."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize("host", FILTERING, indirect=True)
@pytest.mark.parametrize("make", [binary_size, pax_size])
@pytest.mark.parametrize("size_bytes", [1, 511, 512, 70_000, 3_000_000])
def test_sizes_are_read_in_every_notation(host: Host, make: Callable[[str, bytes], bytes], size_bytes: int) -> None:
    """The size decides where the next header is."""
    body = hashlib.shake_256(b"body").digest(size_bytes)
    parts = [make(blob("a"), body), make(blob("b"), body[::-1]), tar_of([Entry("manifest.json", b"[]")])]
    archive = b"".join(parts)
    for names in ([blob("a")], [blob("b")], [blob("a"), blob("b")], [blob("c")]):
        kept = [
            part for name, part in zip((blob("a"), blob("b"), "manifest.json"), parts, strict=True) if name not in names
        ]
        out = host.filtered(archive, names)
        assert out.rstrip(b"\0") == b"".join(kept).rstrip(b"\0")


@pytest.mark.parametrize("host", ["dash", "busybox"], indirect=True)
def test_a_layer_of_more_than_8_gib_is_left_out(host: Host, tmp_path: Path) -> None:
    """Nothing of it is kept anywhere, and what follows it comes."""
    size_bytes = (8 << 30) + 1
    head, tail = pax_size(blob("a"), b"", size_bytes=size_bytes), tar_of([Entry("manifest.json", b"[]")])
    archive = tmp_path / "large.tar"
    with archive.open("wb") as file:
        file.write(head)
        file.seek(size_bytes + -size_bytes % 512, os.SEEK_CUR)
        file.write(tail)
    status, out, err = host.run(archive, [blob("a")])
    assert (status, host.unpacked(out).rstrip(b"\0")) == (0, tail.rstrip(b"\0")), err


@pytest.mark.parametrize("host", WAYS, indirect=True)
def test_a_save_that_fails_fails_whatever_came_of_it(host: Host) -> None:
    """With its own exit status and message, be it at the start, in the middle or after a whole archive."""
    archive = tar_of([Entry(blob("a"), b"x" * 5000), Entry("manifest.json", b"[]")])
    for part in (b"", archive[:3000], archive):
        status, _, err = host.run(part, [blob("a")], then="echo 'no space left on device' >&2; exit 3")
        assert status == 3
        assert "no space left on device" in err
        assert "Not found" not in err
        assert docker_output.filtered_by(err.encode()) in {None, "none"}


@pytest.mark.parametrize("host", WAYS, indirect=True)
@pytest.mark.parametrize("name", ["KILL", "TERM"])
def test_a_save_that_is_killed_fails(host: Host, name: str) -> None:
    """Also after it wrote a whole archive."""
    archive = tar_of([Entry(blob("a"), b"x" * 5000), Entry("manifest.json", b"[]")])
    status, _, _ = host.run(archive, [blob("a")], then=f"kill -{name} $$")
    assert status not in {0, 1, 2, 75}


@pytest.mark.parametrize("host", FILTERING, indirect=True)
@pytest.mark.parametrize("name", ["engine-20.10-graphdriver.tar", "engine-28-containerd.tar"])
def test_a_save_that_succeeds_with_less_than_an_archive_is_no_success(host: Host, name: str) -> None:
    """Engines do that when a blob is missing."""
    archive = (GOLDEN / name).read_bytes()
    image = scan(archive).image
    held = {image.layers[0].member: image.layers[0].diff_id}
    with tarfile.open(GOLDEN / name) as tar:
        ends = [member.offset for member in tar][-6:]
    for length in (0, 300, *ends, *(end + 700 for end in ends[:-1])):
        status, out, err = host.run(archive[:length], held)
        if status == 0:
            scanner = DockerArchiveScanner(held=held)
            with pytest.raises(IntegrityError):  # noqa: PT012 - either may see it
                scanner.feed(host.unpacked(out))
                scanner.finish()
        else:
            assert status == 75
            assert "the archive could not be filtered" in err


@pytest.mark.parametrize("host", FILTERING, indirect=True)
def test_bytes_behind_the_end_of_the_tar_do_not_end_the_save(host: Host) -> None:
    """It never meets a closed pipe."""
    archive = tar_of([Entry(blob("a"), b"x" * 5000), Entry("manifest.json", b"[]")])
    status, out, err = host.run(archive + bytes(5 << 20), [blob("a")])
    assert (status, host.unpacked(out).rstrip(b"\0")) == (0, without_members(archive, [blob("a")]).rstrip(b"\0")), err


FAILING_DD = """#!/bin/sh
case $1$2 in bs=4count=1 | bs=512count=1) exec {busybox} dd "$@" ;; esac
{doing}
"""


@pytest.mark.parametrize("doing", ["exit 2", "kill -9 $$", "kill -9 $PPID"])
def test_a_filter_that_fails_is_told_apart_from_a_save_that_fails(tmp_path: Path, doing: str) -> None:
    """The worker then fetches the whole."""
    host = Host(tmp_path, tools(tmp_path, "dash"), "sh")
    (tmp_path / "bin" / "dd").unlink()
    (tmp_path / "bin" / "dd").write_text(FAILING_DD.format(busybox=require_program("busybox"), doing=doing))
    (tmp_path / "bin" / "dd").chmod(0o755)
    status, _, err = host.run(tar_of([Entry(blob("a"), b"x" * 3_000_000), Entry(blob("b"), b"x")]), [blob("b")])
    assert status == 75
    assert "dockerbackup: the archive could not be filtered" in err


@pytest.mark.parametrize("kind", ["dash-zstd", "busybox"])
def test_a_tool_that_does_not_compress_is_not_used(tmp_path: Path, kind: str) -> None:
    """It is tried before anything is saved; gzip or nothing takes its place."""
    host = Host(tmp_path, tools(tmp_path, kind), "sh", Compression.GZIP)
    (tmp_path / "bin" / "zstd").unlink(missing_ok=True)
    (tmp_path / "bin" / "zstd").write_text("#!/bin/sh\necho 'zstd: cannot' >&2\nexit 1\n")
    (tmp_path / "bin" / "zstd").chmod(0o755)
    archive = tar_of([Entry(blob("a"), b"x" * 70_000), Entry("manifest.json", b"[]")])
    assert host.filtered(archive, [blob("a")]) == without_members(archive, [blob("a")])


@pytest.mark.parametrize("doing", ["exit 1", "kill -9 $$"])
def test_a_tool_that_fails_in_the_middle_fails_the_save(tmp_path: Path, doing: str) -> None:
    """Whether it failed or was killed; the worker then fetches the whole."""
    host = Host(tmp_path, tools(tmp_path, "dash-zstd"), "sh", Compression.ZSTD)
    (tmp_path / "bin" / "zstd").unlink()
    (tmp_path / "bin" / "zstd").write_text(
        f'#!/bin/sh\nread -r line\nif [ -z "$line" ]; then echo | {require_program("zstd")} -q -c; exit; fi\n{doing}\n'
    )
    (tmp_path / "bin" / "zstd").chmod(0o755)
    status, _, err = host.run(tar_of([Entry(blob("a"), b"x" * 3_000_000), Entry("x", b"x\n")]), [blob("b")])
    assert status == 75
    assert "dockerbackup: the archive could not be filtered" in err


def test_a_client_that_survives_the_closed_pipe_does_not_hide_that_the_tool_failed(tmp_path: Path) -> None:
    """It then exits with a status of its own."""
    host = Host(tmp_path, tools(tmp_path, "dash-zstd"), "sh", Compression.ZSTD)
    (tmp_path / "bin" / "zstd").unlink()
    (tmp_path / "bin" / "zstd").write_text(
        f'#!/bin/sh\nread -r line\nif [ -z "$line" ]; then echo | {require_program("zstd")} -q -c; exit; fi\nexit 1\n'
    )
    (tmp_path / "bin" / "zstd").chmod(0o755)
    body = b"x\n" * 3_000_000
    status, _, err = host.run(tar_of([Entry(blob("a"), body), Entry("x", body)]), [blob("b")], then="exit 1")
    assert status == 75
    assert "the archive could not be filtered" in err


@pytest.mark.parametrize("host", FILTERING, indirect=True)
@pytest.mark.parametrize("names", [[blob("a")], [blob("0")]])
def test_nothing_stays_when_the_link_is_cut(host: Host, names: list[str]) -> None:
    """All processes end by themselves, wherever the stream is, and no file was made."""
    noise = hashlib.shake_256(b"noise").digest(25_000_000)
    archive = tar_of([Entry("x", noise[:1_000_000]), Entry(blob("a"), noise * 2), Entry("x", noise * 2)])
    before = {path.name for path in host.directory.iterdir()}
    child = host.start(archive, names, then='exec cat "$FAKE/archive"')
    assert child.stdout is not None
    assert child.stdout.read(100_000)
    assert {path.name for path in host.directory.iterdir()} <= before | {"archive", "then", "called"}
    child.stdout.close()
    assert child.wait(timeout=30) != 0
    deadline = time.monotonic() + 10
    while host.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert host.processes() == []


def test_names_are_checked_and_fit_the_line() -> None:
    """Nothing but names of layers reaches the shell, each once, and no more than a line holds."""
    assert name_list([blob("a"), legacy("b"), blob("a")]) == f"{blob('a')} {legacy('b')}"
    assert name_list([]) == ""
    for wrong in (
        "manifest.json",
        "",
        blob("A"),
        f"{blob('a')} x",
        f"{blob('a')}\n",
        "--version",
        f"../{legacy('a')}",
        "$(id)",
    ):
        with pytest.raises(ConfigurationError, match="is not the name of a layer"):
            name_list([wrong])
    many = [f"blobs/sha256/{number:064x}" for number in range(5000)]
    line = commands.save_filtered(DockerCommand.parse("sudo -n -u backup /usr/local/bin/docker"), IMAGE, without=many)
    assert many[1000] in line
    assert many[-1] not in line
    assert len(line) < commands.MAX_LINE_BYTES


@pytest.mark.parametrize("host", FILTERING, indirect=True)
def test_as_many_names_as_fit_are_left_out(host: Host) -> None:
    """An image has at most some hundred layers, but each may have several names."""
    names = [f"blobs/sha256/{number:064x}" for number in range(1200)]
    archive = tar_of([*(Entry(name, b"x") for name in names[:40]), Entry("manifest.json", b"[]")])
    assert host.filtered(archive, names).rstrip(b"\0") == tar_of([Entry("manifest.json", b"[]")]).rstrip(b"\0")
