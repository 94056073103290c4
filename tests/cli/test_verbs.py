# SPDX-License-Identifier: Apache-2.0
"""The console script, run as a program against real Docker hosts, without Airflow."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from tests.lab.lab import LabHost
from tests.lab.s3 import LabS3
from tests.operators.context import context

PROGRAM = Path(sys.executable).parent / "dockerbackup"


def run(
    *arguments: str, check: bool = True, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run ``dockerbackup`` with its output captured."""
    done = subprocess.run(
        [PROGRAM, *arguments], env={**os.environ, **(environment or {})}, capture_output=True, check=False, timeout=120
    )
    assert not check or done.returncode == 0, done.stderr.decode()
    return done


@pytest.fixture
def repository(connections: None, tmp_path: Path) -> str:
    """A repository with a saved image and an exported container."""
    url = f"file://{tmp_path}/repository"
    save = DockerSaveOperator(task_id="save", dockerbackup_conn_id="docker_host_1", image="lab/app:1", repository=url)
    save.execute(context(task_id="save"))
    export = DockerExportOperator(
        task_id="export", dockerbackup_conn_id="docker_host_1", container="lab-app", repository=url, compression="zstd"
    )
    export.execute(context(task_id="export"))
    return url


def ids(repository: str) -> dict[str, str]:
    """Return the backup id of each source in a repository."""
    listed: list[dict[str, Any]] = json.loads(run("list", "-r", repository, "--json").stdout)
    return {each["source"]: each["backup_id"] for each in listed}


def test_sources_shows_images_with_size_and_containers_with_state(host: LabHost) -> None:
    """What is there to back up on a host, as a table and as JSON."""
    options = ("--host", host.name, "--ssh-config", str(host.ssh_config_path))
    table = run("sources", *options).stdout.decode()
    assert "lab/app:1" in table
    assert " MB" in table
    assert "running" in table
    document = json.loads(run("sources", *options, "--json").stdout)
    assert {"lab/app:1", "lab/base:1"} <= {each["reference"] for each in document["images"]}
    assert [(each["name"], each["state"]) for each in document["containers"]] == [("lab-app", "running")]


def test_list_and_show_tell_what_is_there_without_values_of_the_configuration(repository: str) -> None:
    """The catalog names every backup; its details name configuration keys, and never a value."""
    table = run("list", "--repository", repository).stdout.decode()
    assert "lab/app:1" in table
    assert "not verified" in table
    for backup_id in ids(repository).values():
        shown = run("show", backup_id[:30], environment={"DOCKERBACKUP_REPOSITORY": repository}).stdout.decode()
        assert backup_id in shown
        assert "Env.PATH" in shown
        assert "/usr/sbin:/usr/bin" not in shown
        document = json.loads(run("show", backup_id, "-r", repository, "--json").stdout)
        assert document["record"]["backup_id"] == backup_id


def test_cat_gives_what_docker_load_takes(repository: str, target: LabHost) -> None:
    """An image and a container's filesystem both load from standard output, under the tag asked for."""
    for source, backup_id in ids(repository).items():
        stream = run("cat", backup_id, "-r", repository, "--tag", "from/cat:1").stdout
        assert b"from/cat:1" in target.daemon.docker("load", input=stream).stdout, source


def test_cat_gives_a_containers_plain_filesystem(repository: str) -> None:
    """With --filesystem the tar is the one that docker export wrote."""
    stream = run("cat", ids(repository)["lab-app"], "-r", repository, "--filesystem").stdout
    with tarfile.open(fileobj=BytesIO(stream)) as tar:
        assert "etc/" in {name + "/" for name in tar.getnames()}


def test_cat_of_a_damaged_backup_withholds_the_end_and_exits_with_5(repository: str, target: LabHost) -> None:
    """Nothing loads what cat gives of a damaged archive."""
    archive = next(Path(repository.removeprefix("file://")).glob("backups/*/*/*/image-*.tar"))
    data = bytearray(archive.read_bytes())
    data[50_000] ^= 1
    archive.write_bytes(data)
    done = run("cat", ids(repository)["lab/app:1"], "-r", repository, check=False)
    assert done.returncode == 5
    assert b"dockerbackup:" in done.stderr
    assert target.daemon.docker("load", input=done.stdout, check=False).returncode != 0


def test_restore_brings_an_image_back_and_a_dry_run_only_says_so(repository: str, target: LabHost) -> None:
    """The same command with and without --dry-run."""
    options = ("-r", repository, "--host", target.name, "-F", str(target.ssh_config_path), "--recorded-tags")
    backup_id = ids(repository)["lab/app:1"]
    assert b"would restore" in run("restore", backup_id, *options, "--dry-run").stdout
    assert target.daemon.docker("images", "-q").stdout == b""
    assert b"equal to the recorded ones" in run("restore", backup_id, *options).stdout
    assert target.daemon.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout == b"lab/app:1\n"


