# SPDX-License-Identifier: Apache-2.0
"""Listing and extracting the files of containers' backups, good and hostile ones, onto a real file system."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.look.files import list_files
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    NotFoundError,
)
from airflow_provider_dockerbackup.transport.extraction import Extracted, extract_files
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.core.archive.making import Entry, tar_of
from tests.core.world import CONTAINER, HOST, IMAGE, World, app_archive, spoil

DIRECTORY, SYMLINK, HARDLINK, DEVICE = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
GOOD = [
    Entry("dev/null", kind=DEVICE, extra={"devmajor": 1, "devminor": 3}),
    Entry("etc/", kind=DIRECTORY, extra={"mode": 0o750}),
    Entry("etc/app.conf", b"port = 80\n", extra={"mode": 0o4640, "mtime": 1_700_000_000, "uid": 1000, "gid": 7}),
    Entry("etc/deep/other.conf", b"other"),
    Entry("etc/link", kind=SYMLINK, link="/etc/app.conf"),
    Entry("srv/big", bytes(range(256)) * 10_000),
    Entry("usr/hard", kind=HARDLINK, link="srv/big"),
]


class Exported:
    """A world with one container's backup."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        host = MemoryDockerHost(HOST)
        host.add_archive(app_archive("one"))
        host.add_container("web", image=IMAGE.name, filesystem=tar_of(entries))
        self.world = World(host=host)
        self.backup: Backup = self.world.backup(1, CONTAINER).backup

    def extract(self, destination: Path, *patterns: str, overwrite: bool = False) -> Extracted:
        """Extract."""
        return extract_files(
            self.world.repository,
            self.backup,
            destination,
            patterns=patterns,
            overwrite=overwrite,
            progress=self.world.progress,
        )

    def listed(self, *patterns: str) -> list[str]:
        """Return the paths that patterns select."""
        entries = list_files(self.world.repository, self.backup, patterns=patterns, progress=self.world.progress)
        return [entry.path for entry in entries]


def below(folder: Path) -> set[str]:
    """Return everything below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("pattern", "selected"),
    [
        ("/etc/app.conf", ["etc/app.conf"]),
        ("etc/", ["etc", "etc/app.conf", "etc/deep/other.conf", "etc/link"]),
        ("etc/*.conf", ["etc/app.conf"]),
        ("etc/**.conf", ["etc/app.conf", "etc/deep/other.conf"]),
        ("/srv/b?g", ["srv/big"]),
    ],
)
def test_patterns_select_paths_and_whole_folders(pattern: str, selected: list[str]) -> None:
    """With or without the first slash; stars stay within a name, double stars do not."""
    assert Exported(GOOD).listed(pattern) == selected


def test_entries_tell_mode_owner_size_and_time() -> None:
    """As tar prints them."""
    exported = Exported(GOOD)
    (entry,) = list_files(
        exported.world.repository, exported.backup, patterns=["etc/app.conf"], progress=exported.world.progress
    )
    assert (entry.mode_text, entry.uid, entry.gid, entry.size_bytes) == ("-rwSr-----", 1000, 7, 10)
    assert entry.mtime_ns == 1_700_000_000 * 10**9
    assert len(exported.listed()) == len(exported.listed("/")) == len(GOOD)


def test_files_come_back_with_content_permissions_and_time_but_no_setuid(tmp_path: Path) -> None:
    """A folder stands for all in it; symbolic links come as they are."""
    done = Exported(GOOD).extract(tmp_path / "out", "etc")
    config = tmp_path / "out/etc/app.conf"
    assert config.read_bytes() == b"port = 80\n"
    assert stat.S_IMODE(config.stat().st_mode) == 0o640
    assert config.stat().st_mtime == 1_700_000_000
    assert config.stat().st_uid == os.getuid()
    assert (tmp_path / "out/etc/link").readlink() == Path("/etc/app.conf")
    assert below(tmp_path / "out") == {"etc", "etc/app.conf", "etc/deep", "etc/deep/other.conf", "etc/link"}
    assert set(done.paths) == {"etc/app.conf", "etc/deep/other.conf", "etc/link"}


def test_everything_comes_back_but_devices(tmp_path: Path) -> None:
    """Hard links share their content, devices are named and not made."""
    done = Exported(GOOD).extract(tmp_path, "/")
    assert done.left_out == ("dev/null",)
    assert (tmp_path / "usr/hard").samefile(tmp_path / "srv/big")
    assert not (tmp_path / "dev/null").exists()


def test_a_hard_link_brings_the_content_of_a_file_that_was_not_selected(tmp_path: Path) -> None:
    """The archive is read a second time for it; only the link appears."""
    Exported(GOOD).extract(tmp_path, "usr/hard")
    assert (tmp_path / "usr/hard").read_bytes() == bytes(range(256)) * 10_000
    assert below(tmp_path) == {"usr", "usr/hard"}


def test_an_existing_file_is_replaced_only_when_asked_for(tmp_path: Path) -> None:
    """Without it nothing at all is written, not even the files that are new."""
    exported = Exported(GOOD)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/app.conf").write_text("mine")
    with pytest.raises(ConflictError, match=r"etc/app\.conf"):
        exported.extract(tmp_path, "etc")
    assert below(tmp_path) == {"etc", "etc/app.conf"}
    assert (tmp_path / "etc/app.conf").read_text() == "mine"
    for _ in range(2):
        exported.extract(tmp_path, "/", overwrite=True)
    assert (tmp_path / "etc/app.conf").read_text() == "port = 80\n"


def test_a_folder_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    """Not even when files are."""
    (tmp_path / "etc/app.conf").mkdir(parents=True)
    with pytest.raises(ConflictError):
        Exported(GOOD).extract(tmp_path, "etc/app.conf", overwrite=True)
    assert (tmp_path / "etc/app.conf").is_dir()


@pytest.mark.parametrize("overwrite", [True, False])
def test_links_in_the_destination_are_not_followed(tmp_path: Path, *, overwrite: bool) -> None:
    """A link in place of a folder, such as an earlier extraction leaves, leads nowhere; one in place of a file goes."""
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (out / "etc").symlink_to(outside)
    with pytest.raises(ConflictError, match="links are not followed"):
        Exported(GOOD).extract(out, "etc/app.conf", overwrite=overwrite)
    assert below(outside) == set()
    assert below(out) == {"etc"}


def test_overwriting_replaces_a_link_and_not_what_it_leads_to(tmp_path: Path) -> None:
    """The file behind the link keeps its content."""
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text("mine")
    (out / "etc").mkdir(parents=True)
    (out / "etc/app.conf").symlink_to(victim)
    Exported(GOOD).extract(out, "etc/app.conf", overwrite=True)
    assert victim.read_text() == "mine"
    assert not (out / "etc/app.conf").is_symlink()


@pytest.mark.parametrize(
    "entries",
    [
        [Entry("a", kind=SYMLINK, link="../outside"), Entry("a/b", b"x")],
        [Entry("a", kind=SYMLINK, link="b"), Entry("b", kind=SYMLINK, link="../outside"), Entry("a/c", b"x")],
        [Entry("a", b"x"), Entry("a/b", b"x")],
        [Entry("a", kind=HARDLINK, link="etc/nothing")],
        [Entry("b", b"x"), Entry("c", kind=HARDLINK, link="b"), Entry("a", kind=HARDLINK, link="c")],
        [Entry("a", kind=HARDLINK, link="a")],
        [Entry("a", kind=HARDLINK, link="../outside/victim")],
    ],
    ids=["symlink", "chain", "file-as-folder", "dangling-hard-link", "link-to-link", "own-link", "hard-link-outside"],
)
def test_a_hostile_archive_writes_nothing_anywhere(entries: list[Entry], tmp_path: Path) -> None:
    """Neither outside of the destination nor in it; the folder that was made for it goes as well."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("mine")
    with pytest.raises(IntegrityError):
        Exported(entries).extract(tmp_path / "out", "/")
    assert below(tmp_path) == {"outside", "outside/victim"}
    assert (outside / "victim").stat().st_nlink == 1


