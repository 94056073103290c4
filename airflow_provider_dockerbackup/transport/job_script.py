# SPDX-License-Identifier: Apache-2.0
"""The scripts of jobs that go on, on a Docker host, when nobody is connected: begin one, look at it, end it.

A job is a session of its own whose leader is a shell. It lives in a folder of its own inside of the folder that keeps
the archives, so that publishing is a link within one file system. Files in it:

* ``process``: process id of the leader, boot id of the host, start time of the leader in clock ticks since then. They
  name one process for ever: a number that was given again has another start time, or another boot id.
* ``waiting``: there while it waits for a place among the host's captures.
* ``archive``: what is written; ``result``: its sizes and digests; ``note``: what was given to the job, for its end.
* ``image.json``, ``manifest.json``, ``config.json``: what is known of an image; ``after.json``: of a container that was
  exported as it is, once that was done.
* ``status``: the exit status, put there by an EXIT trap in one step; ``log``: what was said.
* ``unclaimed``: a folder that one alone can rename to ``claim``: whoever commits what a job made that is over, or
  removes it. Renaming needs no space, so a full disk keeps nobody from either.

Every process of a job has its name in its environment. So what a killed leader left is found, and nothing else is.
"""

from __future__ import annotations

# Returns the start time of a process: the 22nd field of its stat; the second may hold anything, also blanks and ")".
_STARTED = """\
started() {
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  set -- ${line##*) }
  shift 19
  echo "$1"
}
"""

# $here/process names a process that lives.
_LIVES = (
    _STARTED
    + """\
lives() {
  pid= boot= start=
  { read -r pid boot start <"$here/process"; } 2>/dev/null
  case $pid in '' | *[!0-9]* | 0 | 1) return 1 ;; esac
  [ "$boot" = "$(cat /proc/sys/kernel/random/boot_id)" ] && [ "$(started "$pid")" = "$start" ]
}
"""
)

# Writes files and folders to disk, each by its name, so that an error is known. A name that is not there tells a sync
# that heeds names from an old one that ignores them and has just written everything. Some file systems sync no folders,
# and one that its user may write to, but not list, cannot be opened for that: then everything is written.
_SYNCED = """\
synced() {
  if sync "$here/none" 2>/dev/null; then return 0; fi
  for name in "$@"; do
    said=$(sync "$name" 2>&1) && continue
    case $said in
      *'Invalid argument' | *'ot supported' | *'Bad file descriptor' | *'Permission denied')
        [ -d "$name" ] && sync && continue
        ;;
    esac
    echo "$said" >&2
    return 1
  done
}
"""

# Parameters: folder, name of the job, KiB that must be free, compression, the script of the job, then its parameters
# but the first, which is the job's folder. Its input is the job's note. Status 73 says that there is such a job, 77
# that no folder could be made.
START = """\
umask 077
folder=$1 job=$2 need=$3 compression=$4 script=$5
shift 5
for program in setsid sha256sum tee tar mkfifo stat; do
  command -v "$program" >/dev/null || { echo "sh: $program: command not found" >&2; exit 127; }
done
if [ "$compression" != none ] && ! command -v "$compression" >/dev/null; then
  echo "sh: $compression: command not found" >&2
  exit 127
fi
mkdir -p "$folder" || exit 77
free=$(df -Pk "$folder" | { read -r line; read -r device size used free rest; echo "$free"; })
case $free in
  '' | *[!0-9]*) ;;
  *)
    if [ "$free" -lt "$need" ]; then
      echo "no space left on device: $folder has $free KiB free, $need KiB are needed" >&2
      exit 75
    fi
    ;;
esac
here=$folder/$job
mkdir "$here" || { [ -d "$here" ] && exit 73; exit 77; }
{ mkdir "$here/unclaimed" && cat >"$here/note"; } || { rm -rf "$here"; exit 77; }
DOCKERBACKUP_JOB=$job setsid sh -c "$script" dockerbackup-job "$here" "$@" </dev/null >"$here/log" 2>&1 9>&- &
tries=0
until [ -s "$here/process" ] || [ -s "$here/status" ]; do
  tries=$((tries + 1))
  if [ "$tries" -gt 50 ]; then
    echo "the job in $here did not begin: $(tail -c 500 "$here/log")" >&2
    rm -rf "$here"
    exit 75
  fi
  sleep 0.1 2>/dev/null || sleep 1
done
"""

