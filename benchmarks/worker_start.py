# SPDX-License-Identifier: Apache-2.0
"""Starts as a worker's process does, with or without this provider installed, and tells what that took.

Run in a fresh interpreter: ``python -m benchmarks.worker_start with|without``.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any

_OURS = "airflow-provider-dockerbackup"
_FOLDER = _OURS.replace("-", "_")


def main() -> None:
    """Do what a worker's process does before a task, and print CPU, peak of memory, and what was imported of ours."""
    if sys.argv[1] == "without":
        _hide()
    import_module("airflow.sdk.execution_time.task_runner")
    manager = _providers()
    manager.initialize_providers_list()
    manager.initialize_providers_hooks()
    plugins = import_module("airflow.sdk.plugins_manager")
    plugins.integrate_macros_plugins()
    found = {
        "cpu_seconds": time.process_time(),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "installed": _OURS in manager.providers,
    }
    ours = [name for name in sys.modules if name.partition(".")[0] == "airflow_provider_dockerbackup"]
    print(json.dumps(found | {"modules": sorted(ours)}))


def _hide() -> None:
    """Let nobody find our distribution, and so none of its entry points."""
    # Before Python 3.12 Airflow asks the backport.
    for name in ("importlib.metadata", "importlib_metadata"):
        with suppress(ImportError):
            _hide_from(import_module(name))


def _hide_from(metadata: Any) -> None:
    real = metadata.distributions

    def distributions(**options: Any) -> Iterable[Any]:
        # By its folder: its name would be read from a file of each distribution, which Airflow does not do.
        return (each for each in real(**options) if not each._path.name.startswith(_FOLDER))

    metadata.distributions = distributions


def _providers() -> Any:
    """Return what finds providers in a task; before 3.2 it was the one of Airflow's core."""
    try:
        return import_module("airflow.sdk.providers_manager_runtime").ProvidersManagerTaskRuntime()
    except ImportError:
        return import_module("airflow.providers_manager").ProvidersManager()


if __name__ == "__main__":
    main()
