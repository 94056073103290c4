# SPDX-License-Identifier: Apache-2.0
"""Docker commands of the host's own that misbehave at an exact moment: shell scripts in front of the real client."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.processes import wait_until


def docker_script(path: Path, body: str) -> str:
    """Make a script that stands in for ``docker`` on the host, and give its path for the extra ``docker_command``.

    :param body: a POSIX shell script; ``docker "$@"`` is what was asked for.
    """
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


class Gate:
    """Lets so many bytes of ``docker save`` or ``docker export`` pass, tells so, and holds the rest until opened."""

    def __init__(self, directory: Path) -> None:
        """Describe it.

        :param directory: made; holds the script and its signs.
        """
        self._directory = directory
        directory.mkdir()

    def __enter__(self) -> Self:
        """Give the gate."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Open it, so that nothing on the host waits any longer."""
        self.open()

    @property
    def arrived(self) -> int:
        """How many streams stand at the gate, or went through."""
        return len(list(self._directory.glob("arrived.*")))

    def docker(self, *, after_bytes: int, subcommand: str = "image save") -> str:
        """Give the path of the docker command.

        :param after_bytes: how many bytes pass first.
        :param subcommand: which one is held; all others pass.
        """
        here = self._directory
        body = f"""
case "$*" in *"{subcommand}"*) ;; *) exec docker "$@" ;; esac
mkfifo {here}/stream.$$
docker "$@" >{here}/stream.$$ &
{{
  dd bs={after_bytes or 1} count={1 if after_bytes else 0} iflag=fullblock 2>/dev/null
  : >{here}/arrived.$$
  tries=0
  while [ ! -e {here}/open ] && [ "$tries" -lt 600 ]; do tries=$((tries + 1)); sleep 0.05; done
  cat
}} <{here}/stream.$$
wait $!"""
        return docker_script(here / "docker", body)

    def wait(self, *, streams: int = 1, seconds: float = 30) -> None:
        """Return once so many streams have arrived."""
        if not wait_until(lambda: self.arrived >= streams, seconds=seconds, interval=0.005):
            raise TimeoutError(f"{self.arrived} of {streams} streams came to the gate in {seconds} s")

    def open(self) -> None:
        """Let everything pass."""
        (self._directory / "open").touch()

    def close(self) -> None:
        """Hold the streams that come from now on; those that went through no longer count."""
        for sign in [self._directory / "open", *self._directory.glob("arrived.*")]:
            sign.unlink(missing_ok=True)