# Parameters: the job's folder, `image` or `container`, which one, the image of a temporary container (or nothing),
# compression, level (or nothing), deadline in seconds, places for captures, then the words that call docker.
#
# * Each member of the pipeline leaves its exit status in a file: POSIX has none for a pipeline but that of its last.
# * The digests are taken by programs beside it that read from pipes with names. All of them are there before it begins,
#   since opening such a pipe waits for the other end; should one end early, "tee" is ended by SIGPIPE, and with it all.
# * What takes long, and docker always may, runs in the background and is waited for: a shell heeds no signal before a
#   foreground command ends.
# * At the end whatever is left of the process group is ended, the timer too, and what failed leaves no archive behind.
#   A temporary container goes, and its image, before the status says that the job is over; a docker that has hung for
#   a minute, or as long as the whole job might take, is waited for no more. A trap may run in a function, and sees that
#   one's parameters: so the one that waits gets all of them.
# * docker can end an export early and say nothing. So the tar must end with two blocks of zeros, and be read back twice
#   at once. By itself: one that ends amid a file has no more to read. And with another one after it: whoever reads a
#   tar stops at its end, so that one is seen where the end is missing; amid a file it would pass for the rest of that.
JOB = (
    _STARTED
    + _SYNCED
    + """\
umask 077
here=$1 kind=$2 subject=$3 temporary=$4 compression=$5 level=$6 limit=$7 places=$8
shift 8
remove() {
  { "$@" container rm --volumes -- "$subject"; "$@" image rm -- "$temporary"; } >/dev/null 2>&1 9>&- &
  removing=$! waited=0
  while kill -s 0 "$removing" 2>/dev/null; do
    if [ "$waited" -ge 600 ] || [ "$waited" -ge "$((limit * 10))" ]; then hangs=yes; break; fi
    if sleep 0.1 2>/dev/null; then waited=$((waited + 1)); else sleep 1; waited=$((waited + 10)); fi
  done
}
# On a full disk nothing can be said before the archive is gone.
give_back() {
  free=$(df -Pk "$here" | { read -r line; read -r device size used free rest; echo "$free"; })
  rm -f "$here/archive"
  if [ "${free:-64}" -lt 64 ]; then echo "no space left on device: $here" >&2; fi
}
tell_status() { echo "$status" >"$here/status.new" && mv -f "$here/status.new" "$here/status"; }
finish() {
  status=$1
  shift
  trap '' HUP INT TERM PIPE
  trap - EXIT
  kill -s TERM 0
  if [ "$status" != 0 ]; then give_back; fi
  rm -f "$here/plain" "$here/count" "$here/last" "$here/stored" "$here/again" "$here/waiting"
  hangs=
  if [ -n "$temporary" ]; then remove "$@"; fi
  if ! tell_status; then status=74; give_back; tell_status; fi
  if [ -n "$hangs" ]; then kill -s KILL 0; fi
  exit "$status"
}
trap 'finish "$?" "$@"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
leader=$$
echo "$leader $(cat /proc/sys/kernel/random/boot_id) $(started "$leader")" >"$here/process.new" || exit 74
mv -f "$here/process.new" "$here/process" || exit 74
(sleep "$limit"; echo "the job was not done after $limit s (the deadline)" >&2; kill -s TERM "$leader") &
take_place() {
  slots=${XDG_RUNTIME_DIR:-/tmp}/dockerbackup-$(id -u)
  mkdir -m 700 "$slots" 2>/dev/null
  command -v flock >/dev/null && [ ! -L "$slots" ] && [ -d "$slots" ] && [ -O "$slots" ] || return 0
  while :; do
    place=1
    while [ "$place" -le "$places" ]; do
      true 2>/dev/null >>"$slots/capture-$place" || return 0
      exec 9>>"$slots/capture-$place"
      flock -n 9 && return 0
      place=$((place + 1))
    done
    : >"$here/waiting"
    sleep 2 &
    wait "$!"
  done
}
take_place "$@"
rm -f "$here/waiting"
cd "$here" || exit 74
if [ "$kind" = image ]; then
  "$@" image inspect -- "$subject" >image.json &
  wait "$!" || exit
fi
capture() {
  case $kind in
    image) "$@" image save -- "$subject" ;;
    container) "$@" container export -- "$subject" ;;
  esac
}
pack() {
  case $compression in
    gzip) gzip -c ${level:+"-$level"} ;;
    zstd) zstd -q -c ${level:+"-$level"} ;;
    *) cat ;;
  esac
}
unpack() {
  case $compression in
    gzip) gzip -dc <archive ;;
    zstd) zstd -q -dc <archive ;;
    *) cat archive ;;
  esac
}
mkfifo plain count last stored || exit 74
sha256sum <plain >plain.sum &
digest=$!
wc -c <count >plain.bytes &
counter=$!
tail -c 1024 <last | tr -d '\\000' | wc -c >last.bytes &
last=$!
sha256sum <stored >stored.sum &
stored=$!
{
  { capture "$@"; echo "$?" >capture.status; } |
    { tee plain count last; echo "$?" >tee.status; } |
    { pack; echo "$?" >pack.status; } |
    { tee stored >archive; echo "$?" >write.status; }
} &
wait "$!"
for step in write pack tee capture; do
  status=
  { read -r status <"$step.status"; } 2>/dev/null
  if [ "$status" != 0 ]; then
    give_back
    echo "$step ended with exit status ${status:-none}" >&2
    if [ "$step" = capture ]; then exit "${status:-74}"; fi
    exit 74
  fi
done
for reader in "$digest" "$counter" "$last" "$stored"; do wait "$reader" || exit 74; done
read -r plain rest <plain.sum && read -r packed rest <stored.sum && read -r bytes <plain.bytes || exit 74
read -r left <last.bytes || exit 74
if [ "$bytes" -lt 1024 ] || [ "$((bytes % 512))" != 0 ] || [ "$left" != 0 ]; then
  echo "unexpected EOF: docker wrote $bytes bytes, and not the end of an archive" >&2
  exit 74
fi
synced archive . &
wait "$!" || exit 74
if [ "$kind" = container ]; then
  after=after-${here##*/}
  : >"$after" && tar -cf after.tar "$after" || exit 74
  mkfifo again || exit 74
  tar -tf - <again >/dev/null 2>again.said &
  alone=$!
  {
    { unpack | tee again; cat after.tar; } |
      { tar -tf - 2>listing.said; echo "$?" >listing.status; } | tail -n 1 >listing.last
  } &
  wait "$!"
  listed= final=
  { read -r listed <listing.status; read -r final <listing.last; } 2>/dev/null
  if ! wait "$alone" || [ "$listed" != 0 ]; then
    cat again.said listing.said | tail -c 1000 >&2
    echo "the archive cannot be read back" >&2
    exit 74
  fi
  if [ "$final" = "$after" ] || grep -q 'lone zero block' listing.said; then
    echo "unexpected EOF: docker wrote an archive without its end" >&2
    exit 74
  fi
  if [ -z "$temporary" ]; then
    "$@" container inspect -- "$subject" >after.json &
    wait "$!" || exit
  fi
else
  unpack | tar -xOf - manifest.json >manifest.json &
  wait "$!" || { echo "the archive cannot be read back" >&2; exit 74; }
  config=$(sed -n 's/.*"Config" *: *"\\([^"]*\\)".*/\\1/p' manifest.json)
  case $config in
    '' | -* | /* | *[!A-Za-z0-9/._-]*) echo "manifest.json names no configuration" >&2; exit 74 ;;
  esac
  unpack | tar -xOf - "$config" >config.json &
  wait "$!" || { echo "the archive cannot be read back" >&2; exit 74; }
fi
echo "$plain $bytes $packed $(stat -c %s archive)" >result || exit 74
exit 0
"""
)

