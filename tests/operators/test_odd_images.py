# SPDX-License-Identifier: Apache-2.0
"""Images at the edges of what there can be, by both ways of capture, from a classic and a containerd store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.verify import VerifyRequest, verify_backup
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from airflow_provider_dockerbackup.transport.throwaway_daemon import throwaway_daemon
from tests.core.archive.making import compact, image_config, layer, legacy_archive, tar_of
from tests.core.world import Notes
from tests.lab.engines import Engine
from tests.lab.lab import Lab, LabHost
from tests.operators.moving import save_from

NAME = "lab/odd:1"
EMPTY = tar_of([])
IMAGES: dict[str, Callable[[], list[bytes]]] = {
    "no layer": list,
    "an empty layer": lambda: [layer("bin/sh"), EMPTY, layer("app")],
    "an empty layer alone": lambda: [EMPTY],
    "a layer three times": lambda: [layer("a"), layer("b"), layer("a"), layer("a")],
    "120 layers": lambda: [layer(f"layer/{number}") for number in range(120)],
}


@pytest.fixture(scope="module", params=[Engine(), Engine(version="28", containerd_store=True)], ids=str)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """A Docker host."""
    if request.param == Engine():
        yield request.getfixturevalue("lab").hosts[0]
        return
    with Lab.start(tmp_path_factory.mktemp("odd"), engine=request.param) as lab:
        yield lab.hosts[0]


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest, source: LabHost) -> Iterator[dict[str, Any]]:
    """One of the images, on the host: its configuration."""
    layers = IMAGES[request.param]()
    config = image_config(layers) | {"created": "2026-11-23T22:28:54Z"}
    source.daemon.docker("load", input=tar_of(legacy_archive(layers, config=config, tags=[NAME])))
    yield config
    source.daemon.docker("image", "rm", NAME)


def test_an_odd_image_is_captured_whole_by_both_ways(
    source: LabHost, image: dict[str, Any], repository_url: str
) -> None:
    """Configuration and layers are those that it was made of, in order, as often as they come; it can be loaded."""
    repository = Repository.open_or_create(storage_from_url(repository_url), clock=SystemClock(), layout="layers")
    diff_ids = tuple(image["rootfs"]["diff_ids"])
    pushed = save_from(source, repository, name="source", image=NAME, capture="push")
    record = pushed.whole()
    assert record.capture == "push"
    assert record.diff_ids == diff_ids
    assert record.image is not None
    assert record.image.config_digest == sha256_of(compact(image))
    if diff_ids or source.daemon.engine.containerd_store:
        saved = save_from(source, repository, name="source", image=NAME, capture="save").whole()
        assert saved.capture == "save"
        assert saved.content_digest == record.content_digest
    else:
        with pytest.raises(ConfigurationError, match="capture 'push'"):
            save_from(source, repository, name="source", image=NAME, capture="save")
    found = verify_backup(
        pushed, VerifyRequest(level="load"), repository=repository, test_daemon=throwaway_daemon, progress=Notes()
    )
    assert (found.verification, found.problem) == ("passed", "")
