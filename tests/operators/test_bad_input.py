# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from docker import APIClient

from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator
from airflow_provider_dockerbackup.operators.commit import DockerCommitOperator
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.list_sources import DockerListSourcesOperator
from airflow_provider_dockerbackup.operators.remove import DockerRemoveOperator
from airflow_provider_dockerbackup.operators.restore import DockerBackupRestoreOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.stop import DockerStopOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from tests.lab.lab import Lab, LabHost
from tests.lab.mounts import unmount_under
from tests.lab.s3 import LabS3
from tests.operators.context import context

pytestmark = pytest.mark.usefixtures("connections", "untouched")

SOURCE, TARGET = "docker_host_1", "docker_host_2"


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one backup of an image."""
    path = tmp_path_factory.mktemp("standing") / "repository"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_DOCKER_HOST_1", lab.hosts[0].airflow_connection())
        save = DockerSaveOperator(task_id="save", dockerbackup_conn_id=SOURCE, image="lab/app:1", repository=f"{path}")
        save.execute(context())
    return path


@pytest.fixture
def untouched(lab: Lab, standing: Path, tmp_path: Path) -> Iterator[None]:
    """Both hosts and the standing repository are what they were, and no other repository was begun."""
    before = [*standing.rglob("*")]
    since = time.time()
    yield
    window = {"since": f"{since:.6f}", "until": f"{time.time():.6f}"}
    for host in lab.hosts:
        with closing(APIClient(base_url=host.daemon.docker_host)) as api:
            client: Any = api  # its own events() knows whole seconds only
            response = client._get(client._url("/events"), params=window)
        events = [json.loads(line)["Action"] for line in response.text.splitlines()]
        # The application's healthcheck runs all the time.
        assert [event for event in events if not event.startswith(("exec_", "health_status"))] == []
    assert [*standing.rglob("*")] == before
    assert list(tmp_path.rglob("repository.json")) == []
    assert list(tmp_path.rglob("audit")) == []


def refused(operator: DockerBackupBaseOperator, match: str) -> str:
    """See an operator refuse for good, and return why."""
    with pytest.raises(AirflowFailException, match=match) as caught:
        operator.execute(context(task_id=operator.task_id))
    return str(caught.value)


def save(repository: object, **options: Any) -> DockerSaveOperator:
    """A save that would succeed but for its options."""
    given = {"dockerbackup_conn_id": SOURCE, "image": "lab/app:1", "repository": str(repository), **options}
    return DockerSaveOperator(task_id="save", **given)


def export(repository: object, **options: Any) -> DockerExportOperator:
    """An export that would succeed but for its options."""
    given = {"dockerbackup_conn_id": SOURCE, "container": "lab-app", "repository": str(repository), **options}
    return DockerExportOperator(task_id="export", **given)


def verify(repository: object, **options: Any) -> DockerBackupVerifyOperator:
    """A verification that would succeed but for its options."""
    given = {"backup_id": "2026", "repository": str(repository), "level": "digests", **options}
    return DockerBackupVerifyOperator(task_id="verify", **given)


def restore(repository: object, **options: Any) -> DockerBackupRestoreOperator:
    """A restore that would succeed but for its options."""
    given = {"dockerbackup_conn_id": TARGET, "backup_id": "2026", "repository": str(repository), **options}
    return DockerBackupRestoreOperator(task_id="restore", **given)


def commit(_: object, **options: Any) -> DockerCommitOperator:
    """A commit that would succeed but for its options."""
    given = {"dockerbackup_conn_id": SOURCE, "container": "lab-app", "image": "lab/nightly:1", **options}
    return DockerCommitOperator(task_id="commit", **given)


def listing(_: object, **options: Any) -> DockerListSourcesOperator:
    """A listing that would succeed but for its options."""
    return DockerListSourcesOperator(task_id="list", **{"dockerbackup_conn_id": SOURCE, "kind": "image", **options})


def stop(repository: object, **options: Any) -> DockerStopOperator:
    """A stop that would succeed but for its options."""
    given = {"dockerbackup_conn_id": SOURCE, "container": "lab-app", "repository": str(repository), **options}
    return DockerStopOperator(task_id="stop", **given)


def remove(repository: object, **options: Any) -> DockerRemoveOperator:
    """A removal that would be refused even without its options: the container runs."""
    given = {"dockerbackup_conn_id": SOURCE, "repository": str(repository), **options}
    return DockerRemoveOperator(task_id="remove", **given)


Make = Callable[..., DockerBackupBaseOperator]
DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("make", "options", "match"),
    [
        (save, {"image": "no/such:1"}, r"NotFoundError: docker image inspect no/such:1 on host-1 .*docker image ls"),
        (save, {"image": f"no/such@{DIGEST}"}, r"NotFoundError: .*docker image ls"),
        (save, {"image": "Not A Reference"}, r"ConfigurationError: image reference .*write NAME"),
        (save, {"image": "a/b:1; reboot"}, r"ConfigurationError: image reference .*write NAME"),
        (save, {"image": "-o/tmp/x"}, r"ConfigurationError: image reference .*write NAME"),
        (save, {"image": ""}, r"ConfigurationError: image reference '' .*write NAME"),
        (save, {"image": "0" * 64}, r"ConfigurationError: .*bare ID; write it as sha256:"),
        (save, {"layout": "heap"}, r"ConfigurationError: .*layout.*'heap'"),
        (save, {"compression": "rar"}, r"ConfigurationError: compression: expected one of none, .* got 'rar'"),
        (save, {"compression": "zstd", "compression_level": 99}, r"ConfigurationError: .*level.*99"),
        (export, {"container": "no-such"}, r"NotFoundError: .*no-such on host-1 .*docker container ls"),
        (export, {"container": "a b"}, r"ConfigurationError: container name 'a b' .*use letters"),
        (export, {"container": "$(reboot)"}, r"ConfigurationError: container name .*use letters"),
        (export, {"consistency": "perhaps"}, r"ConfigurationError: consistency: expected .*snapshot.* got 'perhaps'"),
        (export, {"consistency": "pause", "pause_limit_seconds": 0}, r"ConfigurationError: pause_limit_seconds: .* 0"),
        (export, {"compression": "gzip", "compression_level": 10}, r"ConfigurationError: .*level.*10"),
        (commit, {"container": "no-such"}, r"NotFoundError: docker .* no-such .*docker container ls"),
        (commit, {"image": "Bad Name"}, r"ConfigurationError: image reference .*write NAME"),
        (commit, {"image": f"lab/x@{DIGEST}"}, r"ConfigurationError: image: expected NAME:TAG"),
        (commit, {"pause_limit_seconds": 0}, r"ConfigurationError: pause_limit_seconds: expected at least 1, got 0"),
        (commit, {"changes": "CMD run"}, r"ConfigurationError: changes: expected a list"),
        (listing, {"kind": "volume"}, r"ConfigurationError: kind: expected image or container, got 'volume'"),
        (listing, {"kind": "image", "names": []}, r"ConfigurationError: names: .*empty list; \['\*'\] means all"),
        (listing, {"kind": "image", "names": "*"}, r"ConfigurationError: names: expected a list"),
        (listing, {"kind": "container", "states": ["asleep"]}, r"ConfigurationError: states: .*got 'asleep'"),
        (listing, {"kind": "image", "names": ["none/*"]}, r"NotFoundError: no image on host-1 .*allow_empty=True"),
    ],
)
def test_host_and_repository_stay_untouched_when_an_argument_is_wrong(
    make: Make, options: dict[str, Any], match: str, tmp_path: Path
) -> None:
    """What cannot be done is refused before anything is begun, and the message says what would be right."""
    refused(make(tmp_path / "repository", **options), match)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "options", "match"),
    [
        (verify, {"level": "deep"}, r"ConfigurationError: level: expected one of digests, load.* got 'deep'"),
        (verify, {"backup_id": "19990101"}, r"NotFoundError: no backup '19990101' in .*dockerbackup list"),
        (verify, {"backup_id": ""}, r"NotFoundError: no backup '' in .*dockerbackup list"),
        (
            verify,
            {"level": "load", "test_daemon": "unix:///no/such.sock"},
            r"ConfigurationError: .*unix:///no/such.sock .*start that daemon",
        ),
        (
            verify,
            {"level": "load", "test_daemon": "carrier pigeon"},
            r"ConfigurationError: .*carrier pigeon.*give a URL such as unix://",
        ),
        (restore, {"backup_id": "19990101"}, r"NotFoundError: no backup '19990101' in .*dockerbackup list"),
        (restore, {"tags": "lab/app:1"}, r"ConfigurationError: tags: expected a list of NAME:TAG"),
        (restore, {"tags": ["Not A Tag"]}, r"ConfigurationError: image reference .*write NAME"),
        (restore, {"tags": ["good/one:1", "-bad"]}, r"ConfigurationError: image reference .*write NAME"),
        (restore, {"tags": [f"lab/app@{DIGEST}"]}, r"ConfigurationError: tags: expected NAME:TAG"),
        (restore, {"method": "copy"}, r"ConfigurationError: method: expected one of load, import, got 'copy'"),
        (restore, {"method": "import"}, r"ConfigurationError: method: 'import' is for containers"),
        (restore, {"replace_tags": "perhaps"}, r"ConfigurationError: replace_tags: expected true or false"),
        (restore, {"plan_only": ""}, r"ConfigurationError: plan_only: expected true or false, got ''"),
    ],
)
def test_target_stays_untouched_when_a_verification_or_restore_is_asked_for_wrongly(
    make: Make, options: dict[str, Any], match: str, standing: Path
) -> None:
    """Nothing is loaded, and no verification is recorded against the backup."""
    refused(make(standing, **options), match)


@pytest.mark.parametrize(
    ("make", "options", "match"),
    [
        (stop, {"container": "no-such"}, r"NotFoundError: .*no-such on host-1 .*docker container ls"),
        (stop, {"container": "$(reboot)"}, r"ConfigurationError: container name .*use letters"),
        (stop, {"timeout_seconds": -1}, r"ConfigurationError: timeout_seconds: expected at least 0, got -1"),
        (remove, {}, r"ConfigurationError: expected either image or container"),
        (remove, {"container": "no-such"}, r"NotFoundError: .*no-such on host-1 .*docker container ls"),
        (remove, {"container": "lab-app"}, r"ConflictError: container lab-app on host-1 is running .*stop it"),
        (remove, {"container": "-f"}, r"ConfigurationError: container name .*use letters"),
        (remove, {"image": "no/such:1"}, r"NotFoundError: docker image inspect no/such:1 .*docker image ls"),
        (remove, {"image": "--force"}, r"ConfigurationError: image reference .*write NAME"),
        (remove, {"image": f"lab/app@{DIGEST}"}, r"ConfigurationError: image: expected NAME:TAG or an ID"),
        (remove, {"image": "lab/app:1"}, r"ConflictError: image lab/app:1 on host-1 is used by container lab-app"),
        (remove, {"image": "lab/base:1"}, r"ConflictError: .*there is no backup of it; save it, verify that backup"),
        (remove, {"image": "lab/app:1", "required_level": "deep"}, r"ConfigurationError: required_level: .*'deep'"),
    ],
)
def test_host_and_repository_stay_untouched_when_a_stop_or_removal_is_refused(
    make: Make, options: dict[str, Any], match: str, standing: Path
) -> None:
    """Nothing is stopped or removed, and no event is written."""
    refused(make(standing, **options), match)


@pytest.mark.parametrize(
    ("repository", "match"),
    [
        ("", r"ConfigurationError: repository: expected a URL such as file:///srv"),
        ("backups/here", r"ConfigurationError: repository: expected an absolute path or a URL"),
        ("{tmp}/missing/repository", r"ConfigurationError: .*missing does not exist; create that folder, or mount"),
        ("{tmp}/file/repository", r"ConfigurationError: .*file.*(folder|directory)"),
        ("{tmp}/file", r"ConfigurationError: .*is not a folder; give the repository a folder of its own"),
        ("pigeon://loft/one", r"ConfigurationError: repository pigeon://loft/one"),
    ],
)
@pytest.mark.parametrize("make", [save, export, verify, restore])
def test_host_stays_untouched_when_the_repository_cannot_be(
    make: Make, repository: str, match: str, tmp_path: Path
) -> None:
    """A repository that is nowhere is found out before the host works for it."""
    (tmp_path / "file").write_text("taken", encoding="utf-8")
    refused(make(repository.replace("{tmp}", str(tmp_path))), match)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("make", [verify, restore, stop, partial(remove, container="lab-app")])
def test_no_repository_is_made_when_one_is_only_to_be_read(make: Make, tmp_path: Path) -> None:
    """A mistyped URL is told as such."""
    refused(make(tmp_path / "repository"), r"NotFoundError: there is no repository at .*or the URL is wrong")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [save, export])
def test_host_stays_untouched_when_the_repository_is_read_only(make: Make, tmp_path: Path) -> None:
    """The message says who must be let in where."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "lab-disk", str(disk)], check=True)
    try:
        refused(make(disk / "repository"), r"ConfigurationError: .*disk.*[Rr]ead-only.*let the user")
    finally:
        unmount_under(disk)


