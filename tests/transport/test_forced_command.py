# SPDX-License-Identifier: Apache-2.0
"""What the script of a restricted key lets through, decided by each shell that a host may have."""

from __future__ import annotations

import inspect
import os
import random
import re
import shutil
import string
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from airflow_provider_dockerbackup import __version__
from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.container_options import ContainerOption
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.onhost.place import JobPlace
from airflow_provider_dockerbackup.core.onhost.ports import HostJob
from airflow_provider_dockerbackup.core.temporary import TEMPORARY_MESSAGE
from airflow_provider_dockerbackup.exceptions import ConfigurationError, PushUnavailableError
from airflow_provider_dockerbackup.transport import commands, host_jobs
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.forced_command import Action, action_of, refusal, script
from airflow_provider_dockerbackup.transport.forced_script import REFUSED
from tests.transport.injection import CORPUS

DOCKER = DockerCommand()
SHELLS = [
    pytest.param(shell, id=shell[0], marks=pytest.mark.skipif(shutil.which(shell[0]) is None, reason="not here"))
    for shell in (("dash",), ("bash",), ("busybox", "sh"))
]
ID: Final = f"sha256:{'0a' * 32}"
MEMBERS: Final = (f"blobs/sha256/{'1b' * 32}", f"{'2c' * 32}/layer.tar", f"blobs/sha256/{'3d' * 32}")
STAMP: Final = f"{'0' * 16}-{'a' * 12}-1795000000"
IMAGE, CONTAINER = f"dockerbackup-temporary:{STAMP}", f"dockerbackup-temporary-{STAMP}"
PLACE: Final = JobPlace(folder="/srv/backups", name=f".dockerbackup-{'0' * 16}-20261123T210400Z-{'0' * 16}-{'a' * 12}")
JOB: Final = HostJob(
    place=PLACE,
    kind=SourceKind.IMAGE,
    subject=ID,
    compression=Compression.NONE,
    level=None,
    needed_bytes=1,
    deadline_seconds=60,
)
OPTIONS: Final = (ContainerOption(name="volume", value="/:/host"),)


def pushed(**values: str | None) -> str:
    """Return the line of a push."""
    given = {"repository": "dockerbackup/nightly", "attempt": "0a1b2c3d4e5f", "platform": None, **values}
    return commands.push(DOCKER, ID, port=24001, beat_seconds=10, **given)  # type: ignore[arg-type]


def committed(**values: object) -> str:
    """Return the line of a commit, of a snapshot's unless something else is said."""
    given = {"reference": IMAGE, "message": TEMPORARY_MESSAGE, "pause": False, **values}
    return commands.commit(DOCKER, "web", **given)  # type: ignore[arg-type]


def paused(**values: object) -> str:
    """Return the line of a commit of a paused container, of a snapshot's unless something else is said."""
    given = {"reference": IMAGE, "message": TEMPORARY_MESSAGE, "limit_seconds": 300, **values}
    return commands.commit_paused(DOCKER, "web", **given)  # type: ignore[arg-type]


