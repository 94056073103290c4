# SPDX-License-Identifier: Apache-2.0
"""Recipients and identities as users give them, and what is refused."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.encryption.identity import Identities
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient, parse_recipients, require_same
from airflow_provider_dockerbackup.exceptions import ConfigurationError

from .keys import age_pair, ssh_ed25519_pair, ssh_rsa_pair


def test_a_recipient_has_one_fingerprint_however_it_is_written() -> None:
    """Capitals, blanks and comments are no part of the key."""
    pair = age_pair()
    plain = Recipient.parse(pair.public)
    assert plain.public == pair.public
    assert plain.fingerprint == f"sha256:{hashlib.sha256(pair.public.encode()).hexdigest()}"
    assert Recipient.parse(f"  {pair.public.upper()}\n") == plain
    assert str(plain) == plain.fingerprint[:23]


def test_names_come_from_the_text_or_an_ssh_comment() -> None:
    """They are for people, and optional."""
    pair, shell = age_pair(), ssh_ed25519_pair()
    assert Recipient.parse(f"ann={pair.public}").name == "ann"
    assert Recipient.parse(shell.public).name == "ann@example"
    kind, key, _ = shell.public.split()
    assert Recipient.parse(f"{kind}  {key}\tnight  shift\n").name == "night shift"
    named = Recipient.parse(f"escrow={shell.public}")
    assert named.name == "escrow"
    assert named.public == f"{kind} {key}"
    assert str(named) == f"escrow {named.fingerprint[:23]}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected age1"),
        ("age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t", "expected age1"),
        ("ssh-ed25519", "expected age1"),
        ("ssh-ed25519 AAAA", "expected age1"),
        ("ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY=", "expected age1"),
        ("AGE-SECRET-KEY-1QQQ", "private key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
    ],
)
def test_what_is_no_recipient_is_refused(text: str, message: str) -> None:
    """With what is expected."""
    with pytest.raises(ConfigurationError, match=message):
        Recipient.parse(text)


def test_two_recipients_are_needed_unless_one_is_allowed() -> None:
    """Whoever loses the only private key loses every backup."""
    ann, ben = age_pair(), ssh_ed25519_pair()
    assert parse_recipients([]) == ()
    assert [each.public for each in parse_recipients([ann.public, ben.public])] == [
        ann.public,
        ben.recipient.public,
    ]
    with pytest.raises(ConfigurationError, match=r"only one.*allow_single_recipient"):
        parse_recipients([ann.public])
    assert len(parse_recipients([ann.public], allow_single=True)) == 1
    with pytest.raises(ConfigurationError, match=r"given twice"):
        parse_recipients([ann.public, f"again={ann.public}"])
    with pytest.raises(ConfigurationError, match=r"expected a list"):
        parse_recipients(ann.public)


def test_recipients_asked_for_must_be_those_of_the_repository() -> None:
    """A repository whose recipients were exchanged is not written to."""
    ann, ben, eve = (age_pair().recipient for _ in range(3))
    require_same([], [ann], where="here")
    require_same([ann, ben], [ben, ann], where="here")
    with pytest.raises(ConfigurationError, match=r"here was made with the recipients .*fixed"):
        require_same([ann, ben], [ann, eve], where="here")
    with pytest.raises(ConfigurationError, match=r"here was made with none: it is not encrypted"):
        require_same([ann, ben], [], where="here")


def test_a_private_key_knows_its_recipient() -> None:
    """So that a wrong one is refused without any ciphertext."""
    for pair in (age_pair(), ssh_ed25519_pair(), ssh_rsa_pair()):
        assert pair.identities.fingerprints == (pair.recipient.fingerprint,)


def test_keys_made_by_the_usual_programs_are_read(tmp_path: Path) -> None:
    """age-keygen, and ssh-keygen in both of its formats."""
    made = subprocess.run(["age-keygen"], capture_output=True, check=True, text=True)
    public = made.stdout.partition("# public key: ")[2].split()[0]
    assert Identities.parse(made.stdout.encode(), where="k").fingerprints == (Recipient.parse(public).fingerprint,)
    for name, options in (("a", ["-t", "ed25519"]), ("b", ["-t", "rsa"]), ("c", ["-t", "rsa", "-m", "PEM"])):
        file = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", str(file), *options], check=True)
        recipient = Recipient.parse(file.with_suffix(".pub").read_text())
        assert Identities.parse(file.read_bytes(), where="k").fingerprints == (recipient.fingerprint,)


def test_a_key_file_may_hold_several_identities() -> None:
    """As age reads it; comments and empty lines are nothing."""
    ann, ben = age_pair(), age_pair()
    both = Identities.parse(ann.private + b"\n\r\n" + ben.private, where="k")
    assert both.fingerprints == (ann.recipient.fingerprint, ben.recipient.fingerprint)


def test_keys_that_cannot_be_used_are_refused_without_showing_them() -> None:
    """Neither the message nor what is chained to it holds a part of the key."""
    secret = age_pair().private.decode().split()[-1]
    locked = ssh_ed25519_pair(passphrase=b"horse")
    for text, message in (
        (b"", "holds no private key"),
        (b"# only a comment\n", "holds no private key"),
        (b"\xff\xfe\x00", "expected an age key file"),
        (secret[:-1].encode(), "expected an age key file"),
        (b"AGE-PLUGIN-YUBIKEY-1XYZ", "plugins are not supported"),
        (b"age-encryption.org/v1\n-> scrypt", "encrypted with a passphrase"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl", "encrypted with a passphrase"),
        (locked.private, "without a passphrase|without passphrase"),
        (age_pair().public.encode(), "expected an age key file"),
    ):
        with pytest.raises(ConfigurationError, match=message) as caught:
            Identities.parse(text, where="k")
        shown = f"{caught.value} {caught.value.__cause__} {caught.value.__suppress_context__}"
        assert secret[15:40] not in shown
    identities = Identities.parse(secret.encode(), where="k")
    assert secret[15:40] not in repr(identities)
    assert "sha256:" in repr(identities)
