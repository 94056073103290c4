# SPDX-License-Identifier: Apache-2.0
"""Which ciphers and MACs a connection offers: the fast one alone, else every sound one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

DisabledAlgorithms = dict[str, list[str]]

_WEAK_MACS: Final = ("hmac-md5", "hmac-md5-96", "hmac-sha1", "hmac-sha1-96")


def gcm_only_disabled_algorithms() -> DisabledAlgorithms:
    """Return paramiko's ``disabled_algorithms`` that leave AES-GCM alone: by far its fastest cipher.

    Setting ``ciphers`` on a connection has no effect on its first key exchange; this has.
    """
    return {"ciphers": [name for name in _ciphers() if "-gcm@" not in name], "macs": list(_WEAK_MACS)}


def weak_disabled_algorithms() -> DisabledAlgorithms:
    """Return paramiko's ``disabled_algorithms`` without what is weak: CBC, 3DES, MD5 and SHA-1."""
    return {"ciphers": [name for name in _ciphers() if "-cbc" in name], "macs": list(_WEAK_MACS)}


def connect_preferring_gcm(connect: Callable[[DisabledAlgorithms], paramiko.SSHClient]) -> paramiko.SSHClient:
    """Return what ``connect`` returns when it offers AES-GCM alone, or the other sound ciphers if sshd has none.

    :param connect: connects with the given ``disabled_algorithms``; called a second time only after
        ``paramiko.IncompatiblePeer``.
    """
    try:
        return connect(gcm_only_disabled_algorithms())
    except IncompatiblePeer:
        return connect(weak_disabled_algorithms())


def _ciphers() -> tuple[str, ...]:
    transport: Any = paramiko.Transport  # it has no public list of all that it offers
    return tuple(transport._preferred_ciphers)
