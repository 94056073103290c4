# SPDX-License-Identifier: Apache-2.0
"""The example DAGs: they load without a word, say what they need, and run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow 3.1 still has it in its old place
    from airflow.models.dagbag import DagBag  # type: ignore[no-redef]

from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.temporary import TEMPORARY
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.lab.images import BASE, build_base
from tests.lab.lab import Lab, LabHost

DAGS = Path(__file__).parent.parent / "dags"
IDS = sorted(path.stem for path in DAGS.glob("example_*.py"))
# Forked from one that has loaded of Airflow what each example names first, as the DAG processor does it.
LOADS = """
import os, runpy, sys
from airflow.sdk import DAG, Param
for path in sys.argv[1:]:
    if os.fork() == 0:
        runpy.run_path(path)
        found = {"paramiko", "docker", "s3fs"} & set(sys.modules)
        print(path, "imports", sorted(found), flush=True)
        break
    os.wait()
"""


@pytest.fixture(scope="module")
def airflow_database() -> None:
    """A migrated database for this session's Airflow."""
    subprocess.run([Path(sys.executable).parent / "airflow", "db", "migrate"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def bag() -> DagBag:
    """All example DAGs, as Airflow loads them."""
    return DagBag(dag_folder=str(DAGS))


def run(bag: DagBag, dag_id: str, **conf: Any) -> str:
    """Run a DAG as ``airflow dags test`` does and return its final state."""
    dag: Any = bag.dags[dag_id]
    return str(dag.test(run_conf=conf).state)


def images_of(host: LabHost) -> set[str]:
    """Return tags and IDs of a host's images, without what a killed export left for the next one to remove.

    A set: Docker lists images of the same second in any order.
    """
    listed = host.daemon.docker("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout
    return {line for line in listed.decode().splitlines() if not line.startswith(TEMPORARY)}


def test_every_example_loads_without_errors_and_explains_itself(bag: DagBag) -> None:
    """Each file is one DAG of that name, documented, tagged, without catch-up."""
    assert bag.import_errors == {}
    assert sorted(bag.dags) == IDS
    for dag in bag.dags.values():
        assert dag.doc_md
        assert "example" in dag.tags
        assert not dag.catchup


@pytest.mark.parametrize("name", IDS)
def test_an_example_is_read_on_one_screen(name: str) -> None:
    """Below its explanation each has fewer than 60 lines, empty ones left out."""
    _, explanation, code = (DAGS / f"{name}.py").read_text(encoding="utf-8").split('"""', 2)
    assert explanation.startswith("### ")
    assert sum(bool(line.strip()) for line in code.splitlines()) < 60


@pytest.fixture(scope="module")
def loaded() -> subprocess.CompletedProcess[str]:
    """Each example loaded in a process of its own; a line for each, with what it loaded that only tasks need."""
    files = [str(DAGS / f"{name}.py") for name in IDS]
    return subprocess.run([sys.executable, "-c", LOADS, *files], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", IDS)
def test_loading_an_example_needs_no_ssh_and_no_docker_library(
    loaded: subprocess.CompletedProcess[str], name: str
) -> None:
    """The DAG processor loads every file often: parsing must not import what only tasks need."""
    assert f"{DAGS / name}.py imports []" in loaded.stdout.splitlines(), loaded.stdout + loaded.stderr


@pytest.mark.usefixtures("airflow_database", "connections")
def test_the_examples_back_up_verify_and_restore(bag: DagBag, host: LabHost, tmp_path: Path) -> None:
    """Run one after the other on a real Docker host, they leave verified backups, and the restore is a dry run."""
    repository = f"file://{tmp_path}/repository"
    before = images_of(host)
    names = ["lab/app:1", "lab/base:1", "lab/committed:1"]
    assert run(bag, "example_dockerbackup_images", repository=repository, names=names) == "success"
    conf: dict[str, Any] = {"repository": repository, "container": "lab-app"}
    quiet = {"before": ["/bin/busybox", "touch", "/tmp/quiet"], "after": ["/bin/busybox", "rm", "/tmp/quiet"]}
    assert run(bag, "example_dockerbackup_container", **conf, **quiet) == "success"
    backups = Repository.open(storage_from_url(repository), clock=SystemClock()).catalog.backups()
    host.daemon.docker("rmi", "backup/lab-app:nightly")
    assert sorted((each.source.name, each.trust) for each in backups) == [
        ("backup/lab-app:nightly", "verified"),
        ("lab-app", "verified"),
        ("lab/app:1", "verified"),
        ("lab/base:1", "verified"),
        ("lab/committed:1", "verified"),
    ]
    assert run(bag, "example_dockerbackup_drill", repository=repository, oldest=2, run=["lab/app:*"]) == "success"
    drilled = Repository.open(storage_from_url(repository), clock=SystemClock()).catalog.backups()
    assert sum(len(each.verifications) for each in drilled) == len(backups) + 4
    assert {each.whole().consistency for each in backups if each.source.name == "lab-app"} == {"quiesced"}
    assert run(bag, "example_dockerbackup_images", repository=repository, names=["lab/app:1"]) == "success"
    conf = {"repository": repository, "policy": {"keep_last": 1}}
    assert run(bag, "example_dockerbackup_rotate", **conf, plan_only=True) == "success"
    assert run(bag, "example_dockerbackup_rotate", **conf) == "success"
    rotated = Repository.open(storage_from_url(repository), clock=SystemClock())
    assert len(rotated.catalog.backups()) == len(backups), "one backup of each source, all of them the newest verified"
    assert {each.path for each in rotated.storage.list("audit/checkpoints")} == {
        f"audit/checkpoints/{number:08d}.json" for number in (1, 2)
    }
    conf = {"repository": repository, "hosts": ["dockerbackup_default"], "output": str(tmp_path / "report")}
    assert run(bag, "example_dockerbackup_audit", **conf) == "success"
    assert {each.name for each in (tmp_path / "report").iterdir()} == {"report.html", "report.json", "report.csv"}
    conf["fail_on"] = ["BACKUP_RECOVERY_POINT_ENCRYPTED"]
    assert run(bag, "example_dockerbackup_audit", **conf) == "failed"
    conf = {"repository": repository, "backup_id": backups[0].backup_id}
    assert run(bag, "example_dockerbackup_restore", **conf) == "success"
    assert images_of(host) == before


@pytest.mark.usefixtures("airflow_database", "connections")
def test_the_layers_example_stores_each_layer_once_and_collects_nothing_that_is_needed(
    bag: DagBag, host: LabHost, tmp_path: Path
) -> None:
    """Images that share a base share its blob; a second run confirms them."""
    before = images_of(host)
    repository = f"file://{tmp_path}/repository"
    for _ in range(2):
        conf = {"repository": repository, "names": ["lab/base:1", "lab/app:1"]}
        assert run(bag, "example_dockerbackup_layers", **conf) == "success"
    opened = Repository.open(storage_from_url(repository), clock=SystemClock())
    backups = {each.source.name: each for each in opened.catalog.backups()}
    assert sorted(backups) == ["lab/app:1", "lab/base:1"]
    base, app = (backups[name].whole().blobs for name in ("lab/base:1", "lab/app:1"))
    assert base is not None
    assert app is not None
    assert {each.digest for each in base.layers} < {each.digest for each in app.layers}
    assert all(each.complete and each.confirmations for each in backups.values())
    assert images_of(host) == before


@pytest.mark.usefixtures("airflow_database", "connections")
def test_the_fleet_example_backs_up_what_it_reaches_and_names_what_it_does_not(
    bag: DagBag, lab: Lab, tmp_path: Path
) -> None:
    """A host that is down and a wrong label stop nothing else; labels are no templates; then all is well."""
    repository = f"file://{tmp_path}/repository"
    conf = {"repository": repository, "hosts": ["docker_host_1", "docker_host_2"]}
    dag: Any = bag.dags["example_dockerbackup_fleet"]
    marks = {"shop": "pre=/bin/busybox touch '/tmp/{{ 6 * 7 }}'", "wiki": "schedule=soon", "mail": "schedule=1d"}
    try:
        for name, label in marks.items():
            daemon = lab.hosts[1 if name == "mail" else 0].daemon
            build_base(daemon)
            options = ("--network=none", f"--name={name}", "--label=dockerbackup.enable=true")
            daemon.docker("run", "-d", *options, f"--label=dockerbackup.{label}", BASE, "/bin/busybox", "sleep", "600")
        lab.hosts[1].stop_sshd()
        ended = dag.test(run_conf=conf)
        assert str(ended.state) == "failed"
        states = {each.rendered_map_index or each.task_id: str(each.state) for each in ended.get_task_instances()}
        assert states == {
            "list_due": "success",
            "host-1: shop": "success",
            "host-1: wiki": "failed",
            "check_freshness": "failed",
        }
        (backup,) = Repository.open(storage_from_url(repository), clock=SystemClock()).catalog.backups()
        assert backup.source.name == "shop"
        listed = lab.hosts[0].daemon.docker("exec", "shop", "/bin/busybox", "ls", "/tmp").stdout
        assert listed == b"{{ 6 * 7 }}\n"
        lab.hosts[1].start_sshd()
        lab.hosts[0].daemon.docker("rm", "-f", "wiki")
        assert run(bag, "example_dockerbackup_fleet", **conf) == "success"
    finally:
        lab.hosts[1].start_sshd()
        for host in lab.hosts:
            host.daemon.docker("rm", "-f", *marks, check=False)
        lab.hosts[1].daemon.docker("rmi", BASE, check=False)


@pytest.mark.usefixtures("airflow_database", "connections")
def test_the_on_host_example_defers_and_leaves_verified_archives_on_the_host(
    bag: DagBag, host: LabHost, tmp_path: Path
) -> None:
    """Real triggers wait; the second run confirms what the first one saved, and the policy keeps one of each."""
    before = images_of(host)
    repository, folder = f"file://{tmp_path}/repository", tmp_path / "on the host"
    conf: dict[str, Any] = {"repository": repository, "location": f"host:{folder}", "policy": {"keep_last": 1}}
    for _ in range(2):
        assert run(bag, "example_dockerbackup_on_host", **conf, names=["lab/base:1", "lab/app:1"]) == "success"
    backups = Repository.open(storage_from_url(repository), clock=SystemClock()).catalog.backups()
    assert sorted((each.source.name, each.trust) for each in backups) == [
        ("lab/app:1", "verified"),
        ("lab/base:1", "verified"),
    ]
    assert all(each.confirmations for each in backups)
    assert sorted(str(path) for path in folder.iterdir()) == sorted(str(each.whole().path_on_host) for each in backups)
    assert images_of(host) == before


@pytest.mark.usefixtures("airflow_database", "connections")
def test_the_rollback_and_remove_examples_plan_first_and_act_when_told(
    bag: DagBag, host: LabHost, tmp_path: Path
) -> None:
    """As a user does it in the trigger form: a dry run by default, then for good; and back to a step."""
    repository, tag = f"file://{tmp_path}/repository", "lab-rollback/app:1"
    try:
        host.daemon.docker("tag", "lab/app:1", tag)
        old = host.daemon.docker("inspect", "--format", "{{.Id}}", tag).stdout
        assert run(bag, "example_dockerbackup_images", repository=repository, names=[tag]) == "success"
        host.daemon.docker("tag", "lab/base:1", tag)
        before = images_of(host)
        conf = {"repository": repository, "tag": tag}
        assert run(bag, "example_dockerbackup_rollback", **conf) == "success"
        assert images_of(host) == before
        assert run(bag, "example_dockerbackup_rollback", **conf, dry_run=False) == "success"
        assert host.daemon.docker("inspect", "--format", "{{.Id}}", tag).stdout == old
        (backup,) = Repository.open(storage_from_url(repository), clock=SystemClock()).catalog.backups()
        step: dict[str, Any] = {"backup_id": backup.backup_id, "step": 1, "prove": "load", "dry_run": False}
        assert run(bag, "example_dockerbackup_rollback", **conf, **step) == "success"
        layers = host.daemon.docker("inspect", "--format", "{{len .RootFS.Layers}}", tag).stdout
        assert layers.strip() == b"1"
        # The same image under a second name, so that its removal takes nothing but the name.
        host.daemon.docker("tag", "lab/app:1", tag)
        before = images_of(host)
        conf = {"repository": repository, "image": tag}
        assert run(bag, "example_dockerbackup_remove", **conf) == "success"
        assert images_of(host) == before
        assert run(bag, "example_dockerbackup_remove", **conf, dry_run=False) == "success"
        assert {line.split()[0] for line in before - images_of(host)} == {tag}
    finally:
        names = [line.split()[0] for line in images_of(host) if line.startswith("lab-rollback/")]
        host.daemon.docker("rmi", *names, check=False)
