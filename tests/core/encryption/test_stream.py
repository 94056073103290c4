# SPDX-License-Identifier: Apache-2.0
"""Encryption of streams: whole, changed, cut, with the wrong key, given up half-way."""

from __future__ import annotations

import gc
import os
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.encryption.stream import Encryptor, decrypted, encrypted
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, IntegrityError
from tests.core.archive.making import pieces

from .keys import KeyPair, age_pair, ssh_ed25519_pair, ssh_rsa_pair

CHUNK = 64 * 1024
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, (1 << 20) + 5, 3 << 20]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Every stream ends its thread, however it ended itself."""
    before = threading.active_count()
    yield
    gc.collect()
    assert threading.active_count() == before


def packed(data: bytes, *pairs: KeyPair, piece_bytes: int = 70_000) -> bytes:
    """Encrypt ``data`` in pieces."""
    encryptor = Encryptor([pair.recipient for pair in pairs])
    try:
        return b"".join(encryptor.encrypt(piece) for piece in pieces(data, piece_bytes)) + encryptor.finish()
    finally:
        encryptor.close()


def unpacked(data: bytes, pair: KeyPair, *others: KeyPair, piece_bytes: int = 1 << 20) -> bytes:
    """Decrypt ``data`` with the key of the first pair; the others are recipients too."""
    return b"".join(
        decrypted(
            pieces(data, piece_bytes),
            identities=pair.identities,
            recipients=[each.recipient.fingerprint for each in (pair, *others)],
            where="file",
        )
    )


@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize("piece_bytes", [1 << 20, 4099])
def test_what_was_encrypted_comes_back(size_bytes: int, piece_bytes: int) -> None:
    """Whatever the sizes, in particular around those of age's own chunks."""
    data, pair = os.urandom(size_bytes), age_pair()
    stored = packed(data, pair, piece_bytes=piece_bytes)
    assert data[:32] not in stored or size_bytes < 32
    assert unpacked(stored, pair, piece_bytes=piece_bytes) == data


def test_each_recipient_alone_can_decrypt() -> None:
    """Whatever kind of key it has."""
    data = os.urandom(300_000)
    pairs = (age_pair(), ssh_ed25519_pair(), ssh_rsa_pair())
    stored = packed(data, *pairs)
    for pair in pairs:
        others = [each for each in pairs if each is not pair]
        assert unpacked(stored, pair, *others) == data


def test_the_program_age_reads_it_and_is_read(tmp_path: Path) -> None:
    """The escape hatch: neither this package nor Python is needed to decrypt."""
    pair, data = age_pair(), os.urandom(200_000)
    key, plain, stored = tmp_path / "key.txt", tmp_path / "plain", tmp_path / "stored.age"
    key.write_bytes(pair.private)
    stored.write_bytes(packed(data, pair, ssh_ed25519_pair()))
    out = subprocess.run(["age", "-d", "-i", str(key), str(stored)], capture_output=True, check=True)
    assert out.stdout == data
    plain.write_bytes(data)
    made = subprocess.run(["age", "-r", pair.public, str(plain)], capture_output=True, check=True).stdout
    assert unpacked(made, pair) == data


def test_a_stream_cut_anywhere_is_refused_before_its_end() -> None:
    """Also exactly between two chunks of age."""
    data, pair = os.urandom(3 * CHUNK + 17), age_pair()
    stored = packed(data, pair)
    header = len(stored) - len(data) - 4 * 16
    lengths = {0, 1, 30, header - 16, header - 1, header, header + 7, len(stored) - 1, len(stored) - 17}
    lengths |= {header + number * (CHUNK + 16) for number in (1, 2, 3)}
    for length in sorted(lengths):
        got = bytearray()
        reading = decrypted(
            pieces(stored[:length], 10_000),
            identities=pair.identities,
            recipients=[pair.recipient.fingerprint],
            where="file",
        )
        with pytest.raises(IntegrityError, match=r"^file .*(changed|cut)"):
            got.extend(byte for piece in reading for byte in piece)
        assert len(got) < len(data)
        assert data.startswith(bytes(got))


def test_one_flipped_bit_anywhere_is_refused() -> None:
    """In the version line, a stanza, the header's MAC, the nonce, any chunk and its tag; also a byte appended."""
    data, pair = os.urandom(2 * CHUNK + 100), age_pair()
    stored = packed(data, pair, ssh_ed25519_pair())
    header = stored.index(b"\n---") + 1
    places = [*range(0, header + 70, 3), *range(header + 70, len(stored), 9973), *range(len(stored) - 20, len(stored))]
    for place in places:
        changed = bytearray(stored)
        changed[place] ^= 1
        with pytest.raises(IntegrityError, match=r"^file .*(changed|cut)"):
            unpacked(bytes(changed), pair)
    for tail in (b"x", bytes(16), bytes(CHUNK), stored):
        with pytest.raises(IntegrityError, match=r"changed"):
            unpacked(stored + tail, pair)


