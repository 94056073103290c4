# SPDX-License-Identifier: Apache-2.0
"""Jobs on a host, as real shells run them: begun, looked at, killed, cleared away, published; no more is touched."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.onhost.place import JobPlace
from airflow_provider_dockerbackup.core.onhost.ports import HostJob, JobState
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError
from airflow_provider_dockerbackup.transport import host_jobs
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from tests.lab.faults import small_disk
from tests.transport.injection import CORPUS

SHELLS = {"dash": ("dash", None), "bash": ("bash", None), "busybox": ("busybox", "sh")}
SCOPE = ".dockerbackup-0123456789abcdef-"
BACKUP_ID = "20261123T210400Z-0123456789abcdef"
ATTEMPT = "a1b2c3d4e5f6"
NAME = f"{SCOPE}{BACKUP_ID}-{ATTEMPT}"
ARCHIVE = f"image-{ATTEMPT}.tar"
TEMPORARY = f"dockerbackup-temporary:0123456789abcdef-{ATTEMPT}-1790000000"
CONFIG = "c" * 64 + ".json"
# A docker that says what it is told to say, and waits while it shall; it notes what it is to remove.
FAKE = """\
#!/bin/sh
while [ -e "$FAKE/hangs-at-$2" ]; do sleep 0.05; done
case $2 in
  inspect) echo "[{\\"Id\\": \\"$1 $4\\"}]" ;;
  rm) echo "$@" >>"$FAKE/removed" ;;
  save | export)
    if [ -e "$FAKE/short" ]; then head -c "$(cat "$FAKE/short")" "$FAKE/archive"; exit 0; fi
    if [ -e "$FAKE/fails" ]; then head -c 200000 "$FAKE/archive"; echo 'Error from daemon: boom' >&2; exit 3; fi
    if [ -e "$FAKE/slow" ]; then head -c 200000 "$FAKE/archive"; while [ -e "$FAKE/slow" ]; do sleep 0.05; done
      tail -c +200001 "$FAKE/archive"; exit 0; fi
    cat "$FAKE/archive"
    if [ -e "$FAKE/dies" ]; then exit 137; fi
    ;;
