# SPDX-License-Identifier: Apache-2.0
"""An S3 server that answers one request at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.s3 import LabS3, s3_server


@pytest.fixture(scope="session")
def atomic_s3() -> Iterator[LabS3]:
    """A real S3 server on loopback whose conditional writes are atomic."""
    with s3_server(one_at_a_time=True) as server:
        yield server
