# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 on one connection, for the registry: h11 parses, requests go in, answers come out.

A body counts as whole only when its ``Content-Length`` was reached or its last chunk came: a cut link never looks like
an end. Whatever is not HTTP is answered with an error that begins with ``HTTP/``, for that is how engines, which try
TLS first, find out that an address speaks plain HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from airflow_provider_dockerbackup.transport.registry import Answer, Request
from airflow_provider_dockerbackup.transport.registry_access import Activity

_HEADER_BYTES: Final = 16 * 1024
_PIECE_BYTES: Final = 1024 * 1024
_DROPPED_BYTES: Final = 256 * 1024
# A connection that has not shown the credential may not keep a place for longer.
_UNKNOWN_SECONDS: Final = 15.0
_FIXED_HEADERS: Final = (
    ("Docker-Distribution-Api-Version", "registry/2.0"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
)
_UNAUTHORIZED: Final = 401

Answering = Callable[[Request], Answer]


class Connection(Protocol):
    """A stream of bytes in both directions."""

    def receive(self, size_bytes: int, *, patient: bool) -> bytes:
        """Return what came, at most ``size_bytes``, or nothing at the end.

        :param patient: may wait a moment for more, because much is expected.
        :raises OSError: when the link is lost, or :meth:`limit` passed.
        """

    def send(self, data: bytes) -> None:
        """Send all of ``data``.

        :raises OSError: when the link is lost.
        """

    def limit(self, seconds: float | None) -> None:
        """Set for how long, from now on, anything may still be received."""

    def close(self) -> None:
        """Close it; safe to call at any time, any number of times."""


class CutError(Exception):
    """A request ended before its time."""


def serve(
    connection: Connection, answering: Answering, *, activity: Activity, unknown_seconds: float = _UNKNOWN_SECONDS
) -> None:
    """Answer the requests of one connection, one after the other, until it ends; then close it.

    :param answering: gives the answers.
    :param activity: is told what came.
    :param unknown_seconds: for how long somebody may stay who has not shown the credential.
    """
    try:
        connection.limit(unknown_seconds)
        _Conversation(connection, answering, activity).run()
    except (OSError, EOFError, CutError, h11.ProtocolError):
        return  # nobody is there any more to be told
    finally:
        connection.close()


class _Conversation:
    def __init__(self, connection: Connection, answering: Answering, activity: Activity) -> None:
        self._connection = connection
        self._answering = answering
        self._activity = activity
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEADER_BYTES)

    def run(self) -> None:
        while True:
            try:
                event = self._next(patient=False)
            except h11.RemoteProtocolError as err:
                self._reply(Answer(status=err.error_status_hint), head_only=False, last=True)
                return
            if not isinstance(event, h11.Request):
                return
            if not self._serve(event):
                return
            self._http.start_next_cycle()

    def _serve(self, event: h11.Request) -> bool:
        """Answer one request and return whether another may follow."""
        if event.http_version not in {b"1.0", b"1.1"}:
            self._reply(Answer(status=505), head_only=False, last=True)
            return False
        try:
            answer = self._answering(_request(event, self._admitted_body()))
        except h11.RemoteProtocolError as err:
            raise CutError(str(err)) from err
        if answer.status != _UNAUTHORIZED:
            self._connection.limit(None)
        whole = self._ended()
        self._reply(answer, head_only=event.method == b"HEAD", last=not whole)
        return whole and self._http.our_state is h11.DONE

    def _admitted_body(self) -> Iterator[bytes]:
        """Yield the body of a request; it is asked for only once the credential was found right.

        A large blob may be the first that comes over a connection, and take its time.
        """
        self._connection.limit(None)
        yield from self._body()

    def _body(self) -> Iterator[bytes]:
        while True:
            with self._activity.receiving():
                event = self._next(patient=True)
            if isinstance(event, h11.EndOfMessage):
                return
            if not isinstance(event, h11.Data):
                raise CutError("the connection ended within a request")
            yield bytes(event.data)

    def _ended(self) -> bool:
        """Tell whether the request was read to its end; a little that was not asked for is read and dropped.

        Closing a connection on somebody who still sends may take the answer away from him.
        """
        if self._http.their_state is not h11.SEND_BODY:
            return True
        if self._http.they_are_waiting_for_100_continue:
            return False
        dropped_bytes = 0
        for piece in self._body():
            dropped_bytes += len(piece)
            if dropped_bytes > _DROPPED_BYTES:
                return False
        return True

    def _next(self, *, patient: bool) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[]))
            data = self._connection.receive(_PIECE_BYTES if patient else _HEADER_BYTES, patient=patient)
            self._activity.received(len(data))
            self._http.receive_data(data)

    def _reply(self, answer: Answer, *, head_only: bool, last: bool) -> None:
        size_bytes = len(answer.body) if answer.size_bytes is None else answer.size_bytes
        headers = [*_FIXED_HEADERS, *answer.headers.items()]
        if answer.status != 204:
            headers.append(("Content-Length", str(size_bytes)))
        if last:
            headers.append(("Connection", "close"))
        events: list[h11.Event] = [h11.Response(status_code=answer.status, headers=headers)]
        if answer.body and not head_only:
            events.append(h11.Data(data=answer.body))
        self._send(*events, h11.EndOfMessage())

    def _send(self, *events: h11.Event) -> None:
        self._connection.send(b"".join(self._http.send(event) or b"" for event in events))


def _request(event: h11.Request, body: Iterator[bytes]) -> Request:
    target = urlsplit(event.target.decode("ascii", "replace"))
    return Request(
        method=event.method.decode("ascii", "replace"),
        path=unquote(target.path),
        query=dict(parse_qsl(target.query, keep_blank_values=True)),
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers},
        body=body,
    )
