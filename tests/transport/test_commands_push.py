# SPDX-License-Identifier: Apache-2.0
"""The script that pushes, in each shell, with a client whose daemon is a few files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.transport import commands
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.registry_access import Credential
from tests.transport.test_commands_export_paused import FakeHost, wait_for

IMAGE = f"sha256:{'a' * 64}"
REPOSITORY = "dockerbackup/nightly"
CONFIGURATION = Credential().client_configuration("127.0.0.1:24001")
# `tags` and `digests`: names of the one image; `empty`: names of the empty one.
FAKE_DOCKER = """#!/bin/sh
cd "$FAKE" || exit
for word; do printf '%s ' "$word"; done >>calls
echo >>calls
for last; do :; done
case "$*" in *" tag "* | *" rm "*) exec 9>lock; flock 9 ;; esac
case "$*" in
  *"context inspect"*) cat endpoint; exit "$(cat context_status)" ;;
  *"image ls"*) grep '^127.0.0.1:.*/dockerbackup/' tags; exit 0 ;;
  *"image inspect"*)
    grep -qx "$last" tags || { echo "Error: No such image: $last" >&2; exit 1; }
    case "$*" in
      *.Id*) cat id ;;
      *RepoTags*) cat tags; echo ;;
      *RepoDigests*) cat digests; echo ;;
    esac ;;
  *"image tag sha256:empty"*) grep -vx "$last" tags >rest; mv rest tags; echo "$last" >>empty ;;
  *"image tag"*)
    [ "$(cat tag_status)" = 0 ] || { echo "Error: No such image: $4" >&2; exit "$(cat tag_status)"; }
    echo "$last" >>tags ;;
  *"image import"*) echo sha256:empty ;;
  *"image rm"*)
    for list in tags digests empty; do
      if [ -e $list ]; then grep -vx "$last" $list >rest; mv rest $list; fi
    done
    [ -s tags ] || touch deleted ;;
  *"image push"*)
    while [ "$1" != --config ]; do shift; done
    stat -c %a "$2" "$2/config.json" >modes
    cat "$2/config.json" >configuration
    echo "$2" >directory
    echo "127.0.0.1:24001/dockerbackup/nightly@sha256:manifest" >>digests
    touch pushing
    while [ -e slow ]; do sleep 0.05; done
    exit "$(cat status)" ;;
esac
"""


class PushHost(FakeHost):
    """A directory that plays a Docker host with one image, ``app:1``."""

    def push(self, *, docker: DockerCommand | None = None, data: bytes | None = None) -> subprocess.Popen[bytes]:
        """Run the line as sshd does, and send the configuration; the input stays open."""
        command = docker or DockerCommand()
        line = commands.push(command, IMAGE, port=24001, repository=REPOSITORY, attempt="abc123")
        child = self.start(line=line)
        assert child.stdin is not None
        child.stdin.write(CONFIGURATION + b"\n" if data is None else data)
        child.stdin.flush()
        return child

    @property
    def tags(self) -> list[str]:
        """The names of the image."""
        return self.get("tags").split()

    @property
    def calls(self) -> list[str]:
        """What the client was called with."""
        return (self.directory / "calls").read_text(encoding="ascii").splitlines()

    @property
    def left(self) -> list[Path]:
        """The directories that are there."""
        return list((self.directory / "tmp").iterdir())


@pytest.fixture(
    params=[
        pytest.param(shell, marks=pytest.mark.skipif(shutil.which(shell[0]) is None, reason=f"no {shell[0]} here"))
        for shell in (("dash",), ("bash",), ("busybox", "sh"))
    ],
    ids=lambda shell: shell[0],
)
def host(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[PushHost]:
    """A host; the script's own shell is the one that is tested."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "tmp").mkdir()
    for name, text in (("docker", FAKE_DOCKER), ("sh", f'#!/bin/dash\nexec {" ".join(request.param)} "$@"\n')):
        (tmp_path / "bin" / name).write_text(text, encoding="ascii")
        (tmp_path / "bin" / name).chmod(0o755)
    fake = PushHost(tmp_path, request.param)
    for name, text in {
        "status": "0",
        "tag_status": "0",
        "context_status": "0",
        "endpoint": "unix:///var/run/docker.sock",
        "tags": "app:1\n",
        "digests": "",
        "id": IMAGE,
        "calls": "",
    }.items():
        fake.set(name, text)
    yield fake
    (tmp_path / "slow").unlink(missing_ok=True)
    for child in fake.children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


