# SPDX-License-Identifier: Apache-2.0
"""Choose the backups of a restore drill: the newest, the oldest, some at random, and every one that looks damaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import ConfigurationError

Reason = Literal["damaged", "newest", "oldest", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """How to choose.

    :param newest: how many of the newest captures.
    :param oldest: how many of the oldest captures.
    :param random: how many of the others, chosen by ``seed``.
    :param seed: the same seed chooses the same backups among the same ones, on every machine.
    :param hosts: shell patterns of Docker hosts.
    :param names: shell patterns of image references and container names.
    :param actor: who does it: DAG run or user, and software versions.
    """

    newest: int = 1
    oldest: int = 1
    random: int = 1
    seed: str = ""
    hosts: Sequence[str] = ("*",)
    names: Sequence[str] = ("*",)
    actor: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what cannot be meant.

        :raises ConfigurationError: names the value.
        """
        for name in ("newest", "oldest", "random"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigurationError(f"{name}: expected a whole number from 0 on, got {value!r}")
        if not self.newest + self.oldest + self.random:
            raise ConfigurationError("newest, oldest and random are all 0; set at least one of them")
        for name in ("hosts", "names"):
            value = getattr(self, name)
            if isinstance(value, str) or not value or not all(isinstance(item, str) for item in value):
                raise ConfigurationError(f"{name}: expected a list of patterns such as ['*'], got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One chosen backup, and why it was."""

    backup: Backup
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The choice.

    :param population: how many backups it was drawn from.
    :param seed: what decided the random ones.
    """

    picks: tuple[Pick, ...]
    population: int
    seed: str


def draw_sample(repository: Repository, request: SampleRequest, *, progress: Progress) -> Sample:
    """Return the chosen backups, each once: damaged ones, the newest, the oldest, the random ones.

    A backup whose record is unreadable or whose files are not there in their recorded sizes is always chosen, besides
    the others: its verification fails, so that somebody sees it.

    :raises ConfigurationError: when the request cannot be meant.
    """
    request.check()
    every = repository.catalog.backups()
    backups = [each for each in every if each.source.is_like(hosts=request.hosts, names=request.names)]
    sample = Sample(picks=tuple(_picks(backups, request)), population=len(backups), seed=request.seed)
    _tell(sample, request, repository, progress)
    return sample


def _picks(backups: Sequence[Backup], request: SampleRequest) -> Iterator[Pick]:
    """Choose from backups that are sorted, newest first."""
    yield from (Pick(backup=each, reason="damaged") for each in backups if not _is_whole(each))
    whole = [each for each in backups if _is_whole(each)]
    newest, rest = whole[: request.newest], whole[request.newest :]
    rest, oldest = rest[: max(0, len(rest) - request.oldest)], rest[max(0, len(rest) - request.oldest) :]
    yield from (Pick(backup=each, reason="newest") for each in newest)
    yield from (Pick(backup=each, reason="oldest") for each in oldest)
    by_lot = sorted(rest, key=lambda each: sha256(f"{request.seed}\n{each.path}".encode()).digest())
    yield from (Pick(backup=each, reason="random") for each in by_lot[: request.random])


def _is_whole(backup: Backup) -> bool:
    return backup.record is not None and backup.complete


def _tell(sample: Sample, request: SampleRequest, repository: Repository, progress: Progress) -> None:
    """Leave an event before anything is known of the results: nobody can say later that they were picked to please."""
    repository.trail(request.actor).tell(
        "sample.drawn",
        progress=progress,
        outcome="success",
        subject={
            "population": sample.population,
            "seed": sample.seed,
            "hosts": list(request.hosts),
            "names": list(request.names),
            "asked": {name: getattr(request, name) for name in ("newest", "oldest", "random")},
            "picks": [{"backup_id": each.backup.backup_id, "reason": each.reason} for each in sample.picks],
        },
    )
