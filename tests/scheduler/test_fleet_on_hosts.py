# SPDX-License-Identifier: Apache-2.0
"""The DAG of the how-to for a fleet whose archives stay on their hosts, under a real scheduler and triggerer."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.lab.images import BASE, build_base
from tests.lab.lab import Lab
from tests.scheduler.standalone import Standalone

pytestmark = pytest.mark.timeout(900)

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "keep-archives-on-the-docker-host.md"
LABELS = {"shop": "retention=keep_last=3", "wiki": "schedule=soon", "mail": "pre=/bin/busybox touch /flushed"}


@pytest.fixture
def fleet(lab: Lab) -> Iterator[Lab]:
    """Three labelled containers on two hosts; the label of one is wrong."""
    for name, label in LABELS.items():
        daemon = lab.hosts[1 if name == "mail" else 0].daemon
        build_base(daemon)
        options = ("--network=none", f"--name={name}", "--label=dockerbackup.enable=true")
        daemon.docker("run", "-d", *options, f"--label=dockerbackup.{label}", BASE, "/bin/busybox", "sleep", "600")
    yield lab
    for host in lab.hosts:
        host.daemon.docker("rm", "-f", *LABELS, check=False)
    lab.hosts[1].daemon.docker("rmi", BASE, check=False)


@pytest.fixture
def airflow(tmp_path: Path, fleet: Lab) -> Iterator[Standalone]:
    """A real Airflow with the page's DAG, its hosts and folders replaced."""
    blocks = PAGE.read_text(encoding="utf-8").split("```python\n")
    (block,) = [each.partition("```")[0] for each in blocks if "fleet_on_hosts" in each.partition("```")[0]]
    for before, after in (
        ("file:///srv/dockerbackup", f"file://{tmp_path}/repository"),
        ("host:/var/backups/docker", f"host:{tmp_path}/archives"),
        ('"web_1", "web_2"', '"docker_host_1", "docker_host_2"'),
        ('schedule="@hourly"', "schedule=None"),
    ):
        assert before in block
        block = block.replace(before, after)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "fleet.py").write_text(block, encoding="utf-8")
    with Standalone(tmp_path / "airflow", dags=tmp_path / "dags", environment=fleet.airflow_environment()) as started:
        (line,) = re.findall(r"^\$ airflow (pools set .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
        started.command(*shlex.split(line.replace(" 8 ", " 1 ")))
        yield started


def has_no_slot_while_one_waits(airflow: Standalone) -> bool:
    """Whether the pool has no slot for another capture although none is at work: one is in the triggerer."""
    pool = airflow.get("pools/dockerbackup")
    at_work = pool["running_slots"] + pool["queued_slots"]
    return (pool["deferred_slots"], at_work, pool["open_slots"]) == (1, 0, 0)


def test_what_is_due_is_kept_on_its_host_and_read_although_another_capture_fails(
    airflow: Standalone, fleet: Lab, tmp_path: Path
) -> None:
    """Each waits in the triggerer, keeps its slot, and is committed by the task that began it; then nothing is due."""
    run_id = airflow.trigger("fleet_on_hosts")
    airflow.wait(lambda: has_no_slot_while_one_waits(airflow), "a capture that waits with its slot")
    assert airflow.finished("fleet_on_hosts", run_id) == "failed", "wiki has no backup"
    repository = Repository.open(storage_from_url(f"file://{tmp_path}/repository"), clock=SystemClock())
    backups = sorted(repository.catalog.backups(), key=lambda each: each.source.name)
    assert [(each.source.host, each.source.name, each.trust) for each in backups] == [
        ("host-2", "mail", "checked"),
        ("host-1", "shop", "checked"),
    ]
    assert [(each.whole().consistency, each.whole().retention) for each in backups] == [
        ("quiesced", ""),
        ("snapshot", "keep_last=3"),
    ]
    assert {str(path) for path in (tmp_path / "archives").iterdir()} == {each.whole().path_on_host for each in backups}
    fleet.hosts[0].daemon.docker("rm", "-f", "wiki")
    run_id = airflow.trigger("fleet_on_hosts")
    assert airflow.finished("fleet_on_hosts", run_id) == "success"
    assert len(repository.catalog.backups()) == 2