def ended(child: subprocess.Popen[bytes], *, status: int = 0) -> str:
    """Wait for the end and give what was said; the input stays open until then."""
    child.wait(30)
    assert child.stderr is not None
    said = child.stderr.read().decode()
    assert child.returncode == status, said
    return said


def test_it_tags_pushes_and_untags(host: PushHost) -> None:
    """With the configuration in a directory that nobody else can read, and that goes."""
    assert ended(host.push()) == ""
    assert json.loads(host.get("configuration")) == json.loads(CONFIGURATION)
    assert host.get("modes").split() == ["700", "600"]
    push = next(call for call in host.calls if "image push" in call)
    tag = push.split()[-1]
    assert tag.startswith("127.0.0.1:24001/dockerbackup/nightly:abc123_")
    assert push.startswith(f"-H unix:///var/run/docker.sock --config {host.get('directory')} image push ")
    assert f"image tag {IMAGE} {tag} " in host.calls
    assert host.calls[-1] == f"image rm {tag} "
    assert (host.tags, host.left) == (["app:1"], [])


def test_no_secret_is_an_argument(host: PushHost) -> None:
    """Neither of the script nor of what it calls, nor in their environment."""
    host.set("slow")
    child = host.push()
    wait_for((host.directory / "pushing").exists)
    secret = json.loads(CONFIGURATION)["auths"]["127.0.0.1:24001"]["auth"].encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            for name in ("cmdline", "environ"):
                try:
                    assert secret not in (entry / name).read_bytes()
                except OSError:
                    continue
    host.unset("slow")
    ended(child)
    assert secret.decode() not in "".join(host.calls)


@pytest.mark.parametrize("status", [1, 125, 255])
def test_a_failed_push_is_told_and_leaves_nothing(host: PushHost, status: int) -> None:
    """With the client's own exit status."""
    host.set("status", str(status))
    ended(host.push(), status=status)
    assert (host.tags, host.left) == (["app:1"], [])


def test_an_image_that_is_not_there_is_not_pushed(host: PushHost) -> None:
    """The status is that of the tag."""
    host.set("tag_status", "1")
    assert "No such image" in ended(host.push(), status=1)
    assert not any("push" in call for call in host.calls)
    assert (host.tags, host.left) == (["app:1"], [])


@pytest.mark.parametrize("how", ["input", "HUP", "INT", "TERM"])
def test_it_ends_with_its_connection(host: PushHost, how: str) -> None:
    """At the end of its input, or at a signal: the push is killed, and nothing stays."""
    host.set("slow")
    child = host.push()
    wait_for((host.directory / "pushing").exists)
    if how == "input":
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
    else:
        child.send_signal(getattr(signal, f"SIG{how}"))
    ended(child, status={"input": 143, "HUP": 129, "INT": 130, "TERM": 143}[how])
    assert (host.tags, host.left) == (["app:1"], [])
    wait_for(lambda: not pushes(host))


def pushes(host: PushHost) -> list[int]:
    """Give the clients that still push."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"push" in words and f"FAKE={host.directory}\0".encode() in environment:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("data", [b"", b'{"auths"'])
def test_without_a_whole_configuration_nothing_is_done(host: PushHost, data: bytes) -> None:
    """The connection ended before."""
    child = host.push(data=data)
    assert child.stdin is not None
    child.stdin.close()
    child.stdin = None
    ended(child, status=129)
    assert not any("tag" in call for call in host.calls)
    assert host.left == []


@pytest.mark.parametrize(
    "more",
    [
        {"credsStore": "evil"},
        {"credHelpers": {"127.0.0.1:24001": "evil"}},
        {"cliPluginsExtraDirs": ["/tmp"]},
        {"auths": {"127.0.0.1:24002": {"auth": "YTpi"}}},
        {"auths": {"127.0.0.1:24001": {"auth": "YTpi", "x": "y"}}},
        {"auths": {"127.0.0.1:24001": {"auth": ""}}},
    ],
    ids=range(6),
)
def test_a_configuration_that_is_more_than_the_credential_is_refused(host: PushHost, more: dict[str, object]) -> None:
    """Docker's client runs programs that its configuration names; whoever sends one may be a thief."""
    data = json.dumps({**json.loads(CONFIGURATION), **more}).encode() + b"\n"
    assert "more than a credential" in ended(host.push(data=data), status=78)
    assert not any("push" in call for call in host.calls)
    assert (host.tags, host.left) == (["app:1"], [])


