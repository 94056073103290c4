# SPDX-License-Identifier: Apache-2.0
"""Streams read ahead: the same pieces in the same order, the same errors, and no thread that goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from airflow_provider_dockerbackup.exceptions import IntegrityError
from airflow_provider_dockerbackup.transport.read_ahead import read_ahead
from tests.lab.processes import wait_until


def threads() -> list[str]:
    """Return the threads that read ahead."""
    return [each.name for each in threading.enumerate() if each.name == "dockerbackup-read-ahead"]


def test_all_pieces_come_in_order() -> None:
    """More of them than are held at once."""
    pieces = [bytes([number % 256]) * number for number in range(200)]
    with read_ahead(pieces, pieces=3) as stream:
        assert list(stream) == pieces
    assert threads() == []


def test_an_error_comes_in_its_place_and_is_the_same() -> None:
    """What was read before it still arrives: the end is withheld by who gives the pieces, not here."""
    error = IntegrityError("not as recorded")

    def chunks() -> Iterator[bytes]:
        yield b"one"
        yield b"two"
        raise error

    with read_ahead(chunks()) as stream:
        assert [next(stream), next(stream)] == [b"one", b"two"]
        with pytest.raises(IntegrityError) as caught:
            next(stream)
    assert caught.value is error
    assert threads() == []


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_leaving_early_ends_the_thread_and_reads_no_more(taken: int) -> None:
    """Also when it waits because nobody takes what it read; the source is not read to its end."""
    given = []

    def endless() -> Iterator[bytes]:
        while True:
            given.append(1)
            yield b"x"

    with read_ahead(endless(), pieces=2) as stream:
        for _ in range(taken):
            next(stream)
        assert wait_until(lambda: len(given) == taken + 3, seconds=5)
    assert threads() == []
    assert len(given) <= taken + 3 + 3


def test_no_more_is_held_than_was_allowed() -> None:
    """A slow taker does not fill the memory."""
    given = []

    def chunks() -> Iterator[bytes]:
        for number in range(50):
            given.append(number)
            yield b"x"

    with read_ahead(chunks(), pieces=4) as stream:
        for number, _ in enumerate(stream):
            time.sleep(0.001)
            assert len(given) <= number + 4 + 2


def test_what_interrupts_the_taker_is_passed_on() -> None:
    """A timeout of the task, say: the thread is ended, and the exception is the taker's own."""

    def take() -> None:
        with read_ahead([b"x"] * 1000, pieces=2) as stream:
            next(stream)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take()
    assert threads() == []