# Parameters: folder, name of the job. One line: the phase, the exit status or "-", the bytes written; for a job that
# failed the end of its log follows. The status is looked at again once no process is found: it may just have ended.
STATE = (
    _LIVES
    + """\
here=$1/$2
ended() {
  { read -r status <"$here/status"; } 2>/dev/null || return 1
  echo "ended $status $(stat -c %s "$here/archive" 2>/dev/null || echo 0)"
  if [ "$status" != 0 ]; then tail -c 4096 "$here/log"; fi
}
[ -d "$here" ] || { echo "vanished - 0"; exit 0; }
ended && exit 0
if lives; then
  phase=running
  if [ -e "$here/waiting" ]; then phase=waiting; fi
  echo "$phase - $(stat -c %s "$here/archive" 2>/dev/null || echo 0)"
  exit 0
fi
ended && exit 0
[ -d "$here" ] || { echo "vanished - 0"; exit 0; }
if [ -n "$boot" ] && [ "$boot" != "$(cat /proc/sys/kernel/random/boot_id)" ]; then
  echo "rebooted - 0"
else
  echo "killed - 0"
fi
"""
)

# Parameters: folder, name of the job, and `unclaimed` for one that is left alone when somebody claimed it. A leader
# that lives is asked to end, together with its group, which no other process can have got as long as it lives. What is
# left after that, or was left by a killed leader, is told by its environment; so is the leader, lest a file that
# somebody else wrote names it. What has neither `unclaimed` nor `claim` never began, and nobody can have claimed it.
CLEAR = (
    _LIVES
    + """\
here=$1/$2 job=$2
is_ours() { tr '\\0' '\\n' <"/proc/$1/environ" 2>/dev/null | grep -qxF "DOCKERBACKUP_JOB=$job"; }
[ -d "$here" ] || exit 0
if [ "$3" = unclaimed ] && ! mv "$here/unclaimed" "$here/claim" 2>/dev/null; then
  if [ -e "$here/claim" ] || [ -e "$here/unclaimed" ]; then echo claimed; exit 0; fi
fi
if lives && is_ours "$pid"; then
  kill -s TERM -- "-$pid" 2>/dev/null
  tries=0
  # It removes a temporary container and its image first.
  while lives && [ "$tries" -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.1 2>/dev/null || sleep 1
  done
fi
# One that was just starting another may have been seen before that one was: so until none is found.
rounds=0 left=yes
while [ -n "$left" ] && [ "$rounds" -lt 10 ]; do
  left= rounds=$((rounds + 1))
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue
    set -- ${line##*) }
    [ "$4" = "$pid" ] && [ "$1" != Z ] || continue
    found=${stat#/proc/}
    found=${found%/stat}
    if is_ours "$found"; then kill -s KILL "$found" 2>/dev/null && left=yes; fi
  done
done
rm -rf "$here"
[ ! -e "$here" ]
"""
)

