# SPDX-License-Identifier: Apache-2.0
"""Key pairs of every kind that age encrypts to, made anew."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from airflow_provider_dockerbackup.core.encryption.identity import Identities
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A recipient and the private key of it.

    :param public: as a user gives it.
    :param private: content of the key file.
    """

    public: str
    private: bytes

    @property
    def recipient(self) -> Recipient:
        """The recipient."""
        return Recipient.parse(self.public)

    @property
    def identities(self) -> Identities:
        """The private key."""
        return Identities.parse(self.private, where="test key")


def age_pair() -> KeyPair:
    """Return a new X25519 pair, its file as age-keygen writes it."""
    identity = pyrage.x25519.Identity.generate()
    public = str(identity.to_public())
    return KeyPair(public=public, private=f"# created: today\n# public key: {public}\n{identity}\n".encode())


def ssh_ed25519_pair(passphrase: bytes | None = None) -> KeyPair:
    """Return a new SSH pair."""
    return _ssh_pair(Ed25519PrivateKey.generate(), passphrase)


@cache
def ssh_rsa_pair() -> KeyPair:
    """Return an SSH pair, made once because that takes time."""
    return _ssh_pair(generate_private_key(public_exponent=65537, key_size=2048), None)


def _ssh_pair(key: object, passphrase: bytes | None) -> KeyPair:
    hidden: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, hidden)  # type: ignore[attr-defined]
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)  # type: ignore[attr-defined]
    return KeyPair(public=f"{public.decode()} ann@example", private=private)
