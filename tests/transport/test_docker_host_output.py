# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.model import ContainerInspect
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IncompleteError,
    IntegrityError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport import docker_output
from airflow_provider_dockerbackup.transport.docker_errors import docker_error, exec_error, exec_said
from airflow_provider_dockerbackup.transport.ssh import CommandResult

ID = "sha256:" + "a" * 64
BANNER = b"Welcome to web-1!\n[maintenance on sunday]\n{not json}\n"


@pytest.mark.parametrize("banner", [b"", BANNER])
def test_inspect_array_is_read_behind_a_banner(banner: bytes) -> None:
    """Text of shell start-up files before the output is skipped."""
    assert docker_output.json_array(banner + b'[\n    {\n        "Id": "x"\n    }\n]\n') == [{"Id": "x"}]
    assert docker_output.json_array(banner + b"[]\n") == []


def test_json_lines_are_read_behind_a_banner() -> None:
    """Likewise for one object a line, and no output is no object."""
    assert docker_output.json_lines(BANNER + b'{"a":1}\n{"a":2}\n') == [{"a": 1}, {"a": 2}]
    assert docker_output.json_lines(b"") == []


@pytest.mark.parametrize("output", [b"", b"[", BANNER, b"[1]\n", b'[{"a": 1}', b'[{"a":1}]\nbye\n', b"\xff\xfe"])
def test_unreadable_inspect_output_names_the_shell(output: bytes) -> None:
    """What cannot be read is an error that says what it may be."""
    with pytest.raises(ConfigurationError, match="the remote shell prints text before"):
        docker_output.json_array(output)


def test_secrets_of_a_cut_document_are_not_shown() -> None:
    """A document that was cut may hold secrets; only text that is no document is shown."""
    with pytest.raises(ConfigurationError) as caught:
        docker_output.json_array(b'[{"Env": ["PASSWORD=hunter2"')
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        docker_output.json_array(b'motd\n[{"Env": ["PASSWORD=hunter2"')
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("output", [b'{"a":1}\nbye\n', b"hello\n", b"[1]\n"])
def test_unreadable_json_lines_name_the_shell(output: bytes) -> None:
    """Text behind the objects, or in their place."""
    with pytest.raises(ConfigurationError, match="the remote shell"):
        docker_output.json_lines(output)


def test_ids_are_read_among_other_lines() -> None:
    """Each once, in order."""
    assert docker_output.ids(BANNER + f"{ID}\n{'b' * 64}\n{ID}\n".encode()) == (ID, "b" * 64)
    assert docker_output.last_id(BANNER + f"{ID}\n".encode()) == ID
    with pytest.raises(ConfigurationError):
        docker_output.last_id(BANNER)


def test_time_is_read_behind_a_banner() -> None:
    """Aware UTC."""
    assert docker_output.moment(BANNER + b"2026-03-04T05:06:07Z\n") == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    with pytest.raises(ConfigurationError):
        docker_output.moment(BANNER)


@pytest.mark.parametrize(
    ("printed", "epoch"),
    [
        (b"1970-01-01T00:00:00+0000\n", "1970-01-01T00:00:00Z"),
        (b"1970-01-01T00:00:00-0000\n", "1970-01-01T00:00:00Z"),
        (BANNER + b"1970-01-01T01:00:00+0100\n", "1970-01-01T01:00:00+01:00"),
        (b"1969-12-31T23:15:30-0044\n", "1969-12-31T23:15:30-00:44"),
        (b"1969-12-31T19:00:00-0500\n", "1969-12-31T19:00:00-05:00"),
        (b"date: illegal option -- d\n", "1970-01-01T00:00:00Z"),
        (b"", "1970-01-01T00:00:00Z"),
    ],
)
def test_the_time_0_in_the_hosts_time_zone_is_written_as_go_writes_it(printed: bytes, epoch: str) -> None:
    """UTC where the host does not say."""
    assert docker_output.epoch(printed) == epoch


