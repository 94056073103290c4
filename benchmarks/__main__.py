# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks``: starts a lab, runs the comparisons, writes ``benchmarks/results/latest.{json,md}``.

Exit codes: 0 when no figure misses its target's floor, 1 when one does, 2 when something could not be measured.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from benchmarks import report
from benchmarks.bench import Bench, BenchError, Options
from benchmarks.comparisons import COMPARISONS
from benchmarks.figures import Measure
from tests.lab.errors import LabError
from tests.lab.lab import Lab


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite and return the exit code.

    :param arguments: command line without the program; None takes the process's.
    """
    parsed = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _leave)  # else the lab would go on
    options = Options(
        rounds=parsed.rounds,
        size_mb=parsed.size_mb,
        large_mb=parsed.large_mb,
        patience_seconds=parsed.patience,
    )
    # A short name: a throw-away daemon lives below it, and takes at most 14 bytes for that path.
    directory = Path(tempfile.mkdtemp(prefix="b", dir=parsed.dir))
    measures: list[Measure] = []
    try:
        with Lab.start(directory / "lab") as lab:
            about = report.circumstances(lab)
            for comparison in COMPARISONS:
                if not parsed.only or comparison.name in parsed.only:
                    print(f"\n=== {comparison.name}: {comparison.about}", flush=True)
                    measures += comparison.measure(Bench(lab, directory, options))
                    written = report.write(measures, about, options)
                    print(f"written to {written}", flush=True)
    except (LabError, BenchError) as err:
        print(f"benchmarks: {err}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print("\n" + report.table(measures))
    return 1 if any(each.verdict == "missed" for each in measures) else 0


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare with what one would type.")
    names = [each.name for each in COMPARISONS]
    parser.add_argument("--rounds", type=_positive, default=5, help="rounds a figure is from (default 5)")
    parser.add_argument("--size-mb", type=_positive, default=1000, help="image and file, in 10^6 bytes (default 1000)")
    parser.add_argument("--large-mb", type=_positive, default=5000, help="large image of `memory` (default 5000)")
    parser.add_argument("--only", action="append", choices=names, default=[], help="a comparison; can be repeated")
    parser.add_argument("--dir", default="/tmp", help="disk to write to, at most 4 characters (default /tmp)")
    parser.add_argument("--patience", type=float, default=120, help="seconds to wait for quiet in each comparison")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