esac
"""


def archive_bytes() -> bytes:
    """Return a tar with what a job reads back from it, and some bulk."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        manifest = json.dumps([{"Config": CONFIG, "RepoTags": None, "Layers": ["l/layer.tar"]}]).encode()
        for name, body in (("l/layer.tar", os.urandom(700_000)), (CONFIG, b"{}"), ("manifest.json", manifest)):
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine whose ``sh`` is one certain shell, with a docker that is told what to do."""

    root: Path
    shell: str
    archive: bytes

    @property
    def environment(self) -> dict[str, str]:
        """What sessions there get."""
        return {
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            "FAKE": str(self.root),
            "XDG_RUNTIME_DIR": str(self.root),
        }

    @property
    def folder(self) -> Path:
        """Where archives are kept."""
        return self.root / "archives"

    @property
    def place(self) -> JobPlace:
        """The place of the one job."""
        return JobPlace(folder=str(self.folder), name=NAME)

    def run(self, line: str, *, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a line as sshd does, in a session that ends with it."""
        words = [str(self.root / "bin" / "sh"), "-c", line]
        return subprocess.run(words, env=self.environment, capture_output=True, check=False, input=given, timeout=60)

    def job(self, **changes: object) -> HostJob:
        """Return the job to do."""
        job = HostJob(
            place=self.place,
            kind=SourceKind.IMAGE,
            subject="sha256:" + "1" * 64,
            compression=Compression.NONE,
            level=None,
            needed_bytes=1,
            deadline_seconds=60,
        )
        return replace(job, **changes)  # type: ignore[arg-type]

    def start(self, *, places: int = 2, **changes: object) -> subprocess.CompletedProcess[bytes]:
        """Begin it."""
        job = self.job(**changes)
        return self.run(host_jobs.start_line(DockerCommand(), job, max_captures=places), given=job.note)

    def state(self, place: JobPlace | None = None) -> JobState:
        """Return what it does."""
        done = self.run(host_jobs.state_line(place or self.place))
        assert done.returncode == 0, done.stderr
        return host_jobs.state_of(done.stdout)

    def end(self, place: JobPlace | None = None) -> JobState:
        """Wait until it does nothing any more."""
        return self.until(lambda state: state.is_over, place)

    def until(self, reached: Callable[[JobState], bool], place: JobPlace | None = None) -> JobState:
        """Wait until it is in a certain state."""
        state = self.state(place)
        for _ in range(400):
            if reached(state):
                return state
            time.sleep(0.05)
            state = self.state(place)
        raise AssertionError(state)

    def clear(self, *, unclaimed: bool = False) -> bytes:
        """End the job and remove its folder."""
        done = self.run(host_jobs.clear_line(self.place, unclaimed=unclaimed))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def removed(self) -> list[str]:
        """Return what docker was told to remove."""
        path = self.root / "removed"
        return path.read_text().splitlines() if path.exists() else []

    def leader(self) -> int:
        """Return the process id of the job's leader."""
        return int((self.folder / NAME / "process").read_text().split()[0])

    def processes(self) -> list[int]:
        """Return the processes that carry the job's name."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"DOCKERBACKUP_JOB={NAME}\0".encode() in path.read_bytes() and self.root.name in str(
                    path.read_bytes()
                ):
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found


@pytest.fixture(params=list(SHELLS))
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    """A machine for each shell; its job is cleared away at the end."""
    program, applet = SHELLS[request.param]
    (tmp_path / "bin").mkdir()
    found = shutil.which(program)
    assert found is not None
    (tmp_path / "bin" / "sh").symlink_to(found)
    if applet is not None:
        for name in (
            "tar",
            "stat",
            "tee",
            "gzip",
            "sed",
            "df",
            "grep",
            "sha256sum",
            "setsid",
            "wc",
            "head",
            "tail",
            "sync",
        ):
            (tmp_path / "bin" / name).symlink_to(found)
    (tmp_path / "bin" / "docker").write_text(FAKE)
    (tmp_path / "bin" / "docker").chmod(0o755)
    archive = archive_bytes()
    (tmp_path / "archive").write_bytes(archive)
    machine = Machine(root=tmp_path, shell=request.param, archive=archive)
    yield machine
    (tmp_path / "slow").unlink(missing_ok=True)
    machine.clear()
    assert machine.processes() == []


def digest(data: bytes) -> str:
    """Return ``sha256:<hex>``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("compression", list(Compression))
def test_a_job_writes_hashes_and_reads_back_what_docker_saves(machine: Machine, compression: Compression) -> None:
    """Sizes and digests of tar and file, the documents in it; all of it for the user alone; the link gives the name."""
    started = machine.start(compression=compression, level=3 if compression is not Compression.NONE else None)
    assert started.returncode == 0, started.stderr
    assert machine.end() == JobState(phase="ended", exit_status=0, written_bytes=machine.state().written_bytes)
    here = machine.folder / NAME
    stored = (here / "archive").read_bytes()
    assert host_jobs.result_of((here / "result").read_bytes()) == (
        digest(machine.archive),
        len(machine.archive),
        digest(stored),
        len(stored),
    )
    if compression is Compression.GZIP:
        assert gzip.decompress(stored) == machine.archive
    assert json.loads((here / "manifest.json").read_bytes())[0]["Config"] == CONFIG
    assert (here / "config.json").read_bytes() == b"{}"
    assert here.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in here.iterdir()} == {0}
    published = machine.run(host_jobs.publish_line(machine.place, archive=ARCHIVE + compression.suffix))
    assert published.returncode == 0, published.stderr
    machine.clear()
    final = Path(machine.place.final_path(ARCHIVE + compression.suffix))
    assert [path.name for path in machine.folder.iterdir()] == [final.name]
    assert final.read_bytes() == stored
    assert final.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
