# SPDX-License-Identifier: Apache-2.0
"""Several threads on one storage, with a barrier before each call: one of them goes on, or all at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from airflow_provider_dockerbackup.exceptions import DockerBackupError
from airflow_provider_dockerbackup.transport.clock import SystemClock
from tests.core.faults import Death, Plan

_T = TypeVar("_T")


class HastyClock(SystemClock):
    """The real time, but nobody sleeps long."""

    def sleep(self, seconds: float) -> None:
        """Give way to the others."""
        time.sleep(0.001)


class Turns:
    """Decides who may make the next call, once all that are at work wait for it.

    :param actors: names of the threads.
    :param seed: of the choice, and of which step is somebody's last.
    :param together: let all go on at once instead of one.
    :param deaths: how many of them die on the way.
    """

    def __init__(self, actors: list[str], *, seed: int, together: bool, deaths: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - schedules, not secrets
        self._together = together
        self._at_work = set(actors)
        self._waiting: set[str] = set()
        self._chosen: set[str] = set()
        self._condition = threading.Condition()
        dying = self._random.sample(actors, deaths)
        self._last = {actor: self._random.randint(1, 60) for actor in dying}
        self.steps = 0

    def wait(self, actor: str) -> bool:
        """Return when it is this thread's turn: whether it lives."""
        with self._condition:
            self._waiting.add(actor)
            self._choose()
            if not self._condition.wait_for(lambda: actor in self._chosen, timeout=60):
                raise AssertionError(f"{actor} waited for a turn for a minute")
            self._chosen.discard(actor)
            self.steps += 1
            if actor in self._last:
                self._last[actor] -= 1
            return self._last.get(actor) != 0

    def leave(self, actor: str) -> None:
        """Say that this thread makes no more calls."""
        with self._condition:
            self._at_work.discard(actor)
            self._waiting.discard(actor)
            self._choose()

    def _choose(self) -> None:
        if self._waiting == self._at_work and self._waiting:
            self._chosen = set(self._waiting) if self._together else {self._random.choice(sorted(self._waiting))}
            self._waiting -= self._chosen
            self._condition.notify_all()


class TurnPlan(Plan):
    """Makes each call when it is this thread's turn."""

    def __init__(self, turns: Turns, actor: str) -> None:
        super().__init__()
        self._turns = turns
        self._actor = actor

    def call(self, name: str, action: Callable[[], _T]) -> _T:
        """Wait, then do ``action``; the dead do nothing more."""
        if not self.dead and not self._turns.wait(self._actor):
            self.dead = True
        return super().call(name, action)


def run_together(turns: Turns, work: dict[str, Callable[[], None]]) -> dict[str, BaseException]:
    """Run each actor in a thread and return what ended it early: an error of this package, or its death."""
    errors: dict[str, BaseException] = {}

    def act(actor: str) -> None:
        try:
            work[actor]()
        except (DockerBackupError, Death) as err:
            errors[actor] = err.with_traceback(None)
        finally:
            turns.leave(actor)

    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(act, actor) for actor in work]:
            done.result()
    return errors
