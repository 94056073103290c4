# SPDX-License-Identifier: Apache-2.0
"""Conversion between the storages that are supported: a local disk, and a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.conversion.making import Conversion
from tests.core.faults import Death, Fault, FaultyStorage, Plan
from tests.core.world import assert_nothing_left, bury, paths
from tests.lab.s3 import LabS3


@pytest.fixture
def on_s3(atomic_s3: LabS3, tmp_path: Path) -> Storage:
    """An empty storage on an S3 server."""
    url = f"s3://{atomic_s3.bucket}/{tmp_path.name}"
    return storage_from_url(url, key="test", secret="test", endpoint_url=atomic_s3.endpoint_url)


def test_from_disk_to_s3_and_back_to_disk(on_s3: Storage, tmp_path: Path) -> None:
    """Layout layers on S3 between two of layout archive: every backup is there, and nothing else."""
    there = Conversion(source=LocalStorage(tmp_path / "source"), target=on_s3)
    there.fill()
    assert there.run().failed == ()
    there.assert_same()
    assert_nothing_left(there.repository)
    assert paths(on_s3, prefix="staging") == paths(on_s3, prefix="pins") == set()
    back = there.back()
    back.target = LocalStorage(tmp_path / "target")
    assert back.run().failed == ()
    back.assert_same()


def test_a_conversion_into_s3_that_died_goes_on(on_s3: Storage, tmp_path: Path) -> None:
    """At a call in the middle, with blobs stored and no record of them."""
    made = Conversion(source=LocalStorage(tmp_path / "source"), target=on_s3)
    made.fill()
    counting = Plan()
    made.anew().run(target=FaultyStorage(made.anew().target, counting))
    first_record = next(n for n, call in enumerate(counting.calls) if call.endswith("/backup.json"))
    with pytest.raises(Death):
        made.run(target=FaultyStorage(on_s3, Plan(first_record, Fault.DEATH)))
    bury()
    assert made.repository.catalog.backups() == []
    assert paths(on_s3, prefix="blobs")
    assert made.run().failed == ()
    made.assert_same()
