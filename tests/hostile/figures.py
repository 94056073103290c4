# SPDX-License-Identifier: Apache-2.0
"""What ``docker load`` makes of the hostile archives: ``python -m tests.hostile.figures [--write]``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from airflow_provider_dockerbackup.core.archive.docker_archive import require_image
from airflow_provider_dockerbackup.exceptions import IntegrityError
from tests.core.archive.making import scan
from tests.hostile.craft import CASES, DIFF_IDS, IMAGE_ID, TAG, VICTIM, Case
from tests.lab.daemon import LabDaemon, temporary_daemon
from tests.lab.engines import Engine

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "reference" / "hostile-archives.md"
ENGINES: Final = (Engine(version="20.10"), Engine(version="28"), Engine(version="28", containerd_store=True))
_BEGIN, _END = "<!-- measured -->", "<!-- end of measured -->"
_PATIENCE_SECONDS: Final = 20.0
_OUTCOMES: Final = (
    "refused",
    "as recorded",
    "not unpacked",
    "something else",
    "takes a tag",
    "success, nothing loaded",
    "does not end",
)


def measured() -> str:
    """Return what stands between the marks of the page."""
    found = {case.name: [case.rule, *_ours(case.make())] for case in CASES}
    slowest = max(float(row.pop()) for row in found.values())
    for engine in ENGINES:
        for name, outcome in _outcomes(engine).items():
            found[name].append(outcome)
    names = ["here", *(f"docker load {_name(engine)}" for engine in ENGINES)]
    lines = [f"{len(found)} archives; the slowest is refused after {slowest:.1f} s.", ""]
    lines += [f"| | {' | '.join(_OUTCOMES)} |", "|---" * (len(_OUTCOMES) + 1) + "|"]
    for column, name in enumerate(names, start=1):
        counts = Counter(row[column] for row in found.values())
        lines.append(f"| {name} | {' | '.join(str(counts[each]) for each in _OUTCOMES)} |")
    lines += ["", "| archive | rule | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    lines += [f"| {name} | {' | '.join(row)} |" for name, row in found.items()]
    return "\n".join(lines)


def _outcomes(engine: Engine) -> dict[str, str]:
    """Return what becomes of each archive; a containerd store keeps blobs of what it refused, so it begins anew."""
    if engine.containerd_store:
        return {case.name: _in_new_daemon(engine, case) for case in CASES}
    with _new_daemon(engine) as daemon:
        return {case.name: _docker_load(daemon, case.make()) for case in CASES}


def _in_new_daemon(engine: Engine, case: Case) -> str:
    with _new_daemon(engine) as daemon:
        return _docker_load(daemon, case.make())


@contextmanager
def _new_daemon(engine: Engine) -> Iterator[LabDaemon]:
    with (
        tempfile.TemporaryDirectory(prefix="x", dir="/tmp") as directory,
        temporary_daemon(Path(directory), engine=engine) as daemon,
    ):
        yield daemon


def _name(engine: Engine) -> str:
    return f"{engine.version}{' containerd' if engine.containerd_store else ''}"


def _ours(data: bytes) -> tuple[str, str]:
    began = time.monotonic()
    try:
        require_image(scan(data), image_id=IMAGE_ID, diff_ids=DIFF_IDS)
        told = "as recorded"
    except IntegrityError:
        told = "refused"
    return told, str(time.monotonic() - began)


def _docker_load(daemon: LabDaemon, data: bytes) -> str:
    """Load an archive into a daemon that has one image, and return what became of it."""
    daemon.docker("import", "-", VICTIM, input=bytes(10240))
    victim = _inspected(daemon, VICTIM)["Id"]
    try:
        done = subprocess.run(
            [str(daemon.files.docker), "load", "--quiet"],
            input=data,
            env=daemon.environment(),
            check=False,
            capture_output=True,
            timeout=_PATIENCE_SECONDS,
        )
        return _became(daemon, victim, succeeded=done.returncode == 0)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.start()
        return "does not end"
    finally:
        left = daemon.docker("image", "ls", "--all", "--quiet", "--no-trunc").stdout.decode().split()
        for each in dict.fromkeys(left):
            daemon.docker("image", "rm", "--force", each, check=False)


def _became(daemon: LabDaemon, victim: str, *, succeeded: bool) -> str:
    if _inspected(daemon, VICTIM).get("Id") != victim:
        return "takes a tag"
    listed = daemon.docker("image", "ls", "--all", "--quiet", "--no-trunc").stdout.decode().split()
    loaded = [each for each in dict.fromkeys(listed) if each != victim]
    if not loaded:
        return "success, nothing loaded" if succeeded else "refused"
    image = _inspected(daemon, TAG) or _inspected(daemon, loaded[0])
    layers = tuple((image.get("RootFS") or {}).get("Layers") or ())
    same = len(loaded) == 1 and layers == DIFF_IDS and (image.get("Config") or {}).get("Cmd") == ["/one"]
    if not same:
        return "something else"
    created = daemon.docker("create", "--name", "lab-hostile", "--network", "none", loaded[0], check=False)
    daemon.docker("rm", "--force", "lab-hostile", check=False)
    return "as recorded" if created.returncode == 0 else "not unpacked"


def _inspected(daemon: LabDaemon, reference: str) -> dict[str, Any]:
    done = daemon.docker("image", "inspect", reference, check=False)
    found: dict[str, Any] = json.loads(done.stdout)[0] if done.returncode == 0 else {}
    return found


def rows_of(page: str) -> dict[str, list[str]]:
    """Return the page's rows by the archive's name: rule, what becomes of it here, and in each engine."""
    measured_part = page.partition(_BEGIN)[2].partition(_END)[0]
    table = measured_part.partition("| archive |")[2].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table if line.startswith("|")]
    return {row[0]: row[1:] for row in cells}


def main() -> int:
    """Measure, print, and write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="fill the tables of the page")
    arguments = parser.parse_args()
    found = measured()
    sys.stdout.write(found + "\n")
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        head, _, rest = page.partition(_BEGIN)
        PAGE.write_text(f"{head}{_BEGIN}\n{found}\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
