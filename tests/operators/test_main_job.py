# SPDX-License-Identifier: Apache-2.0
"""The main job against real Docker hosts over real SSH: save, export, verify, restore."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.operators.commit import DockerCommitOperator
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.list_sources import DockerListSourcesOperator
from airflow_provider_dockerbackup.operators.restore import DockerBackupRestoreOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.summary import BackupSummary
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from tests.lab.lab import Lab, LabHost
from tests.lab.s3 import LabS3
from tests.operators.context import context

pytestmark = pytest.mark.usefixtures("connections")


def save(repository: str, *, image: str = "lab/app:1", run_id: str = "run-1", **options: Any) -> BackupSummary:
    """Save an image of the first host."""
    operator = DockerSaveOperator(
        task_id="save", dockerbackup_conn_id="docker_host_1", image=image, repository=repository, **options
    )
    summary: BackupSummary = operator.execute(context(run_id=run_id, task_id="save"))
    return summary


def export(repository: str, *, run_id: str = "run-1", **options: Any) -> BackupSummary:
    """Export the lab's container."""
    operator = DockerExportOperator(
        task_id="export", dockerbackup_conn_id="docker_host_1", container="lab-app", repository=repository, **options
    )
    summary: BackupSummary = operator.execute(context(run_id=run_id, task_id="export"))
    return summary


def verify(repository: str, backup_id: str, **options: Any) -> dict[str, Any]:
    """Verify a backup, by default in a throw-away daemon."""
    operator = DockerBackupVerifyOperator(task_id="verify", backup_id=backup_id, repository=repository, **options)
    summary: dict[str, Any] = operator.execute(context(task_id="verify"))
    return summary


def restore(repository: str, backup_id: str, **options: Any) -> dict[str, Any]:
    """Restore a backup to the second host."""
    operator = DockerBackupRestoreOperator(
        task_id="restore", dockerbackup_conn_id="docker_host_2", backup_id=backup_id, repository=repository, **options
    )
    summary: dict[str, Any] = operator.execute(context(task_id="restore"))
    return summary


def image_of(host: LabHost, reference: str) -> dict[str, Any]:
    """Return what the host's daemon says of an image."""
    document: dict[str, Any] = json.loads(host.daemon.docker("image", "inspect", reference).stdout)[0]
    return document


