# SPDX-License-Identifier: Apache-2.0
"""What every Docker host must do with containers that are made anew: a real one over SSH, and the twin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_dockerbackup.core.container_options import ContainerOption
from airflow_provider_dockerbackup.core.ports import DockerHost
from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError, NotFoundError
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.contract.archives import docker_archive, layer
from tests.lab.lab import LabHost
from tests.transport.ssh_lab import session

NAMES = ("contract-one", "contract-two")
OPTIONS = (
    ContainerOption(name="label", value="several=line one\nline 'two' $(x)"),
    ContainerOption(name="network", value="none"),
    ContainerOption(name="restart", value="on-failure:3"),
)


@pytest.fixture(params=["memory", "ssh"])
def host(request: pytest.FixtureRequest) -> Iterator[DockerHost]:
    """A host that has the image ``lab/app:1``."""
    if request.param == "memory":
        twin = MemoryDockerHost("web-1")
        twin.add_archive(docker_archive((layer(a="one"),), tags=["lab/app:1"]))
        yield twin
        return
    lab_host: LabHost = request.getfixturevalue("host_of_lab")
    opened = SshDockerHost(session(lab_host), name="web-1")
    yield opened
    opened.close()
    for name in NAMES:
        lab_host.daemon.docker("rm", "--force", "--volumes", name, check=False)


@pytest.fixture
def host_of_lab(request: pytest.FixtureRequest) -> LabHost:
    """The lab's first host, started only when a test asks for it."""
    found: LabHost = request.getfixturevalue("lab").hosts[0]
    return found


def test_the_layers_of_each_image_are_told(host: DockerHost) -> None:
    """As inspect tells them for one."""
    assert host.inspect_image("lab/app:1").diff_ids in host.layer_chains()


def test_a_container_is_made_started_renamed_and_stopped(host: DockerHost) -> None:
    """Made it does not run; its labels are those of the image and of the options, to the letter."""
    one, two = NAMES
    made = host.create_from_options("lab/app:1", name=one, options=OPTIONS)
    found = host.inspect_container(one)
    assert (found.id, found.status) == (made, "created")
    assert found.config["Labels"]["several"] == "line one\nline 'two' $(x)"
    host.stop_container(one, timeout_seconds=1)
    host.start_container(one)
    host.start_container(made)
    assert host.inspect_container(one).status == "running"
    host.rename_container(made, to=two)
    assert (host.inspect_container(two).id, host.inspect_container(two).status) == (made, "running")
    with pytest.raises(NotFoundError):
        host.inspect_container(one)
    for _ in range(2):
        host.stop_container(two, timeout_seconds=1)
        assert host.inspect_container(two).status == "exited"
    host.remove_container(two)
    with pytest.raises(NotFoundError):
        host.inspect_container(two)


def test_a_taken_name_and_a_missing_container_are_told(host: DockerHost) -> None:
    """Of the kinds that say what to do."""
    one, two = NAMES
    made = host.create_from_options("lab/app:1", name=one, options=())
    host.create_from_options("lab/app:1", name=two, options=())
    with pytest.raises(ConflictError):
        host.create_from_options("lab/app:1", name=one, options=())
    for to in (one, two):
        with pytest.raises(ConflictError):
            host.rename_container(made, to=to)
    for name in NAMES:
        host.remove_container(name)
    with pytest.raises(NotFoundError):
        host.start_container(one)
    with pytest.raises(NotFoundError):
        host.stop_container(one, timeout_seconds=1)
    with pytest.raises(NotFoundError):
        host.rename_container(one, to=two)
    with pytest.raises(NotFoundError):
        host.create_from_options("lab/no-such:1", name=one, options=())


def test_a_command_needs_a_container_that_runs(host: DockerHost) -> None:
    """The error tells which of the two is amiss."""
    one, _ = NAMES
    command = ("/bin/busybox", "true")
    said: list[str] = []
    with pytest.raises(NotFoundError):
        host.exec_container(one, command, what="pre_command", timeout_seconds=20, told=said.append)
    host.create_from_options("lab/app:1", name=one, options=OPTIONS)
    with pytest.raises(ConflictError):
        host.exec_container(one, command, what="pre_command", timeout_seconds=20, told=said.append)
    host.start_container(one)
    host.exec_container(one, command, what="pre_command", timeout_seconds=20, told=said.append)
    host.stop_container(one, timeout_seconds=1)
    with pytest.raises(ConflictError):
        host.exec_container(one, command, what="pre_command", timeout_seconds=20, told=said.append)
    host.remove_container(one)