def test_what_a_killed_one_left_is_taken_away_by_the_next(host: PushHost) -> None:
    """Its tag and its directory; but not those of one that is at work."""
    host.set("slow")
    killed = host.push()
    wait_for((host.directory / "pushing").exists)
    killed.kill()
    killed.wait()
    (host.directory / "pushing").unlink()
    assert (len(host.tags), len(host.left)) == (2, 1)
    living = host.push()
    wait_for((host.directory / "pushing").exists)
    assert (len(host.tags), len(host.left)) == (2, 1)
    (host.directory / "pushing").unlink()
    third = host.push()
    wait_for((host.directory / "pushing").exists)
    assert (len(host.tags), len(host.left)) == (3, 2)
    host.unset("slow")
    ended(living)
    ended(third)
    assert (host.tags, host.left) == (["app:1"], [])


def test_what_is_not_ours_stays(host: PushHost) -> None:
    """Names that look alike, directories that do, and links to somewhere else."""
    others = [
        "127.0.0.1:5000/dockerbackup/x:1",
        "127.0.0.1:5000/dockerbackup/x:a_b_c_d",
        "registry/dockerbackup/x:1_2_3_4",
    ]
    host.set("tags", "\n".join(["app:1", *others]) + "\n")
    kept = host.directory / "kept"
    kept.mkdir()
    (host.directory / "tmp" / "dockerbackup-push-a_0_1_2.x").symlink_to(kept)
    (host.directory / "tmp" / "dockerbackup-push-a_b_c_d.x").mkdir()
    (host.directory / "tmp" / "dockerbackup-push-file_0_1_2.x").write_text("x", encoding="ascii")
    ended(host.push())
    assert host.tags == ["app:1", *others]
    assert (len(host.left), kept.exists()) == (3, True)


@pytest.mark.parametrize("store", ["classic", "containerd"])
def test_an_image_without_another_name_is_not_deleted(host: PushHost, store: str) -> None:
    """Its name moves to an empty image first; what looks like a digest under containerd stands for the image."""
    ours = "127.0.0.1:24001/dockerbackup/nightly@sha256:manifest"
    host.set("tags")
    if store == "containerd":
        host.set("id", "sha256:manifest")
    ended(host.push())
    calls = [call for call in host.calls if " rm " in call or "import" in call or " tag sha256:empty" in call]
    expected = [f"image rm {ours} "] if store == "classic" else []
    assert calls[: len(expected)] == expected
    assert [call.split()[1] for call in calls[len(expected) :]] == ["import", "tag", "rm"]
    assert (host.tags, host.left, host.get("empty")) == ([], [], "")


@pytest.mark.parametrize("endpoint", ["tcp://10.0.0.1:2376", "ssh://me@elsewhere", "npipe:////./pipe/docker_engine"])
def test_a_daemon_elsewhere_cannot_push(host: PushHost, endpoint: str) -> None:
    """Its loopback interface is another; nothing is tagged there."""
    host.set("endpoint", endpoint)
    assert "talks to a daemon elsewhere" in ended(host.push(), status=78)
    assert not any("tag" in call for call in host.calls)


def test_a_client_that_knows_no_contexts_uses_its_default(host: PushHost) -> None:
    """Which no configuration can change."""
    host.set("context_status", "1")
    host.set("endpoint", "")
    ended(host.push())
    assert next(call for call in host.calls if "push" in call).startswith("--config ")


def test_a_given_daemon_is_used_for_the_push_too(host: PushHost) -> None:
    """Nobody is asked for another."""
    ended(host.push(docker=DockerCommand.parse("docker", socket="unix:///run/other.sock")))
    assert all(call.startswith("-H unix:///run/other.sock ") for call in host.calls)
    assert not any("context" in call for call in host.calls)
    assert sum("-H" in call.split() for call in host.calls if "push" in call) == 1


def test_no_place_for_the_configuration_is_told(host: PushHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """This host cannot push; saving needs no such place."""
    shutil.rmtree(host.directory / "tmp")
    assert "no place for a temporary client configuration" in ended(host.push(), status=78)
    assert host.tags == ["app:1"]
