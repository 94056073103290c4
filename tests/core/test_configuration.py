# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.configuration import (
    IMAGE_KEYS,
    configuration_of,
    declared_volumes,
    differences,
    step_without_values,
    uncovered_mounts,
)
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.core.archive.making import image_config, layer, legacy_archive, tar_of
from tests.core.world import CONTAINER, FILESYSTEM, HOST, IMAGE, World, contents

CONFIG: dict[str, Any] = {
    "Env": ["PATH=/bin", "PASSWORD=hunter2", "EMPTY=", "EQUALS=a=b"],
    "Labels": {"team": "payments", "token": "s3cret-label"},
    "Cmd": ["/app", "--key=s3cret-cmd"],
    "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/data": {}},
    "User": "",
    "Hostname": "0123456789ab",
}
SECRETS = ("hunter2", "s3cret-label", "s3cret-cmd", "s3cret-history", "s3cret-argument", "s3cret-old", "payments")


def test_hmacs_of_equal_values_are_equal_under_one_salt_and_differ_under_another() -> None:
    """Equal values can be told equal within a record, and nothing can be matched between records."""
    one, same, other = (configuration_of(CONFIG, salt=salt) for salt in (b"a" * 16, b"a" * 16, b"b" * 16))
    assert one == same
    assert one.values.keys() == other.values.keys()
    assert not set(one.values.values()) & set(other.values.values())


def test_two_records_of_one_image_share_no_hmac() -> None:
    """Each backup draws its own salt."""
    world = World()
    one, two = (world.backup(run).backup.whole().configuration for run in (1, 2))
    assert one.salt != two.salt
    assert len(bytes.fromhex(one.salt)) >= 16
    assert not set(one.values.values()) & set(two.values.values())


def test_a_configuration_is_kept_by_name_one_for_each_variable_and_label() -> None:
    """Names say what is there; empty keys and keys of a container's own are left out."""
    assert set(configuration_of(CONFIG, salt=b"x").values) == {
        "Env.PATH", "Env.PASSWORD", "Env.EMPTY", "Env.EQUALS", "Labels.team", "Labels.token", "Cmd",
        "ExposedPorts.80/tcp", "Volumes./data",
    }  # fmt: skip


@pytest.mark.parametrize("absent", [None, "", [], {}])
@pytest.mark.parametrize("key", IMAGE_KEYS)
def test_an_empty_value_counts_as_absent(key: str, absent: Any) -> None:
    """Engines write empty values in different ways, and that is no drift."""
    assert differences(configuration_of({}, salt=b"x"), {key: absent}) == ()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"Env": ["PATH=/bin", "PASSWORD=other", "EMPTY=", "EQUALS=a=b"]}, ("Env.PASSWORD",)),
        ({"Env": ["PATH=/bin"]}, ("Env.EMPTY", "Env.EQUALS", "Env.PASSWORD")),
        ({"Env": [*CONFIG["Env"], "NEW=1"]}, ("Env.NEW",)),
        ({"Env": list(reversed(CONFIG["Env"]))}, ()),
        ({"Labels": {"team": "payments"}}, ("Labels.token",)),
        ({"Cmd": ["/app"]}, ("Cmd",)),
        ({"User": "app"}, ("User",)),
        ({"Hostname": "another"}, ()),
    ],
)
def test_drift_is_told_by_name_and_never_by_value(change: dict[str, Any], names: tuple[str, ...]) -> None:
    """Exactly the names whose values changed are given."""
    assert differences(configuration_of(CONFIG, salt=b"x"), {**CONFIG, **change}) == names


