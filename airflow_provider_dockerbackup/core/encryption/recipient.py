# SPDX-License-Identifier: Apache-2.0
"""Recipients: the public keys to which a repository's archives are encrypted. Nothing here is secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from airflow_provider_dockerbackup.core.document import Part, sha256_of
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._@-]*)=((?:age1|ssh-).*)", re.IGNORECASE | re.DOTALL)
_SHORT_DIGITS = 16
_EXPECTED = "expected age1… (X25519), ssh-ed25519 AAAA… or ssh-rsa AAAA…"


class Recipient(Part):
    """One who can decrypt what is written from now on.

    :param public: canonical public key: ``age1…``, or ``ssh-ed25519 AAAA…`` and ``ssh-rsa AAAA…`` without a comment.
    :param fingerprint: sha256 of ``public``.
    :param name: whose it is, for people; empty for none.
    """

    public: str
    fingerprint: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """Return the recipient that ``[NAME=]KEY`` names; the comment of an SSH key is its name unless one is given.

        :raises ConfigurationError: when the key is none that age encrypts to, and says which are.
        """
        named = _NAMED.fullmatch(text.strip())
        name, key = (named[1], named[2]) if named else ("", text.strip())
        if key.upper().startswith(("AGE-SECRET-KEY-", "-----BEGIN")):
            raise ConfigurationError(f"recipient: this is a private key; {_EXPECTED}, which are public")
        if not key.startswith("ssh-"):
            public = str(age_key(key))
            return cls(public=public, fingerprint=fingerprint_of(public), name=name)
        public, comment = _ssh(key)
        return cls(public=public, fingerprint=fingerprint_of(public), name=name or comment)

    def __str__(self) -> str:
        """Return it for messages and tables: ``ann sha256:1f0c…``, or the short fingerprint alone."""
        short = short_fingerprint(self.fingerprint)
        return f"{self.name} {short}" if self.name else short


def fingerprint_of(public: str) -> str:
    """Return ``sha256:<hex>`` of a canonical public key."""
    return sha256_of(public.encode())


def short_fingerprint(fingerprint: str) -> str:
    """Return the beginning of a fingerprint, enough for people to tell recipients apart."""
    return fingerprint[: len("sha256:") + _SHORT_DIGITS]


def age_key(public: str) -> Any:
    """Return what pyrage encrypts to.

    :raises ConfigurationError: when it is no key that age encrypts to.
    """
    from pyrage import RecipientError, ssh, x25519

    kind = ssh if public.startswith("ssh-") else x25519
    try:
        return kind.Recipient.from_str(public)
    except RecipientError as err:
        raise ConfigurationError(f"recipient: {_EXPECTED}, got {public[:40]!r}: {err}") from err


def parse_recipients(texts: Iterable[str], *, allow_single: bool = False) -> tuple[Recipient, ...]:
    """Return the recipients of a new repository, in the given order; none for one that is not encrypted.

    :param allow_single: accept only one: whoever loses its private key then loses every backup.
    :raises ConfigurationError: when a key is none, one is given twice, or there is only one.
    """
    if isinstance(texts, str):
        raise ConfigurationError("recipients: expected a list of public keys, got one text")
    found: dict[str, Recipient] = {}
    for text in texts:
        recipient = Recipient.parse(str(text))
        if recipient.fingerprint in found:
            raise ConfigurationError(f"recipients: {recipient} is given twice; a second one must be another key")
        found[recipient.fingerprint] = recipient
    if len(found) == 1 and not allow_single:
        raise ConfigurationError(
            "recipients: only one is given, and with its private key every backup would be lost; add another one whose "
            "private key is kept elsewhere, or allow it (allow_single_recipient, --allow-single-recipient)"
        )
    return tuple(found.values())


def require_same(wanted: Sequence[Recipient], standing: Sequence[Recipient], *, where: str) -> None:
    """Refuse a repository whose recipients are not the wanted ones; the order does not matter.

    :param wanted: what a task or command names; none accepts whatever the repository has.
    :raises ConfigurationError: when they differ.
    """
    if not wanted or {each.fingerprint for each in wanted} == {each.fingerprint for each in standing}:
        return
    has = f"the recipients {names_of(standing)}" if standing else "none: it is not encrypted"
    raise ConfigurationError(
        f"{where} was made with {has}, and {names_of(wanted)} are asked for; recipients are fixed when a repository "
        "is made: leave them out, or make a new repository"
    )


def check_recipients(recipients: Iterable[Recipient], *, where: str) -> None:
    """Refuse recipients of a document whose fingerprints are not those of their keys.

    :raises IntegrityError: when one differs.
    """
    for each in recipients:
        if fingerprint_of(each.public) != each.fingerprint:
            raise IntegrityError(
                f"{where}: the recipient {each.public[:40]!r} has the fingerprint {fingerprint_of(each.public)}, the "
                f"document says {each.fingerprint}: it was edited"
            )


def names_of(recipients: Iterable[Recipient]) -> str:
    """Return recipients for messages."""
    return ", ".join(str(each) for each in recipients)


def _ssh(line: str) -> tuple[str, str]:
    """Return the canonical key in an OpenSSH public key line, and its comment."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

    fields = line.split(maxsplit=2)
    try:
        key = load_ssh_public_key(" ".join(fields[:2]).encode())
        public = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    except (ValueError, UnsupportedAlgorithm) as err:
        raise ConfigurationError(f"recipient: {_EXPECTED}, got {line[:40]!r}: {err}") from err
    age_key(public)
    comment = " ".join(fields[2].split()) if len(fields) > 2 else ""
    return public, comment
