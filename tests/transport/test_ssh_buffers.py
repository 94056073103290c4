# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import random
import threading
import time

import pytest
from paramiko.buffered_pipe import PipeTimeout

from airflow_provider_dockerbackup.transport.ssh_buffers import PacketBuffer, Tail


def test_bytes_come_out_as_they_went_in_whatever_the_sizes() -> None:
    """Packets of random sizes, reads of random sizes, two threads."""
    source = random.Random(7)  # noqa: S311 - not for secrets
    packets = [source.randbytes(source.choice((0, 1, 100, 32768, 70000))) for _ in range(600)]
    buffer = PacketBuffer()

    def feed() -> None:
        for packet in packets:
            buffer.feed(packet)
        buffer.close()

    thread = threading.Thread(target=feed)
    thread.start()
    got = []
    while piece := buffer.read(source.choice((1, 999, 1 << 20))):
        got.append(piece)
    thread.join()
    assert b"".join(got) == b"".join(packets)
    assert len(buffer) == 0


def test_read_returns_at_most_what_was_asked_for() -> None:
    """Also when a packet is larger."""
    buffer = PacketBuffer()
    buffer.feed(b"abcdef")
    buffer.close()
    assert buffer.read_ready()
    assert [buffer.read(4), buffer.read(4), buffer.read(4)] == [b"abcd", b"ef", b""]
    assert not buffer.read_ready()


def test_empty_packet_is_not_the_end() -> None:
    """A server may send data of no length."""
    buffer = PacketBuffer()
    buffer.feed(b"")
    threading.Timer(0.1, buffer.feed, (b"x",)).start()
    assert buffer.read(10) == b"x"


def test_read_gives_up_when_nothing_comes_in_time() -> None:
    """As paramiko's own buffer does."""
    start = time.monotonic()
    with pytest.raises(PipeTimeout):
        PacketBuffer().read(1, 0.2)
    assert 0.2 <= time.monotonic() - start < 1


def test_little_is_not_held_back_when_no_more_comes() -> None:
    """A reader waits a moment for more, not for ever."""
    buffer = PacketBuffer()
    buffer.feed(b"x")
    start = time.monotonic()
    assert buffer.read(1000) == b"x"
    assert time.monotonic() - start < 0.5


def test_empty_returns_and_forgets_all() -> None:
    """As paramiko's own buffer does."""
    buffer = PacketBuffer()
    buffer.feed(b"a")
    buffer.feed(b"b")
    assert (buffer.empty(), buffer.empty(), len(buffer)) == (b"ab", b"", 0)


def test_tail_keeps_the_end_when_fed_without_end() -> None:
    """The last bytes, and memory for not many more."""
    tail = Tail(10)
    for number in range(1000):
        tail.add(b"%04d" % number)
    assert tail.value() == b"9709980999"
