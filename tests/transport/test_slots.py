# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.transport.slot_script import HOLD
from airflow_provider_dockerbackup.transport.slots import capture_slot
from tests.lab.lab import Lab
from tests.transport.ssh_lab import session


def test_no_more_captures_than_places_go_on_at_once(lab: Lab) -> None:
    """Those that wait are told so, and go on one after the other."""
    at_once, most, notes = [0], [0], list[str]()
    lock = threading.Lock()

    def capture() -> None:
        with capture_slot(session(lab.hosts[0]), places=2, tell=notes.append):
            with lock:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
            time.sleep(1)
            with lock:
                at_once[0] -= 1

    threads = [threading.Thread(target=capture) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [2]
    assert at_once == [0]
    assert len(notes) == 2
    assert all("waiting for other captures on" in note for note in notes)


def test_a_place_is_free_again_when_the_link_of_its_holder_is_cut(lab: Lab) -> None:
    """Nobody of ours need be left to give it back."""
    holder = session(lab.hosts[0])
    notes: list[str] = []
    with capture_slot(holder, places=1, tell=notes.append):
        holder.close()
        with capture_slot(session(lab.hosts[0]), places=1, tell=notes.append):
            got = True
    assert got


def test_who_finds_no_place_in_time_is_told_what_to_change(lab: Lab) -> None:
    """The deadline of a stream counts for waiting as well."""
    hasty = session(lab.hosts[0], deadline_seconds=1)
    with (
        capture_slot(session(lab.hosts[0]), places=1, tell=lambda _: None),
        pytest.raises(TransientError, match="max_captures"),
        capture_slot(hasty, places=1, tell=lambda _: None),
    ):
        raise AssertionError("there is one place, and it is taken")


def _said(folder: Path, shell: str) -> str:
    """What a shell that wants the only place says before its input ends."""
    done = subprocess.run(
        [shell, *(["sh"] if shell.endswith("busybox") else []), "-c", HOLD, "dockerbackup", "1"],
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return done.stdout


@pytest.mark.parametrize("shell", [path for name in ("dash", "bash", "busybox") if (path := shutil.which(name))])
@pytest.mark.parametrize("trap", ["none", "no file", "link", "stranger"])
def test_a_host_on_which_no_place_can_be_kept_is_captured_from_without(trap: str, shell: str, tmp_path: Path) -> None:
    """A full disk, a lock that cannot be opened, a folder of somebody else's: captures go on uncounted."""
    folder = tmp_path / f"dockerbackup-{os.getuid()}"
    if trap == "link":
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir(mode=0o700)
    if trap == "no file":
        (folder / "capture-1").mkdir()
    if trap == "stranger":
        if os.getuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(folder, 12345, 12345)
    assert _said(tmp_path, shell) == ("got\n" if trap == "none" else "free\n")
