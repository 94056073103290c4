# SPDX-License-Identifier: Apache-2.0
"""Copies between the storages that are supported: a local disk, also a full one, and a real S3 server."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.copies.making import Copies
from tests.core.faults import Death, Fault, FaultyStorage, Plan
from tests.core.world import app_archive, assert_all_whole, assert_nothing_left, bury, paths
from tests.lab.faults import small_disk
from tests.lab.s3 import LabS3

LAYOUTS = pytest.mark.parametrize("layout", ["archive", "layers"])
MEGABYTE = 1024 * 1024


@pytest.fixture
def on_s3(atomic_s3: LabS3, tmp_path: Path) -> Storage:
    """An empty storage on an S3 server."""
    url = f"s3://{atomic_s3.bucket}/{tmp_path.name}"
    return storage_from_url(url, key="test", secret="test", endpoint_url=atomic_s3.endpoint_url)


@LAYOUTS
def test_from_disk_to_s3_and_on_to_a_third_site(layout: str, on_s3: Storage, tmp_path: Path) -> None:
    """Every backup is there, and nothing else; the third site needs no more than the second one."""
    there = Copies(layout, source=LocalStorage(tmp_path / "source"), target=on_s3).fill()
    assert there.states() == ["copied"] * 3
    there.assert_same()
    assert_nothing_left(there.repository)
    assert paths(on_s3, prefix="staging") == paths(on_s3, prefix="pins") == set()
    assert there.states() == ["already"] * 3
    third = Copies(layout, source=on_s3, target=LocalStorage(tmp_path / "third"), clock=there.clock)
    assert third.states() == ["copied"] * 3
    third.assert_same()


@LAYOUTS
def test_a_copy_into_s3_that_died_goes_on(layout: str, on_s3: Storage, tmp_path: Path) -> None:
    """Right before the first record, with all bytes stored: the next run commits it."""
    made = Copies(layout, source=LocalStorage(tmp_path / "source"), target=on_s3).fill()
    counting = Plan()
    made.anew().run(target=FaultyStorage(made.anew().target, counting))
    first_record = next(n for n, call in enumerate(counting.calls, start=1) if call.endswith("/backup.json"))
    with pytest.raises(Death):
        made.run(target=FaultyStorage(on_s3, Plan(first_record, Fault.DEATH)))
    bury()
    assert made.repository.catalog.backups() == []
    assert made.run().failed == ()
    made.assert_same()


@LAYOUTS
def test_a_full_disk_ends_the_copy_with_advice_and_the_next_one_goes_on(layout: str, tmp_path: Path) -> None:
    """What was copied before stays, what did not fit leaves nothing that takes space but layers that are whole."""
    made = Copies(layout, source=LocalStorage(tmp_path / "source"))
    for run in range(1, 4):
        made.world.host.add_archive(app_archive(f"v{run}", config={"Env": [f"FILL={_incompressible(run)}"]}))
        made.world.backup(run)
    with small_disk(4 * MEGABYTE) as disk:
        made.target = LocalStorage(disk / "repository")
        with pytest.raises(TransientError, match="No space left"):
            made.run()
        (told,) = made.events("copy.failed")
        assert "No space left" in told.object["problem"]
        whole = assert_all_whole(made.repository)
        assert 0 < len(whole) < 3
        assert_nothing_left(made.repository)
        with pytest.raises(TransientError, match="No space left"):
            made.run()
        assert [each.path for each in assert_all_whole(made.repository)] == [each.path for each in whole]
    made.target = LocalStorage(tmp_path / "larger")
    assert made.states() == ["copied"] * 3
    made.assert_same()


def _incompressible(seed: int) -> str:
    """Return 1.5 MB of text that no compression makes smaller than half."""
    return Random(seed).randbytes(MEGABYTE * 3 // 4).hex()  # noqa: S311 - no secret