def test_the_target_of_a_link_can_be_taken_where_the_link_is_not(tmp_path: Path) -> None:
    """What lies below a link in the archive gets real folders when only it is selected."""
    hostile = [Entry("a", kind=SYMLINK, link="../outside"), Entry("a/b", b"x")]
    (tmp_path / "outside").mkdir()
    Exported(hostile).extract(tmp_path / "out", "a/b")
    assert (tmp_path / "out/a/b").read_bytes() == b"x"
    assert below(tmp_path / "outside") == set()


def test_a_damaged_archive_leaves_no_file(tmp_path: Path) -> None:
    """The first file is long written when the digest at the end is wrong; it never gets its name."""
    exported = Exported(GOOD)
    spoil(exported.world.storage, exported.backup.path + exported.backup.whole().archive_file.name, position=20_000)
    with pytest.raises(IntegrityError):
        exported.extract(tmp_path / "out", "etc")
    with pytest.raises(IntegrityError):
        exported.listed()
    assert below(tmp_path) == set()


@pytest.mark.parametrize(
    ("patterns", "error", "says"),
    [
        (["etc", "no/such*"], NotFoundError, "'no/such\\*'"),
        (["../etc"], ConfigurationError, "without '..'"),
        ([], ConfigurationError, "all of them"),
    ],
)
def test_wrong_patterns_write_nothing(
    patterns: list[str], error: type[DockerBackupError], says: str, tmp_path: Path
) -> None:
    """Each is named."""
    with pytest.raises(error, match=says):
        Exported(GOOD).extract(tmp_path / "out", *patterns)
    assert below(tmp_path) == set()


def test_an_image_and_a_destination_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """With what to do instead."""
    exported = Exported(GOOD)
    with pytest.raises(ConfigurationError, match="parent"):
        exported.extract(tmp_path / "no/such", "etc")
    exported.backup = exported.world.backup(2).backup
    with pytest.raises(ConfigurationError, match="containers only"):
        exported.extract(tmp_path / "out", "etc")
    with pytest.raises(ConfigurationError, match="containers only"):
        exported.listed()
    assert below(tmp_path) == set()
