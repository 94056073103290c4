# SPDX-License-Identifier: Apache-2.0
"""The script that saves an image on a Docker host and leaves members out of the tar before they cross the wire."""

from __future__ import annotations

import re
from collections.abc import Iterable

from airflow_provider_dockerbackup.exceptions import ConfigurationError

# So many names fit a command line beside the script and the words that call docker.
_NAMES_BYTES = 96 * 1024
_NAME = re.compile(r"(?:blobs/sha256/[0-9a-f]{64}|[0-9a-f]{64}/layer\.tar)", re.ASCII)

# Parameters: names of members, blanks between them; the image; then the words that call docker. Standard output is the
# tar alone, maybe compressed, or less than one when the exit status is not 0. Whether it was filtered is told on
# standard error.
#
# * Of a pipe a shell tells only the last exit status, and has no `pipefail` that could be relied on. So all sides tell
#   theirs on a descriptor of its own, which is read as the output of the whole; standard output is moved aside for the
#   archive. What is not told, because a shell was killed, is a failure. Nothing is written to the disk.
# * `docker save` decides: when it failed, its exit status and messages are those of the script. If it was ended by a
#   closed pipe (141), another side was the cause.
# * `dd` with `fullblock` takes exactly what it is told from a pipe. Headers are read as octal numbers, one word a byte,
#   and written out again from these. The extended headers before a member share its fate: a PAX header gives the size
#   of a member of 8 GiB or more and may give its name, a GNU `L` header a long name. Sizes are octal digits or, in
#   GNU's way, binary. Whatever is not understood is passed on with all that follows.
# * Where a tool cannot do that, or the shell counts in 32 bits, the archive is passed on as it is.
# * What is left is mostly layers that are new, so it is compressed where the host has zstd or gzip and these do work.
# * GNU tar's `--delete` would be shorter. But version 1.34 never ends when the stream is cut within a member that it
#   deletes, loses the last 10 KiB when it deletes nothing, and ends archives properly that were cut.
SAVE_FILTERED = r"""names=$1 image=$2
shift 2
set -f
unset IFS
probe=$(printf %b '\000\045\134\377' | dd bs=4 count=1 iflag=fullblock 2>/dev/null | od -A n -v -t o1 2>/dev/null)
case "$probe $((4294967296 + 0177))" in
  *'000 045 134 377 4294967423') ;;
  *)
    echo 'dockerbackup: filtered by none' >&2
    exec "$@" image save -- "$image" ;;
esac
octal() {
  od -A n -v -t o1
}
take() {
  dd bs="$1" count="$2" iflag=fullblock 2>/dev/null
}
emit() {
  IFS=\\
  printf %b "\\$*"
  status=$?
  unset IFS
  return "$status"
}
copy() {
  if [ "$1" -ge 65536 ]; then take 65536 "$(($1 / 65536))" || return; fi
  if [ "$(($1 % 65536))" != 0 ]; then take 512 "$(($1 % 65536 / 512))"; fi
}
number() {
  size=0
  if [ "$1" = 200 ]; then
    shift
    for byte; do size=$((size * 256 + 0$byte)); done
  else
    for byte; do
      case $byte in
        06[0-7]) size=$((size * 8 + 0$byte - 060)) ;;
        000 | 040) ;;
        *) return 1 ;;
      esac
    done
  fi
  [ "$size" -ge 0 ]
}
text() {
  found= limit=$1
  shift
  for byte; do
    if [ "$byte" = 000 ] || [ "$limit" = 0 ]; then break; fi
    found="$found $byte" limit=$((limit - 1))
  done
}
records() {
  while [ "$#" -gt 0 ] && [ "$1" != 000 ]; do
    length=0 digits=0
    while [ "$#" -gt 0 ] && [ "$1" != 040 ]; do
      case $1 in
        06[0-7] | 07[01]) length=$((length * 10 + 0$1 - 060)) digits=$((digits + 1)) ;;
        *) return 1 ;;
      esac
      shift
    done
    left=$((length - digits)) record=
    if [ "$left" -le 0 ] || [ "$left" -gt "$#" ]; then return 1; fi
    while [ "$left" -gt 0 ]; do
      record="$record $1" left=$((left - 1))
      shift
    done
    record=${record% 012}
    case $record in
      ' 040 163 151 172 145 075 '*)
        given=0
        for byte in ${record#' 040 163 151 172 145 075'}; do given=$((given * 10 + 0$byte - 060)); done ;;
      ' 040 160 141 164 150 075 '*) named=${record#' 040 160 141 164 150 075'} ;;
    esac
  done
}
filter() {
  set -- $(printf '%s\n' $names | octal)
  wanted=" 012 $* " before= given= named=
  while :; do
    set -- $(take 512 1 | octal)
    if [ "$#" != 512 ]; then return 1; fi
    if [ "$1" = 000 ] || ! number "${125}" "${126}" "${127}" "${128}" "${129}" "${130}" "${131}" "${132}" "${133}" \
      "${134}" "${135}" "${136}"; then break; fi
    type=${157}
    case $type in
      170 | 113 | 114)
        if [ "$size" -gt 65536 ]; then break; fi
        before="$before $*"
        set -- $(take 512 "$(((size + 511) / 512))" | octal)
        before="$before $*"
        if [ "$type" = 170 ] && ! records "$@"; then set --; break; fi
        if [ "$type" = 114 ]; then
          text "$size" "$@"
          named=$found
        fi
        continue ;;
    esac
    found=$named
    if [ -z "$found" ] && [ "${346}" = 000 ]; then text 100 "$@"; fi
    size=${given:-$size} keep=yes
    case $type in
      000 | 060 | 061 | 062) case $wanted in *" 012$found 012 "*) keep= ;; esac ;;
    esac
    size=$(((size + 511) / 512 * 512))
    if [ -n "$keep" ]; then
      emit $before "$@" && copy "$size" || return
    else
      copy "$size" >/dev/null || return
    fi
    before= given= named=
  done
  emit $before "$@" && cat
}
pack=cat
for tool in 'gzip -1 -c' 'zstd -q -3 -c'; do
  case $(echo | $tool 2>/dev/null | octal) in
    ' 037 213 010 '* | ' 050 265 057 375 '*) pack=$tool ;;
  esac
done
exec 4>&1
told=$(
  {
    {
      "$@" image save -- "$image" 3>&- 4>&-
      echo "saved=$?" >&3
    } | {
      filter 4>&-
      echo "filtered=$?" >&3
    } | {
      $pack 3>&- >&4
      echo "packed=$?" >&3
    }
  } 3>&1
)
saved= filtered= packed=
for line in $told; do
  case $line in
    saved=*) saved=${line#saved=} ;;
    filtered=*) filtered=${line#filtered=} ;;
    packed=*) packed=${line#packed=} ;;
  esac
done
# What compresses failed by itself, whatever the client made of its closed pipe then.
case $packed in 0 | 141) ;; *) saved=0 ;; esac
if [ "$filtered,$packed" != 0,0 ] && { [ "$saved" = 0 ] || [ "$saved" = 141 ]; }; then
  status="${filtered:-unknown}, of $pack ${packed:-unknown}"
  echo "dockerbackup: the archive could not be filtered (exit status $status)" >&2
  exit 75
fi
if [ "$saved" != 0 ]; then exit "${saved:-137}"; fi
echo 'dockerbackup: filtered by sh' >&2
"""


def name_list(names: Iterable[str]) -> str:
    """Return member names as the script takes them: as many as fit a command line; the others are not left out.

    :raises ConfigurationError: when one is no name of a layer's member.
    """
    fitting: list[str] = []
    left = _NAMES_BYTES
    for name in dict.fromkeys(names):
        if _NAME.fullmatch(name) is None:
            raise ConfigurationError(f"{name[:120]!a} is not the name of a layer in an archive, and cannot be left out")
        left -= len(name) + 1
        if left >= 0:
            fitting.append(name)
    return " ".join(fitting)
