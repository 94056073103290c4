# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks``: starts a lab, runs the comparisons, writes the result to ``benchmarks/results/``.

Exit codes: 0 when no figure misses its target's floor, 1 when one does, 2 when something could not be measured.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

from benchmarks import report
from benchmarks.bench import Bench, BenchError, Options
from benchmarks.comparisons import COMPARISONS
from benchmarks.contestants import PROGRAMS
from benchmarks.figures import Measure
from benchmarks.kept import earlier
from tests.lab.engines import SUITES, Engine
from tests.lab.errors import LabError
from tests.lab.install import ensure_programs
from tests.lab.lab import Lab

_FULL = Options(
    rounds=5, size_mb=1000, large_mb=10_000, generations=10, blobs=100_000, sources=50, patience_seconds=120
)
_QUICK = Options(rounds=2, size_mb=100, large_mb=300, generations=3, blobs=5_000, sources=8, patience_seconds=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite and return the exit code.

    :param arguments: command line without the program; None takes the process's.
    """
    parsed = _parser().parse_args(arguments)
    engine = _engine(parsed)
    signal.signal(signal.SIGTERM, _leave)  # else the lab would go on
    options = _options(parsed)
    files = parsed.results / (parsed.name or ("quick" if parsed.quick else "latest"))
    # A short name: a throw-away daemon lives below it, and takes at most 14 bytes for that path.
    directory = Path(tempfile.mkdtemp(prefix="b", dir=parsed.dir))
    measures, series = earlier(files) if parsed.keep else ([], {})
    try:
        ensure_programs(PROGRAMS)
        with Lab.start(directory / "lab", hosts=2, engine=engine) as lab:
            bench = Bench(lab, directory, options)
            about = report.circumstances(lab)
            for comparison in COMPARISONS:
                if not parsed.only or comparison.name in parsed.only:
                    print(f"\n=== {comparison.name}: {comparison.about}", flush=True)
                    bench.renew_patience()
                    found = report.stamped(comparison.measure(bench), comparison.name, about)
                    measures = _in_order([each for each in measures if each.comparison != comparison.name] + found)
                    series |= bench.series
                    written = report.write(measures, list(series.values()), about, options, files=files)
                    print(f"written to {written}", flush=True)
    except (LabError, BenchError) as err:
        print(f"benchmarks: {err}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print("\n" + report.table(measures))
    return 1 if any(each.verdict == "missed" for each in measures) else 0


def _in_order(measures: list[Measure]) -> list[Measure]:
    names = [comparison.name for comparison in COMPARISONS]
    return sorted(measures, key=lambda each: names.index(each.comparison))


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(2)


def _options(parsed: argparse.Namespace) -> Options:
    """Return the options that were given, and for the rest the defaults of the full or the quick run."""
    defaults = _QUICK if parsed.quick else _FULL
    given = {name: value for name in asdict(defaults) if (value := getattr(parsed, name)) is not None}
    return replace(defaults, **given)


def _engine(parsed: argparse.Namespace) -> Engine:
    """Return the engine that was asked for; what does not exist ends the command with exit code 2."""
    try:
        return Engine(version=parsed.engine, containerd_store=parsed.containerd)
    except ValueError as err:
        _parser().error(str(err))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare with what one would type.")
    names = [each.name for each in COMPARISONS]
    parser.add_argument("--quick", action="store_true", help="small images and few rounds: minutes, but no proof")
    parser.add_argument("--keep", action="store_true", help="keep what is there of comparisons that are not run now")
    parser.add_argument("--name", help="of the files with the result (default: latest, or quick)")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="where those files go")
    parser.add_argument("--rounds", type=_positive, help="rounds a figure is from (default 5)")
    parser.add_argument("--warm-up", type=int, help="rounds before them that are thrown away (default 1)")
    parser.add_argument("--size-mb", type=_positive, help="image and file, in 10^6 bytes (default 1000)")
    parser.add_argument("--large-mb", type=_positive, help="large image of `memory` (default 10000)")
    parser.add_argument("--generations", type=_positive, help="generations of an image (default 10)")
    parser.add_argument("--blobs", type=_positive, help="blobs that garbage collection goes over (default 100000)")
    parser.add_argument("--sources", type=_positive, help="unchanged sources of a fleet (default 50)")
    parser.add_argument("--only", action="append", choices=names, default=[], help="a comparison; can be repeated")
    parser.add_argument("--engine", choices=sorted(SUITES), help="engine of all hosts (default: the installed one)")
    parser.add_argument("--containerd", action="store_true", help="containerd image store (26 and 28)")
    parser.add_argument("--dir", default="/tmp", help="disk to write to, at most 4 characters (default /tmp)")
    parser.add_argument("--patience", type=float, dest="patience_seconds", help="seconds to wait for quiet in each")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