@pytest.mark.parametrize(
    ("driver", "status", "store"),
    [
        ("overlay2", [["Backing Filesystem", "extfs"]], "graphdriver"),
        ("overlay2", None, "graphdriver"),
        ("overlayfs", [["driver-type", "io.containerd.snapshotter.v1"]], "containerd"),
        ("io.containerd.snapshotter.v1.overlayfs", [], "containerd"),
    ],
)
def test_store_is_told_by_the_drivers_status(driver: str, status: object, store: str) -> None:
    """The containerd image store shows itself only there."""
    info = {"ServerVersion": "28.5.2", "Driver": driver, "DriverStatus": status, "OSType": "linux", "ID": "x"}
    engine = docker_output.engine(version={"Server": {"ApiVersion": "1.51", "Arch": "amd64"}}, info=info)
    assert (engine.store, engine.version, engine.api_version, engine.architecture) == (store, "28.5.2", "1.51", "amd64")


def test_engine_is_refused_when_only_the_client_answered() -> None:
    """A client without a daemon prints its own version and exits with 0 in some versions."""
    with pytest.raises(DockerBackupError):
        docker_output.engine(version={"Client": {}, "Server": None}, info={})


def test_images_are_listed_once_a_tag() -> None:
    """An image without a tag stands once, under its ID; placeholders are no tags."""
    other = ID.replace("a", "b")
    documents: list[dict[str, Any]] = [
        {"Id": ID, "RepoTags": ["a:1", "a:2"], "Created": "c", "Size": 5, "Config": {"Labels": {"k": "v"}}},
        {"Id": ID, "RepoTags": ["a:1", "a:2"], "Created": "c", "Size": 5, "Config": {"Labels": {"k": "v"}}},
        {"Id": other, "RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"], "Config": None},
    ]
    listed = docker_output.image_summaries(documents)
    assert [(one.reference, one.id) for one in listed] == [("a:1", ID), ("a:2", ID), (other, other)]
    assert listed[0].labels == {"k": "v"}
    assert listed[2].labels == {}


def test_empty_steps_are_those_without_size_when_that_fits() -> None:
    """As many steps with a size as layers: nothing to guess."""
    lines = [{"CreatedBy": "CMD", "Size": "0"}, {"CreatedBy": "RUN x", "Size": "7"}, {"CreatedBy": "ADD", "Size": "9"}]
    history = docker_output.history(lines, layers=2)
    assert [(one.created_by, one.empty_layer) for one in history] == [("ADD", False), ("RUN x", False), ("CMD", True)]


def test_empty_steps_are_guessed_by_their_words_when_a_layer_has_no_size() -> None:
    """``RUN true`` makes a layer of no size; a classic or BuildKit ``CMD`` makes none."""
    steps = ["/bin/sh -c #(nop) ADD file:x in /", "/bin/sh -c #(nop)  CMD [\"x\"]", "/bin/sh -c true",
             "ENV A=b", "RUN /bin/sh -c true # buildkit", "/bin/sh -c #(nop) WORKDIR /x", "EXPOSE 80/tcp"]  # fmt: skip
    lines = [{"CreatedBy": step, "Size": "9" if "ADD" in step else "0"} for step in reversed(steps)]
    history = docker_output.history(lines, layers=4)
    assert [one.empty_layer for one in history] == [False, True, False, True, False, False, True]


def test_loaded_names_are_read_from_the_engines_words() -> None:
    """Tags and IDs, whatever stands around them."""
    said = b"abc: Loading layer\nThe image x:1 already exists, renaming the old one\nLoaded image: x:1\n"
    loaded = docker_output.loaded(said + f"Loaded image ID: {ID}\n".encode())
    assert loaded.names == ("x:1", ID)
    assert len(loaded.output) == 4


