# SPDX-License-Identifier: Apache-2.0
"""The scripts that run on a Docker host, because only the host itself can clean up when the link is cut.

One exports or commits a container while paused, and lets it run again for certain; one exports a temporary container
and removes it.
"""

from __future__ import annotations

# Parameters: container, limit in seconds, what is done (`export` or `commit`), the line that does it, then the words
# that call docker. Standard output is that of the line; how long the container was paused is told on standard error.
#
# * The switch is started before the pause, in a session of its own, so that no moment is left in which the container
#   is paused and nobody would wake it. It wakes it at the limit, or when the parent is gone: sshd's process for the
#   connection, for the script runs in the login shell's place. It tries for a minute: the daemon may be restarting.
# * Docker's own pause for a commit is not used: it has no limit, outlives a daemon that dies, and a commit goes on
#   without a word when it fails.
# * The line runs in the background and is waited for, because a shell that waits for a foreground command would not
#   heed a signal before that command ends.
# * A container that is no longer paused after the line was woken by the switch or by somebody; what was read then is
#   not of one moment, so the script fails (status 75, "temporary failure" in sysexits.h).
# * The switch is ended only when it is certain that the container runs again; else it will see to it. A switch that has
#   just been started may not lead its process group yet, and a signal may be lost on a shell that is about to run
#   setsid: hence the second try.
WHILE_PAUSED = """\
container=$1 limit=$2 what=$3 line=$4
shift 4
child= guard= ours= parent=$PPID
now() {
  if [ -r /proc/uptime ]; then read -r seconds rest </proc/uptime; else seconds=$(date +%s); fi
}
finish() {
  trap '' HUP INT TERM PIPE
  trap - EXIT
  if [ -n "$child" ]; then kill "$child" 2>/dev/null; fi
  if [ -n "$ours" ]; then
    "$@" container unpause "$container" >/dev/null 2>&1 || ours=maybe
    if [ "$ours" = maybe ]; then guard=; fi
  fi
  if [ -n "$guard" ] && ! kill -s TERM -- "-$guard" 2>/dev/null; then
    sleep 1
    kill -s TERM -- "-$guard" 2>/dev/null
  fi
}
trap 'status=$?; finish "$@"; exit "$status"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
state=$("$@" container inspect --format '{{.State.Status}}' "$container") || exit
case $state in
  restarting | removing) echo "container $container is $state, and so cannot be paused" >&2; exit 75 ;;
esac
if [ "$state" = running ]; then
  command -v setsid >/dev/null || { echo 'setsid: command not found' >&2; exit 127; }
  kill -0 "$parent" 2>/dev/null || parent=
  setsid sh -c '
    container=$1 parent=$3 tries=0 watch=
    sleep "$2" &
    timer=$!
    shift 3
    if [ -n "$parent" ]; then
      (while kill -0 "$parent"; do sleep 1; done; kill "$timer") &
      watch=$!
    fi
    wait "$timer"
    if [ -n "$watch" ]; then kill "$watch"; fi
    until "$@" container unpause "$container"; do
      tries=$((tries + 1))
      [ "$tries" -lt 30 ] || exit
      sleep 2
    done
  ' dockerbackup-unpause "$container" "$limit" "$parent" "$@" </dev/null >/dev/null 2>&1 &
  guard=$!
  ours=maybe
  now
  began=$seconds
  message=$("$@" container pause "$container" 2>&1 >/dev/null) || {
    status=$?
    case $message in *"already paused"* | *"is not running"*) ours= ;; esac
    printf '%s\\n' "$message" >&2
    exit "$status"
  }
  ours=yes
fi
eval "exec $line" &
child=$!
wait "$child"
status=$?
child=
if [ "$status" = 0 ] && [ -n "$ours" ]; then
  paused=$("$@" container inspect --format '{{.State.Paused}}' "$container") || exit
  if [ "$paused" != true ]; then
    echo "container $container was unpaused before its $what ended (limit $limit s)" >&2
    exit 75
  fi
  message=$("$@" container unpause "$container" 2>&1 >/dev/null) || {
    printf '%s\\n' "container $container could not be unpaused after its $what: $message" >&2
    exit 75
  }
  ours=
  now
  echo "dockerbackup: paused from $began to $seconds" >&2
fi
exit "$status"
"""

# Parameters: container, its image, then the words that call docker. Standard output is the tar alone.
#
# When the link is cut, the export finds its output closed and ends, and the script removes what it was given. The
# export runs in the background and is waited for, because a shell that waits for a foreground command would not heed
# a signal before that command ends.
EXPORT_TEMPORARY = """\
container=$1 image=$2
shift 2
child=
finish() {
  trap '' HUP INT TERM PIPE
  trap - EXIT
  if [ -n "$child" ]; then kill "$child" 2>/dev/null; fi
  "$@" container rm --volumes -- "$container" >/dev/null 2>&1
  "$@" image rm -- "$image" >/dev/null 2>&1
}
trap 'status=$?; finish "$@"; exit "$status"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
"$@" container export "$container" &
child=$!
wait "$child"
status=$?
child=
exit "$status"
"""
