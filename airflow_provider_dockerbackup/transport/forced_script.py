# SPDX-License-Identifier: Apache-2.0
"""The script that sshd runs in place of whatever a restricted key asks for: its fixed parts.

:mod:`~airflow_provider_dockerbackup.transport.forced_command` puts the lines between them that may pass.
"""

from __future__ import annotations

NAME = "dockerbackup-ssh"
# "Permission denied" in sysexits.h; neither docker nor a shell uses it.
REFUSED = 77

# * The client's text is a value and nothing else until it was found to be, from its first to its last character, one of
#   the lines below. There is no eval; no name of a file is matched (-f); nothing is split into words.
# * Values consist of characters that mean nothing to a shell, in any place, and begin with none that means something to
#   docker. Their alphabets are spelt out: ranges such as a-z depend on the language.
# * In a pattern a quoted text stands for itself, in every shell.
HEAD = r"""
set -f
LC_ALL=C
export LC_ALL
unset IFS
line=${SSH_ORIGINAL_COMMAND-}
unset SSH_ORIGINAL_COMMAND
digits=0123456789
hex=${digits}abcdef
lower=${digits}abcdefghijklmnopqrstuvwxyz
alnum=${lower}ABCDEFGHIJKLMNOPQRSTUVWXYZ
safe=$alnum@%+=:,./_-

# Parameters: text, alphabet, fewest and most characters.
all() {
  case $1 in *[!$2]*) return 1 ;; esac
  [ "${#1}" -ge "$3" ] && [ "${#1}" -le "$4" ]
}
named() {
  case $1 in [$alnum]*) all "$@" ;; *) return 1 ;; esac
}
stamp() {
  last=${1#*-}
  all "${1%%-*}" "$hex" 16 16 && all "${last%%-*}" "$hex" 12 12 && all "${last#*-}" "$digits" 10 11
}
image() { named "$1" "$alnum._:/@-" 1 512; }
container() { named "$1" "${alnum}_.-" 2 255; }
id() {
  case $1 in sha256:*) all "${1#sha256:}" "$hex" 64 64 ;; *) return 1 ;; esac
}
filter() {
  case $1 in --filter=label=*) all "${1#--filter=label=}" "$safe" 1 512 ;; *) return 1 ;; esac
}
member() {
  case $1 in
    blobs/sha256/*) all "${1#blobs/sha256/}" "$hex" 64 64 ;;
    */layer.tar) all "${1%/layer.tar}" "$hex" 64 64 ;;
    *) return 1 ;;
  esac
}
temporary_image() {
  case $1 in dockerbackup-temporary:*) stamp "${1#dockerbackup-temporary:}" ;; *) return 1 ;; esac
}
temporary_container() {
  case $1 in dockerbackup-temporary-*) stamp "${1#dockerbackup-temporary-}" ;; *) return 1 ;; esac
}
number() {
  case $1 in 0*) return 1 ;; *) all "$1" "$digits" 1 6 ;; esac
}
repository() {
  case $1 in dockerbackup/*) named "${1#dockerbackup/}" "${lower}._-" 1 100 ;; *) return 1 ;; esac
}
attempt() { all "$1" "$lower" 1 40; }
platform() { named "$1" "${lower}._/-" 1 64; }

# Takes one value, or with `each` in front up to 2000 of them with single blanks between, off the rest of the line.
take() {
  taken=0
  while [ "$((taken += 1))" -le 2000 ]; do
    value=${rest%%[!$safe]*}
    "${1#each_}" "$value" || return
    rest=${rest#"$value"}
    case $1,$rest in
      each_*," "*) rest=${rest#?} ;;
      *) return 0 ;;
    esac
  done
  return 1
}
# Parameters: texts as they are and, between them, what the values are. The line is that and nothing else.
is() {
  rest=$line
  while :; do
    case $rest in "$1"*) rest=${rest#"$1"} ;; *) return 1 ;; esac
    [ "$#" -gt 1 ] || break
    take "$2" || return
    shift 2
  done
  [ -z "$rest" ]
}
"""

# What is told of a refused line are its first words up to a character that is not of the alphabet, or an option: values
# of a line that this key should never have been asked for may be secrets.
TAIL = r"""
if allowed; then exec /bin/sh -c "$line"; fi
said=${line#"$docker "}
said=${said%%[! $safe]*}
said=$(printf '%.80s' "${said%% -*}")
if command -v logger >/dev/null; then
  logger -t "$name" -p auth.warning "refused to ${SSH_CONNECTION%% *}: ${said:-(no command)}" </dev/null >/dev/null 2>&1
fi
printf '%s\n' "$name: refused: ${said:-(no command)}; this key may only $actions ($version)" >&2
exit "$refused"
"""
