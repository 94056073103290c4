# SPDX-License-Identifier: Apache-2.0
"""Identities: the private keys that decrypt. They are needed only where backups are verified, read or restored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from airflow_provider_dockerbackup.core.encryption.recipient import fingerprint_of, short_fingerprint
from airflow_provider_dockerbackup.exceptions import ConfigurationError

_EXPECTED = "expected an age key file (AGE-SECRET-KEY-1…) or an OpenSSH private key without a passphrase"


class Identities:
    """Private keys, by the fingerprints of their recipients.

    :param keys: fingerprint → what pyrage decrypts with.
    """

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self._keys = dict(keys)

    @classmethod
    def parse(cls, text: bytes, *, where: str) -> Identities:
        """Return the identities in ``text``: an age key file, which may hold several, or an OpenSSH private key.

        :param where: what to name in messages, which hold nothing of the text.
        :raises ConfigurationError: when there is none, or one needs a passphrase or a plugin.
        """
        if text.lstrip().startswith(b"-----BEGIN") and b"AGE ENCRYPTED FILE" not in text[:100]:
            return cls(dict([_ssh_key(text, where)]))
        try:
            lines = [line.strip() for line in text.decode().splitlines()]
        except UnicodeDecodeError:
            lines = ["?"]
        keys = dict(_age_key(line, where) for line in lines if line and not line.startswith("#"))
        if not keys:
            raise ConfigurationError(f"{where}: holds no private key; {_EXPECTED}")
        return cls(keys)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Fingerprints of the recipients whose private keys these are."""
        return tuple(self._keys)

    def __repr__(self) -> str:
        """Return what may be shown of them."""
        return f"Identities({', '.join(short_fingerprint(each) for each in self._keys)})"

    def keys_for(self, recipients: Iterable[str]) -> list[Any]:
        """Return, for pyrage, the keys that decrypt what is encrypted to these recipients.

        :param recipients: fingerprints.
        """
        return [self._keys[each] for each in recipients if each in self._keys]


def require_identity(identities: Identities | None, recipients: Sequence[str], *, where: str) -> Identities:
    """Return the identities if one of them is of a recipient.

    :param recipients: fingerprints of those who can decrypt.
    :param where: what is encrypted, for the message.
    :raises ConfigurationError: when there is no identity, or none of them fits, and says who can decrypt.
    """
    who = ", ".join(short_fingerprint(each) for each in recipients)
    if identities is None:
        raise ConfigurationError(
            f"{where} is encrypted to the recipients {who}, and no identity is given: name the file of the private "
            "key of one of them (DOCKERBACKUP_IDENTITY, --age-identity; in Airflow [dockerbackup] identity_conn_id "
            "or identity_file)"
        )
    if not identities.keys_for(recipients):
        given = ", ".join(short_fingerprint(each) for each in identities.fingerprints)
        raise ConfigurationError(
            f"{where} is encrypted to the recipients {who}, and the given identity is that of {given}: it cannot "
            "decrypt it; give the private key of one of the recipients"
        )
    return identities


def _age_key(line: str, where: str) -> tuple[str, Any]:
    from pyrage import IdentityError, x25519

    if line.startswith(("age-encryption.org/", "-----BEGIN AGE ENCRYPTED FILE")):
        raise ConfigurationError(f"{where}: the key is encrypted with a passphrase; decrypt it first: age -d")
    if line.upper().startswith("AGE-PLUGIN-"):
        raise ConfigurationError(f"{where}: keys of age plugins are not supported; {_EXPECTED}")
    try:
        key = x25519.Identity.from_str(line)
    except IdentityError:
        raise ConfigurationError(f"{where}: {_EXPECTED}") from None  # nothing of the line may reach a traceback
    return fingerprint_of(str(key.to_public())), key


def _ssh_key(text: bytes, where: str) -> tuple[str, Any]:
    from pyrage import IdentityError, ssh

    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in text else load_pem_private_key
    try:
        private = load(text, password=None)
        public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        key = ssh.Identity.from_buffer(text)
    except (ValueError, TypeError, UnsupportedAlgorithm, IdentityError):
        raise ConfigurationError(
            f"{where}: {_EXPECTED}, of type ed25519 or rsa; a copy without passphrase is made by: ssh-keygen -p"
        ) from None
    return fingerprint_of(public), key