UNREACHABLE = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
DENIED = (
    "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get "
    '"http://%2Fvar%2Frun%2Fdocker.sock/v1.24/info": dial unix /var/run/docker.sock: connect: permission denied'
)
FAILURES: list[tuple[str, int, bool, type[DockerBackupError], str]] = [
    ("Error: No such image: x:1", 1, False, NotFoundError, "docker image ls"),
    ("Error response from daemon: No such image: x:1", 1, False, NotFoundError, "docker image ls"),
    ("Error response from daemon: failed to get digest sha256:00: open /d/x: no such file or directory", 1, False,
     NotFoundError, "docker image ls"),
    ("conflict: unable to delete x (cannot be forced) - image has dependent child images", 1, False, ConflictError,
     "try again"),
    ("Error response from daemon: reference does not exist", 1, False, NotFoundError, "docker image ls"),
    ("Error: No such container: web", 1, False, NotFoundError, "docker image ls"),
    ("Error response from daemon: No such container: web", 1, False, NotFoundError, "docker image ls"),
    (DENIED, 1, False, ConfigurationError, "sudo -n docker"),
    ("permission denied while trying to connect to the docker API at unix:///x", 1, False, ConfigurationError, "sudo"),
    (UNREACHABLE, 1, False, TransientError, "systemctl status docker"),
    ("failed to connect to the docker API at unix:///x; check if the path is correct", 1, False, TransientError, "run"),
    ("sudo: a password is required", 1, False, ConfigurationError, "NOPASSWD"),
    ("sudo: a terminal is required to read the password", 1, False, ConfigurationError, "NOPASSWD"),
    ("ops is not in the sudoers file.", 1, False, ConfigurationError, "NOPASSWD"),
    ("sudo: docker: command not found", 1, False, ConfigurationError, "full path"),
    ("env: 'docker': No such file or directory", 127, False, ConfigurationError, "full path"),
    ("bash: line 1: docker: command not found", 127, False, ConfigurationError, "full path"),
    ("sh: 1: docker: not found", 127, False, ConfigurationError, "full path"),
    ("", 127, False, ConfigurationError, "full path"),
    ("env: 'docker': Permission denied", 126, False, ConfigurationError, "executable"),
    ("Error response from daemon: write /d/tmp/docker-export-1/layer.tar: no space left on device", 1, False,
     TransientError, "free space"),
    ('Error response from daemon: file integrity checksum failed for "etc/x"', 1, False, IntegrityError, "damaged"),
    ("unexpected EOF", 1, False, TransientError, "try again"),
    ('error during connect: Post "http://x": EOF', 1, False, TransientError, "try again"),
    ("invalid diffID for layer 1: expected x, got y", 1, True, IntegrityError, "verify the backup"),
    ("Error processing tar file(exit status 1): unexpected EOF", 1, True, IntegrityError, "verify the backup"),
    ("Error processing tar file(exit status 1): unexpected EOF", 1, False, TransientError, "try again"),
    ("archive/tar: invalid tar header", 1, True, IntegrityError, "verify the backup"),
    ("failed to unpack loaded image: wrong diff id calculated on extraction \"sha256:56d4\"", 1, True, IntegrityError,
     "verify the backup"),
    ("failed to unpack loaded image: layer sha256:ceef: content digest sha256:1530: not found", 1, True,
     IntegrityError, "verify the backup"),
    ("content digest sha256:1530: not found", 1, False, DockerBackupError, "journalctl"),
    ("unexpected end of JSON input", 1, True, IntegrityError, "verify the backup"),
    ("open /d/tmp/docker-import-1/repositories: no such file or directory", 1, True, IntegrityError, "verify"),
    ("unrecognized image format", 1, True, IntegrityError, "verify the backup"),
    ("Error processing tar file(exit status 1): write /x: no space left on device", 1, True, TransientError, "free"),
    ('Conflict. The container name "/t" is already in use by container "x".', 1, False, ConflictError, "try again"),
    ("conflict: unable to delete x (must be forced) - image is being used by stopped container y", 1, False,
     ConflictError, "try again"),
    ('cannot remove container "x": container is running: stop the container before removing or force remove', 1, False,
     ConflictError, "try again"),
    ("failed to ingest x: short read: expected 9 bytes but got 3: unexpected EOF", 1, True, IntegrityError, "verify"),
    ("You cannot remove a running container x. Stop the container before attempting removal", 1, False,
     ConflictError, "try again"),
    ("container web was unpaused before its export ended (limit 3 s)", 75, False, TransientError, "raise the pause"),
    ("setsid: command not found", 127, False, ConfigurationError, "without a pause"),
    ("container web was unpaused before its commit ended (limit 3 s)", 75, False, TransientError, "raise the pause"),
    ("container web could not be unpaused after its commit: x", 75, False, TransientError, "docker unpause"),
    ("container web is restarting, and so cannot be paused", 75, False, TransientError, "try again"),
    ("Error response from daemon: Container web is already paused", 1, False, TransientError, "just now: try again"),
    ("Error response from daemon: Container web is not running", 1, False, TransientError, "just now: try again"),
    ("unknown flag: --pull", 125, False, ConfigurationError, "20.10"),
    ("dockerbackup: the archive could not be filtered (exit status 1)", 75, False, IncompleteError, "the whole image"),
    ("unexpected EOF\ndockerbackup: the archive could not be filtered (exit status 1)", 75, False, IncompleteError,
     "without leaving anything out"),
    ("", 137, False, TransientError, "try again"),
    ("", 143, False, TransientError, "try again"),
    ("", -1, False, TransientError, "try again"),
    ("something new", 1, False, DockerBackupError, "journalctl"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "status", "load", "error", "advice"), FAILURES)
