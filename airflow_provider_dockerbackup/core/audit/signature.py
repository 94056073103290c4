# SPDX-License-Identifier: Apache-2.0
"""Ed25519 signatures of audit events (RFC 8032), and the keys for them.

A signing key never comes from the repository, whose writer could then sign what they like.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_public_key,
)

from airflow_provider_dockerbackup.core.audit.event import Signature
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.exceptions import ConfigurationError

# What is signed begins with this, so that a signature made for something else never fits an event.
_CONTEXT = b"airflow-provider-dockerbackup audit event v1\n"
PublicKeys = Mapping[str, "PublicKey"]


class Signer(Protocol):
    """Signs audit events."""

    @property
    def public_key(self) -> PublicKey:
        """The key that checks what it signs."""

    def sign(self, payload: bytes) -> Signature:
        """Return the signature of an event's payload."""


class PublicKey:
    """An Ed25519 public key.

    :param key: the key.
    """

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.key_id = sha256_of(key.public_bytes(Encoding.Raw, PublicFormat.Raw))

    @classmethod
    def parse(cls, text: bytes, *, where: str) -> PublicKey:
        """Return the key in ``text``: PEM (SubjectPublicKeyInfo), or an OpenSSH line ``ssh-ed25519 AAAA…``.

        :raises ConfigurationError: when it is none, or of another kind.
        """
        load = load_ssh_public_key if text.lstrip().startswith(b"ssh-") else load_pem_public_key
        try:
            key = load(text)
        except (ValueError, UnsupportedAlgorithm) as err:
            raise ConfigurationError(f"{where}: expected an Ed25519 public key, PEM or OpenSSH: {err}") from err
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigurationError(f"{where}: expected an Ed25519 public key, got {type(key).__name__}")
        return cls(key)

    def verifies(self, signature: Signature, payload: bytes) -> bool:
        """Tell whether the signature is one of this key over the payload."""
        try:
            self._key.verify(base64.b64decode(signature.value), _CONTEXT + payload)
        except InvalidSignature:
            return False
        return True

    def to_pem(self) -> str:
        """Return it as PEM."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class SigningKey:
    """An Ed25519 private key.

    :param key: the key.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = PublicKey(key.public_key())

    @classmethod
    def generate(cls) -> SigningKey:
        """Return a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, text: bytes, *, where: str) -> SigningKey:
        """Return the key in ``text``: PEM (PKCS #8) without a passphrase, as ``openssl genpkey`` writes it.

        :raises ConfigurationError: when it is none, or of another kind; the message holds nothing of it.
        """
        try:
            key = load_pem_private_key(text, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as err:
            raise ConfigurationError(
                f"{where}: expected an Ed25519 private key as PEM without a passphrase; make one with: "
                "dockerbackup audit keygen FILE"
            ) from err
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(f"{where}: expected an Ed25519 private key, got {type(key).__name__}")
        return cls(key)

    def sign(self, payload: bytes) -> Signature:
        """Return the signature of an event's payload."""
        value = base64.b64encode(self._key.sign(_CONTEXT + payload)).decode()
        return Signature(key_id=self.public_key.key_id, value=value)

    def to_pem(self) -> bytes:
        """Return it as PEM, to be kept in a file that only its owner reads."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def keyring(keys: Iterable[PublicKey]) -> PublicKeys:
    """Return public keys by their ids."""
    return {key.key_id: key for key in keys}
