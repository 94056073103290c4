# SPDX-License-Identifier: Apache-2.0
"""Starts as a worker's process does, with or without this provider installed, and tells what that took.

Run in a fresh interpreter: ``python -m benchmarks.worker_start with|without``.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from statistics import median
from typing import Any

_OURS = "airflow-provider-dockerbackup"
_PACKAGE = _OURS.replace("-", "_")
_PAIRS = 15


def main() -> None:
    """Do what a worker's process does before a task; print its peak of memory, and what it took of ours."""
    if sys.argv[1] == "without":
        with _hidden():
            manager = _start()
    else:
        manager = _start()
    found = {
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "installed": _OURS in manager.providers,
        "modules": sorted(_modules()),
    }
    print(json.dumps(found | {"added_cpu_seconds": _added_cpu_seconds(manager)}))


def _start() -> Any:
    import_module("airflow.sdk.execution_time.task_runner")
    # Before 3.2 tasks had these from Airflow's core.
    manager = _first("airflow.sdk.providers_manager_runtime", "airflow.providers_manager")
    found = getattr(manager, "ProvidersManagerTaskRuntime", None) or manager.ProvidersManager
    started = found()
    _find_providers(started)
    _first("airflow.sdk.plugins_manager", "airflow.plugins_manager").integrate_macros_plugins()
    return started


def _first(*names: str) -> Any:
    """Return the first of these modules that there is."""
    for name in names[:-1]:
        with suppress(ImportError):
            return import_module(name)
    return import_module(names[-1])


def _find_providers(manager: Any) -> None:
    manager.initialize_providers_list()
    manager.initialize_providers_hooks()


def _added_cpu_seconds(manager: Any) -> float:
    """Return how much more CPU it takes to find all providers when ours is one of them: the median of pairs.

    In one process, one way after the other: what else a start takes varies by more than is measured here.
    """
    differences = []
    for _ in range(_PAIRS):
        with _hidden():
            without = _again(manager)
        differences.append(_again(manager) - without)
    return median(differences)


def _again(manager: Any) -> float:
    """Return the CPU of finding all providers, from nothing, our modules included."""
    for name in _modules():
        del sys.modules[name]
    manager._cleanup()
    _first("airflow.sdk._shared.module_loading", "airflow.utils.entry_points")._get_grouped_entry_points.cache_clear()
    began = time.process_time()
    _find_providers(manager)
    return time.process_time() - began


def _modules() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]


@contextmanager
def _hidden() -> Iterator[None]:
    """Let nobody find our distribution meanwhile, and so none of its entry points."""
    # Before Python 3.12 Airflow asks the backport.
    asked = []
    for name in ("importlib.metadata", "importlib_metadata"):
        with suppress(ImportError):
            asked.append(import_module(name))
    real = [module.distributions for module in asked]
    for module, distributions in zip(asked, real, strict=True):
        module.distributions = _without_ours(distributions)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module, distributions in zip(asked, real, strict=True):
            module.distributions = distributions  # type: ignore[attr-defined]


def _without_ours(distributions: Any) -> Any:
    def found(**options: Any) -> Iterable[Any]:
        # By its folder: its name would be read from a file of each distribution, which Airflow does not do.
        return (each for each in distributions(**options) if not each._path.name.startswith(_PACKAGE))

    return found


if __name__ == "__main__":
    main()