def test_failure_is_the_error_that_says_what_to_do(
    said: str, status: int, load: bool, error: type[DockerBackupError], advice: str
) -> None:
    """By what Docker, sudo or the shell wrote, and the exit code; with host, work and advice in the message."""
    result = CommandResult(exit_status=status, stderr=said.encode())
    found = docker_error(result, what="docker save x", host="web-1", reading_archive=load)
    assert type(found) is error
    text = str(found)
    assert advice in text
    assert "docker save x on web-1" in text
    assert f"exit code {status}" in text
    assert said.partition("\n")[0][:40] in text


def test_message_is_bounded_and_one_line_when_standard_error_is_not() -> None:
    """Floods and control characters do not reach logs."""
    flood = b"\x1b[31mline\n" * 100_000 + b"the end"
    text = str(docker_error(CommandResult(exit_status=1, stderr=flood), what="x", host="h"))
    assert len(text) < 4096
    assert "the end" in text
    assert text.isprintable()


def test_values_of_changes_are_not_in_the_message() -> None:
    """Docker repeats what it could not parse, and an ENV may be a secret."""
    result = CommandResult(exit_status=1, stderr=b"Error: TOKEN=hunter2 is not a valid change command: hunter2")
    text = str(docker_error(result, what="docker commit", host="h", secrets=["ENVV TOKEN=hunter2"]))
    assert "hunter2" not in text
    assert "TOKEN" not in text


def test_inspect_document_is_kept_whole() -> None:
    """Restores need what today's engines do not write yet."""
    document = json.loads('{"Id": "x", "Config": {"New": 1}, "Other": [1], "RootFS": {"Layers": ["l"]}}')
    image = docker_output.image(document)
    assert image.document == document
    assert image.diff_ids == ("l",)
    assert ContainerInspect.of(document).document == document


def _manifest(digest: str, *, available: bool, **platform: str) -> dict[str, Any]:
    described = {"digest": f"sha256:{digest * 64}", "size": 7, "mediaType": "x", "platform": platform}
    return {"ID": f"sha256:{digest * 64}", "Available": available, "Kind": "image", "Descriptor": described}


def test_the_manifests_of_an_index_are_read_from_an_engines_answer() -> None:
    """What a start-up file printed before it, and headers, are passed over."""
    body = {"Manifests": [_manifest("1", available=True, os="linux", architecture="arm", variant="v7")]}
    answer = b"welcome\nHTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + json.dumps(body).encode()
    (found,) = docker_output.image_manifests(answer)
    assert (found.digest, found.platform, found.whole) == (f"sha256:{'1' * 64}", "linux/arm/v7", True)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"docker: 'dial-stdio' is not a docker command",
        b'HTTP/1.0 404 Not Found\r\n\r\n{"message":"no such image"}',
        b'HTTP/1.0 200 OK\r\n\r\n{"Id":"sha256:1"}',
        b'HTTP/1.0 200 OK\r\n\r\n{"Manifests":[{"Available":true,"Descriptor":{"digest":"1"}}]}',
        b'HTTP/1.0 200 OK\r\n\r\n{"Manifests":7}',
        b"HTTP/1.0 200 OK\r\n\r\n[",
    ],
)
def test_an_engine_that_does_not_tell_what_an_index_names_is_no_error(answer: bytes) -> None:
    """Then nothing is known of it."""
    assert docker_output.image_manifests(answer) == ()