@pytest.mark.parametrize("temporary", [None, TEMPORARY])
def test_a_job_exports_a_container_and_keeps_what_was_given_to_it(
    machine: Machine, compression: Compression, temporary: str | None
) -> None:
    """One that stays is looked at afterwards; a temporary one goes, and its image."""
    note = b'{"Env": ["PASSWORD=hunter2"]}' + bytes(range(256))
    subject = "c" * 64 if temporary is None else temporary.replace(":", "-")
    started = machine.start(
        kind=SourceKind.CONTAINER, subject=subject, temporary=temporary, note=note, compression=compression
    )
    assert started.returncode == 0, started.stderr
    state = machine.end()
    assert (state.phase, state.exit_status) == ("ended", 0), state.said
    here = machine.folder / NAME
    stored = (here / "archive").read_bytes()
    assert host_jobs.result_of((here / "result").read_bytes()) == (
        digest(machine.archive),
        len(machine.archive),
        digest(stored),
        len(stored),
    )
    assert (here / "note").read_bytes() == note
    assert (here / "note").stat().st_mode & 0o777 == 0o600
    assert not (here / "image.json").exists()
    if temporary is None:
        assert json.loads((here / "after.json").read_bytes()) == [{"Id": f"container {subject}"}]
        assert machine.removed() == []
    else:
        assert not (here / "after.json").exists()
        assert machine.removed() == [f"container rm --volumes -- {subject}", f"image rm -- {temporary}"]


