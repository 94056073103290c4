# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"


@pytest.fixture(autouse=True)
def _after_a_command() -> Iterator[None]:
    """Leave this process as it was: a command's own process ends with it, and what it froze and set."""
    plugins = os.environ.get(_PLUGINS)
    yield
    gc.unfreeze()
    if plugins is None:
        os.environ.pop(_PLUGINS, None)
    else:
        os.environ[_PLUGINS] = plugins
