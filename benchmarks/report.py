# SPDX-License-Identifier: Apache-2.0
"""The result as a table and as JSON, with what it was measured on."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from os import cpu_count
from pathlib import Path

from benchmarks.bench import ROOT, Options
from benchmarks.figures import DISTURBED_CORES, Measure
from tests.lab.install import require_program
from tests.lab.lab import Lab

RESULTS = Path(__file__).parent / "results"
_HEADINGS = ("comparison", "figure", "range", "target", "verdict", "ours", "theirs", "Python start", "rounds", "others")


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What the figures were measured on.

    :param measured_at: UTC, ISO 8601.
    :param machine: processor, cores, memory.
    :param versions: of programs and libraries that matter here.
    """

    measured_at: str
    machine: str
    versions: dict[str, str]


def circumstances(lab: Lab) -> Circumstances:
    """Return what this is measured on."""
    cpu = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ": unknown processor")
    memory = int(next(line for line in _lines("/proc/meminfo") if line.startswith("MemTotal")).split()[1])
    engine = lab.hosts[0].daemon.docker("version", "--format", "{{.Server.Version}}").stdout.decode().strip()
    driver = lab.hosts[0].daemon.docker("info", "--format", "{{.Driver}}").stdout.decode().strip()
    return Circumstances(
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=(
            f"{cpu.split(':', 1)[1].strip()}, {cpu_count()} cores, {memory // 1000**2} GB, Linux {platform.release()}"
        ),
        versions={
            "commit": _first_line("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"),
            "python": platform.python_version(),
            "paramiko": version("paramiko"),
            "cryptography": version("cryptography"),
            "zstandard": version("zstandard"),
            "docker engine": f"{engine} ({driver})",
            "openssh": _first_line(str(require_program("ssh")), "-V"),
            "zstd": _first_line(str(require_program("zstd")), "-V"),
        },
    )


def table(measures: Sequence[Measure]) -> str:
    """Return the figures as a Markdown table, aligned for a terminal as well."""
    rows = [_HEADINGS, *(_row(each) for each in measures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write(measures: Sequence[Measure], about: Circumstances, options: Options) -> Path:
    """Write ``results/latest.json`` and ``results/latest.md``, and return the latter's path."""
    RESULTS.mkdir(exist_ok=True)
    document = {
        "schema_version": 1,
        "circumstances": asdict(about),
        "options": asdict(options),
        "measures": [asdict(each) | {"verdict": each.verdict} for each in measures],
    }
    (RESULTS / "latest.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    path = RESULTS / "latest.md"
    path.write_text(markdown(measures, about, options), encoding="utf-8")
    return path


def markdown(measures: Sequence[Measure], about: Circumstances, options: Options) -> str:
    """Return the figures with all that is needed to read them."""
    versions = ", ".join(f"{name} {value}" for name, value in about.versions.items())
    notes = "".join(f"- {each.name}: {each.note}\n" for each in measures if each.note)
    return (
        f"Measured {about.measured_at} on {about.machine}; host and worker are this one machine, linked by loopback.\n"
        f"Versions: {versions}.\n"
        f"{options.rounds} rounds, image and file of {options.size_mb} MB (10^6 bytes).\n\n"
        f"{table(measures)}\n\n{notes}\n"
        "A ratio is theirs to ours, the median of the rounds' own ratios, with the smallest and the largest; above 1 "
        "ours is faster. Ours is a fresh Python process, its start included, which is also shown apart. `others` is "
        "the CPU, in cores, that other jobs (kernel threads among them) used meanwhile, and the number of rounds in "
        f"which that was above {DISTURBED_CORES}.\n"
    )


def _row(measure: Measure) -> tuple[str, ...]:
    unit = measure.unit if measure.unit == "x" else f" {measure.unit}"
    goal = measure.goal
    sign = "" if goal is None else ">= " if goal.upward else "< "
    return (
        measure.name,
        f"{measure.value:.2f}{unit}" if measure.unit == "x" else f"{measure.value:.1f}{unit}",
        f"{measure.low:.2f}-{measure.high:.2f}" if measure.rounds > 1 else "",
        "" if goal is None else f"{sign}{goal.target:g}{unit}",
        measure.verdict,
        _seconds(measure, "ours_seconds"),
        _seconds(measure, "theirs_seconds"),
        _seconds(measure, "ours_start_seconds"),
        str(measure.rounds),
        f"{measure.others_cores:.2f} ({measure.disturbed})",
    )


def _seconds(measure: Measure, key: str) -> str:
    value = measure.details.get(key)
    return "" if value is None else f"{value:.2f} s"


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    return ((done.stdout or done.stderr).splitlines() or ["unknown"])[0].strip().strip("*").strip()
