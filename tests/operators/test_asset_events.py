# SPDX-License-Identifier: Apache-2.0
"""What asset events tell, and how a DAG that runs on them reads it; ``test_events`` tries it in a whole Airflow."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.openlineage.extractors.base import DefaultExtractor
from airflow.sdk import Asset, AssetAlias

from airflow_provider_dockerbackup.operators.asset_events import backup_asset, backup_ids
from airflow_provider_dockerbackup.operators.remove import DockerRemoveOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.verify import DockerBackupVerifyOperator
from tests.lab.lab import LabHost
from tests.operators.context import context

ASSET = Asset("nightly")
ALIAS = AssetAlias("dockerbackup_saved")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def save(repository: str, *, image: str = "lab/base:1", **run: Any) -> tuple[Any, Any]:
    """Save one of the lab's images; return the summary and what the outlets tell."""
    operator = DockerSaveOperator(
        task_id="save",
        dockerbackup_conn_id="docker_host_1",
        image=image,
        repository=repository,
        # Outlets may be anything that lineage knows, not only assets.
        outlets=[ASSET, ALIAS, {"not": "an asset"}],
    )
    given = context(task_id="save", **run)
    return operator.execute(given), given["outlet_events"]


@pytest.mark.usefixtures("connections")
def test_an_alias_is_told_of_backups_that_were_made_and_an_asset_of_every_success(repository_url: str) -> None:
    """Also of one whose first try was killed before Airflow heard of it; an unchanged image is no new backup."""
    made, told = save(repository_url)
    (event,) = told[ALIAS].asset_alias_events
    uri = f"x-dockerbackup://{made['host']}/image/lab/base:1"
    assert (event.dest_asset_key.name, event.dest_asset_key.uri) == (uri, uri)
    assert event.dest_asset_key == type(event.dest_asset_key).from_asset(Asset(uri=uri))
    assert event.extra == told[ASSET].extra
    assert event.extra == {
        "backup_id": made["backup_id"],
        "host": made["host"],
        "kind": "image",
        "source": "lab/base:1",
        "status": "committed",
        "repository": repository_url,
        "content_digest": made["content_digest"],
        "size_bytes": made["size_bytes"],
        "stored_size_bytes": made["stored_size_bytes"],
        "trust": "none",
        "audit_head": made["audit_head"],
    }
    json.dumps(event.extra)
    again, told = save(repository_url)
    assert again["status"] == "already"
    assert [each.extra["backup_id"] for each in told[ALIAS].asset_alias_events] == [made["backup_id"]]
    unchanged, told = save(repository_url, run_id="run-2")
    assert unchanged["status"] == "unchanged"
    assert told[ALIAS].asset_alias_events == []
    assert told[ASSET].extra["status"] == "unchanged"


@pytest.mark.usefixtures("connections")
def test_other_tasks_tell_their_assets_what_they_found(repository_url: str) -> None:
    """A verification tells its level and result; an alias, which names backups that are made, nothing."""
    made, _ = save(repository_url)
    operator = DockerBackupVerifyOperator(
        task_id="verify",
        repository=repository_url,
        backup_id=made["backup_id"],
        level="digests",
        outlets=[ASSET, ALIAS],
    )
    given = context(task_id="verify")
    operator.execute(given)
    extra = given["outlet_events"][ASSET].extra
    assert (extra["backup_id"], extra["level"], extra["verification"]) == (made["backup_id"], "digests", "passed")
    assert given["outlet_events"][ALIAS].asset_alias_events == []


@pytest.mark.usefixtures("connections")
def test_a_removal_that_names_a_backup_has_made_none(host: LabHost, repository_url: str) -> None:
    """Though it names host, kind and source as a save does, and is ``already`` when there is nothing left to remove."""
    tag = "lab-events/gone:1"
    host.daemon.docker("tag", "lab/base:1", tag)
    try:
        made, _ = save(repository_url, image=tag)
    finally:
        host.daemon.docker("rmi", tag)
    verify = DockerBackupVerifyOperator(
        task_id="verify", repository=repository_url, backup_id=made["backup_id"], level="digests"
    )
    verify.execute(context(task_id="verify"))
    remove = DockerRemoveOperator(
        task_id="remove",
        dockerbackup_conn_id="docker_host_1",
        image=tag,
        repository=repository_url,
        required_level="digests",
        outlets=[ASSET, ALIAS],
    )
    given = context(task_id="remove")
    summary = remove.execute(given)
    extra = given["outlet_events"][ASSET].extra
    assert (summary["status"], extra["status"], extra["backup_id"]) == ("already", "already", made["backup_id"])
    assert given["outlet_events"][ALIAS].asset_alias_events == []
    assert backup_ids({"asset": [event(1, **extra)]}) == []
    lineage = DefaultExtractor(remove).extract_on_complete(None)
    assert lineage is not None
    assert (lineage.inputs, lineage.outputs) == ([], [])


@pytest.mark.parametrize(
    ("source", "uri"),
    [
        ({"host": "web1", "kind": "image", "source": "app:1"}, "x-dockerbackup://web1/image/app:1"),
        ({"host": "web1:2222", "kind": "container", "source": "shop"}, "x-dockerbackup://web1:2222/container/shop"),
        (
            {"host": "fe80::1%eth0", "kind": "image", "source": "r.example:5000/a/b@sha256:00"},
            "x-dockerbackup://fe80::1%25eth0/image/r.example:5000/a/b@sha256:00",
        ),
        (
            {"host": "jane@web [1]", "kind": "image", "source": "app:1"},
            "x-dockerbackup://jane%40web%20%5B1%5D/image/app:1",
        ),
    ],
)
def test_the_asset_of_a_source_has_a_name_that_a_schedule_can_spell(source: dict[str, str], uri: str) -> None:
    """Name and URI are the same, as of an asset that a DAG makes of the URI alone."""
    asset = backup_asset(**source)
    assert (asset.name, asset.uri) == (uri, uri)
    assert asset == Asset(uri)


def event(minutes: int, **extra: Any) -> Any:
    """Return an event as the context variable has it."""
    return SimpleNamespace(timestamp=NOON + timedelta(minutes=minutes), extra=extra)


def test_a_triggered_run_reads_each_backup_once_oldest_first() -> None:
    """An event is found under its asset and under its alias; events of others, and of nothing new, are left out."""
    made = {"host": "web1", "kind": "image", "source": "app:1", "status": "committed", "content_digest": "sha256:00"}
    late, early = event(9, backup_id="b", **made), event(1, backup_id="a", **made)
    others = [event(2), event(3, backup_id="x"), event(4, backup_id="y", **{**made, "status": "unchanged"})]
    assert backup_ids({"asset": [late, early], "alias": [late, early], "other": others}) == ["a", "b"]
    assert backup_ids({}) == []
