# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_dockerbackup.core.restore import RestoreRequest
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.core.world import CONTAINER, IMAGE, World

_STREAMS = ("save_image", "export_temporary", "load_image", "import_filesystem")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What hosts are asked from now on, as far as it matters here."""
    heard: list[str] = []

    def listen(name: str) -> None:
        method = getattr(MemoryDockerHost, name)

        def told(host: MemoryDockerHost, *arguments: Any, **options: Any) -> Any:
            heard.append(name)
            return method(host, *arguments, **options)

        monkeypatch.setattr(MemoryDockerHost, name, told)

    for name in ("expect_stream", "engine", *_STREAMS):
        listen(name)
    return heard


@pytest.mark.parametrize("layout", ["archive", "layers"])
@pytest.mark.parametrize(("source", "stream"), [(IMAGE, "save_image"), (CONTAINER, "export_temporary")])
def test_a_host_is_told_of_a_capture_before_it_is_asked_for_its_engine(
    layout: str, source: Any, stream: str, calls: list[str]
) -> None:
    """So that the stream's connection is made meanwhile."""
    World(layout=layout).backup(1, source, capture="save")
    assert calls[:2] == ["expect_stream", "engine"]
    assert stream in calls[2:]


def test_a_host_whose_image_is_unchanged_is_told_nothing(calls: list[str]) -> None:
    """No connection is made for a stream that does not come."""
    world = World()
    world.backup(1)
    calls.clear()
    assert world.backup(2, force=False).status == "unchanged"
    assert calls == []


@pytest.mark.parametrize(
    ("layout", "source", "request_", "asked"),
    [
        ("layers", IMAGE, RestoreRequest(), ["expect_stream", "engine", "load_image"]),
        ("archive", IMAGE, RestoreRequest(), ["expect_stream", "load_image"]),
        ("archive", CONTAINER, RestoreRequest(method="import"), ["expect_stream", "import_filesystem"]),
    ],
)
def test_a_target_is_told_of_a_restore_first(
    layout: str, source: Any, request_: RestoreRequest, asked: list[str], calls: list[str]
) -> None:
    """Before its engine and its layers are asked for."""
    world = World(layout=layout)
    backup = world.backup(1, source).backup
    calls.clear()
    world.restore(backup, request_, host=MemoryDockerHost("ship-2"))
    assert calls[: len(asked)] == asked
