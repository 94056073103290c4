# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.gc.collect import GcRequest, collect_garbage
from tests.core.encryption.keys import age_pair
from tests.core.world import Notes
from tests.faults.bench import FAULTY, IMAGE, Bench, connect, unharmed
from tests.faults.gate import Gate
from tests.faults.worker import Worker
from tests.lab.lab import LabHost
from tests.lab.processes import wait_until
from tests.lab.s3 import LabS3

MIDDLE_BYTES = 16_000_000


def partial_bytes(bench: Bench) -> int:
    """How many bytes unfinished files have, locally."""
    root = Path(bench.url.removeprefix("file://"))
    return sum(path.stat().st_size for path in root.rglob("*.partial"))


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_next_try_commits_one_backup_when_a_worker_was_killed_in_the_middle_of_a_save(
    compression: str, bench: Bench, gate: Gate, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the dead worker left is seen for what it is at once, by its lock, and removed; nothing of it is adopted."""
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=gate.docker(after_bytes=MIDDLE_BYTES))
    before = bench.backup_ids
    options = bench.options(docker=FAULTY, image=IMAGE, force=True, compression=compression)
    with Worker("save", run_id="killed", **options) as worker:
        gate.wait()
        assert wait_until(lambda: partial_bytes(bench) > 1_000_000, seconds=10)
        worker.kill()
    gate.open()
    assert bench.backup_ids == before
    assert bench.leftovers()
    summary = bench.save(run_id="killed", compression=compression)
    assert summary["status"] == "committed"
    unharmed(bench, before | {summary["backup_id"]})
    assert len(bench.backup_ids) == len(before) + 1


@pytest.mark.parametrize("layout", ["archive", "layers"])
def test_a_worker_killed_while_it_encrypts_leaves_nothing_that_counts(
    layout: str, gate: Gate, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try commits one backup, which a private key reads to its end."""
    connect(monkeypatch, host)
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=gate.docker(after_bytes=MIDDLE_BYTES))
    pairs = age_pair(), age_pair()
    key = tmp_path / "key"
    key.write_bytes(pairs[1].private)
    key.chmod(0o600)
    monkeypatch.setenv("AIRFLOW__DOCKERBACKUP__IDENTITY_FILE", str(key))
    bench = Bench(f"file://{tmp_path}/encrypted")
    options: dict[str, Any] = {"layout": layout, "capture": "save", "recipients": [pair.public for pair in pairs]}
    with Worker("save", run_id="killed", **bench.options(docker=FAULTY, image=IMAGE, force=True, **options)) as worker:
        gate.wait()
        # zstd with several threads, as layers are compressed, holds some megabytes back.
        assert layout == "layers" or wait_until(lambda: partial_bytes(bench) > 1_000_000, seconds=20)
        worker.kill()
    gate.open()
    assert bench.backup_ids == set()
    summary = bench.save(run_id="killed", **options)
    assert summary["status"] == "committed"
    assert bench.backup_ids == {summary["backup_id"]}
    if layout == "layers":  # what was to be a blob goes with the next collection
        collect_garbage(bench.repository, GcRequest(grace_hours=0), progress=Notes())
    assert partial_bytes(bench) == 0
    assert bench.verify(summary["backup_id"])["verification"] == "passed"


def test_files_of_a_live_worker_stay_when_another_run_reaps(
    bench: Bench, gate: Gate, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cleaning up after the dead harms no one alive: both runs commit."""
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=gate.docker(after_bytes=MIDDLE_BYTES))
    before = bench.backup_ids
    with Worker("save", run_id="slow", **bench.options(docker=FAULTY, image=IMAGE, force=True)) as worker:
        gate.wait()
        fast = bench.save(run_id="fast")
        gate.open()
        slow = worker.result()
    assert (fast["status"], slow["status"]) == ("committed", "committed")
    unharmed(bench, before | {fast["backup_id"], slow["backup_id"]})


def test_no_object_is_visible_when_a_worker_was_killed_in_the_middle_of_a_save_to_s3(
    s3: LabS3, gate: Gate, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that was not completed is no object; the next try commits, and the upload goes once it is old."""
    monkeypatch.setenv("AIRFLOW_CONN_BACKUPS", s3.airflow_connection)
    connect(monkeypatch, host)
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=gate.docker(after_bytes=23_000_000))
    bench = Bench(f"s3://{s3.new_bucket()}/docker", conn_id="backups")
    with Worker("save", run_id="killed", **bench.options(docker=FAULTY, image=IMAGE)) as worker:
        gate.wait()
        storage = bench.repository.storage
        assert wait_until(lambda: uploads(s3, bench) == 1, seconds=10)
        worker.kill()
    gate.open()
    assert {path for path in (info.path for info in storage.list("")) if not path.startswith("audit/")} == {
        "repository.json"
    }
    summary = bench.save(run_id="killed")
    assert summary["status"] == "committed"
    unharmed(bench, {summary["backup_id"]})
    # Nobody can tell a dead uploader from a slow one, so the next try left it alone.
    assert uploads(s3, bench) == 1
    assert storage.reap("", older_than_seconds=24 * 3600) == ()
    assert wait_until(lambda: len(storage.reap("", older_than_seconds=0)) == 1, seconds=5, interval=0.5)
    assert uploads(s3, bench) == 0
    unharmed(bench, {summary["backup_id"]})


def uploads(s3: LabS3, bench: Bench) -> int:
    """How many uploads to the bench's bucket are begun and not ended."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=s3.storage_options["key"],
        aws_secret_access_key=s3.storage_options["secret"],
    )
    listed = client.list_multipart_uploads(Bucket=bench.url.split("/")[2])
    return len(listed.get("Uploads", []))