def test_a_commit_pauses_what_runs_and_measures_it(host: DockerHost) -> None:
    """A container that does not run is committed as it is; that is no pause of ours."""
    one, _ = NAMES
    with pytest.raises(NotFoundError):
        host.commit_paused(one, reference="contract/paused:1", limit_seconds=60)
    host.create_from_options("lab/app:1", name=one, options=OPTIONS)
    still = host.commit_paused(one, reference="contract/paused:1", message="m", author="a", limit_seconds=60)
    assert still.pause_seconds is None
    host.start_container(one)
    made = host.commit_paused(one, reference="contract/paused:1", message="m", author="a", limit_seconds=60)
    assert 0 < (made.pause_seconds or 0) < 60
    assert host.inspect_image("contract/paused:1").id == made.image_id
    newest = host.image_history("contract/paused:1")[-1]
    assert newest.comment == "m"
    assert host.inspect_container(one).status == "running"
    host.stop_container(one, timeout_seconds=1)
    host.remove_container(one)
    host.remove_image("contract/paused:1")
    if made.image_id != still.image_id:
        host.remove_image(still.image_id)


def test_an_export_pauses_what_runs_and_measures_it_at_its_end(host: DockerHost) -> None:
    """While it is read the container is paused; nothing is measured before its end."""
    one, _ = NAMES
    host.create_from_options("lab/app:1", name=one, options=OPTIONS)
    _fill(host, one)
    still = host.export_paused(one, limit_seconds=60)
    assert b"".join(still)
    assert still.pause_seconds is None
    host.start_container(one)
    stream = host.export_paused(one, limit_seconds=60)
    states = {host.inspect_container(one).status for _ in stream}
    assert states <= {"paused", "running"}
    assert 0 < (stream.pause_seconds or 0) < 60
    assert host.inspect_container(one).status == "running"
    host.stop_container(one, timeout_seconds=1)
    host.remove_container(one)


def _fill(host: DockerHost, name: str) -> None:
    """Give the twin's container a filesystem; a real one has its own."""
    if isinstance(host, MemoryDockerHost):
        host.container(name).filesystem = b"\0" * 10240


def test_a_container_is_removed_only_when_it_does_not_run(host: DockerHost) -> None:
    """Without force: what runs stays; what is gone is no error; the listing names its image by ID."""
    one, two = NAMES
    made = host.create_from_options("lab/app:1", name=one, options=OPTIONS)
    listed = {each.name: each for each in host.list_containers()}
    assert listed[one].image_id == host.inspect_image("lab/app:1").id
    host.start_container(one)
    with pytest.raises(ConflictError):
        host.remove_container_keeping_volumes(made)
    assert host.inspect_container(one).status == "running"
    host.stop_container(one, timeout_seconds=1)
    for _ in range(2):
        host.remove_container_keeping_volumes(made)
    with pytest.raises(NotFoundError):
        host.inspect_container(one)
    host.remove_container_keeping_volumes(two)


def test_start_and_end_of_a_container_tell_whether_it_ran_since(host: DockerHost) -> None:
    """They stay as they are while it does not run, and differ after each run."""
    one, _ = NAMES
    host.create_from_options("lab/app:1", name=one, options=OPTIONS)
    made = host.inspect_container(one)
    assert made.started_at
    times = {(made.started_at, made.finished_at)}
    for _ in range(2):
        host.start_container(one)
        host.stop_container(one, timeout_seconds=1)
        first, second = host.inspect_container(one), host.inspect_container(one)
        assert (first.started_at, first.finished_at) == (second.started_at, second.finished_at)
        times.add((first.started_at, first.finished_at))
    assert len(times) == len({started for started, _ in times}) == len({ended for _, ended in times}) == 3
    host.remove_container(one)


def test_an_image_is_removed_by_id_unless_it_has_two_tags_or_a_container_uses_it(host: DockerHost) -> None:
    """With one tag it goes by its ID, tag and all; a tag among several goes alone; what is gone is no error."""
    one, _ = NAMES
    host.create_from_options("lab/app:1", name=one, options=())
    image_id = host.commit_container(one, reference="contract/removed:1", message="its own")
    made = host.create_from_options("contract/removed:1", name=NAMES[1], options=())
    for reference in (image_id, "contract/removed:1"):
        with pytest.raises(ConflictError):
            host.remove_image(reference)
    assert host.inspect_image("contract/removed:1").id == image_id
    host.tag_image(image_id, reference="contract/removed:2")
    with pytest.raises(ConflictError):
        host.remove_image(image_id)
    host.remove_image("contract/removed:2")
    assert host.inspect_image(image_id).repo_tags == ("contract/removed:1",)
    host.remove_container_keeping_volumes(made)
    for _ in range(2):
        host.remove_image(image_id)
    for reference in (image_id, "contract/removed:1"):
        with pytest.raises(NotFoundError):
            host.inspect_image(reference)
    host.remove_container(one)


def test_the_networks_that_every_engine_has_are_listed(host: DockerHost) -> None:
    """A restore asks for its network before it touches anything."""
    assert {"host", "none"} <= set(host.list_networks())


def test_a_refused_option_does_not_show_its_secret(host_of_lab: LabHost) -> None:
    """Engines repeat what they do not like."""
    host = SshDockerHost(session(host_of_lab), name="web-1")
    options = [ContainerOption(name="log-opt", value="hunter2secret=hunter3secret", secret=True)]
    with pytest.raises(DockerBackupError) as caught:
        host.create_from_options("lab/app:1", name="contract-secret", options=options)
    host.close()
    assert "hunter" not in str(caught.value)
