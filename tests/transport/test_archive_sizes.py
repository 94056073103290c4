# SPDX-License-Identifier: Apache-2.0
"""One line tells the sizes of many archives, in every shell; what nobody may look at is not taken for gone."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.onhost.ports import FileOnHost
from airflow_provider_dockerbackup.transport.archive_sizes import sizes_in, sizes_input, sizes_line
from tests.transport.injection import CORPUS
from tests.transport.test_host_jobs import SHELLS

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder whose ``bin/sh`` is that shell; everybody may enter it."""
    program, applet = SHELLS[request.param]
    found = shutil.which(program)
    assert found is not None
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        root = Path(directory)
        root.chmod(0o755)
        (root / "bin").mkdir()
        (root / "bin" / "sh").symlink_to(found)
        if applet is not None:
            for name in ("stat", "tail"):
                (root / "bin" / name).symlink_to(found)
        yield root


def asked(shell: Path, paths: list[str], *, by: tuple[str, ...] = ()) -> dict[str, FileOnHost]:
    """Return what the line says of the paths."""
    return answer(paths, *by, str(shell / "bin" / "sh"), PATH=f"{shell}/bin:/usr/bin:/bin")


def answer(paths: list[str], *program: str, **environment: str) -> dict[str, FileOnHost]:
    """Return what the line says of the paths when a program runs it."""
    done = subprocess.run(
        [*program, "-c", sizes_line()],
        env=environment,
        input=sizes_input(paths),
        capture_output=True,
        check=True,
        timeout=60,
    )
    return dict(sizes_in(done.stdout, paths=paths))


def test_sizes_are_told_of_more_files_than_one_call_looks_at(shell: Path) -> None:
    """Those that are gone are between them, and their folder may be gone as well."""
    paths = [f"{shell}/{number:04d}" for number in range(450)]
    for number, path in enumerate(paths):
        if number % 9:
            Path(path).write_bytes(bytes(number))
    paths += [f"{shell}/none/archive", f"{paths[1]}/below a file"]
    found = asked(shell, paths)
    assert list(found) == paths
    for number, path in enumerate(paths):
        assert found[path] == FileOnHost(size_bytes=number if number % 9 and number < 450 else None), path


def test_names_with_anything_that_can_be_printed_are_found(shell: Path) -> None:
    """No name is a command, an option, or a line of the answer."""
    names = [
        name for name in (*CORPUS, "? /x", "12 /y", "-c") if name.isprintable() and "/" not in name and name != ".."
    ]
    paths = [f"{shell}/{name}" for name in names if 0 < len(name.encode()) < 250]
    for number, path in enumerate(paths):
        if not Path(path).is_dir():
            Path(path).write_bytes(bytes(number))
    found = asked(shell, paths)
    assert {path: Path(path).stat().st_size for path in paths} == {
        path: each.size_bytes for path, each in found.items()
    }


def test_what_the_user_may_not_look_at_is_unknown(shell: Path) -> None:
    """A folder without the right to search it, and one that it can: there the file is gone."""
    closed, open_ = shell / "closed", shell / "open"
    for folder in (closed, open_):
        folder.mkdir()
        (folder / "there").write_bytes(b"123")
    closed.chmod(0o600)
    paths = [f"{folder}/{name}" for folder in (closed, open_) for name in ("there", "gone")]
    found = asked(shell, paths, by=NOBODY)
    assert [found[path].size_bytes for path in paths] == [None, None, 3, None]
    assert ["Permission denied" in found[path].problem for path in paths] == [True, True, False, False]
    assert [found[path].problem for path in paths[2:]] == ["", ""]


@pytest.mark.parametrize("output", [b"", b"welcome\n", b"12 /b\n", b"? /a", b"12", b"\xff\xfe\n"])
def test_an_answer_without_the_file_is_no_answer(output: bytes) -> None:
    """Neither there nor gone: nobody knows."""
    (told,) = sizes_in(output, paths=["/a"]).values()
    assert told.size_bytes is None
    assert output == b"? /a" or told.problem


def test_the_reason_is_told_whole_however_long_the_path_is() -> None:
    """It stands at the end of what the host says."""
    path = "/" + "/".join(["folder" * 30] * 3)
    said = f"stat: cannot statx '{path}': Permission denied"
    found = sizes_in(f"? {path}\n{said}\n".encode(), paths=[path])
    assert found[path].problem.endswith(": Permission denied")
    assert len(found[path].problem) <= 300


def test_the_size_of_a_large_archive_is_read() -> None:
    """Of more than a terabyte."""
    assert sizes_in(b"1234567890123 /a\n", paths=["/a"]) == {"/a": FileOnHost(size_bytes=1234567890123)}


def test_a_name_that_reads_like_the_reason_is_none() -> None:
    """The reason stands at the end; a path may say anything."""
    path = "/No such file or directory/Not a directory/a"
    found = sizes_in(f"? {path}\nstat: cannot statx '{path}': Permission denied\n".encode(), paths=[path])
    assert found[path].problem.endswith(": Permission denied")


@pytest.mark.parametrize("reason", ["No such file or directory", "Not a directory"])
def test_what_is_not_there_is_gone_also_where_a_file_stands_in_place_of_its_folder(reason: str) -> None:
    """Nobody needs to look again."""
    assert sizes_in(f"? /a\nstat: cannot statx '/a': {reason}\n".encode(), paths=["/a"]) == {"/a": FileOnHost()}


def asked_with(stat: str, folder: Path, paths: list[str]) -> dict[str, FileOnHost]:
    """Return what the line says where the program ``stat`` is that script, and the host speaks German."""
    program = folder / "stat"
    program.write_text(f"#!/bin/sh\n{stat}")
    program.chmod(0o755)
    return answer(paths, "/bin/sh", PATH=f"{folder}:/usr/bin:/bin", LC_ALL="de_DE.UTF-8")


def test_the_language_of_the_host_does_not_matter(tmp_path: Path) -> None:
    """What is read is asked for in English."""
    speaking = (
        '[ "$LC_ALL" = C ] && why="No such file or directory" || why="nicht gefunden"\necho "stat: $why"\nexit 1\n'
    )
    assert asked_with(speaking, tmp_path, ["/a"]) == {"/a": FileOnHost()}


def test_each_file_is_looked_at_once_and_many_by_one_call(tmp_path: Path) -> None:
    """However many there are, no call gets more of them than a host takes."""
    paths = [str(tmp_path / str(number)) for number in range(450)]
    for path in paths:
        Path(path).touch()
    counting = f'echo "$#" >> {tmp_path}/calls\nexec /usr/bin/stat "$@"\n'
    assert set(asked_with(counting, tmp_path, paths).values()) == {FileOnHost(size_bytes=0)}
    options = len(("-c", "%s %n", "--"))
    calls = [int(words) - options for words in (tmp_path / "calls").read_text().split()]
    assert calls == [200, 200, 50]