# Parameters: folder, name of the job, path of the archive. What could not be published is not claimed any more.
PUBLISH = (
    _SYNCED
    + """\
here=$1/$2 final=$3
[ -d "$here" ] || { echo "$here: No such file or directory" >&2; exit 66; }
said=$(mv "$here/unclaimed" "$here/claim" 2>&1) || {
  if [ -e "$here/claim" ]; then echo "somebody else claimed $here" >&2; exit 73; fi
  echo "$said" >&2
  exit 74
}
if [ -e "$final" ] || [ -L "$final" ]; then echo "$final exists" >&2; exit 73; fi
# Where a file system knows no links, nobody else can have this name: it carries the try's own.
ln "$here/archive" "$final" 2>/dev/null || { [ ! -e "$final" ] && mv "$here/archive" "$final"; } || {
  [ -e "$final" ] || mv "$here/claim" "$here/unclaimed"
  exit 74
}
synced "$final" "$1" || {
  rm -f "$final" && mv "$here/claim" "$here/unclaimed"
  exit 74
}
"""
)

# Parameters: folder, beginning of the names. One line a job: name, whether it is over, whether it is claimed, its age.
# The claim is looked at first: what is over only then may have been claimed in between by whoever commits it.
JOBS = (
    _LIVES
    + """\
now=$(date +%s)
for here in "$1/$2"*; do
  [ -d "$here" ] && [ ! -L "$here" ] || continue
  over=over claimed=free
  if [ -e "$here/claim" ]; then claimed=claimed; fi
  if [ ! -e "$here/status" ] && lives; then over=lives; fi
  changed=$(stat -c %Y "$here") || continue
  echo "${here##*/} $over $claimed $((now - changed))"
done
"""
)
