# SPDX-License-Identifier: Apache-2.0
"""Tags of real Docker hosts rolled back, and configurations of earlier steps compared with the builder's own images."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.core.archive.docker_archive import DockerArchiveScanner
from airflow_provider_dockerbackup.core.archive.earlier import earlier_configuration
from airflow_provider_dockerbackup.operators.rollback import DockerBackupRollbackOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from tests.lab.daemon import LabDaemon
from tests.lab.images import BASE
from tests.lab.lab import LabHost
from tests.operators.context import context

pytestmark = pytest.mark.usefixtures("connections")
NAME = "lab-back/app"
TAG = f"{NAME}:1"
DOCKERFILE = f"""\
FROM {BASE}
ENV MODE=early TEXT="two words" PATH=/srv:/bin:/usr/bin
LABEL release=1
RUN mkdir /srv && echo early > /srv/mode
WORKDIR /srv
CMD ["/bin/busybox", "sleep", "1000"]
EXPOSE 80/tcp
VOLUME ["/data"]
RUN echo late > /srv/mode && echo new > /srv/new
ENV MODE=late
LABEL release=2 more=yes
USER 1000:1000
WORKDIR /
STOPSIGNAL SIGKILL
HEALTHCHECK --interval=1s CMD ["/bin/true"]
ENTRYPOINT ["/bin/busybox"]
CMD ["sleep", "2000"]
"""
TRIGGERS = f"""\
FROM {BASE}
MAINTAINER early
CMD echo hi
ONBUILD RUN true
ONBUILD ENV FIRED=1
"""
ODD = f"""\
FROM {NAME}:triggers
ENTRYPOINT ["/bin/busybox"]
ENTRYPOINT []
CMD []
SHELL ["/bin/busybox", "sh", "-c"]
RUN true
MAINTAINER late
ENV A=1 B="a A=3"
ENV C "quoted A=4"
ENV A=" lead" D=$A-$B E=
LABEL a="x \\"y\\" z" "b c"='d e'
LABEL a="b c=2" b=
EXPOSE 80 53/udp 8000-8003
EXPOSE 8002-8005/udp 80
VOLUME ["/a b", "/a"]
VOLUME /a /b
HEALTHCHECK --interval=1m30s --retries=10 CMD echo "a b" 'c'
HEALTHCHECK NONE
HEALTHCHECK --retries=39 --start-period=1.5s CMD ["/bin/true", "it's"]
WORKDIR srv
WORKDIR ../d e
RUN ["/bin/busybox", "true"]
ONBUILD RUN echo b
STOPSIGNAL 9
USER root
CMD exec "$HOME"
"""


def build(daemon: LabDaemon, dockerfile: str, tag: str = TAG) -> str:
    """Run the classic builder and return the image's ID."""
    command = [str(daemon.files.docker), "build", "--quiet", "--network", "none", "--tag", tag, "-"]
    environment = {**daemon.environment(), "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(command, input=dockerfile.encode(), env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return image_id(daemon, tag)


def image_id(daemon: LabDaemon, reference: str) -> str:
    """Return an image's ID."""
    return daemon.docker("image", "inspect", "--format", "{{.Id}}", reference).stdout.decode().strip()


def config_of(daemon: LabDaemon, reference: str) -> dict[str, Any]:
    """Return an image's configuration as its engine shows it."""
    config: dict[str, Any] = json.loads(daemon.docker("image", "inspect", reference).stdout)[0]["Config"]
    return config


def cat(daemon: LabDaemon, image: str, path: str) -> str:
    """Return a file of an image, or what went wrong."""
    run = ("run", "--rm", "--network", "none", "--entrypoint", "/bin/cat", image, path)
    done = daemon.docker(*run, check=False)
    return (done.stdout if done.returncode == 0 else done.stderr).decode().strip()


@pytest.fixture
def daemon(host: LabHost) -> Iterator[LabDaemon]:
    """The first host's daemon; images of the test are removed afterwards."""
    yield host.daemon
    left = host.daemon.docker("images", "--quiet", "--filter", f"reference={NAME}").stdout.decode().split()
    left += host.daemon.docker("images", "--quiet", "--filter", "dangling=true").stdout.decode().split()
    host.daemon.docker("rmi", "--force", *dict.fromkeys(left), check=False)


def save(repository: str, run_id: str) -> str:
    """Save the tag and return the backup's id."""
    operator = DockerSaveOperator(
        task_id="save", dockerbackup_conn_id="docker_host_1", image=TAG, repository=repository
    )
    return str(operator.execute(context(run_id=run_id, task_id="save"))["backup_id"])


def rollback(repository: str, **options: Any) -> dict[str, Any]:
    """Roll the tag back on the first host."""
    operator = DockerBackupRollbackOperator(
        task_id="rollback", dockerbackup_conn_id="docker_host_1", repository=repository, **{"tag": TAG, **options}
    )
    operator.render_template_fields({}, operator.get_template_env())
    summary: dict[str, Any] = operator.execute(context(task_id="rollback"))
    return summary


def test_a_bad_release_is_rolled_back_and_the_rollback_too(daemon: LabDaemon, repository_url: str) -> None:
    """The write-up never tried it: the very same image is back, ran in a test daemon first, and nothing is lost."""
    good = build(daemon, DOCKERFILE)
    first = save(repository_url, "run-1")
    daemon.docker("rmi", TAG)
    bad = build(daemon, DOCKERFILE.replace("echo late", "echo broken"))
    planned = rollback(repository_url, plan_only="true")
    assert (planned["image_id"], planned["kept"]) == ("", f"{NAME}:before-{first}")
    assert image_id(daemon, TAG) == bad
    done = rollback(repository_url)
    assert (done["backup_id"], done["image_id"], done["previous_id"]) == (first, good, bad)
    assert (done["proven"], done["passed_by"]) == (["test daemon", "target"], "healthcheck")
    assert image_id(daemon, TAG) == good
    assert cat(daemon, TAG, "/srv/mode") == "late"
    assert image_id(daemon, done["kept"]) == bad
    daemon.docker("tag", done["kept"], TAG)
    assert image_id(daemon, TAG) == bad
    again = rollback(repository_url, prove="load")
    assert (again["image_id"], again["kept"]) == (good, done["kept"])
    names = daemon.docker("images", "--format", "{{.Repository}}").stdout.decode().split()
    assert "dockerbackup-rollback" not in names
    assert daemon.docker("ps", "--all", "--quiet", "--filter", "name=dockerbackup-rollback").stdout == b""


def test_an_image_goes_back_to_an_earlier_step_of_its_own_history(daemon: LabDaemon, repository_url: str) -> None:
    """Later layers, history and configuration are gone; it runs; what the tag stood for has a second name."""
    last = build(daemon, DOCKERFILE)
    backup_id = save(repository_url, "run-1")
    lines = daemon.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", TAG).stdout.decode().splitlines()[::-1]
    step = next(number for number, line in enumerate(lines, start=1) if line.endswith("VOLUME [/data]"))
    done = rollback(repository_url, backup_id=backup_id, step=str(step), drill={"stay_up_seconds": 1})
    assert (done["previous_id"], done["passed_by"]) == (last, "uptime")
    assert image_id(daemon, done["kept"]) == last
    kept = daemon.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", TAG).stdout.decode().splitlines()[::-1]
    assert kept == lines[:step]
    config = config_of(daemon, TAG)
    assert set(config["Env"]) == {"MODE=early", "TEXT=two words", "PATH=/srv:/bin:/usr/bin"}
    assert (config["Labels"], config["WorkingDir"]) == ({"release": "1"}, "/srv")
    assert (config["Cmd"], config["Entrypoint"]) == (["/bin/busybox", "sleep", "1000"], None)
    assert (config.get("User", ""), config.get("Healthcheck"), config.get("StopSignal")) == ("", None, None)
    assert cat(daemon, TAG, "/srv/mode") == "early"
    assert "No such file" in cat(daemon, TAG, "/srv/new")
    assert "Env.MODE" in done["exact"] + done["guessed"]


@pytest.mark.parametrize(("dockerfile", "least"), [(DOCKERFILE, 100), (ODD, 40)], ids=["plain", "odd"])
def test_what_is_called_exact_is_what_the_builders_own_image_of_that_step_has(
    daemon: LabDaemon, dockerfile: str, least: int
) -> None:
    """The classic builder keeps an image of every step: the truth against which each recovered value is held."""
    build(daemon, TRIGGERS, f"{NAME}:triggers")
    build(daemon, dockerfile)
    scanner = DockerArchiveScanner()
    scanner.feed(daemon.docker("save", TAG).stdout)
    document = scanner.finish().image.config
    steps = daemon.docker("history", "--no-trunc", "--quiet", TAG).stdout.decode().split()[::-1]
    assert len(steps) > 15
    compared = 0
    for number, step_image in enumerate(steps, start=1):
        (shown,) = json.loads(daemon.docker("image", "inspect", step_image).stdout)
        truth = flat(shown["Config"])
        earlier = earlier_configuration(document, step=number)
        found = flat(earlier.config)
        for name in earlier.exact:
            assert found.get(name) == truth.get(name), (number, name)
            compared += 1
        assert set(truth) - set(found) <= set(earlier.guessed), number
        assert set(found) - set(truth) <= set(earlier.guessed), number
        assert (json.loads(earlier.document).get("author") or "") == shown["Author"], number
        wrong = {name for name in truth if name in found and found[name] != truth[name]}
        assert wrong <= set(earlier.guessed), number
    assert compared > least


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """Return every value that is not empty, by name."""
    values: dict[str, Any] = {}
    for key in ("Cmd", "Entrypoint", "Healthcheck", "OnBuild", "Shell", "StopSignal", "User", "WorkingDir"):
        if config.get(key):
            values[key] = config[key]
    values |= {f"Env.{each.partition('=')[0]}": each.partition("=")[2] for each in config.get("Env") or ()}
    for key in ("ExposedPorts", "Labels", "Volumes"):
        values |= {f"{key}.{name}": value for name, value in (config.get(key) or {}).items()}
    return values


def test_an_image_that_does_not_run_moves_no_tag(daemon: LabDaemon, repository_url: str) -> None:
    """The task fails for good, says so, and the host has neither the image nor a name of ours."""
    build(daemon, f'FROM {BASE}\nCMD ["/bin/false"]\n')
    save(repository_url, "run-1")
    now = build(daemon, DOCKERFILE)
    before = daemon.docker("images", "--all", "--no-trunc", "--quiet").stdout.split()
    with pytest.raises(AirflowFailException, match=r"does not run in the test daemon, so no tag was moved"):
        rollback(repository_url)
    assert image_id(daemon, TAG) == now
    assert sorted(daemon.docker("images", "--all", "--no-trunc", "--quiet").stdout.split()) == sorted(before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": "two"}, "step: expected a whole number"),
        ({"plan_only": "maybe"}, "plan_only: expected true or false"),
        ({"drill": {"porbe": []}}, "drill: unknown porbe"),
        ({"tag": "app@sha256:" + "0" * 64}, "tag: expected NAME:TAG"),
        ({"prove": "hope"}, "prove: expected one of none, load, run"),
        ({"test_daemon": "unix:///nowhere.sock"}, "nowhere.sock"),
    ],
    ids=str,
)
def test_bad_input_is_refused_with_what_to_write(
    daemon: LabDaemon, repository_url: str, options: dict[str, Any], message: str
) -> None:
    """Each names the parameter, and the tag stays."""
    build(daemon, f'FROM {BASE}\nCMD ["/bin/true"]\n')
    backup_id = save(repository_url, "run-1")
    now = build(daemon, DOCKERFILE)
    with pytest.raises(Exception, match=message):
        rollback(repository_url, **{"backup_id": backup_id, **options})
    assert image_id(daemon, TAG) == now