@pytest.mark.parametrize("make", [save, export])
def test_host_stays_untouched_when_the_bucket_or_its_credentials_are_wrong(
    make: Make, s3: LabS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing bucket is named; so is a connection that is missing or of a type that opens no storage."""
    monkeypatch.setenv("AIRFLOW_CONN_BACKUPS", s3.airflow_connection)
    refused(
        make("s3://no-such-bucket/docker", repository_conn_id="backups"),
        r"ConfigurationError: .*s3://no-such-bucket/docker.*there is no bucket 'no-such-bucket': create it",
    )
    refused(
        make(f"s3://{s3.bucket}/x", repository_conn_id="missing"), r"ConfigurationError: .*no connection 'missing'; add"
    )
    refused(make(f"s3://missing@{s3.bucket}/x"), r"ConfigurationError: .*no connection 'missing'; add")
    refused(
        make(f"s3://{s3.bucket}/x", repository_conn_id=SOURCE),
        rf"ConfigurationError: .*s3://.*'{SOURCE}' has type 'dockerbackup'; expected 'aws'",
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"conn_type": "http"}, r"connection odd has type 'http'; expected dockerbackup or ssh"),
        ({"host": ""}, r"connection odd names no host; set its field Host"),
        ({"docker_command": "rm -rf / ; docker"}, r"Docker command .* is not accepted; accepted are 'docker'"),
        ({"docker_command": "sudo docker"}, r"may ask for a password; write 'sudo -n docker'"),
        ({"docker_socket": "tcp://1.2.3.4:2375"}, r"Docker socket .*write unix:///"),
        ({"stall_timeout": "soon"}, r"stall_timeout: expected seconds, got 'soon'"),
        ({"deadline": -1}, r"deadline: expected seconds > 0.*, got -1"),
        ({"key_file": "/no/such/key"}, r"/no/such/key"),
        ({"host_key": "ssh-ed25519 nonsense"}, r"connection odd .*"),
    ],
)
def test_nothing_is_connected_when_the_connection_is_wrong(
    changes: dict[str, Any], match: str, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the field and what it takes."""
    connection = json.loads(host.airflow_connection())
    for name, value in changes.items():
        (connection if name in connection else connection["extra"])[name] = value
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps(connection))
    refused(save(tmp_path / "repository", dockerbackup_conn_id="odd"), rf"ConfigurationError: .*{match}")


def test_nothing_is_connected_when_there_is_no_such_connection(tmp_path: Path) -> None:
    """A connection that is not there will not be there at the next try either."""
    refused(
        save(tmp_path / "repository", dockerbackup_conn_id="nowhere"),
        r"ConfigurationError: .*no connection 'nowhere'; add",
    )


@pytest.mark.parametrize("make", [save, export, commit, listing])
def test_repository_stays_untouched_when_the_user_may_not_use_the_docker_socket(
    make: Make, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reaching the host is not enough; the message says how the user gets the right."""
    script = tmp_path / "docker"
    script.write_text('#!/bin/sh\nexec setpriv --reuid=65534 --clear-groups docker "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    host.daemon.socket_path.chmod(0o600)
    connection = json.loads(host.airflow_connection())
    connection["extra"]["docker_command"] = str(script)
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps(connection))
    refused(
        make(tmp_path / "repository", dockerbackup_conn_id="odd"),
        r"ConfigurationError: .*host-1 .*permission denied.*group 'docker'.*sudo -n docker",
    )
