# SPDX-License-Identifier: Apache-2.0
"""A program for ``ProxyCommand``: ``relay.py HOST PORT FOLDER [talks|deaf]``; leaves its pid as a file there."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path


def main() -> None:
    """Relay standard input and output; ``talks`` says much before, ``deaf`` ends by SIGKILL alone."""
    host, port, folder, *words = sys.argv[1:]
    Path(folder, str(os.getpid())).touch()
    if "talks" in words:
        print("about to connect", file=sys.stderr)
        for _ in range(5000):
            print("x" * 100, file=sys.stderr)
    if "deaf" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    there = socket.create_connection((host, int(port)))
    threading.Thread(target=_send, args=[there], daemon=True).start()
    while data := there.recv(65536):
        os.write(1, data)
    if "deaf" in words:
        signal.pause()


def _send(there: socket.socket) -> None:
    while data := os.read(0, 65536):
        there.sendall(data)


if __name__ == "__main__":
    main()