def _secretive_host() -> MemoryDockerHost:
    layers = [layer("bin/sh"), layer("app")]
    document = {**image_config(layers), "config": CONFIG}
    document["history"] = [
        {"created_by": "COPY sh /bin/sh # buildkit"},
        {"created_by": "/bin/sh -c #(nop)  ENV PASSWORD=s3cret-old", "empty_layer": True},
        {"created_by": "ENV PASSWORD=hunter2 TOKEN=s3cret-history", "empty_layer": True},
        {"created_by": "LABEL token=s3cret-label", "empty_layer": True},
        {"created_by": "RUN |1 TOKEN=s3cret-argument /bin/sh -c make # buildkit"},
        {"created_by": 'CMD ["/app"]', "empty_layer": True},
    ]
    host = MemoryDockerHost(HOST)
    host.add_archive(tar_of(legacy_archive(layers, config=document, tags=[IMAGE.name])))
    host.add_container("web", image=IMAGE.name, filesystem=FILESYSTEM)
    return host


@pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=str)
def test_no_value_of_a_configuration_leaves_archive_and_container_document(source: Any) -> None:
    """Secrets planted in environment, labels, command and history stand in no record, event or other document."""
    world = World(host=_secretive_host())
    backup = world.verify(world.backup(1, source).backup).backup_id
    world.backup(2, source, force=False)
    found = contents(world.storage, "")
    secretive = {path for path, data in found.items() if any(secret.encode() in data for secret in SECRETS)}
    names = {path.rsplit("/", 1)[1].split("-", 1)[0] for path in secretive}
    assert backup
    assert names == ({"image"} if source is IMAGE else {"container"})
    assert not any(secret in note for secret in SECRETS for note in world.progress.notes)


@pytest.mark.parametrize(
    ("created_by", "kept"),
    [
        ("ENV A=secret", "ENV A=…"),
        ("ENV A=secret B=secret", "ENV A=…"),
        ("ENV A secret", "ENV A=…"),
        ("/bin/sh -c #(nop)  ENV A=secret\nsecret", "ENV A=…"),
        ("/bin/sh -c #(nop)  LABEL a=secret", "LABEL a=…"),
        ("ARG TOKEN=secret", "ARG TOKEN=…"),
        ("ARG TOKEN", "ARG TOKEN"),
        ("RUN |2 A=secret B=x secret /bin/sh -c make # buildkit", "RUN"),
        ("|1 A=secret /bin/sh -c make", "RUN"),
        ("RUN |1 A=secret /bin/bash -c make", "RUN"),
        ("/bin/sh -c curl -H secret", "RUN"),
        ('/bin/sh -c #(nop)  CMD ["serve" "--token=secret"]', "CMD"),
        ('HEALTHCHECK &{["CMD-SHELL" "secret"] "5m0s"}', "HEALTHCHECK"),
        ("COPY a b # buildkit", "COPY"),
        ("serve --token=secret", ""),
        ("", ""),
    ],
)
def test_a_history_step_keeps_its_instruction_and_loses_values(created_by: str, kept: str) -> None:
    """Both builders' ways to write a step are recognised; what no builder wrote becomes nothing."""
    assert step_without_values(created_by) == kept


def test_mounts_of_a_container_are_listed_as_not_covered() -> None:
    """Whoever reads the record sees what data is not in the backup."""
    mounts = [
        {"Type": "volume", "Name": "data", "Source": "/var/lib/docker/volumes/data", "Destination": "/data"},
        {"Type": "bind", "Source": "/srv", "Destination": "/srv"},
        {"Type": "tmpfs", "Destination": "/tmp"},
    ]
    found = [(mount.type, mount.name, mount.destination) for mount in uncovered_mounts(mounts)]
    assert found == [("volume", "data", "/data"), ("bind", "/srv", "/srv"), ("tmpfs", "", "/tmp")]


def test_volumes_that_an_image_declares_are_listed_as_not_covered() -> None:
    """An image that declares volumes says in its record that their content is elsewhere."""
    world = World(host=_secretive_host())
    assert [mount.destination for mount in world.backup(1).backup.whole().not_covered] == ["/data"]
    assert declared_volumes({"Volumes": None}) == ()


def test_names_of_the_configuration_stand_in_the_record() -> None:
    """What can be compared later is there by name."""
    record = World(host=_secretive_host()).backup(1).backup.whole()
    assert {"Env.PASSWORD", "Labels.token", "Cmd"} <= json.loads(record.to_bytes())["configuration"]["values"].keys()