def test_names_of_a_push_that_is_going_on_are_not_shown() -> None:
    """They are ours, and gone in a moment; what only looks like them stays."""
    pushed = "127.0.0.1:24001/dockerbackup/nightly"
    others = [f"{pushed}:1", f"{pushed}:a_b_c_d", "127.0.0.1:5000/app:a_0_1_2", "far/dockerbackup/nightly:a_0_1_2"]
    document = {
        "Id": ID,
        "RepoTags": [f"{pushed}:abc123_0_12_34", *others],
        "RepoDigests": [f"{pushed}@{ID}", f"app@{ID}"],
    }
    found = docker_output.image(document)
    assert (found.repo_tags, found.repo_digests) == (tuple(others), (f"app@{ID}",))
    alone = {"Id": ID, "RepoTags": [f"{pushed}:abc123_0_12_34"]}
    assert [summary.reference for summary in docker_output.image_summaries([alone])] == [ID]


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        (b"hunter2", TransientError),
        (b"Cannot connect to the Docker daemon at unix:///hunter2. Is the docker daemon running?", TransientError),
        (b"Error response from daemon: Container hunter2 is paused", ConflictError),
        (b"OCI runtime exec failed: exec failed: hunter2: no such file or directory", ConfigurationError),
        (b"sudo: a password is required, hunter2", ConfigurationError),
    ],
)
def test_the_error_of_a_users_command_repeats_nothing_of_what_was_printed(
    stderr: bytes, kind: type[DockerBackupError]
) -> None:
    """Neither the command's words nor what looks like docker's own: a command can print anything."""
    result = CommandResult(exit_status=3, stderr=stderr)
    error = exec_error(result, what="pre_command in container db", host="web1")
    assert type(error) is kind
    assert "hunter2" not in str(error)
    assert "hunter2" in exec_said(result)
    assert "hunter2" not in exec_said(result, secrets=["say", "hunter2"])


@pytest.mark.parametrize(
    "printed", [b"%s" + b" and so on" * 20, b"%s" + b" and so on" * 200, b"%s\n" * 600, b"%s " * 9]
)
def test_no_part_of_a_secret_is_shown_where_what_was_printed_is_cut(printed: bytes) -> None:
    """It is hidden before the end is taken, and what comes from within a word is left out."""
    word = b"0123456789abcdef" * 8
    secrets = ["ENV TOKEN=" + word.decode()]
    for length in range(0, len(word), 7):
        stderr = (printed.replace(b"%s", word) + b"." * length)[-64 * 1024 :]
        result = CommandResult(exit_status=1, stderr=stderr)
        shown = (exec_said(result, secrets=secrets), str(docker_error(result, what="it", host="h", secrets=secrets)))
        assert not [each for each in shown if "cdef" in each]


@pytest.mark.parametrize(
    "printed", ["bad value correcthorse", "bad value CORRECTHORSE", "bad value CorrectHorse of it"]
)
def test_a_secret_is_hidden_whole_however_it_is_written(printed: str) -> None:
    """Also when another one is a part of it, and when the engine changes its letters."""
    secrets = ["ENV A=correct", "ENV B=correcthorse"]
    result = CommandResult(exit_status=1, stderr=printed.encode())
    for shown in (exec_said(result, secrets=secrets), str(docker_error(result, what="it", host="h", secrets=secrets))):
        assert "bad value ***" in shown
        assert "horse" not in shown.lower()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (-1, TransientError),
        (1, DockerBackupError),
        (126, ConfigurationError),
        (127, ConfigurationError),
        (128, DockerBackupError),
        (129, TransientError),
        (255, TransientError),
    ],
)
def test_where_nothing_was_said_the_exit_status_decides(status: int, kind: type[DockerBackupError]) -> None:
    """A shell says by it that there is no such program, or that a signal ended it."""
    assert type(docker_error(CommandResult(exit_status=status), what="it", host="h")) is kind


def test_of_a_users_command_the_log_gets_no_more_than_the_end() -> None:
    """That is where programs say what went wrong."""
    said = exec_said(CommandResult(exit_status=1, stderr=b"noise " * 200 + b"disk is full"))
    assert said.endswith("noise disk is full")
    assert len(said) == 300


@pytest.mark.parametrize(("stderr", "told"), [(b"it broke", True), (b" \n", False), (b"", False)])
def test_the_log_is_named_only_where_it_has_something(stderr: bytes, told: bool) -> None:
    """A command may fail without a word."""
    error = exec_error(CommandResult(exit_status=3, stderr=stderr), what="pre_command in container db", host="web1")
    assert str(error).startswith("pre_command in container db on web1 ended with exit status 3")
    assert ("; the log has" in str(error)) is told


def test_a_program_that_a_container_does_not_have_is_told_also_where_standard_output_says_so() -> None:
    """The engine may say it on either of the two."""
    printed = b"OCI runtime exec failed: exec failed: unable to start container process: sqldump: no such file\r\n"
    error = exec_error(CommandResult(exit_status=127, stdout=printed), what="pre_command in container db", host="web1")
    assert type(error) is ConfigurationError
    assert "no such program" in str(error)
