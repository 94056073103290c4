# SPDX-License-Identifier: Apache-2.0
"""The script that pushes an image from a Docker host, and leaves nothing of it there."""

from __future__ import annotations

# Parameters: image, forwarded port, repository, attempt, seconds between signs of life, `default` when the client is to
# use its own daemon, else `given`, the one platform to push or nothing, then the words that call docker. The first line
# of standard input is the client's configuration with the credential; the rest is nothing, and its end is the end of
# the connection.
#
# * The tag is `<attempt>_<user ID>_<process>_<its start>`, and so is the name of the directory: whoever comes later can
#   tell whether the script that made it still lives. It cannot tell that of another user's where /proc hides them.
# * Taking away the only name of an image would delete the image, or fail because a container uses it. So a tag beside
#   which there are none but ours is moved to an empty image first: the image is left as it was, without a name. Before
#   that the digest is taken away that a classic engine notes at a push. A containerd store notes none, but shows the
#   image's own ID as one: that would stand for the image itself. (An import straight to the tag would do, but for 26
#   with a containerd store, which forgets the image that had it.)
# * `--config` would change the daemon that the client talks to, if its own configuration names a context: hence `-H`.
#   That daemon must be on this host, else its 127.0.0.1 is another.
# * The push runs in the background and is waited for, because a shell that waits for a foreground command would not
#   heed a signal before that command ends. It cannot be killed through sudo, but it ends by itself when its registry is
#   gone.
# * An empty line on standard output is a sign of life: the daemon may be silent for long, a link may not.
# * The client runs programs that its configuration names: so it may hold the credential and nothing else.
# * sshd binds the port to every address of the host when `GatewayPorts yes` says so: then nothing is sent.
# * Status 78 ("configuration error" in sysexits.h): this host cannot push, which is no failure of the image.
PUSH = """\
image=$1 port=$2 repository=$3 attempt=$4 seconds=$5 daemon=$6 platform=$7
shift 7
umask 077
child= watch= beat= directory= tag=
user=$(id -u)
started() {
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return
  set -- ${stat##*) }
  echo "${20}"
}
lives() {
  start=${1##*_} owner=${1%_*}
  pid=${owner##*_} owner=${owner%_*}
  owner=${owner##*_}
  case $owner$pid$start in *[!0-9]*) return 0 ;; esac
  if [ ! -d /proc/self ]; then
    kill -0 "$pid" 2>/dev/null
    return
  fi
  [ "$owner" = "$user" ] || [ -r /proc/1/stat ] || return 0
  [ "$(started "$pid")" = "$start" ]
}
untag() {
  name=$1
  shift
  tags=$("$@" image inspect --format '{{range .RepoTags}}{{println .}}{{end}}' "$name" 2>/dev/null) || return 0
  if ! printf '%s\\n' "$tags" | grep -Eqv '^(127[.]0[.]0[.]1:[0-9]+/dockerbackup/.*)?$'; then
    id=$("$@" image inspect --format '{{.Id}}' "$name") || return
    "$@" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$name" | while read -r digest; do
      case $digest in
        *"@$id") ;;
        "${name%:*}@"*) "$@" image rm "$digest" >/dev/null 2>&1 </dev/null ;;
      esac
    done
    empty=$("$@" image import --message 'dockerbackup: empty' - </dev/null) || return
    "$@" image tag "$empty" "$name" || return
  fi
  "$@" image rm "$name" >/dev/null
}
reap() {
  "$@" image ls --format '{{.Repository}}:{{.Tag}}' --filter 'reference=127.0.0.1:*/dockerbackup/*' |
    while read -r left; do
      case $left in 127.0.0.1:*/dockerbackup/*:*_*_*_*) lives "${left##*:}" || untag "$left" "$@" </dev/null ;; esac
    done
  for left in "${TMPDIR:-/tmp}"/dockerbackup-push-*_*_*_*.*; do
    if [ -d "$left" ] && [ ! -L "$left" ] && [ -O "$left" ]; then
      maker=${left##*/}
      lives "${maker%.*}" || rm -rf -- "$left"
    fi
  done
}
finish() {
  trap '' HUP INT TERM PIPE
  trap - EXIT
  if [ -n "$beat" ]; then kill "$beat" 2>/dev/null; fi
  if [ -n "$watch" ]; then kill "$watch" 2>/dev/null; fi
  if [ -n "$child" ]; then kill "$child" 2>/dev/null; fi
  if [ -n "$directory" ]; then rm -rf -- "$directory"; fi
  if [ -n "$tag" ]; then untag "$tag" "$@"; fi
}
cannot() {
  echo "dockerbackup: $1" >&2
  exit 78
}
trap 'status=$?; finish "$@"; exit "$status"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
(while sleep "$seconds" >/dev/null && kill -0 "$$"; do echo; done) 2>/dev/null </dev/null &
beat=$!
every=$(printf ' 0+:%04X 0+:0000 0A ' "$port")
if grep -Eqis "$every" /proc/net/tcp /proc/net/tcp6; then
  cannot 'sshd opened the forwarded port to the network (GatewayPorts yes)'
fi
if [ "$daemon" = default ]; then
  daemon=$("$@" context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null) || daemon=
  case $daemon in
    '' | unix://*) ;;
    *) cannot 'the Docker client here talks to a daemon elsewhere, whose 127.0.0.1 is not this host' ;;
  esac
else
  daemon=
fi
self=${user}_$$_$(started "$$")
case $self in *_) self=${self}0 ;; esac
reap "$@"
directory=$(mktemp -d "${TMPDIR:-/tmp}/dockerbackup-push-${attempt}_$self.XXXXXXXX") || {
  directory=
  cannot 'there is no place for a temporary client configuration'
}
IFS= read -r configuration || exit 129
credential=${configuration#'{"auths": {"127.0.0.1:'"$port"'": {"auth": "'}
case ${credential%'"}}}'} in
  '' | *[!A-Za-z0-9+/=]*) cannot 'the client configuration is more than a credential for this push' ;;
esac
printf '%s\\n' "$configuration" >"$directory/config.json" || cannot 'there is no place for a client configuration'
configuration= credential=
exec 3<&0 </dev/null
(while read -r line; do :; done; kill -s TERM "$$") <&3 >/dev/null 2>&1 &
watch=$!
tag=127.0.0.1:$port/$repository:${attempt}_$self
"$@" image tag "$image" "$tag" || { status=$?; tag=; exit "$status"; }
"$@" ${daemon:+-H "$daemon"} --config "$directory" image push ${platform:+--platform "$platform"} "$tag" 3<&- &
child=$!
wait "$child"
status=$?
child=
exit "$status"
"""
