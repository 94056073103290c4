# SPDX-License-Identifier: Apache-2.0
"""The line that says which of many archives a Docker host has, and how large they are; none of them is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from airflow_provider_dockerbackup.core.onhost.ports import FileOnHost
from airflow_provider_dockerbackup.transport.commands import quoted_line

# Its input is a path a line. What is there is looked at by many in one call; what is not, alone, for the reason. Prints
# "SIZE PATH", or "? PATH" and in the next line why nobody can say.
_SIZES = """\
there() { [ "$#" = 0 ] || stat -c '%s %n' -- "$@" 2>/dev/null; }
while IFS= read -r path; do
  if [ -e "$path" ]; then
    set -- "$@" "$path"
    if [ "$#" -ge 200 ]; then there "$@"; set --; fi
  elif said=$(stat -c '%s %n' -- "$path" 2>&1); then
    printf '%s\\n' "$said"
  else
    printf '? %s\\n%s\\n' "$path" "$(printf '%s' "$said" | tail -n 1)"
  fi
done
there "$@"
exit 0
"""
_SIZE = re.compile(r"([0-9]{1,20}) (/.*)")
_NOT_THERE = ("No such file or directory", "Not a directory")


def sizes_line() -> str:
    """Return the line; its input is :func:`sizes_input`."""
    return quoted_line(("env", "LC_ALL=C", "sh", "-c", _SIZES, "dockerbackup"))


def sizes_input(paths: Sequence[str]) -> bytes:
    """Return the paths as the line reads them."""
    return "".join(f"{path}\n" for path in paths).encode()


def sizes_in(output: bytes, *, paths: Sequence[str]) -> Mapping[str, FileOnHost]:
    """Return what the line printed, for each path; of one that it says nothing of nobody knows."""
    found = {path: FileOnHost(problem="the host said nothing of it") for path in paths}
    lines = iter(output.decode("utf-8", "replace").split("\n"))
    for line in lines:
        if match := _SIZE.fullmatch(line):
            path, told = match[2], FileOnHost(size_bytes=int(match[1]))
        elif line.startswith("? "):
            path, said = line.removeprefix("? "), next(lines, "")
            told = FileOnHost() if said.endswith(_NOT_THERE) else FileOnHost(problem=said[-300:])
        else:
            continue
        if path in found:
            found[path] = told
    return found