def test_probe_tells_whether_a_storage_is_safe(tmp_path: Path, s3: LabS3) -> None:
    """Local disk and S3 pass, leave nothing behind, and a folder that cannot be written fails with a reason."""
    assert b"FAILED" not in run("probe", "-r", str(tmp_path)).stdout
    assert list(tmp_path.iterdir()) == []
    bucket = s3.new_bucket()
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3.endpoint_url,
    }
    report = json.loads(run("probe", "-r", f"s3://{bucket}/x", "--json", environment=environment).stdout)
    assert report["ok"], report
    file = tmp_path / "file"
    file.write_text("not a folder")
    assert run("probe", "-r", str(file), check=False).returncode != 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["list"], 2, "--repository"),
        (["list", "-r", "/no/such/repository"], 2, "create that folder"),
        (["list", "-r", "/tmp/no-such-repository"], 3, "there is no repository"),
        (["list", "-r", "gopher://x/y"], 2, "gopher"),
        (["frobnicate"], 2, "No such command"),
        (["sources", "--host", "x", "--docker-command", "rm -rf /"], 2, "not accepted"),
        (["sources", "--host", "x", "--docker-socket", "tcp://1.2.3.4:2375"], 2, "unix://"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_usage_says_what_to_do(arguments: list[str], code: int, says: str) -> None:
    """Each kind of failure has its exit code and a message on standard error, never a traceback."""
    done = run(*arguments, check=False)
    assert done.returncode == code, done.stderr.decode()
    assert says in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_an_unknown_backup_and_an_unreachable_host_have_their_exit_codes(repository: str, tmp_path: Path) -> None:
    """Not found is 3, a host out of reach is 4."""
    assert run("show", "2020", "-r", repository, check=False).returncode == 3
    config = tmp_path / "ssh_config"
    config.write_text("Host nowhere\n  HostName 127.0.0.1\n  Port 1\n")
    done = run("sources", "--host", "nowhere", "-F", str(config), check=False)
    assert done.returncode == 4
    assert b"Traceback" not in done.stderr


def test_the_console_script_never_imports_airflow() -> None:
    """Restoring must work on a machine where Airflow is broken or not there."""
    code = (
        "import sys; sys.modules['airflow'] = None; "
        "from airflow_provider_dockerbackup.cli.main import cli; cli.main(['--help'], standalone_mode=False)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "restore" in done.stdout


def test_history_is_that_of_the_daemon_line_by_line(host: LabHost, repository: str) -> None:
    """With --no-trunc: the daemon's own output, but for the time that went by; and its JSON names each layer."""
    expected = host.daemon.docker("history", "--no-trunc", "lab/app:1").stdout.decode().splitlines()
    backup_id = ids(repository)["lab/app:1"]
    found = run("history", backup_id, "--no-trunc", "-r", repository).stdout.decode().splitlines()
    assert [_words(line) for line in found[:2]] == [_words(line) for line in expected[:2]]
    # The daemon may still have images of single steps; no archive has them.
    assert [["<missing>", *_words(line)[1:]] for line in expected[2:]] == [_words(line) for line in found[2:]]
    assert len(found) > 3
    form = "{{.CreatedBy}}|{{.Comment}}"
    lines = host.daemon.docker("history", "--no-trunc", "--format", form, "lab/app:1").stdout.decode().splitlines()
    steps = json.loads(run("history", backup_id, "--json", "-r", repository).stdout)
    assert [f"{step['created_by']}|{step['comment']}" for step in steps] == lines
    assert run("history", ids(repository)["lab-app"], "-r", repository, check=False).returncode == 2


def _words(line: str) -> list[str]:
    """Return the columns of a line, without the time that went by."""
    image, _, *rest = re.split(r" {2,}", line.rstrip())
    return [image, *rest]


def test_tree_draws_layers_and_says_what_is_shared(repository: str) -> None:
    """One backup shares with none; all of its layers are its own."""
    drawn = run("tree", "-r", repository).stdout.decode()
    assert f": lab/app:1 of host-1 ({ids(repository)['lab/app:1']})" in drawn
    document = json.loads(run("tree", "-r", repository, "--json").stdout)
    (image,) = document["images"]
    assert image["shared_bytes"] == 0
    assert image["own_bytes"] == image["virtual_size_bytes"] == document["size_bytes"] > 0
    assert [layer["depth"] for layer in document["layers"]] == list(range(image["layers"]))
    assert drawn.count("└─") == image["layers"]


def test_files_lists_and_extracts_what_the_container_has(host: LabHost, repository: str, tmp_path: Path) -> None:
    """A file comes out as it is in the container; a second time it is not overwritten; images are refused."""
    backup_id, out = ids(repository)["lab-app"], tmp_path / "out"
    assert "/etc" in run("files", backup_id, "-r", repository).stdout.decode()
    listed = json.loads(run("files", backup_id, "/etc/*", "--json", "-r", repository).stdout)
    path = next(each["path"] for each in listed if each["kind"] == "file" and each["size_bytes"])
    take = ("files", backup_id, path, "--extract", str(out), "-r", repository)
    assert b"wrote 1 files" in run(*take).stdout
    expected = host.daemon.docker("exec", "lab-app", "cat", path).stdout
    assert (out / path.lstrip("/")).read_bytes() == expected
    assert run(*take, check=False).returncode == 6
    assert json.loads(run(*take, "--overwrite", "--json").stdout)["paths"] == [path.lstrip("/")]
    assert run("files", ids(repository)["lab/app:1"], "-r", repository, check=False).returncode == 2
    assert run("files", backup_id, "--extract", str(out), "-r", repository, check=False).returncode == 2
