# SPDX-License-Identifier: Apache-2.0
"""Imports of a process that lives for one command: half of what a short command takes is Python's start.

Not for a process of Airflow's, whose settings are not ours to change.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_WHEN_USED = "invoke"


@contextmanager
def quick_imports() -> Iterator[None]:
    """Do without what a command does not need while the body imports.

    * Pydantic looks through every installed distribution for plugins; nobody has asked for any. What tells it so is
      an environment variable, which child processes inherit.
    * Paramiko imports all of invoke for ``Match exec`` in an SSH configuration; it comes when that is used. Nothing
      else may import parts of invoke here.
    * What is imported stays, so that looking for garbage in it, now or later, is not worth its time.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    known, collecting = len(sys.modules), gc.isenabled()
    stand_in = None if _WHEN_USED in sys.modules else _StandIn(_WHEN_USED)
    if stand_in is not None:
        sys.modules[_WHEN_USED] = stand_in
    gc.disable()
    try:
        yield
    finally:
        if stand_in is not None:
            stand_in.go()
        if len(sys.modules) > known:
            gc.freeze()
        if collecting:
            gc.enable()


class _StandIn(ModuleType):
    """Stands for a module until something of it is used, which is then that of the module itself."""

    def go(self) -> None:
        """Let who imports the module from now on get it itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]

    def __getattr__(self, name: str) -> Any:
        self.go()
        return getattr(importlib.import_module(self.__name__), name)
