# SPDX-License-Identifier: Apache-2.0
"""What is not a whole request, and who is not let in."""

from __future__ import annotations

import base64
import logging
import re
import threading
import time
from collections.abc import Iterator

import pytest

from airflow_provider_dockerbackup.transport.registry_access import Activity, Credential
from tests.contract.archives import digest
from tests.transport.push_lab import wait_for
from tests.transport.registry_lab import ATTEMPT, CREDENTIAL, NAME, ServedRegistry, basic, pieces, uploads

BLOB = b"0123456789abcdef" * 8
HOST = "Host: 127.0.0.1:1\r\n"


@pytest.fixture
def served() -> ServedRegistry:
    """An empty registry."""
    return ServedRegistry()


def request(head: str, body: bytes = b"", *, authorization: str | None = None) -> bytes:
    """Write a request by hand."""
    lines = f"{head}\r\n{HOST}Authorization: {authorization or basic()}\r\n"
    return lines.encode() + body


def with_length(blob: bytes = BLOB) -> bytes:
    """Give a whole upload in one request whose length is told."""
    head = f"POST {uploads()}?digest={digest(blob)} HTTP/1.1"
    return request(head, f"Content-Length: {len(blob)}\r\n\r\n".encode() + blob)


def in_chunks(blob: bytes = BLOB) -> bytes:
    """Give a whole upload in one request that ends with an empty chunk."""
    head = f"POST {uploads()}?digest={digest(blob)} HTTP/1.1"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces(blob, 50))
    return request(head, b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")


@pytest.mark.parametrize("whole", [with_length(), in_chunks()], ids=["length", "chunks"])
def test_a_request_cut_at_any_byte_is_no_blob(whole: bytes) -> None:
    """A cut link never looks like the end: nothing is finished, what was begun is given up."""
    assert b" 201 " in ServedRegistry().raw(whole)
    served = ServedRegistry()
    for size_bytes in range(len(whole)):
        answer = served.raw(whole[:size_bytes])
        assert b" 201 " not in answer
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    served.join()
    assert served.memory.blobs == {}
    assert {upload.state for upload in served.memory.uploads} == {"aborted"}
    assert len(served.memory.uploads) >= len(BLOB)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_cut_chunk_ends_its_upload(served: ServedRegistry, method: str) -> None:
    """Also when what came before was whole: the engine begins anew."""
    location = served.ask("POST", uploads()).location
    served.ask("PATCH", location, BLOB[:10])
    head = f"{method} {location}?digest={digest(BLOB)} HTTP/1.1"
    assert served.raw(request(head, f"Content-Length: {len(BLOB) - 10}\r\n\r\n".encode() + BLOB[10:-1])) == b""
    served.join()
    assert [upload.state for upload in served.memory.uploads] == ["aborted"]
    assert served.ask("GET", location).status == 404


@pytest.mark.parametrize(
    "hello",
    [
        bytes.fromhex("16030100c8010000c40303") + bytes(200),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"GET /v2/\r\n\r\n",
        b"\x00" * 100,
        b"\r\n" * 100 + b"x",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n\r\n",
        b"POST /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        b"GET /v2/\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_not_http_is_answered_so_that_engines_understand(served: ServedRegistry, hello: bytes) -> None:
    """They try TLS first, and go on in plain text when the answer begins with ``HTTP/``."""
    answer = served.raw(hello)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ", b"HTTP/1.1 505 "))
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("line", [b"X-Long: " + b"x" * 40_000, b"\r\n".join([b"X-Many: x"] * 4000)])
def test_a_head_is_bounded(served: ServedRegistry, line: bytes) -> None:
    """Nobody makes us keep more of it than that."""
    assert served.raw(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")


def test_a_chunk_that_is_none_ends_the_connection(served: ServedRegistry) -> None:
    """No matter where it stands."""
    for broken in (b"zz\r\n", b"-1\r\n", b"5\r\n0123456\r\n", b"5\r\n01234xx", b"f" * 30 + b"\r\n"):
        whole = in_chunks().partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + broken
        assert b" 201 " not in served.raw(whole)
    served.join()
    assert {upload.state for upload in served.memory.uploads} == {"aborted"}


def test_a_client_may_ask_before_it_sends(served: ServedRegistry) -> None:
    """``Expect: 100-continue`` gets its answer, but not when the request is refused anyway."""
    whole = with_length().replace(b"Content-Length", b"Expect: 100-continue\r\nContent-Length")
    head, _, body = whole.partition(b"\r\n\r\n")
    connection = served.connect()
    connection.sendall(head + b"\r\n\r\n")
    assert connection.recv(4096) == b"HTTP/1.1 100 \r\n\r\n"
    connection.sendall(body)
    assert connection.recv(4096).startswith(b"HTTP/1.1 201 ")
    connection.close()
    refused = served.raw(head.replace(b"sha256:", b"sha512:") + b"\r\n\r\n", end=False)
    assert refused.startswith(b"HTTP/1.1 400 ")


def test_one_connection_serves_many_requests(served: ServedRegistry) -> None:
    """Also when some are refused; engines keep theirs."""
    client = served.client()
    for number in range(20):
        assert served.ask("GET", "/v2/", client=client).status == 200
        assert served.ask("HEAD", f"/v2/{NAME}/blobs/sha256:{number:064}", client=client).status == 404
        assert served.ask("PUT", f"/v2/{NAME}/manifests/latest", b"{}", client=client).status == 404
        assert served.ask("POST", f"{uploads()}?digest={digest(BLOB)}", BLOB, client=client).status == 201
    client.close()


def test_requests_may_follow_each_other_without_waiting(served: ServedRegistry) -> None:
    """Pipelined, answered in order."""
    ping = request("GET /v2/ HTTP/1.1", b"\r\n")
    head = request(f"HEAD /v2/{NAME}/blobs/{digest(BLOB)} HTTP/1.1", b"\r\n")
    answers = served.raw(ping + with_length() + head + ping)
    assert re.findall(rb"HTTP/1.1 ([0-9]+)", answers) == [b"200", b"201", b"200", b"200"]


def test_a_long_body_that_nobody_wants_ends_the_connection(served: ServedRegistry) -> None:
    """The answer comes first; a short one is dropped instead."""
    for size_bytes, ends in ((1000, False), (10_000_000, True)):
        length = f"Content-Length: {size_bytes}\r\n\r\n".encode()
        head = request(f"PUT /v2/{NAME}/manifests/latest HTTP/1.1", length)
        answer = served.raw(head + bytes(min(size_bytes, 400_000)))
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert (b"connection: close" in answer.lower()) is ends


WRONG = [
    "",
    "Basic",
    "Basic ",
    "Basic !!!",
    basic(Credential()),
    basic(Credential(user="root", password=CREDENTIAL.password)),
    basic()[:-1],
    basic() + "x",
    basic().removeprefix("Basic "),
    basic().replace("Basic", "Bearer"),
    f"Basic {base64.b64encode(b'dockerbackup:').decode()}",
    f"{basic()}, {basic()}",
    "Basic \xff\xfe",
]


@pytest.mark.parametrize("authorization", WRONG, ids=range(len(WRONG)))
def test_without_the_credential_nothing_is_done(served: ServedRegistry, authorization: str) -> None:
    """401 with a challenge to everything, known or not; the target hears nothing of it."""
    for method, path in [
        ("GET", "/v2/"),
        ("HEAD", f"/v2/{NAME}/blobs/{digest(BLOB)}"),
        ("POST", f"{uploads()}?digest={digest(BLOB)}"),
        ("PATCH", f"{uploads()}x"),
        ("PUT", f"/v2/{NAME}/manifests/{ATTEMPT}"),
        ("GET", "/elsewhere"),
    ]:
        body = None if method in {"GET", "HEAD"} else BLOB
        reply = served.ask(method, path, body, authorization=authorization)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, 'Basic realm="dockerbackup"')
    assert (served.registry.admitted, served.memory.asked, served.memory.uploads) == (0, [], [])


def test_the_scheme_may_be_written_as_one_likes(served: ServedRegistry) -> None:
    """RFC 9110: schemes are case-insensitive."""
    assert served.ask("GET", "/v2/", authorization=basic().replace("Basic", "basic")).status == 200


def test_a_credential_is_of_one_use_and_does_not_show() -> None:
    """Each has a password of its own, and none is printed."""
    credential = Credential()
    assert credential.password != Credential().password
    assert len(credential.password) >= 43
    assert credential.password not in repr(credential)
    assert credential.password.encode() not in credential.client_configuration("127.0.0.1:1")
    assert b"\n" not in credential.client_configuration("127.0.0.1:1")


def test_nothing_is_logged_of_requests(
    served: ServedRegistry, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither credentials nor anything else."""
    caplog.set_level(logging.DEBUG)
    served.ask("POST", f"{uploads()}?digest={digest(BLOB)}", BLOB)
    served.ask("GET", "/v2/", authorization=WRONG[4])
    served.raw(bytes(100))
    served.join()
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_who_shows_no_credential_is_sent_away() -> None:
    """After a fixed time, however busy he looks; who has shown it may be silent."""
    served = ServedRegistry(unknown_seconds=0.5)
    known, silent = served.client(), served.connect()
    assert served.ask("GET", "/v2/", client=known).status == 200
    began = time.monotonic()
    talking = served.connect()
    for piece in pieces(b"GET /v2/ HTTP/1.1\r\nX: " + b"x" * 100, 1):
        try:
            talking.sendall(piece)
        except OSError:
            break
        time.sleep(0.05)
    assert time.monotonic() - began < 4
    assert silent.recv(1) == b""
    assert served.ask("GET", "/v2/", client=known).status == 200
    known.close()


def test_a_blob_may_be_slow_on_a_new_connection_once_the_credential_was_shown() -> None:
    """The time for strangers does not count for what they send after it."""
    served = ServedRegistry(unknown_seconds=0.5)
    location = served.ask("POST", uploads()).location

    def slowly() -> Iterator[bytes]:
        for _ in range(10):
            time.sleep(0.15)
            yield b"x"

    assert served.ask("PATCH", location, slowly()).status == 202
    assert served.ask("PUT", f"{location}?digest={digest(b'x' * 10)}").status == 201


def test_blobs_come_side_by_side(served: ServedRegistry) -> None:
    """On as many connections."""
    blobs = [bytes([number]) * 300_000 for number in range(8)]
    statuses: list[int] = []

    def work(blob: bytes) -> None:
        location = served.ask("POST", uploads()).location
        served.ask("PATCH", location, pieces(blob, 10_000))
        statuses.append(served.ask("PUT", f"{location}?digest={digest(blob)}").status)

    threads = [threading.Thread(target=work, args=(blob,)) for blob in blobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [201] * len(blobs)
    assert set(served.memory.blobs) == {digest(blob) for blob in blobs}


def test_two_requests_cannot_write_to_one_upload(served: ServedRegistry) -> None:
    """The second is refused while the first is at it."""
    location = served.ask("POST", uploads()).location
    first = served.connect()
    first.sendall(request(f"PATCH {location} HTTP/1.1", b"Content-Length: 20\r\n\r\n0123456789"))
    wait_for(lambda: served.activity.is_receiving)
    assert served.ask("PATCH", location, BLOB).status == 400
    first.sendall(b"0123456789")
    assert first.recv(4096).startswith(b"HTTP/1.1 202 ")
    first.close()
    assert served.ask("GET", location).headers["range"] == "0-19"


def test_the_target_may_be_slow_without_looking_idle() -> None:
    """What counts is whether the link moves; signs of life are told from what moves."""
    activity = Activity()
    time.sleep(0.15)
    assert (activity.idle_seconds() > 0.1, activity.silent_seconds() > 0.1) == (True, True)
    activity.heard()
    assert (activity.idle_seconds() > 0.1, activity.silent_seconds() < 0.1) == (True, True)
    with activity.working():
        time.sleep(0.15)
        assert (activity.idle_seconds(), activity.silent_seconds() > 0.1) == (0, True)
    assert activity.idle_seconds() < 0.1
    activity.received(10)
    assert (activity.received_bytes, activity.idle_seconds() < 0.1, activity.silent_seconds() < 0.1) == (10, True, True)


def test_a_request_that_has_begun_is_waited_for(served: ServedRegistry) -> None:
    """Between requests an engine may be silent for longer than within one."""
    connection = served.connect()
    connection.sendall(with_length()[:-1])
    wait_for(lambda: served.activity.is_receiving)
    connection.sendall(with_length()[-1:])
    assert connection.recv(4096).startswith(b"HTTP/1.1 201 ")
    assert not served.activity.is_receiving
    connection.close()


def test_a_connection_that_is_reset_is_no_blob(served: ServedRegistry) -> None:
    """As good as a cut one."""
    connection = served.connect()
    connection.sendall(with_length()[:-1])
    connection.close()
    served.join()
    assert served.memory.blobs == {}