@pytest.mark.parametrize(
    "options",
    [
        *({"compression": compression} for compression in ("none", "gzip", "zstd")),
        *({"layout": "layers", "capture": capture} for capture in ("push", "save")),
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_a_saved_image_comes_back_with_its_id_layers_and_history(
    options: dict[str, str], host: LabHost, target: LabHost, repository_url: str
) -> None:
    """What is restored has the ID, configuration, layers and history of the source, in both layouts."""
    backup = save(repository_url, **options)
    verified = verify(repository_url, backup["backup_id"])
    restored = restore(repository_url, backup["backup_id"], recorded_tags=True)
    assert backup["status"] == "committed"
    assert (verified["verification"], verified["cleanup"], verified["trust"]) == ("passed", "passed", "verified")
    assert restored["identical"]
    before, after = image_of(host, "lab/app:1"), image_of(target, "lab/app:1")
    assert after["Id"] == before["Id"]
    assert after["Config"] == before["Config"]
    assert after["RootFS"] == before["RootFS"]
    template = "{{.CreatedAt}} {{.CreatedBy}} {{.Size}} {{.Comment}}"
    histories = [
        each.daemon.docker("history", "--no-trunc", "--format", template, "lab/app:1").stdout for each in (host, target)
    ]
    assert histories[0] == histories[1]


def test_a_plain_docker_load_reads_the_uncompressed_archive(
    target: LabHost, repository_url: str, host: LabHost
) -> None:
    """An archive is exactly a docker-archive: no tool of ours is needed to load it."""
    backup = save(repository_url)
    folder = Path(repository_url.removeprefix("file://")) / backup["path"]
    archive = next(folder.glob("image-*.tar"))
    target.daemon.docker("load", input=archive.read_bytes())
    image_id = image_of(host, "lab/app:1")["Id"]
    assert image_of(target, image_id)["Id"] == image_id


@pytest.mark.parametrize("layout", ["archive", "layers"])
def test_an_exported_container_comes_back_as_one_layer_with_its_configuration(
    layout: str, host: LabHost, target: LabHost, repository_url: str
) -> None:
    """The restored image runs as the container did, although docker export knows nothing of that."""
    backup = export(repository_url, layout=layout, compression="zstd")
    assert verify(repository_url, backup["backup_id"])["trust"] == "verified"
    restore(repository_url, backup["backup_id"], tags=["restored/app:1"])
    container = json.loads(host.daemon.docker("container", "inspect", "lab-app").stdout)[0]
    image = image_of(target, "restored/app:1")
    assert image["RootFS"]["Layers"] == backup["diff_ids"]
    for key in ("Cmd", "Entrypoint", "Env", "ExposedPorts", "User", "WorkingDir", "Labels", "Volumes", "Healthcheck"):
        assert image["Config"].get(key) == container["Config"].get(key), key
    for key in ("StopSignal", "Shell", "OnBuild"):
        assert image["Config"].get(key) == container["Config"].get(key), key


@pytest.mark.parametrize(("consistency", "capture"), [("snapshot", "snapshot"), ("pause", "paused"), ("none", "crash")])
def test_an_export_leaves_the_container_running_and_nothing_behind(
    consistency: str, capture: str, host: LabHost, repository_url: str
) -> None:
    """Whatever the consistency: the container runs on, and no temporary image or container stays."""
    backup = export(repository_url, consistency=consistency)
    folder = Path(repository_url.removeprefix("file://")) / backup["path"]
    record = json.loads((folder / "backup.json").read_bytes())
    assert record["capture"] == capture
    assert (record["container"]["commit_seconds"] is not None) == (consistency == "snapshot")
    pause_seconds = record["container"]["pause_seconds"]
    assert pause_seconds is None if consistency == "none" else 0 < pause_seconds < 60
    state = host.daemon.docker("inspect", "-f", "{{.State.Status}}", "lab-app").stdout.decode().strip()
    assert state == "running"
    listed = host.daemon.docker("ps", "-a", "--format", "{{.Names}}").stdout + host.daemon.docker("images").stdout
    assert b"dockerbackup-temporary" not in listed


def test_volumes_that_are_not_covered_are_named(repository_url: str) -> None:
    """The record of a container with volumes says which paths it does not hold."""
    assert export(repository_url)["not_covered"]


@pytest.mark.parametrize("layout", ["archive", "layers"])
def test_an_unchanged_image_is_confirmed_and_a_cleared_task_returns_its_backup(
    layout: str, repository_url: str
) -> None:
    """Nothing is saved twice: not the same image, and not the same work."""
    first = save(repository_url, run_id="monday", layout=layout)
    again = save(repository_url, run_id="monday")
    tuesday = save(repository_url, run_id="tuesday")
    forced = save(repository_url, run_id="wednesday", force=True)
    assert (again["status"], again["backup_id"]) == ("already", first["backup_id"])
    assert (tuesday["status"], tuesday["backup_id"]) == ("unchanged", first["backup_id"])
    assert forced["status"] == "committed"
    assert forced["backup_id"] != first["backup_id"]


def test_an_image_is_saved_again_when_its_backup_lost_bytes(repository_url: str) -> None:
    """A confirmation counts only for a backup that is there with its recorded size."""
    first = save(repository_url, run_id="monday")
    folder = Path(repository_url.removeprefix("file://")) / first["path"]
    with next(folder.glob("image-*.tar")).open("r+b") as archive:
        archive.truncate(1000)
    assert save(repository_url, run_id="tuesday")["status"] == "committed"


@pytest.mark.parametrize("capture", ["push", "save"])
def test_a_lost_layer_is_fetched_again_for_all_backups_that_need_it(capture: str, repository_url: str) -> None:
    """In layout layers the next backup makes the first one whole as well."""
    first = save(repository_url, run_id="monday", layout="layers", capture=capture)
    root = Path(repository_url.removeprefix("file://"))
    record = json.loads((root / first["path"] / "backup.json").read_bytes())
    layer = max(record["blobs"]["layers"], key=lambda each: each["stored_size_bytes"])
    (root / "blobs/sha256" / layer["digest"][7:]).unlink()
    assert save(repository_url, run_id="tuesday", capture=capture)["status"] == "committed"
    assert verify(repository_url, first["backup_id"])["trust"] == "verified"


def test_a_commit_is_saved_with_its_message_and_author(host: LabHost, repository_url: str) -> None:
    """The history of a committed image names who committed it and why."""
    commit = DockerCommitOperator(
        task_id="commit",
        dockerbackup_conn_id="docker_host_1",
        container="lab-app",
        image="lab/nightly:1",
        message="before the upgrade; $(reboot)",
        author="Jane <jane@example.com>",
        changes=['LABEL reason="nightly backup"'],
    ).execute(context(task_id="commit"))
    try:
        backup = save(repository_url, image="lab/nightly:1")
        folder = Path(repository_url.removeprefix("file://")) / backup["path"]
        record = json.loads((folder / "backup.json").read_bytes())
        assert record["image"]["id"] == commit["image_id"]
        assert record["image"]["history"][-1]["comment"] == "before the upgrade; $(reboot)"
        assert image_of(host, "lab/nightly:1")["Config"]["Labels"]["reason"] == "nightly backup"
    finally:
        host.daemon.docker("rmi", "lab/nightly:1")


@pytest.mark.parametrize("layout", ["archive", "layers"])
def test_s3_holds_backups_like_local_disk_does(
    layout: str, s3: LabS3, target: LabHost, monkeypatch: pytest.MonkeyPatch, host: LabHost
) -> None:
    """A repository on S3, through an Airflow connection, saves, verifies and restores."""
    monkeypatch.setenv("AIRFLOW_CONN_BACKUPS", s3.airflow_connection)
    url = f"s3://{s3.new_bucket()}/docker"
    backup = save(url, repository_conn_id="backups", compression="zstd", layout=layout)
    exported = export(url, repository_conn_id="backups")
    for each in (backup, exported):
        assert verify(url, each["backup_id"], repository_conn_id="backups")["trust"] == "verified"
    restore(url, backup["backup_id"], repository_conn_id="backups", tags=["s3/app:1"])
    assert image_of(target, "s3/app:1")["Id"] == image_of(host, "lab/app:1")["Id"]


def test_a_given_test_daemon_is_left_as_it_was(lab: Lab, repository_url: str) -> None:
    """A daemon that is not ours keeps its images and tags."""
    daemon = lab.test_daemon
    listing = ("images", "-a", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
    before = sorted(daemon.docker(*listing).stdout.splitlines())
    backup = save(repository_url)
    assert verify(repository_url, backup["backup_id"], test_daemon=daemon.docker_host)["trust"] == "verified"
    assert sorted(daemon.docker(*listing).stdout.splitlines()) == before


def test_a_restore_drill_runs_what_was_backed_up(repository_url: str) -> None:
    """Image and container start confined in an empty daemon; the image's own HEALTHCHECK, a probe or uptime decide."""
    saved, exported = save(repository_url), export(repository_url)
    for backup in (saved, exported):
        done = verify(repository_url, backup["backup_id"], level="run")
        assert (done["passed_by"], done["trust"], done["cleanup"]) == ("healthcheck", "verified", "passed")
        assert done["restore_seconds"] > 0
    probed = verify(repository_url, saved["backup_id"], level="run", drill={"probe": ["/bin/busybox", "true"]})
    assert probed["passed_by"] == "probe"
    with pytest.raises(AirflowFailException, match="the probe did not exit with 0"):
        verify(
            repository_url,
            saved["backup_id"],
            level="run",
            drill={"probe": ["/bin/busybox", "false"], "deadline_seconds": 6},
        )


def test_a_given_daemon_is_clean_after_a_drill(lab: Lab, repository_url: str) -> None:
    """No container, volume or image of the drill stays there."""
    daemon = lab.test_daemon
    listings = (("ps", "-aq"), ("volume", "ls", "-q"), ("images", "-aq"))
    before = [sorted(daemon.docker(*listing).stdout.split()) for listing in listings]
    backup = save(repository_url)
    done = verify(repository_url, backup["backup_id"], level="run", test_daemon=daemon.docker_host)
    assert (done["trust"], done["cleanup"]) == ("verified", "passed")
    assert [sorted(daemon.docker(*listing).stdout.split()) for listing in listings] == before


def test_the_sources_own_daemon_is_refused_for_verification(host: LabHost, repository_url: str) -> None:
    """Loading into the daemon an image came from proves nothing: it reads no layer it already has."""
    backup = save(repository_url)
    with pytest.raises(AirflowFailException, match=r"is the daemon that backup .* was taken from"):
        verify(repository_url, backup["backup_id"], test_daemon=host.daemon.docker_host)


def test_a_damaged_backup_fails_its_verification_and_is_not_confirmed_again(repository_url: str) -> None:
    """One flipped bit in a layer is found, recorded, and makes the next run save again."""
    first = save(repository_url, run_id="monday")
    folder = Path(repository_url.removeprefix("file://")) / first["path"]
    with next(folder.glob("image-*.tar")).open("r+b") as archive:
        archive.seek(70_000)
        byte = archive.read(1)
        archive.seek(70_000)
        archive.write(bytes([byte[0] ^ 1]))
    for level in ("digests", "load"):
        with pytest.raises(AirflowFailException, match="IntegrityError"):
            verify(repository_url, first["backup_id"], level=level)
    assert save(repository_url, run_id="tuesday")["status"] == "committed"


def test_a_restore_takes_no_tag_from_another_image_unless_asked(target: LabHost, repository_url: str) -> None:
    """A tag in use is refused; taken over on request, the image it stood for stays reachable."""
    target.daemon.docker("import", "-", "lab/app:1", input=bytes(10240))
    other = image_of(target, "lab/app:1")["Id"]
    backup = save(repository_url)
    with pytest.raises(AirflowFailException, match="stands for another image"):
        restore(repository_url, backup["backup_id"], tags=["lab/app:1"])
    assert image_of(target, "lab/app:1")["Id"] == other
    restored = restore(repository_url, backup["backup_id"], tags=["lab/app:1"], replace_tags=True)
    assert image_of(target, restored["kept"]["lab/app:1"])["Id"] == other
    assert image_of(target, "lab/app:1")["Id"] == restored["image_id"] != other


def test_a_dry_run_of_a_restore_touches_nothing(target: LabHost, repository_url: str) -> None:
    """A dry run says what it would do, and the target stays empty."""
    backup = save(repository_url)
    planned = restore(repository_url, backup["backup_id"], plan_only=True)
    assert planned["tags"] == [f"dockerbackup-restored:{backup['backup_id']}"]
    assert target.daemon.docker("images", "-q").stdout == b""


def test_a_plain_import_stays_available(target: LabHost, repository_url: str) -> None:
    """Restored with docker import, a container's filesystem has one layer, no history and no configuration."""
    backup = export(repository_url)
    restored = restore(repository_url, backup["backup_id"], tags=["flat/app:1"], method="import")
    image = image_of(target, "flat/app:1")
    assert image["RootFS"]["Layers"] == backup["diff_ids"]
    assert not image["Config"].get("Cmd")
    assert not restored["identical"]


def test_sources_are_listed_by_kind_label_name_and_state(host: LabHost) -> None:
    """What is listed is what matches, sorted, and an empty answer is an error unless it may be."""

    def listed(**options: Any) -> list[str]:
        operator = DockerListSourcesOperator(task_id="list", dockerbackup_conn_id="docker_host_1", **options)
        found: list[str] = operator.execute(context(task_id="list"))
        return found

    names = ["lab/[abc]*"]
    assert listed(kind="image", names=names) == ["lab/app:1", "lab/base:1", "lab/committed:1"]
    assert listed(kind="image", names=names, exclude=["*/base:*"]) == ["lab/app:1", "lab/committed:1"]
    assert listed(kind="container", states=["running"]) == ["lab-app"]
    assert listed(kind="container", labels=["no.such.label"], allow_empty=True) == []
    with pytest.raises(AirflowFailException, match="allow_empty"):
        listed(kind="container", labels=["no.such.label"])
