# SPDX-License-Identifier: Apache-2.0
"""Compare retention with restic's own over random histories and policies: ``python -m tests.core.retention.oracle``."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from tests.core.retention.restic import ResticRepository

# Both hemispheres' daylight-saving changes, one of half an hour, and a zone without.
ZONES: Final = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
_STEPS: Final = (timedelta(minutes=20), timedelta(hours=1), timedelta(hours=7), timedelta(days=1), timedelta(days=9))
_COUNTED: Final = ("keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
_WITHIN: Final = ("keep_within", *(f"keep_within_{period[5:]}" for period in _COUNTED[1:]))


def compare(folder: Path, *, histories: int, policies: int, seed: int) -> tuple[int, list[str]]:
    """Return how many pairs of history and policy were compared, and a line for each that differs.

    :param histories: how many random histories in each time zone.
    :param policies: how many random policies in each time zone.
    """
    rng = random.Random(seed)  # noqa: S311
    pairs, differing = 0, []
    for zone in ZONES:
        restic = ResticRepository(folder / zone.replace("/", "-"))
        by_host = {f"host-{number}": _history(rng, ZoneInfo(zone)) for number in range(histories)}
        snapshots = {host: restic.add(host, times) for host, times in by_host.items()}
        for _ in range(policies):
            policy = _policy(rng)
            kept = restic.kept(policy, zone=zone)
            for host, times in snapshots.items():
                pairs += 1
                expected = sorted(times[each].astimezone(UTC) for each in kept[host])
                found = _kept(policy, list(times.values()), zone=zone)
                if found != expected:
                    differing.append(f"{zone} {policy} {sorted(times.values())}: {found} but restic {expected}")
    return pairs, differing


def _kept(policy: Mapping[str, Any], times: Sequence[datetime], *, zone: str) -> list[datetime]:
    points = sorted((each.astimezone(UTC) for each in times), reverse=True)
    reasons = RetentionPolicy.of({**policy, "timezone": zone}).reasons(points, now=datetime.now(UTC))
    return sorted(point for point, why in zip(points, reasons, strict=True) if why)


def _history(rng: random.Random, zone: ZoneInfo) -> list[datetime]:
    """Return distinct moments, dense or sparse, many of them around a change of the clocks."""
    at = datetime(
        rng.randint(2019, 2024), rng.choice([3, 4, 10, 11]), rng.randint(1, 28), rng.randint(0, 23), tzinfo=UTC
    )
    step = rng.choice(_STEPS)
    times = []
    for _ in range(rng.randint(1, 40)):
        at += step * rng.choice([1, 1, 1, 2, 30]) + timedelta(seconds=rng.choice([0, 0, 1, 1799]))
        times.append(at.astimezone(zone))
    return times


def _policy(rng: random.Random) -> dict[str, Any]:
    policy: dict[str, Any] = {}
    while not policy:
        policy = {name: rng.choice([1, 2, 3, 5, 12, "unlimited"]) for name in _COUNTED if rng.random() < 0.3}
        policy |= {name: _duration(rng) for name in _WITHIN if rng.random() < 0.2}
    return policy


def _duration(rng: random.Random) -> str:
    parts = {"y": [1, 2], "m": [1, 2, 7], "d": [1, 3, 30, 31], "h": [1, 2, 25, 48]}
    chosen = {unit: rng.choice(sizes) for unit, sizes in parts.items() if rng.random() < 0.4} or {"d": 7}
    return "".join(f"{number}{unit}" for unit, number in chosen.items())


def main() -> int:
    """Run the comparison that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=100, help="in each of the time zones")
    parser.add_argument("--policies", type=int, default=100, help="in each of the time zones")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="restic-oracle-") as folder:
        pairs, differing = compare(
            Path(folder), histories=arguments.histories, policies=arguments.policies, seed=arguments.seed
        )
    sys.stdout.write("".join(f"{line}\n" for line in differing[:20]))
    sys.stdout.write(f"{pairs} pairs compared, {len(differing)} differ\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
