# SPDX-License-Identifier: Apache-2.0
"""Places for captures on a Docker host, so that many tasks at once do not fill its disk or starve what it runs.

A classic store writes a whole image to its disk before the first byte of a ``docker save``. Whoever captures holds a
lock on one of a few files of the user's on the host; it goes with the connection, whatever becomes of the worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.transport import commands
from airflow_provider_dockerbackup.transport.ssh import SshSession

DEFAULT_PLACES = 2


@contextmanager
def capture_slot(session: SshSession, *, places: int, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold one of a host's places for captures.

    :param places: how many there are for this user; all who share the host must say the same.
    :param tell: is told when it has to wait, and when the host knows no such places.
    :raises TransientError: when none got free within the deadline of a stream, or the link is lost.
    """
    what = "waiting for a place for the capture"
    with session.held(commands.hold_place(places), what=what) as answers:
        _await(answers, session, tell)
        yield


def _await(answers: Iterator[bytes], session: SshSession, tell: Callable[[str], None]) -> None:
    began = time.monotonic()
    told = False
    for answer in answers:
        if b"got" in answer:
            return
        if b"free" in answer:
            tell(f"{session.where} has no flock, or no folder of its own for locks: captures there are not counted")
            return
        if not told:
            tell(f"waiting for other captures on {session.where} to end")
            told = True
        if time.monotonic() - began > session.timeouts.deadline_seconds:
            raise TransientError(
                f"no place for a capture got free on {session.where} within {session.timeouts.deadline_seconds:g} s "
                "(the deadline); let fewer tasks run at once, or allow more captures (max_captures)"
            )
    raise TransientError(f"the link to {session.where} was lost while waiting for a place for the capture; try again")
