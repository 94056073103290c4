# SPDX-License-Identifier: Apache-2.0
"""The script that holds one of a Docker host's places for captures."""

from __future__ import annotations

# Parameter: how many places there are. It says what came of it in one word a line, and holds its place until its input
# ends. A folder that is not the user's own could be anybody's trap, so then it does without; as it does without flock,
# and where it cannot write: a failing "exec" would end the shell, and with it the backup.
HOLD = """\
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
