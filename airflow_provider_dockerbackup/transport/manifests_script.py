# SPDX-License-Identifier: Apache-2.0
"""The scripts that ask an engine for the manifests of an image, which no command of Docker's client shows."""

from __future__ import annotations

# Parameters: full ID of the image, then the words that call docker. Standard output is the engine's answer over HTTP
# (API 1.48), which ends the connection.
#
# * The client passes its input to the engine, which drops a request whose connection ends. So a process holds the input
#   open; it tells its number first, and is ended when the answer came.
# * Nothing of the script's own input gets there: whoever may run it may ask this one question and no other.
_ASK = r"""sh -c 'echo "$$"; printf "GET /v1.48/images/%s/json?manifests=1 HTTP/1.0\r\n\r\n" "$1"; exec sleep 60' \
  dockerbackup "$image" </dev/null | {
  read -r holder
  "$@" system dial-stdio
  status=$?
  kill "$holder" 2>/dev/null
  exit "$status"
}
"""
_NAMED = r"""image=$1
shift
"""
MANIFESTS = _NAMED + _ASK

# The same of an image that comes as standard input and has no tag; it is gone afterwards, also when its load failed, of
# which the engine may have kept some.
#
# * Where the connection ended, whatever is written is a broken pipe, which must not end the shell before the removal.
# * Some shells run the last part of a pipeline themselves, and what exits there would end the whole: hence a subshell.
MANIFESTS_OF_LOADED = f"""{_NAMED}trap '' PIPE
"$@" image load --quiet >/dev/null
status=$?
if [ "$status" = 0 ]; then
(
{_ASK})
status=$?
fi
"$@" image rm "$image" >/dev/null 2>&1
exit "$status"
"""
