# SPDX-License-Identifier: Apache-2.0
"""The fidelity report of images and containers: complete by name, without any value."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.archive.docker_archive import ArchivedImage
from airflow_provider_dockerbackup.core.configuration import configuration_of
from airflow_provider_dockerbackup.core.fidelity import TIMES_OF_DOCKER, image_fidelity
from airflow_provider_dockerbackup.core.model import Consistency
from airflow_provider_dockerbackup.core.record import BackupRecord, Fidelity
from tests.core.archive.making import scan
from tests.core.world import CONTAINER, IMAGE, World, app_archive

SECRET = "hunter2\nof two lines"
ENGINES = Path(__file__).parent.parent.parent / "docs" / "reference" / "engines.md"
CONFIG: dict[str, Any] = {
    "Env": ["PATH=/bin", f"TOKEN={SECRET}"],
    "Labels": {"note": SECRET},
    "Volumes": {"/var/lib/app": {}},
    "User": "app",
}


def outcomes(fidelity: Fidelity, subject: str) -> dict[str, str]:
    """Return the outcome of each thing of a subject."""
    return {each.name: each.outcome for each in fidelity.items if each.subject == subject}


def record_of(world: World, **options: Any) -> BackupRecord:
    """Return the record of a new backup."""
    return world.backup(1, **options).backup.whole()


def test_a_saved_image_keeps_all_but_its_tags_and_volumes() -> None:
    """Each configuration value by its name; the data of its volumes is said to be lost."""
    world = World()
    world.host.add_archive(app_archive("one", config=CONFIG))
    record = record_of(world)
    kept = {"Cmd", "Env.PATH", "Env.TOKEN", "Labels.note", "Volumes./var/lib/app", "User"}
    assert outcomes(record.fidelity, "configuration") == dict.fromkeys(kept, "kept")
    assert outcomes(record.fidelity, "layers") == {"all 2": "kept"}
    assert outcomes(record.fidelity, "tags") == {IMAGE.name: "changed"}
    assert outcomes(record.fidelity, "mounts") == {"/var/lib/app": "lost"}
    assert set(outcomes(record.fidelity, "history").values()) == {"kept"}
    assert b"hunter2" not in record.to_bytes()


def test_a_configuration_that_the_archive_has_otherwise_is_said_to_be_changed() -> None:
    """Compared by HMAC, value by value; what only one of them has counts as well."""
    world = World()
    world.host.add_archive(app_archive("one", config=CONFIG))
    image: ArchivedImage = scan(app_archive("one", config=CONFIG)).image
    document = json.loads(image.config)
    document["config"] |= {"User": "other", "StopSignal": "SIGINT"}
    del document["config"]["Labels"]
    other = dataclasses.replace(image, config=json.dumps(document).encode())
    inspected = world.host.inspect_image(IMAGE.name)
    report = image_fidelity(other, inspected, configuration_of(inspected.config, salt=b"salt"))
    changed = {name for name, outcome in outcomes(report, "configuration").items() if outcome == "changed"}
    assert changed == {"User", "StopSignal", "Labels.note"}


@pytest.mark.parametrize("consistency", ["snapshot", "pause", "none"])
def test_an_export_loses_layers_and_history_and_keeps_configuration_and_files(consistency: Consistency) -> None:
    """Only an export of a container that ran on meanwhile is of no one moment."""
    world = World()
    record = record_of(world, source=CONTAINER, consistency=consistency)
    names = set(record.configuration.values)
    assert names
    assert outcomes(record.fidelity, "configuration").items() >= dict.fromkeys(names, "kept").items()
    assert outcomes(record.fidelity, "history") == {"all": "lost"}
    assert outcomes(record.fidelity, "layers") == {"all": "changed"}
    files = outcomes(record.fidelity, "files")
    assert files["file: 2"] == "kept"
    assert ("one moment" in files) == (consistency == "none")


def test_the_paths_whose_times_docker_sets_are_those_of_the_page_and_of_every_report() -> None:
    """What the page on engines leaves out of its comparison is named there and in each container's report."""
    page = ENGINES.read_text(encoding="utf-8")
    files = outcomes(record_of(World(), source=CONTAINER).fidelity, "files")
    for path in TIMES_OF_DOCKER:
        assert f"`{path}`" in page
        assert files[path] == "changed"
