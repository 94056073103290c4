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
from airflow_provider_dockerbackup.transport.commands import quoted_line
from airflow_provider_dockerbackup.transport.ssh import SshSession

DEFAULT_PLACES = 2
# Parameter: how many places there are. It says what came of it in one word a line, and holds its place until its input
# ends. A folder that is not the user's own could be anybody's trap, so then it does without; as it does without flock,
# and where it cannot write: a failing "exec" would end the shell, and with it the backup.
_HOLD = """\
dir=${XDG_RUNTIME_DIR:-/tmp}/dockerbackup-$(id -u)
without() {
  echo free
  exec cat >/dev/null
}
mkdir -m 700 "$dir" 2>/dev/null
if ! command -v flock >/dev/null || [ -L "$dir" ] || [ ! -d "$dir" ] || [ ! -O "$dir" ]; then
  without
fi
while :; do
  n=1
  while [ "$n" -le "$1" ]; do
    true 2>/dev/null >>"$dir/capture-$n" || without
    exec 9>>"$dir/capture-$n"
    if flock -n 9; then
      echo got
      exec cat >/dev/null
    fi
    n=$((n + 1))
  done
  echo wait
  sleep 2
done
"""


@contextmanager
def capture_slot(session: SshSession, *, places: int, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold one of a host's places for captures.

    :param places: how many there are for this user; all who share the host must say the same.
    :param tell: is told when it has to wait, and when the host knows no such places.
    :raises TransientError: when none got free within the deadline of a stream, or the link is lost.
    """
    line = quoted_line(("sh", "-c", _HOLD, "dockerbackup", str(places)))
    what = "waiting for a place for the capture"
    with session.held(line, what=what) as answers:
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