# Each builder of a line, what it builds, and the action that lets it through: "any" for what each of them does.
LINES: Final[tuple[tuple[str, str, Action | str | None], ...]] = (
    ("version", commands.version(DOCKER), "any"),
    ("info", commands.info(DOCKER), "any"),
    ("epoch", commands.epoch(), "any"),
    ("date", commands.date(), "any"),
    ("hold_place", commands.hold_place(2), "any"),
    ("inspect_images", commands.inspect_images(DOCKER, ["shop/web:1.2"]), "any"),
    ("inspect_images", commands.inspect_images(DOCKER, [ID] * commands.IDS_PER_COMMAND), "any"),
    ("history", commands.history(DOCKER, ID), "any"),
    ("list_image_ids", commands.list_image_ids(DOCKER), "any"),
    ("list_image_ids", commands.list_image_ids(DOCKER, labels=["a", "b.c/d=e"]), "any"),
    ("save", commands.save(DOCKER, ID), Action.SAVE),
    ("save", commands.save(DOCKER, f"registry.example:5000/Shop/web@{ID}"), Action.SAVE),
    ("save_filtered", commands.save_filtered(DOCKER, ID, without=MEMBERS[:1]), Action.SAVE),
    ("save_filtered", commands.save_filtered(DOCKER, ID, without=MEMBERS[1:2]), Action.SAVE),
    ("save_filtered", commands.save_filtered(DOCKER, "web:1", without=MEMBERS), Action.SAVE),
    ("list_container_ids", commands.list_container_ids(DOCKER), Action.LIST),
    ("list_container_ids", commands.list_container_ids(DOCKER, labels=["backup=yes"]), Action.LIST),
    ("inspect_containers", commands.inspect_containers(DOCKER, ["web", "0a" * 32]), Action.LIST),
    ("export", commands.export(DOCKER, "web"), Action.EXPORT),
    ("export_paused", commands.export_paused(DOCKER, "web", limit_seconds=300), Action.EXPORT),
    ("commit", committed(), Action.EXPORT),
    ("commit_paused", paused(), Action.EXPORT),
    ("create", commands.create(DOCKER, IMAGE, name=CONTAINER), Action.EXPORT),
    ("export_temporary", commands.export_temporary(DOCKER, CONTAINER, image=IMAGE), Action.EXPORT),
    ("remove_container", commands.remove_container(DOCKER, CONTAINER), Action.EXPORT),
    ("remove_image", commands.remove_image(DOCKER, IMAGE), Action.EXPORT),
    ("image_manifests", commands.image_manifests(DOCKER, ID), Action.PUSH),
    ("push", pushed(), Action.PUSH),
    ("push", pushed(platform="linux/arm64/v8"), Action.PUSH),
    # What makes, changes or removes anything but what an export makes for itself.
    ("commit", committed(reference="web:2"), None),
    ("commit", committed(message="mine"), None),
    ("commit", committed(changes=["USER root"]), None),
    ("commit", committed(author="me"), None),
    ("commit", committed(pause=True), None),
    ("commit_paused", paused(reference="web:2"), None),
    ("commit_paused", paused(changes=["USER root"]), None),
    ("create", commands.create(DOCKER, "web:1", name=CONTAINER), None),
    ("create", commands.create(DOCKER, IMAGE, name="web"), None),
    ("create_from_options", commands.create_from_options(DOCKER, "web:1", name="web", options=OPTIONS), None),
    ("create_from_options", commands.create_from_options(DOCKER, IMAGE, name=CONTAINER, options=()), None),
    ("export_temporary", commands.export_temporary(DOCKER, "web", image=IMAGE), None),
    ("export_temporary", commands.export_temporary(DOCKER, CONTAINER, image="web:1"), None),
    ("remove_container", commands.remove_container(DOCKER, "web"), None),
    ("remove_container_keeping_volumes", commands.remove_container_keeping_volumes(DOCKER, CONTAINER), None),
    ("remove_image", commands.remove_image(DOCKER, "web:1"), None),
    ("run_in_container", commands.run_in_container(DOCKER, "web", ["id"]), None),
    ("start", commands.start(DOCKER, CONTAINER), None),
    ("stop", commands.stop(DOCKER, "web", timeout_seconds=10), None),
    ("rename", commands.rename(DOCKER, CONTAINER, to="web"), None),
    ("list_networks", commands.list_networks(DOCKER), None),
    ("tag", commands.tag(DOCKER, ID, reference=IMAGE), None),
    ("load", commands.load(DOCKER), None),
    ("load_zstd", commands.load_zstd(DOCKER), None),
    ("manifests_of_loaded", commands.manifests_of_loaded(DOCKER, ID), None),
    ("probe_zstd", commands.probe_zstd(), None),
    ("import_filesystem", commands.import_filesystem(DOCKER, reference=IMAGE), None),
    ("push", pushed(repository="nightly"), None),
    ("push", pushed(attempt="A"), None),
    # What reads, writes and removes files.
    ("start_line", host_jobs.start_line(DOCKER, JOB, max_captures=2), None),
    ("state_line", host_jobs.state_line(PLACE), None),
    ("publish_line", host_jobs.publish_line(PLACE, archive="image-a1b2c3d4e5f6.tar"), None),
    ("clear_line", host_jobs.clear_line(PLACE), None),
    ("jobs_line", host_jobs.jobs_line("/srv/backups", scope=".dockerbackup-"), None),
    ("read_line", host_jobs.read_line("/srv/backups/image-a.tar"), None),
    ("size_line", host_jobs.size_line("/srv/backups/image-a.tar"), None),
    ("delete_line", host_jobs.delete_line("/srv/backups/image-a.tar"), None),
)
ALLOWED: Final = tuple(line for _, line, action in LINES if action is not None)
HOSTILE_WORDS: Final = (
    *(";id", "\nid", "x y", "-o/x", "--help", "$(id)", "`id`", "|sh", "&", "> x", "x", "*", "~", "''", "\\"),
)
SHORT: Final = tuple(line for line in ALLOWED if len(line) < 10_000)
ALL: Final = script(set(Action), docker=DOCKER)
_LOOP: Final = "for line; do if allowed; then echo yes; else echo no; fi; done\n"