@pytest.mark.parametrize("kind", list(SourceKind))
def test_a_tar_that_is_not_whole_fails_the_job_although_docker_said_that_it_succeeded(
    machine: Machine, kind: SourceKind
) -> None:
    """Cut anywhere: before it begins, in a file's content, after all files, within the two blocks that end a tar."""
    content = -(-len(machine.archive.rstrip(b"\0")) // 512) * 512
    for length in (0, 512, 1000, 600_000, content, content + 512, content + 1023):
        (machine.root / "short").write_text(str(length))
        machine.start(kind=kind)
        assert machine.end().exit_status == 74, length
        assert not (machine.folder / NAME / "archive").exists()
        machine.clear()
    (machine.root / "short").write_text(str(content + 1024))
    machine.start(kind=kind)
    assert machine.end().exit_status == 0


def test_a_tar_that_is_cut_amid_zeros_fails_the_job(machine: Machine) -> None:
    """Its end looks like that of a tar, so only reading it back tells."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("sparse")
        info.size = 512_000
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    (machine.root / "archive").write_bytes(out.getvalue())
    (machine.root / "short").write_text("256000")
    machine.start(kind=SourceKind.CONTAINER)
    state = machine.end()
    assert state.exit_status == 74
    assert b"cannot be read back" in state.said


@pytest.mark.parametrize("missing_blocks", [1, 2, 17, 19, 20, 21])
def test_an_export_that_is_cut_amid_the_zeros_of_its_last_file_fails_the_job(
    machine: Machine, missing_blocks: int
) -> None:
    """However little is missing: what the job reads after the tar must not pass for the rest of that file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("zeros")
        info.size = 65536
        tar.addfile(info, io.BytesIO(bytes(info.size)))
        end = tar.offset
    (machine.root / "archive").write_bytes(out.getvalue())
    (machine.root / "short").write_text(str(end - 512 * missing_blocks))
    machine.start(kind=SourceKind.CONTAINER)
    state = machine.end()
    assert (state.phase, state.exit_status) == ("ended", 74)
    assert b"cannot be read back" in state.said
    assert not (machine.folder / NAME / "archive").exists()


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
@pytest.mark.parametrize("missing", ["a file and the end", "the end", "half of the end"])
def test_an_export_whose_tar_has_no_end_fails_the_job_although_it_reads_well(
    machine: Machine, missing: str, compression: Compression
) -> None:
    """Its last bytes are a file's own zeros, as an end is zeros, and docker said that it succeeded."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("first", "second"):
            info = tarfile.TarInfo(name)
            info.size = 2048
            tar.addfile(info, io.BytesIO(bytes(info.size)))
        end = tar.offset
    whole = out.getvalue()[: end + 1024]
    (machine.root / "archive").write_bytes(whole)
    length = {"a file and the end": 512 + 2048, "the end": end, "half of the end": end + 512}[missing]
    (machine.root / "short").write_text(str(length))
    machine.start(kind=SourceKind.CONTAINER, compression=compression)
    state = machine.end()
    assert (state.phase, state.exit_status) == ("ended", 74)
    assert b"without its end" in state.said
    assert not (machine.folder / NAME / "archive").exists()
    machine.clear()
    (machine.root / "short").unlink()
    machine.start(kind=SourceKind.CONTAINER, compression=compression)
    assert machine.end().exit_status == 0


@pytest.mark.parametrize("kind", list(SourceKind))
def test_a_docker_that_dies_once_all_is_written_fails_the_job(machine: Machine, kind: SourceKind) -> None:
    """A whole tar is nothing without the exit status 0 of the docker that wrote it."""
    (machine.root / "dies").touch()
    machine.start(kind=kind)
    state = machine.end()
    assert (state.phase, state.exit_status) == ("ended", 137)
    assert not (machine.folder / NAME / "archive").exists()


@pytest.mark.parametrize("machine", ["dash", "bash"], indirect=True)
@pytest.mark.parametrize("failing", ["archive", ".", f"{ATTEMPT}.tar", "/archives"])
@pytest.mark.parametrize("problem", ["Input/output error", "Invalid argument", "Permission denied"])
def test_what_does_not_reach_the_disk_is_neither_done_nor_published(
    machine: Machine, failing: str, problem: str
) -> None:
    """The file's own error counts, however a sync of everything ends; that a folder cannot be synced is none."""
    replaced(machine, f"case $1 in *'{failing}') echo \"sync: error syncing '$1': {problem}\" >&2; exit 1 ;; esac")
    is_file = failing in {"archive", f"{ATTEMPT}.tar"}
    fails = is_file or problem == "Input/output error"
    machine.start()
    state = machine.end()
    if failing in {"archive", "."}:
        assert state.exit_status == (74 if fails else 0)
        assert (problem.encode() in state.said) is fails
        return
    assert state.exit_status == 0
    published = machine.run(host_jobs.publish_line(machine.place, archive=ARCHIVE))
    assert published.returncode == (74 if fails else 0)
    assert Path(machine.place.final_path(ARCHIVE)).exists() is not fails
    assert (machine.clear(unclaimed=True) == b"claimed\n") is not fails


@pytest.mark.parametrize("machine", ["dash", "bash"], indirect=True)
def test_a_sync_that_ignores_names_does_for_a_job(machine: Machine) -> None:
    """As those of old coreutils and busybox do: they say so, write everything, and succeed."""
    replaced(machine, "echo 'sync: ignoring all arguments' >&2; set --")
    machine.start()
    assert machine.end().exit_status == 0
    assert machine.run(host_jobs.publish_line(machine.place, archive=ARCHIVE)).returncode == 0


def replaced(machine: Machine, script: str) -> None:
    """Put a script before the machine's sync."""
    program = machine.root / "bin" / "sync"
    program.write_text(f'#!/bin/sh\n{script}\nexec {shutil.which("sync")} "$@"\n')
    program.chmod(0o755)


@pytest.mark.parametrize("when", ["while it exports", "while it waits", "at its deadline"])
def test_a_job_that_is_ended_removes_its_snapshot(machine: Machine, when: str) -> None:
    """It is nobody else's, and may be large."""
    snapshot: dict[str, Any] = {"kind": SourceKind.CONTAINER, "subject": "snapshot", "temporary": TEMPORARY}
    (machine.root / "slow").touch()
    if when == "while it waits":
        slots = machine.root / f"dockerbackup-{os.getuid()}"
        slots.mkdir(mode=0o700)
        words = ["flock", str(slots / "capture-1"), "sleep", "60"]
        with subprocess.Popen(words, start_new_session=True) as held:
            time.sleep(0.5)
            machine.start(places=1, **snapshot)
            machine.until(lambda state: state.phase == "waiting")
            machine.clear()
            os.killpg(held.pid, signal.SIGKILL)
    elif when == "at its deadline":
        machine.start(deadline_seconds=1, **snapshot)
        assert machine.end().exit_status == 143
    else:
        machine.start(**snapshot)
        machine.until(lambda state: state.written_bytes > 0)
        machine.clear()
    assert machine.removed() == ["container rm --volumes -- snapshot", f"image rm -- {TEMPORARY}"]
    assert machine.processes() == []


def test_a_job_goes_on_without_the_session_that_began_it(machine: Machine) -> None:
    """The session has ended when it is looked at first; it runs in a session of its own, and tells its bytes."""
    (machine.root / "slow").touch()
    assert machine.start().returncode == 0
    state = machine.until(lambda state: state.written_bytes > 100_000)
    assert state.phase == "running"
    leader = machine.leader()
    assert os.getsid(leader) == os.getpgid(leader) == leader
    (machine.root / "slow").unlink()
    assert machine.end().exit_status == 0


def test_a_job_whose_docker_fails_says_so_and_leaves_no_archive(machine: Machine) -> None:
    """The exit status is docker's, although it is not the last of the pipeline."""
    (machine.root / "fails").touch()
    assert machine.start(compression=Compression.GZIP).returncode == 0
    state = machine.end()
    assert (state.phase, state.exit_status) == ("ended", 3)
    assert b"boom" in state.said
    assert not (machine.folder / NAME / "archive").exists()
    assert not (machine.folder / NAME / "result").exists()


# Busybox has these programs in its shell, so none of them can be replaced there.
@pytest.mark.parametrize("machine", ["dash", "bash"], indirect=True)
@pytest.mark.parametrize("broken", ["pack", "tee"])
def test_no_member_of_the_pipeline_may_fail(machine: Machine, broken: str) -> None:
    """A program that ends early with an error is noticed wherever it stands."""
    program = machine.root / "bin" / ("gzip" if broken == "pack" else "tee")
    program.unlink(missing_ok=True)
    program.write_text(
        "#!/bin/sh\nhead -c 1000 >/dev/null\nexit 5\n" if broken == "pack" else "#!/bin/sh\ncat\nexit 5\n"
    )
    program.chmod(0o755)
    machine.start(compression=Compression.GZIP, deadline_seconds=5)
    state = machine.end()
    assert state.phase == "ended"
    assert state.exit_status in {74, 143}
    assert not (machine.folder / NAME / "archive").exists()


def test_a_killed_leader_is_noticed_and_what_it_left_is_ended(machine: Machine) -> None:
    """SIGKILL leaves no status; the programs of its pipeline go on until somebody clears the job away."""
    (machine.root / "slow").touch()
    machine.start()
    machine.until(lambda state: state.written_bytes > 0)
    os.kill(machine.leader(), signal.SIGKILL)
    assert machine.end() == JobState(phase="killed")
    assert machine.processes()
    machine.clear()
    assert machine.processes() == []
    assert list(machine.folder.iterdir()) == []
    assert machine.state().phase == "vanished"


def identity(pid: int) -> tuple[str, int]:
    """Return the boot of this host and the start of a process in it, by which a job knows its leader."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return boot, int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19])


def test_a_host_that_was_started_anew_is_told_from_one_whose_job_lives(machine: Machine) -> None:
    """The same process id may live again; the boot id is another. Such a process is never touched."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        here = machine.folder / NAME
        here.mkdir(parents=True)
        boot, start = identity(other.pid)
        (here / "process").write_text(f"{other.pid} {boot} {start - 1}\n")
        assert machine.state().phase == "killed"
        (here / "process").write_text(f"{other.pid} 00000000-0000-0000-0000-000000000000 {start}\n")
        assert machine.state().phase == "rebooted"
        machine.clear()
        assert other.poll() is None
        other.kill()


def test_a_leader_that_is_no_process_of_the_job_is_never_touched(machine: Machine) -> None:
    """Whoever can write in the folder cannot choose what is ended."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        here = machine.folder / NAME
        here.mkdir(parents=True)
        boot, start = identity(other.pid)
        (here / "process").write_text(f"{other.pid} {boot} {start}\n")
        machine.clear()
        assert not here.exists()
        assert other.poll() is None
        other.kill()


def test_clearing_a_running_job_ends_it_and_no_other(machine: Machine) -> None:
    """Two jobs run; one is cleared away."""
    (machine.root / "slow").touch()
    machine.start()
    other = replace(machine.place, name=NAME.replace(ATTEMPT, "0" * 12))
    machine.start(place=other)
    machine.until(lambda state: state.written_bytes > 0)
    machine.clear()
    assert machine.state().phase == "vanished"
    done = machine.run(host_jobs.state_line(other))
    assert host_jobs.state_of(done.stdout).phase == "running"
    assert machine.run(host_jobs.clear_line(other)).returncode == 0


def test_a_job_ends_itself_at_its_deadline(machine: Machine) -> None:
    """Nobody needs to be there for that."""
    (machine.root / "slow").touch()
    machine.start(deadline_seconds=1)
    state = machine.end()
    assert (state.phase, state.exit_status) == ("ended", 143)
    assert b"not done after 1 s (the deadline)" in state.said
    assert machine.processes() == []


@pytest.mark.parametrize(
    ("hanging", "job"),
    [
        ("inspect", {"kind": SourceKind.IMAGE}),
        ("inspect", {"kind": SourceKind.CONTAINER}),
        ("export", {"kind": SourceKind.CONTAINER}),
        ("rm", {"kind": SourceKind.CONTAINER, "subject": "snapshot", "temporary": TEMPORARY}),
    ],
)
def test_a_docker_that_answers_nothing_any_more_keeps_no_job_beyond_its_deadline(
    machine: Machine, hanging: str, job: dict[str, Any]
) -> None:
    """It would keep its place among the host's captures for ever, and whoever waits for it."""
    gate = machine.root / f"hangs-at-{hanging}"
    gate.touch()
    try:
        machine.start(deadline_seconds=1, **job)
        state = machine.end()
        assert state.phase == "ended"
        for _ in range(100):
            if not machine.processes():
                break
            time.sleep(0.05)
        assert machine.processes() == []
    finally:
        gate.unlink()


def test_a_full_disk_fails_the_job_and_is_given_back(machine: Machine) -> None:
    """What was written goes; the status still finds room."""
    with small_disk(400_000) as disk:
        place = replace(machine.place, folder=str(disk / "archives"))
        assert machine.start(place=place).returncode == 0
        state = machine.end(place)
        assert (state.phase, state.exit_status) == ("ended", 74)
        assert b"o space left" in state.said
        assert not (disk / "archives" / NAME / "archive").exists()
        assert machine.run(host_jobs.clear_line(place)).returncode == 0


@pytest.mark.parametrize("machine", ["dash", "bash"], indirect=True)
@pytest.mark.parametrize("left_kibibytes", [0, 8, 16, 24, 32, 40])
def test_a_disk_that_is_full_once_the_archive_is_written_is_told_as_that(machine: Machine, left_kibibytes: int) -> None:
    """A job writes a little more after it, its status at last; wherever that ends, nothing keeps the disk full."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = (1024 - left_kibibytes - 34) * 1024
        tar.addfile(info, io.BytesIO(os.urandom(info.size)))
        end = tar.offset
    (machine.root / "archive").write_bytes(out.getvalue()[: end + 1024])
    with small_disk(1024 * 1024) as disk:
        place = replace(machine.place, folder=str(disk / "archives"))
        assert machine.start(place=place, kind=SourceKind.CONTAINER).returncode == 0
        state = machine.end(place)
        assert state.phase == "ended"
        assert (state.exit_status == 0) is (disk / "archives" / NAME / "archive").exists()
        assert state.exit_status == 0 or b"no space left on device" in state.said
        assert machine.run(host_jobs.clear_line(place)).returncode == 0


def test_too_little_space_is_refused_before_anything_begins(machine: Machine) -> None:
    """With both numbers."""
    done = machine.start(needed_bytes=1 << 60)
    assert done.returncode == 75
    assert b"no space left" in done.stderr
    assert b"KiB are needed" in done.stderr
    assert list(machine.folder.iterdir()) == []


def test_a_missing_program_is_named_before_anything_begins(machine: Machine) -> None:
    """Such as zstd, which a host need not have."""
    line = host_jobs.start_line(DockerCommand(), machine.job(compression=Compression.ZSTD), max_captures=2)
    done = machine.run(line.replace('command -v "$', 'command -v no-such-"$'))
    assert done.returncode == 127
    assert b"command not found" in done.stderr
    assert not (machine.folder / NAME).exists()


def test_a_folder_that_cannot_be_made_is_told_from_a_job_that_is_there(machine: Machine) -> None:
    """Also where it is a file; mkdir says the same of both."""
    machine.folder.write_text("")
    assert machine.start().returncode == 77


def test_a_job_of_the_same_name_is_not_begun_twice(machine: Machine) -> None:
    """Of two at once one makes the folder."""
    (machine.root / "slow").touch()
    assert machine.start().returncode == 0
    again = machine.start()
    assert again.returncode == 73
    assert b"File exists" in again.stderr
    assert machine.state().phase == "running"


def test_a_job_waits_for_a_place_and_says_so(machine: Machine) -> None:
    """It holds one of the places that other captures of the host use as well."""
    slots = machine.root / f"dockerbackup-{os.getuid()}"
    slots.mkdir(mode=0o700)
    held = subprocess.Popen(["flock", str(slots / "capture-1"), "sleep", "60"], start_new_session=True)
    try:
        for _ in range(100):
            if subprocess.run(["flock", "-n", str(slots / "capture-1"), "true"], check=False).returncode:
                break
            time.sleep(0.05)
        machine.start(places=1)
        machine.until(lambda state: state.phase == "waiting")
    finally:
        os.killpg(held.pid, signal.SIGKILL)
        held.wait()
    assert machine.end().exit_status == 0


def test_one_alone_can_claim_what_a_job_made(machine: Machine) -> None:
    """Whoever commits and whoever clears away exclude each other."""
    machine.start()
    machine.end()
    assert machine.run(host_jobs.publish_line(machine.place, archive=ARCHIVE)).returncode == 0
    assert machine.run(host_jobs.publish_line(machine.place, archive=ARCHIVE)).returncode == 73
    assert machine.clear(unclaimed=True) == b"claimed\n"
    assert (machine.folder / NAME).is_dir()
    listed = host_jobs.jobs_in(
        machine.run(host_jobs.jobs_line(str(machine.folder), scope=SCOPE)).stdout, folder=str(machine.folder)
    )
    assert [(job.place, job.is_over, job.claimed) for job in listed] == [(machine.place, True, True)]
    assert machine.clear() == b""


def test_a_claim_needs_no_room_on_the_disk(machine: Machine) -> None:
    """Where not one more file can be made what is there is published, or cleared away, all the same."""
    with small_disk(4_000_000) as disk:
        mount = ["mount", "-o", "remount,nr_inodes=100", str(disk)]
        subprocess.run(mount, check=True)
        places = [replace(machine.place, folder=str(disk / name)) for name in ("one", "two")]
        for place in places:
            machine.start(place=place)
            assert machine.end(place).exit_status == 0
        with pytest.raises(OSError, match="No space left"):  # noqa: PT012 - somewhere on the way
            for number in range(200):
                (disk / str(number)).touch()
        published = machine.run(host_jobs.publish_line(places[0], archive=ARCHIVE))
        assert published.returncode == 0, published.stderr
        assert Path(places[0].final_path(ARCHIVE)).read_bytes() == machine.archive
        assert machine.run(host_jobs.clear_line(places[0], unclaimed=True)).stdout == b"claimed\n"
        assert machine.run(host_jobs.clear_line(places[1], unclaimed=True)).stdout == b""
        assert list(Path(places[1].folder).iterdir()) == []


def test_what_could_not_be_published_is_nobodys_and_can_be_cleared_away(machine: Machine) -> None:
    """Else each of several tries would leave an archive that looks as if it were being committed."""
    machine.start()
    machine.end()
    (machine.folder / NAME / "archive").unlink()
    assert machine.run(host_jobs.publish_line(machine.place, archive=ARCHIVE)).returncode == 74
    assert machine.clear(unclaimed=True) == b""
    assert list(machine.folder.iterdir()) == []


def test_a_job_that_never_began_can_be_cleared_away(machine: Machine) -> None:
    """Its beginner died between making its folder and what can be claimed."""
    (machine.folder / NAME).mkdir(parents=True)
    assert machine.clear(unclaimed=True) == b""
    assert list(machine.folder.iterdir()) == []


# Busybox has `cat` in its shell, so it cannot be replaced there.
@pytest.mark.parametrize("machine", ["dash", "bash"], indirect=True)
def test_a_job_that_ends_and_is_claimed_while_jobs_are_listed_is_not_one_that_was_claimed_before(
    machine: Machine,
) -> None:
    """Who lists it may end what was claimed while it ran; this one is being committed."""
    (machine.root / "slow").touch()
    machine.start()
    here = machine.folder / NAME
    # The shell asks for the boot id when it looks whether a process lives: just then the job ends and is claimed.
    # The job itself uses cat, too.
    claim = f'[ -z "$LISTING" ] || mv "{here}/unclaimed" "{here}/claim"'
    (machine.root / "bin" / "cat").write_text(f'#!/bin/sh\n{claim}\nexec /bin/cat "$@"\n')
    (machine.root / "bin" / "cat").chmod(0o755)
    listed = machine.run("export LISTING=1; " + host_jobs.jobs_line(str(machine.folder), scope=SCOPE)).stdout
    (machine.root / "bin" / "cat").unlink()
    assert (here / "claim").exists()
    (job,) = host_jobs.jobs_in(listed, folder=str(machine.folder))
    assert not job.claimed


def test_publishing_never_replaces_a_file(machine: Machine) -> None:
    """Not even a dangling link."""
    machine.start()
    machine.end()
    final = Path(machine.place.final_path(ARCHIVE))
    final.symlink_to(machine.root / "nowhere")
    done = machine.run(host_jobs.publish_line(machine.place, archive=ARCHIVE))
    assert done.returncode == 73
    assert final.is_symlink()


@pytest.mark.parametrize("shell", list(SHELLS))
def test_no_folder_becomes_anything_else(shell: str, tmp_path: Path) -> None:
    """Names of folders come from DAG parameters; whatever passes the check is a folder and nothing more."""
    program, applet = SHELLS[shell]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to(str(shutil.which(program)))
    (tmp_path / "work").mkdir()
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    words = [str(shutil.which(program)), *([applet] if applet else []), "-c"]
    tried = 0
    for text in CORPUS:
        try:
            place = JobPlace(folder=f"{tmp_path}/work/{text}", name=NAME)
        except ConfigurationError:
            continue
        tried += 1
        for line in (
            host_jobs.state_line(place),
            host_jobs.clear_line(place),
            host_jobs.jobs_line(place.folder, scope=SCOPE),
        ):
            done = subprocess.run(
                [*words, line], cwd=tmp_path / "work", env=environment, capture_output=True, check=False
            )
            assert done.returncode == 0, (text, done.stderr)
        assert list((tmp_path / "work").iterdir()) == []
    assert tried > 100


@pytest.mark.parametrize(
    "name", ["", "..", ".dockerbackup-x", f"{NAME}/..", f"{NAME}\n", NAME.replace("2026", "20 26"), "x" + NAME]
)
def test_only_names_of_our_own_are_jobs(name: str) -> None:
    """A job's folder is removed with all that is in it."""
    with pytest.raises(ConfigurationError, match="job name"):
        JobPlace(folder="/var/backups", name=name)


@pytest.mark.parametrize("output", [b"", b"ended 0\n", b"ended - - 0\n", b"gone - 1\n", b"welcome\nended 0 1\n"])
def test_an_answer_that_cannot_be_read_is_never_a_state(output: bytes) -> None:
    """A greeting of the shell's, or half an answer."""
    with pytest.raises(DockerBackupError, match="the state of a job"):
        host_jobs.state_of(output)
