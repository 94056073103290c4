# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_dockerbackup.core.model import Store
from airflow_provider_dockerbackup.transport.memory_images import memory_engine


@pytest.mark.parametrize(
    ("store", "api_version", "tells"),
    [
        ("containerd", "1.48", True),
        ("containerd", "1.51", True),
        ("containerd", "2.0", True),
        ("containerd", "1.47", False),
        ("containerd", "1.9", False),
        ("containerd", "", False),
        ("graphdriver", "1.51", False),
    ],
)
def test_engines_from_28_on_tell_the_manifests_of_their_images(store: Store, api_version: str, tells: bool) -> None:
    """By the version of their API."""
    assert replace(memory_engine("x"), store=store, api_version=api_version).tells_manifests is tells
