# SPDX-License-Identifier: Apache-2.0
"""The result as a table and as JSON, with what it was measured on."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from os import cpu_count
from pathlib import Path

from benchmarks.bench import ROOT, Options
from benchmarks.charts import charts
from benchmarks.figures import DISTURBED_CORES, Measure, Series, medians
from tests.lab.install import find_program, require_program
from tests.lab.lab import Lab

RESULTS = Path(__file__).parent / "results"
_HEADINGS = ("comparison", "figure", "range", "target", "verdict", "ours", "theirs", "Python start", "rounds", "others")
_SIDES = ("comparison", "side", "wall time", "range", "on the wire", "stored", "peak memory", "CPU here", "CPU on host")
_SERIES = ("each further generation", *_SIDES[2:])
_MEGABYTE = 1_000_000
_PEERS = {"restic": "version", "borg": "--version", "skopeo": "--version"}


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
            **{peer: _first_line(peer, flag) for peer, flag in _PEERS.items() if find_program(peer) is not None},
        },
    )


def stamped(measures: Iterable[Measure], comparison: str, about: Circumstances) -> list[Measure]:
    """Return the measures of a comparison with its name, and with when and on what they were made."""
    when, commit = datetime.now(UTC).isoformat(timespec="seconds"), about.versions["commit"]
    return [replace(each, comparison=comparison, measured_at=when, commit=commit) for each in measures]


def table(measures: Sequence[Measure]) -> str:
    """Return the figures as a Markdown table, aligned for a terminal as well."""
    return _aligned([_HEADINGS, *(_row(each) for each in measures)])


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write(
    measures: Sequence[Measure], series: Sequence[Series], about: Circumstances, options: Options, *, files: Path
) -> Path:
    """Write the result as JSON, as Markdown and as charts, and return the second's path.

    :param files: where, up to the suffix or the chart's name.
    """
    files.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "schema_version": 2,
        "circumstances": asdict(about),
        "options": asdict(options),
        "measures": [asdict(each) | {"verdict": each.verdict} for each in measures],
        "series": [asdict(each) for each in series],
    }
    files.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    drawn = charts(series)
    for stem, svg in drawn.items():
        files.with_name(f"{files.name}-{stem}.svg").write_text(svg, encoding="utf-8")
    path = files.with_suffix(".md")
    images = "".join(f"![{stem}]({files.name}-{stem}.svg)\n" for stem in drawn)
    path.write_text(markdown(measures, series, about, options) + (f"\n{images}" if images else ""), encoding="utf-8")
    return path


def markdown(measures: Sequence[Measure], series: Sequence[Series], about: Circumstances, options: Options) -> str:
    """Return the figures with all that is needed to read them."""
    versions = ", ".join(f"{name} {value}" for name, value in about.versions.items())
    notes = "".join(f"- {each.name}: {each.note}\n" for each in measures if each.note) + _other_times(measures, about)
    return (
        f"Measured {about.measured_at} on {about.machine}; host and worker are this one machine, linked by loopback.\n"
        f"Versions: {versions}.\n"
        f"{options.rounds} rounds, {options.generations} generations, image and file of {options.size_mb} MB "
        f"(10^6 bytes).\n\n"
        f"{table(measures)}\n\n{notes}\n"
        "A ratio is theirs to ours, the median of the rounds' own ratios, with the smallest and the largest; above 1 "
        "ours is faster, or smaller. Ours is a fresh Python process, its start included, which is also shown apart. "
        "`others` is the CPU, in cores, that other jobs (kernel threads among them) used meanwhile, and the number of "
        f"rounds in which that was above {DISTURBED_CORES}.\n\n"
        f"{_aligned([_SIDES, *(row for each in measures for row in _sides(each))])}\n\n"
        f"{''.join(_series_table(each) for each in series)}"
        "Medians. On the wire: payload of the SSH connections, both directions. Stored: size of all files. Peak "
        "memory: of the largest process here, Python's own modules included. CPU here: of all processes of the "
        "worker's side; on the host: of sshd, dockerd and what they start.\n"
    )


def _other_times(measures: Sequence[Measure], about: Circumstances) -> str:
    """Tell of measures that were kept from earlier runs."""
    others = {
        (each.comparison, each.measured_at, each.commit) for each in measures if each.measured_at < about.measured_at
    }
    return "".join(f"- {name}: measured earlier, {when}, commit {commit}\n" for name, when, commit in sorted(others))


def _sides(measure: Measure) -> list[tuple[str, ...]]:
    sides = [side for side in ("ours", "theirs") if f"{side}_cpu_seconds" in measure.details]
    return [(measure.name, side, *_taken(measure.details, side)) for side in sides]


def _series_table(series: Series) -> str:
    figures = medians({name: runs[1:] or runs for name, runs in series.runs.items()})
    for name in series.runs:
        if f"{name}_stored_bytes" in figures:
            figures[f"{name}_stored_bytes"] = series.stored_bytes(name)
    rows = [(name, *_taken(figures, name)) for name in series.runs]
    return f"{series.kind}: {series.about}; stored is that of all generations.\n\n{_aligned([_SERIES, *rows])}\n\n"


def _taken(figures: Mapping[str, float], side: str) -> tuple[str, ...]:
    """Return the cells of what one side took."""
    low, high = figures.get(f"{side}_low"), figures.get(f"{side}_high")
    return (
        _cell(figures.get(f"{side}_seconds"), "s"),
        "" if low is None or high is None or low == high else f"{low:.2f}-{high:.2f}",
        _size(figures.get(f"{side}_wire_bytes")),
        _size(figures.get(f"{side}_stored_bytes")),
        _size(figures.get(f"{side}_peak_bytes")),
        _cell(figures.get(f"{side}_cpu_seconds"), "s"),
        _cell(figures.get(f"{side}_host_cpu_seconds"), "s"),
    )


def _size(value: float | None) -> str:
    return _cell(None if value is None else value / _MEGABYTE, "MB")


def _cell(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.2f} {unit}"


def _row(measure: Measure) -> tuple[str, ...]:
    unit = measure.unit if measure.unit == "x" else f" {measure.unit}"
    digits = 1 if measure.unit in {"MB", "kB", "ms"} else 2
    goal = measure.goal
    sign = "" if goal is None else ">= " if goal.upward else "< "
    return (
        measure.name,
        f"{measure.value:.{digits}f}{unit}",
        f"{measure.low:.{digits}f}-{measure.high:.{digits}f}" if measure.rounds > 1 else "",
        "" if goal is None else f"{sign}{goal.target:.3g}{unit}",
        measure.verdict,
        _figure(measure, "ours"),
        _figure(measure, "theirs"),
        _cell(measure.details.get("ours_start_seconds"), "s"),
        str(measure.rounds),
        f"{measure.others_cores:.2f} ({measure.disturbed})",
    )


def _figure(measure: Measure, side: str) -> str:
    """Return what one side took of what is compared."""
    value = measure.details.get(f"{side}_{measure.of}")
    return _cell(value, "s") if measure.of == "seconds" else _size(value)


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    return ((done.stdout or done.stderr).splitlines() or ["unknown"])[0].strip().strip("*").strip()
