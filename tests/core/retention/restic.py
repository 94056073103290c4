# SPDX-License-Identifier: Apache-2.0
"""restic as the oracle of what a retention policy keeps.

Its own command would need half a second for each snapshot, so the snapshots are written into its repository directly,
in its documented format (restic's design document: keys, and the encryption of files that are not packs).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.lab.debian import fetched_packages
from tests.lab.errors import LabError

VERSION: Final = "0.19"
_SUITE: Final = "forky"
_PASSWORD: Final = "oracle"
_POLY1305_PRIME: Final = 2**130 - 5
_CLAMP: Final = 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF


class ResticRepository:
    """A restic repository with snapshots of nothing, at given times.

    :param folder: where to make it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {**os.environ, "RESTIC_PASSWORD": _PASSWORD, "RESTIC_REPOSITORY": str(folder)}
        self._restic("init", zone="UTC")

    @cached_property
    def _program(self) -> Path:
        return fetched_packages("restic-" + _SUITE, ["restic"], suite=_SUITE, check=_require_version) / "usr/bin/restic"

    @cached_property
    def _master(self) -> dict[str, Any]:
        """The repository's key."""
        (file,) = (self._folder / "keys").iterdir()
        key = json.loads(file.read_bytes())
        derived = hashlib.scrypt(
            _PASSWORD.encode(),
            salt=base64.b64decode(key["salt"]),
            n=key["N"],
            r=key["r"],
            p=key["p"],
            maxmem=512 * 1024 * 1024,
            dklen=64,
        )
        sealed = base64.b64decode(key["data"])
        found: dict[str, Any] = json.loads(_ctr(derived[:32], sealed[:16], sealed[16:-16]))
        return found

    def add(self, host: str, times: Sequence[datetime]) -> dict[str, datetime]:
        """Write a snapshot of a host for each time, with the offset it has, and return them by id."""
        found = {}
        (self._folder / "snapshots").mkdir(exist_ok=True)
        for number, time in enumerate(times):
            snapshot = {
                "time": time.isoformat(),
                "tree": hashlib.sha256(f"{host} {number}".encode()).hexdigest(),
                "paths": ["/nothing"],
                "hostname": host,
            }
            sealed = self._sealed(json.dumps(snapshot).encode())
            name = hashlib.sha256(sealed).hexdigest()
            (self._folder / "snapshots" / name).write_bytes(sealed)
            found[name] = time
        return found

    def kept(self, policy: Mapping[str, Any], *, zone: str) -> dict[str, set[str]]:
        """Return by host the ids of the snapshots that restic keeps by a policy, applied in a time zone."""
        words = [f"--{name.replace('_', '-')}={value}" for name, value in policy.items()]
        done = self._restic("forget", "--dry-run", "--json", "--no-lock", "--no-cache", *words, zone=zone)
        return {group["host"]: {each["id"] for each in group["keep"] or []} for group in json.loads(done)}

    def _sealed(self, plain: bytes) -> bytes:
        """Encrypt with AES-256-CTR and authenticate with Poly1305-AES."""
        nonce = os.urandom(16)
        key = self._master
        ciphertext = _ctr(base64.b64decode(key["encrypt"]), nonce, plain)
        block = Cipher(algorithms.AES(base64.b64decode(key["mac"]["k"])), modes.ECB()).encryptor()  # noqa: S305
        pad = int.from_bytes(block.update(nonce), "little")
        multiplier = int.from_bytes(base64.b64decode(key["mac"]["r"]), "little") & _CLAMP
        total = 0
        for start in range(0, len(ciphertext), 16):
            total = (total + int.from_bytes(ciphertext[start : start + 16] + b"\1", "little")) * multiplier
            total %= _POLY1305_PRIME
        return nonce + ciphertext + ((total + pad) % 2**128).to_bytes(16, "little")

    def _restic(self, *words: str, zone: str) -> bytes:
        done = subprocess.run(
            [self._program, *words], env={**self._environment, "TZ": zone}, check=False, capture_output=True
        )
        if done.returncode != 0:
            raise LabError(f"restic {' '.join(words)} failed with {done.returncode}: {done.stderr.decode()[-2000:]}")
        return done.stdout


def _ctr(key: bytes, nonce: bytes, data: bytes) -> bytes:
    cipher = Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()
    return cipher.update(data) + cipher.finalize()


def _require_version(root: Path) -> None:
    done = subprocess.run([root / "usr/bin/restic", "version"], check=True, capture_output=True, text=True)
    if not done.stdout.startswith(f"restic {VERSION}."):
        raise LabError(f"Debian {_SUITE} has {done.stdout.strip()} now, expected restic {VERSION}")
