# SPDX-License-Identifier: Apache-2.0
"""The scripts with which a Docker host decompresses an archive before ``docker load`` reads it."""

from __future__ import annotations

# Prints what two zstd frames hold, if there is a zstd that reads both: the second is empty, the first holds PROBED.
PROBED = "dockerbackup"
PROBE = (
    r"printf %b '\050\265\057\375\044\014\141\000\000\144\157\143\153\145\162\142\141\143\153\165\160\045\235\267\332"
    r"\050\265\057\375\044\000\001\000\000\231\351\330\121' | zstd -q -d -c"
)

# Parameters: the words that call docker. Standard input is a docker-archive in zstd frames.
#
# * Of a pipe a shell tells only the last exit status. So both sides tell theirs on a descriptor of its own, which is
#   read as the output of the whole; standard output is moved aside for what docker says. What is not told, because a
#   shell was killed, is a failure.
# * When `docker load` failed, its exit status and messages are those of the script: zstd then ended by a closed pipe.
LOAD_ZSTD = r"""exec 4>&1
told=$(
  {
    {
      zstd -q -d -c 3>&- 4>&-
      echo "unpacked=$?" >&3
    } | {
      "$@" image load 3>&- >&4
      echo "loaded=$?" >&3
    }
  } 3>&1
)
unpacked= loaded=
for line in $told; do
  case $line in
    unpacked=*) unpacked=${line#unpacked=} ;;
    loaded=*) loaded=${line#loaded=} ;;
  esac
done
if [ "${loaded:-137}" != 0 ]; then exit "${loaded:-137}"; fi
if [ "$unpacked" != 0 ]; then
  echo "dockerbackup: the archive could not be decompressed (zstd exit status ${unpacked:-unknown})" >&2
  exit 75
fi
"""