def batches(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield the lines again, as many at once as the kernel takes as arguments."""
    batch: list[str] = []
    for line in lines:
        if batch and sum(map(len, batch)) + len(line) > 500_000:
            yield batch
            batch = []
        batch.append(line)
    yield batch


def verdicts(text: str, lines: Sequence[str], *, shell: tuple[str, ...]) -> list[bool]:
    """Return what the function of a script that decides says of each line; nothing is run."""
    asking = text[: text.index("\nif allowed;")] + "\n" + _LOOP
    found: list[bool] = []
    for asked in batches(lines):
        command = [*shell, "-c", asking, "dockerbackup-ssh", *asked]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        assert done.stderr == b""
        said = done.stdout.decode().split()
        assert len(said) == len(asked)
        found += [word == "yes" for word in said]
    return found


def expected(action: Action | str | None, actions: Collection[Action]) -> bool:
    """Tell whether a key with these actions may do what takes that one."""
    return action == "any" or action in actions or (action is Action.LIST and Action.EXPORT in actions)


def builders() -> Iterator[str]:
    """Yield the names of the functions that build a line, whatever it does."""
    for module in (commands, host_jobs):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            of_lines = inspect.signature(function).return_annotation == "str"
            if function.__module__ == module.__name__ and of_lines and not name.startswith("_"):
                yield name


def mutations(line: str, *, seed: int) -> Iterator[str]:
    """Yield lines that differ from one in a few characters; fewer of those that take the shells long."""
    lot = random.Random(seed)  # noqa: S311 - the same ones each time
    alphabet = string.printable + "\x01\x7f\u00e9\u2028"
    short = len(line) < 1000
    for _ in range(40 if short else 2):
        at = lot.randrange(len(line) + 1)
        yield line[:at] + lot.choice(alphabet) + line[at:]
        yield line[:at] + lot.choice(alphabet) + line[at + 1 :]
        yield line[:at] + line[at + lot.randrange(1, 4) :]
        yield line[:at] + line[at : at + 6] + line[at:]
    for word in HOSTILE_WORDS if short else HOSTILE_WORDS[:3]:
        yield from (f"{line} {word}", f"{line}{word}", f"{word} {line}", f"{word}{line}")
    yield from (
        f" {line}",
        f"{line} ",
        f"{line}\n",
        f"\n{line}",
        line.replace(" ", "  ", 1),
        line.replace(" ", "\t", 1),
    )
    yield from (f"env X=1 {line}", f"exec {line}", line.removeprefix("exec "), f"'{line}'", f"({line})", line * 2)


def values() -> Iterator[str]:
    """Yield lines that hold each hostile text where a value stands, quoted as we quote it and as it is."""
    texts = [text for text in CORPUS if len(text) < 1000]
    for text in texts:
        yield commands.save(DOCKER, text)
        yield commands.inspect_images(DOCKER, ["web", text])
        yield commands.list_image_ids(DOCKER, labels=["a", text])
        yield commands.export(DOCKER, text)
        for line in (commands.save(DOCKER, "@@"), commands.inspect_containers(DOCKER, ["@@"])):
            yield from (line.replace("@@", text), line.replace("@@", f"web{text}"), line.replace("@@", f"{text}web"))
    for text in texts[::11]:
        yield commands.export_paused(DOCKER, text, limit_seconds=300)
        yield commands.export_temporary(DOCKER, CONTAINER, image=text)
        yield commands.save_filtered(DOCKER, text, without=MEMBERS)
        yield pushed(platform=text)
        yield pushed(repository=f"dockerbackup/{text}")


def test_every_builder_of_a_line_is_looked_at() -> None:
    """A line that is added is allowed by one action, or refused, on purpose."""
    assert {name for name, _, _ in LINES} == set(builders()) - {"quoted_line", "result_of"}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "actions", [*({each} for each in Action), set(Action)], ids=lambda each: "+".join(sorted(each))
)
def test_each_line_is_let_through_by_its_own_action_and_by_no_other(
    actions: set[Action], shell: tuple[str, ...]
) -> None:
    """What describes engine and images goes with all of them, what lists containers with exports as well."""
    found = verdicts(script(actions, docker=DOCKER), [line for _, line, _ in LINES], shell=shell)
    wrong = [
        (name, line[-120:])
        for (name, line, action), verdict in zip(LINES, found, strict=True)
        if verdict != expected(action, actions)
    ]
    assert wrong == []


def test_the_reader_of_refusals_names_the_same_action() -> None:
    """However docker is called there."""
    for name, line, action in LINES:
        for docker in ("docker", "sudo -n docker", "/usr/bin/docker", "sudo -n -u ops docker"):
            asked = line.replace(" docker ", f" {docker} ").removesuffix(" docker")
            asked += f" {docker}" if line.endswith(" docker") else ""
            assert action_of(asked) == (Action.SAVE if action == "any" else action), name


@pytest.mark.parametrize("shell", SHELLS)
def test_a_line_that_differs_in_one_character_is_refused_unless_it_is_another_allowed_one(
    shell: tuple[str, ...],
) -> None:
    """Thousands of changed lines: the shell's verdict is that of a regular expression made of the same parts."""
    lines = [changed for at, line in enumerate(SHORT) for changed in mutations(line, seed=at) if "\0" not in changed]
    assert len(lines) > 3000
    found = verdicts(ALL, lines, shell=shell)
    wrong = [
        line
        for line, verdict in zip(lines, found, strict=True)
        if verdict != (action_of(line, docker=DOCKER) is not None)
    ]
    assert [line[-200:] for line in wrong] == []
    accepted = [line for line, verdict in zip(lines, found, strict=True) if verdict]
    assert 0 < len(accepted) < len(lines) / 4


HEX: Final = "0a" * 32
# For each kind of value a line with its place, what may stand there, and what may not.
KINDS: Final = {
    "image": (
        commands.save(DOCKER, "@@"),
        ("a", "a:1", f"a/b_c.d-e:F@sha256:{HEX}", "h:5000/a", HEX, "x" * 512),
        ("", "-a", "--", "/a", ".a", ":1", "@x", "_a", "a=b", "a,b", "a%", "a+", "x" * 513),
    ),
    "container": (
        commands.export(DOCKER, "@@"),
        ("ab", "A_.-", "0" * 64, "x" * 255),
        ("", "a", "-ab", "_ab", ".ab", "a/b", "a:b", "a@b", "x" * 256),
    ),
    "id": (
        commands.image_manifests(DOCKER, "@@"),
        (f"sha256:{HEX}",),
        ("", HEX, f"sha256:{HEX[1:]}", f"sha256:{HEX}a", f"sha256:{HEX.upper()}", f"sha512:{HEX}", f"xsha256:{HEX}"),
    ),
    "filter": (
        f"{commands.list_image_ids(DOCKER)} @@",
        ("--filter=label=a", "--filter=label=a.b/c=d,e", "--filter=label=-a --filter=label=b"),
        ("", "a", "--filter=label=", "--filter=name=a", "label=a", "--no-trunc", f"--filter=label={'x' * 513}"),
    ),
    "member": (
        commands.save_filtered(DOCKER, ID, without=MEMBERS[:1]).replace(MEMBERS[0], "@@"),
        (f"blobs/sha256/{HEX}", f"{HEX}/layer.tar", f"'{HEX}/layer.tar blobs/sha256/{HEX}'"),
        ("", HEX, f"blobs/sha256/{HEX}a", f"blobs/sha256/{HEX[1:]}", f"{HEX}/json", f"x{HEX}/layer.tar", "'", "'a'"),
    ),
    "temporary_image": (
        commands.remove_image(DOCKER, "@@"),
        (IMAGE, f"{IMAGE}0"),
        ("", STAMP, CONTAINER, f"x{IMAGE}", f"{IMAGE}00", IMAGE[:-1], f"{IMAGE}-1", IMAGE.upper(), "web:1"),
    ),
    "temporary_container": (
        commands.remove_container(DOCKER, "@@"),
        (CONTAINER, f"{CONTAINER}0"),
        ("", STAMP, IMAGE, f"x{CONTAINER}", f"{CONTAINER}00", CONTAINER[:-1], f"{CONTAINER}-1", "lab-app"),
    ),
    "number": (
        commands.hold_place(77).replace("77", "@@"),
        ("1", "10", "999999"),
        ("", "0", "01", "1000000", "-1", "1.5", "1e3", "a", "+1"),
    ),
    "repository": (
        pushed(repository="@@"),
        ("dockerbackup/a", f"dockerbackup/{'x' * 100}", "dockerbackup/a.b_c-d"),
        (
            "",
            "a",
            "dockerbackup/",
            "dockerbackup/-a",
            "dockerbackup/A",
            "dockerbackup/a/b",
            f"dockerbackup/{'x' * 101}",
        ),
    ),
    "attempt": (pushed(attempt="@@"), ("a", "0" * 40), ("", "A", "a-b", "a_b", "0" * 41)),
    "platform": (
        pushed(platform="@@"),
        ("linux/amd64", "linux/arm/v7"),
        ("-x", "/linux", "Linux/amd64", "a:b", "a=b", "x" * 65),
    ),
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_value_is_of_its_kind(kind: str, shell: tuple[str, ...]) -> None:
    """From its first character to its last, neither shorter nor longer than it may be."""
    line, good, bad = KINDS[kind]
    asked = [line.replace("@@", text) for text in (*good, *bad)]
    assert verdicts(ALL, asked, shell=shell) == [True] * len(good) + [False] * len(bad)
    assert [action_of(each, docker=DOCKER) is not None for each in asked] == [True] * len(good) + [False] * len(bad)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_line_is_more_than_its_values(shell: tuple[str, ...]) -> None:
    """What could stand at any place for a value is a command of its own without the rest."""
    alone = [text for _, good, bad in KINDS.values() for text in (*good, *bad)]
    alone += ["id", "reboot", "sh", "web web", *MEMBERS, *(line.rsplit("'", 1)[-1] for line in ALLOWED)]
    alone += [line[:-1] for line in SHORT] + [line[1:] for line in SHORT]
    kept = [line for line in alone if action_of(line, docker=DOCKER) is None]
    assert len(kept) > 130
    assert verdicts(ALL, kept, shell=shell) == [False] * len(kept)


@pytest.mark.parametrize("shell", SHELLS)
def test_no_hostile_text_gets_through_as_a_value(shell: tuple[str, ...]) -> None:
    """Only texts that are nothing but a name do, and these are docker's to refuse."""
    lines = list(values())
    found = verdicts(ALL, lines, shell=shell)
    accepted = [line for line, verdict in zip(lines, found, strict=True) if verdict]
    for line in accepted:
        words = line[line.rfind("'") + 1 :].split(" ")
        assert all(re.fullmatch(r"[0-9A-Za-z@%+=:,./_-]*", word) for word in words), line[-200:]
    assert len(accepted) < len(lines) / 20


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("docker", "socket"),
    [
        ("sudo -n docker", None),
        ("sudo -n -u #1000 /usr/bin/docker", None),
        ("docker", "unix:///run/user/1000/docker.sock"),
    ],
)
def test_a_script_is_for_one_way_of_calling_docker(docker: str, socket: str | None, shell: tuple[str, ...]) -> None:
    """Another client, user or daemon is not what was allowed."""
    command = DockerCommand.parse(docker, socket=socket)
    asked = [
        commands.save(command, ID),
        commands.export_paused(command, "web", limit_seconds=300),
        commands.push(command, ID, port=24001, repository="dockerbackup/a", attempt="a"),
        commands.save_filtered(command, ID, without=MEMBERS),
    ]
    assert verdicts(script(set(Action), docker=command), asked, shell=shell) == [True] * 4
    assert verdicts(ALL, asked, shell=shell) == [False] * 4
    assert verdicts(script(set(Action), docker=command), ALLOWED[10:], shell=shell) == [False] * len(ALLOWED[10:])


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with a docker that writes down its arguments, and a logger that writes down what it is told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("docker", "logger"):
        (folder / name).write_text(
            f"#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done >>'{tmp_path}/{name}.argv'\n", encoding="utf-8"
        )
        (folder / name).chmod(0o755)
    return folder


def run_script(
    text: str,
    line: str | None,
    folder: Path,
    *,
    shell: tuple[str, ...],
    programs: Path,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a script as sshd does."""
    path = folder / "dockerbackup-ssh"
    path.write_text(text, encoding="ascii")
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SSH_CONNECTION": "192.0.2.7 1 192.0.2.1 22",
        **(variables or {}),
    }
    if line is not None:
        environment["SSH_ORIGINAL_COMMAND"] = line
    command = [*shell, str(path)]
    return subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )


def told(folder: Path, name: str) -> list[str]:
    """Return the arguments with which a program was called."""
    path = folder / f"{name}.argv"
    return path.read_bytes().decode().split("\0")[:-1] if path.exists() else []


@pytest.mark.parametrize("shell", SHELLS)
def test_an_allowed_line_runs_as_without_the_script(tmp_path: Path, programs: Path, shell: tuple[str, ...]) -> None:
    """Docker gets the same arguments, in English, and what was asked for is not in its environment."""
    line = commands.history(DOCKER, "shop/web:1")
    done = run_script(ALL, line, tmp_path, shell=shell, programs=programs)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    options = ["--no-trunc", "--human=false", "--format", "{{json .}}"]
    assert told(tmp_path, "docker") == ["image", "history", *options, "--", "shop/web:1"]
    assert told(tmp_path, "logger") == []


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (None, "(no command)"),
        ("", "(no command)"),
        ("internal-sftp", "internal-sftp"),
        ("touch canary", "touch canary"),
        ("rm -rf /", "rm"),
        (commands.create_from_options(DOCKER, "web", name="x", options=OPTIONS), "container create"),
        (commands.load(DOCKER), "image load"),
        ("docker run --env PASSWORD=secret web", "docker run"),
        ("\x1b[2Jrefused: no;\nthis", "(no command)"),
        ("x" * 100_000, "x" * 80),
        (commands.save(DOCKER, ID) + "\ntouch canary", "image save"),
        ("caf\u00e9", "caf"),
    ],
    ids=range(12),
)
def test_a_refused_line_runs_nothing_and_is_told_without_its_values(
    tmp_path: Path, programs: Path, line: str | None, shown: str, shell: tuple[str, ...]
) -> None:
    """Its first words go to the log and to whoever asked; the exit status is one of its own."""
    done = run_script(ALL, line, tmp_path, shell=shell, programs=programs)
    said = f"dockerbackup-ssh: refused: {shown}; this key may only save list export push (dockerbackup {__version__})\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (REFUSED, b"", said)
    assert told(tmp_path, "docker") == []
    if shell[0] != "busybox":  # which has a logger of its own
        assert told(tmp_path, "logger")[-1] == f"refused to 192.0.2.7: {shown}"
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_variables_that_a_client_may_set_change_nothing(tmp_path: Path, programs: Path, shell: tuple[str, ...]) -> None:
    """Nor do those that it may not: words are not split by them, patterns not read in another language."""
    odd = {
        "LC_ALL": "zh_TW.Big5",
        "LANG": "de_DE.UTF-8",
        "IFS": "/:;",
        "line": "x",
        "safe": ";",
        "alnum": "-;$",
        "rest": "x",
    }
    for line, status in ((commands.save(DOCKER, "a/b:1"), 0), ("env LC_ALL=C id", REFUSED), ("-", REFUSED)):
        assert run_script(ALL, line, tmp_path, shell=shell, programs=programs, variables=odd).returncode == status
    assert told(tmp_path, "docker") == ["image", "save", "--", "a/b:1"]


def test_the_longest_list_of_members_gets_through() -> None:
    """As many as a command line carries."""
    members = [f"blobs/sha256/{number:064x}" for number in range(2000)]
    line = commands.save_filtered(DOCKER, ID, without=members)
    assert len(line) > 100_000
    assert verdicts(ALL, [line], shell=("sh",)) == [True]  # noqa: S604 - its name


def said_by(actions: str, *, version: str = __version__) -> bytes:
    """Return what a script says of a refusal, after what a shell's start-up file says."""
    return f"hello\ndockerbackup-ssh: refused: x y; this key may only {actions} (dockerbackup {version})\n".encode()


def test_a_refusal_says_which_action_to_allow() -> None:
    """Nothing that is tried again, and of a push something that a save can stand in for."""
    error = refusal(
        commands.export(DOCKER, "web"), exit_status=REFUSED, stderr=said_by("save list"), what="docker export"
    )
    assert type(error) is ConfigurationError
    assert "docker export: the host refuses it: this key may only save, list there; make its script anew with" in str(
        error
    )
    assert "--allow export (" in str(error)
    assert type(refusal(pushed(), exit_status=REFUSED, stderr=said_by("save"), what="x")) is PushUnavailableError


def test_a_refusal_of_what_no_key_may_do_says_to_take_another() -> None:
    """A restore, say."""
    error = refusal(commands.load(DOCKER), exit_status=REFUSED, stderr=said_by("save"), what="docker load")
    assert "no restricted key may do this: what restores, rolls back" in str(error)


@pytest.mark.parametrize(
    ("actions", "line"),
    [
        ("save", commands.save(DockerCommand.parse("sudo -n docker"), ID)),
        ("push", commands.version(DockerCommand.parse("docker", socket="unix:///run/user/1000/docker.sock"))),
        ("export", commands.list_container_ids(DOCKER)),
    ],
)
def test_a_refusal_of_what_is_allowed_says_to_make_the_script_anew(actions: str, line: str) -> None:
    """It is of another version, or for another docker; what goes with an action, or with all, is allowed as well."""
    error = refusal(line, exit_status=REFUSED, stderr=said_by(actions, version="9.9"), what="x")
    assert "in the words of dockerbackup 9.9" in str(error)
    assert "make it anew" in str(error)


@pytest.mark.parametrize(
    ("status", "stderr"), [(1, said_by("save")), (REFUSED, b""), (REFUSED, b"docker: refused"), (0, said_by("save"))]
)
def test_what_is_no_refusal_is_left_to_others(status: int, stderr: bytes) -> None:
    """An exit status alone, or a text alone, says nothing."""
    assert refusal(commands.load(DOCKER), exit_status=status, stderr=stderr, what="x") is None


def test_a_script_without_actions_is_refused() -> None:
    """It would let a key in that can do nothing."""
    with pytest.raises(ConfigurationError, match="--allow"):
        script(set(), docker=DOCKER)