def test_chunks_that_changed_places_are_refused() -> None:
    """Each chunk is authentic, its place is not."""
    data, pair = os.urandom(3 * CHUNK), age_pair()
    stored = packed(data, pair)
    body = len(stored) - 3 * (CHUNK + 16)
    first, second, third = (stored[body + each * (CHUNK + 16) :][: CHUNK + 16] for each in range(3))
    for order in ((second, first, third), (first, third), (first, first, third), (first, second, third, third)):
        with pytest.raises(IntegrityError, match=r"changed or cut"):
            unpacked(stored[:body] + b"".join(order), pair)


def test_a_wrong_or_missing_key_is_refused_at_once_and_says_who_can_decrypt() -> None:
    """Before anything is read."""
    ann, other = age_pair(), age_pair()

    def never() -> Iterator[bytes]:
        pytest.fail("the stream was read")
        yield b""

    wanted = [ann.recipient.fingerprint, ssh_ed25519_pair().recipient.fingerprint]
    for identities, message in ((None, "no identity is given"), (other.identities, "cannot decrypt it")):
        with pytest.raises(ConfigurationError, match=message) as caught:
            decrypted(never(), identities=identities, recipients=wanted, where="file")
        assert all(each[:23] in str(caught.value) for each in wanted)


def test_a_file_for_others_than_its_record_says_is_no_mistake_of_the_reader() -> None:
    """The key fits the record; the bytes do not."""
    ann, other = age_pair(), age_pair()
    with pytest.raises(IntegrityError, match=r"not encrypted to the recipients on record"):
        unpacked(packed(b"data", other), ann)


def test_a_stream_given_up_half_way_leaves_no_thread() -> None:
    """By a close, by an error of the source, by nobody's wanting the rest, or by being dropped."""
    pair = age_pair()
    encryptor = Encryptor([pair.recipient])
    encryptor.encrypt(bytes(5 << 20))
    encryptor.close()
    encryptor.close()

    dropped = Encryptor([pair.recipient])
    dropped.encrypt(bytes(3 << 20))
    del dropped

    stored = packed(bytes(5 << 20), pair)

    def breaking() -> Iterator[bytes]:
        yield stored[: 2 << 20]
        raise TimeoutError

    fingerprints = [pair.recipient.fingerprint]
    with pytest.raises(TimeoutError):
        list(decrypted(breaking(), identities=pair.identities, recipients=fingerprints, where="file"))
    reading = decrypted(pieces(stored, 1 << 20), identities=pair.identities, recipients=fingerprints, where="file")
    assert next(reading)
    reading.close()
    for thread in threading.enumerate():
        if thread.name.startswith("age "):
            thread.join(5)


def test_what_was_not_finished_is_no_whole_stream() -> None:
    """A killed writer's bytes never pass for a whole archive."""
    pair = age_pair()
    encryptor = Encryptor([pair.recipient])
    begun = encryptor.encrypt(os.urandom(4 << 20)) + encryptor.encrypt(os.urandom(4 << 20))
    encryptor.close()
    with pytest.raises(IntegrityError):
        unpacked(begun, pair)


def test_after_a_close_nothing_can_be_written() -> None:
    """The caller is told, not kept waiting."""
    encryptor = Encryptor([age_pair().recipient])
    encryptor.close()
    with pytest.raises(DockerBackupError, match=r"encryption with age failed"):
        encryptor.finish()


def test_memory_stays_flat() -> None:
    """Sixty-four times a piece needs no more than a few pieces."""
    pair, piece = age_pair(), os.urandom(1 << 20)

    def stored() -> Iterator[bytes]:
        encryptor = Encryptor([pair.recipient])
        try:
            for _ in range(64):
                yield encryptor.encrypt(piece)
            yield encryptor.finish()
        finally:
            encryptor.close()

    tracemalloc.start()
    try:
        reading = decrypted(stored(), identities=pair.identities, recipients=[pair.recipient.fingerprint], where="file")
        assert sum(len(each) for each in reading) == 64 << 20
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_document_is_encrypted_in_one_call() -> None:
    """Small ones need no stream."""
    pair = age_pair()
    assert unpacked(encrypted(b'{"a": 1}', [pair.recipient]), pair) == b'{"a": 1}'
    with pytest.raises(ConfigurationError, match=r"at least one"):
        encrypted(b"", [])
