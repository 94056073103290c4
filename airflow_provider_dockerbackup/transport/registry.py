# SPDX-License-Identifier: Apache-2.0
"""The receiving half of the OCI distribution protocol: requests in, answers out, no sockets.

What an engine needs for a push, by the OCI Distribution Specification 1.1 (end-1 to end-7, end-11, end-13, end-14), for
one push of one image: one repository name, one tag, one credential. Everything else is answered with an error. Blobs
are not given out again.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from airflow_provider_dockerbackup.core.push import BlobUpload, PushedManifest, PushTarget
from airflow_provider_dockerbackup.exceptions import IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport.registry_access import Activity, Credential

MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
_MAX_UPLOADS: Final = 256
# Engines send a blob that was refused up to four times again, with longer and longer pauses.
_MAX_REFUSALS: Final = 3
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,19})-([0-9]{1,19})", re.ASCII)
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}", re.ASCII)
_BLOB = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, its body still to be read.

    :param path: decoded, without the query.
    :param query: parameters, each once.
    :param headers: names in lower case.
    :param body: raises when it ends before its time.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Iterable[bytes] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer; to a HEAD request only the headers of it are sent.

    :param size_bytes: what ``Content-Length`` says instead of the length of ``body``: of a blob that is only described.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    size_bytes: int | None = None


class RefusedError(Exception):
    """What a request is refused with.

    :param code: one of the specification's error codes.
    """

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        document = {"errors": [{"code": code, "message": message}]}
        body = json.dumps(document).encode()
        self.answer = Answer(status=status, headers={"Content-Type": "application/json", **(headers or {})}, body=body)


@dataclass(slots=True)
class _Session:
    """One upload, from POST to PUT."""

    upload: BlobUpload
    received_bytes: int = 0
    busy: threading.Lock = field(default_factory=threading.Lock)


class PushRegistry:
    """A registry that takes one push; every method may be called from several threads.

    :param target: where it goes.
    :param name: the repository's name in the registry, such as ``dockerbackup/nightly``.
    :param attempt: the attempt's name; tags that begin with it and a ``_`` stand for the image.
    :param credential: without it nothing is answered.
    :param activity: is told when the target works.
    """

    def __init__(
        self, target: PushTarget, *, name: str, attempt: str, credential: Credential, activity: Activity
    ) -> None:
        self._target = target
        self._name = name
        self._attempt = attempt
        self._credential = credential
        self._activity = activity
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}
        self.fatal: BaseException | None = None  # what the target raised first that ended the push
        self.refused: BaseException | None = None  # what it last said of bytes
        self._refusals = 0
        self._closed = False
        self.pushed: PushedManifest | None = None
        self.uploaded_blobs = 0
        self.uploaded_bytes = 0
        self.admitted = 0  # requests with the right credential

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request.

        :raises BaseException: what reading the body raises; the upload is given up then.
        """
        try:
            self._admit(request)
            return self._route(request)
        except RefusedError as err:
            return err.answer

    def close(self) -> None:
        """Refuse what still comes, and give up uploads that nobody finished; the target is not called any more."""
        self._closed = True
        with self._lock:
            left = list(self._sessions.values())
            self._sessions.clear()
        for session in left:
            if session.busy.acquire(blocking=False):  # else the thread that works on it gives it up
                session.upload.abort()

    def _admit(self, request: Request) -> None:
        if not self._credential.matches(request.headers.get("authorization", "")):
            challenge = {"WWW-Authenticate": 'Basic realm="dockerbackup"'}
            raise RefusedError(401, "UNAUTHORIZED", "a credential is needed", headers=challenge)
        self.admitted += 1
        self._check_alive()

    def _check_alive(self) -> None:
        if self.fatal is not None or self._closed:
            # An error after which engines do not try again.
            raise RefusedError(403, "DENIED", "the backup has ended; the log of the task says why")

    def _route(self, request: Request) -> Answer:
        if request.path in {"/v2/", "/v2"}:
            return self._version(request)
        prefix = f"/v2/{self._name}/"
        if not request.path.startswith(prefix):
            raise RefusedError(404, "NAME_UNKNOWN", "no such repository here")
        kind, _, rest = request.path.removeprefix(prefix).partition("/")
        if kind == "manifests":
            return self._manifest(request, rest)
        if kind == "blobs" and rest in {"uploads", "uploads/"}:
            return self._begin(request)
        if kind == "blobs" and rest.startswith("uploads/"):
            return self._continue(request, rest.removeprefix("uploads/"))
        if kind == "blobs":
            return self._blob(request, rest)
        raise RefusedError(404, "UNSUPPORTED", "this registry only takes a push")

    def _version(self, request: Request) -> Answer:
        _only(request, "GET", "HEAD")
        return Answer(status=200, headers={"Content-Type": "application/json"}, body=b"{}")

    def _blob(self, request: Request, digest: str) -> Answer:
        size_bytes = self._held(_digest(digest))
        if size_bytes is None:
            raise RefusedError(404, "BLOB_UNKNOWN", "no such blob here")
        _only(request, "HEAD")
        headers = {"Content-Type": _BLOB, "Docker-Content-Digest": digest}
        return Answer(status=200, headers=headers, size_bytes=size_bytes)

    def _begin(self, request: Request) -> Answer:
        _only(request, "POST")
        mounted = request.query.get("mount")
        if mounted is not None and self._held(_digest(mounted)) is not None:
            return self._created(mounted)
        digest = _digest(request.query["digest"]) if "digest" in request.query else None
        _only_sha256(request.query.get("digest-algorithm", "sha256"))
        number, session = self._open()
        if digest is None:
            return self._accepted(number, session)
        with session.busy:
            return self._finish(number, session, request, digest)

    def _continue(self, request: Request, number: str) -> Answer:
        _only(request, "GET", "PATCH", "PUT", "DELETE")
        session = self._sessions.get(number)
        if session is None:
            raise RefusedError(404, "BLOB_UPLOAD_UNKNOWN", "no such upload here")
        if request.method == "GET":
            return self._accepted(number, session, status=204)
        if not session.busy.acquire(blocking=False):
            raise RefusedError(400, "BLOB_UPLOAD_INVALID", "this upload is being written to by another request")
        try:
            return self._change(number, session, request)
        finally:
            session.busy.release()

    def _change(self, number: str, session: _Session, request: Request) -> Answer:
        if request.method == "DELETE":
            self._drop(number, session)
            return Answer(status=204)
        if request.method == "PATCH":
            self._append(number, session, request)
            return self._accepted(number, session)
        return self._finish(number, session, request, _digest(request.query.get("digest", "")))

    def _append(self, number: str, session: _Session, request: Request) -> None:
        """Take a chunk; when it is cut, or not as long as it said, the upload is over."""
        before_bytes = session.received_bytes
        end = _range_end(request, begins=before_bytes)
        try:
            for piece in request.body:
                with self._calling():
                    session.upload.write(piece)
                session.received_bytes += len(piece)
            _check_end(session.received_bytes, end)
        except BaseException:
            self._drop(number, session)
            raise

    def _finish(self, number: str, session: _Session, request: Request, digest: str) -> Answer:
        self._append(number, session, request)
        try:
            with self._calling():
                session.upload.finish(digest)
        finally:
            self._drop(number, session)
        with self._lock:
            self.uploaded_blobs += 1
            self.uploaded_bytes += session.received_bytes
        return self._created(digest)

    def _manifest(self, request: Request, reference: str) -> Answer:
        _only(request, "GET", "HEAD", "PUT")
        known = self._reference(reference)
        if request.method == "PUT":
            return self._put_manifest(request, known)
        with self._calling():
            found = self._target.manifest_of(known)
        if found is None:
            raise RefusedError(404, "MANIFEST_UNKNOWN", "no such manifest here")
        headers = {"Content-Type": found.media_type, "Docker-Content-Digest": found.digest}
        return Answer(status=200, headers=headers, body=found.data)

    def _put_manifest(self, request: Request, reference: str) -> Answer:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        if _MEDIA_TYPE.fullmatch(media_type) is None:
            raise RefusedError(400, "MANIFEST_INVALID", "a manifest needs a Content-Type")
        manifest = PushedManifest(media_type=media_type, data=_small(request))
        if _DIGEST.fullmatch(reference) and reference != manifest.digest:
            raise RefusedError(400, "DIGEST_INVALID", "the manifest has another digest")
        with self._calling(refusal="MANIFEST_INVALID"):
            try:
                self._target.manifest(reference, media_type=media_type, data=manifest.data)
            except NotFoundError as err:
                self._refuse(err)
                raise RefusedError(404, "MANIFEST_BLOB_UNKNOWN", "the manifest names what is not here") from err
        if reference == self._attempt:
            self.pushed = manifest
        location = f"/v2/{self._name}/manifests/{manifest.digest}"
        return Answer(status=201, headers={"Location": location, "Docker-Content-Digest": manifest.digest})

    def _reference(self, text: str) -> str:
        """Return what the target calls a reference: a digest, or the attempt."""
        if text == self._attempt or text.startswith(f"{self._attempt}_"):
            return self._attempt
        if ":" in text:
            return _digest(text)
        raise RefusedError(404, "MANIFEST_UNKNOWN", "no such tag here")

    def _held(self, digest: str) -> int | None:
        with self._calling():
            return self._target.blob_size(digest)

    def _open(self) -> tuple[str, _Session]:
        with self._calling():
            session = _Session(self._target.upload())
        number = str(uuid.uuid4())
        with self._lock:
            room = len(self._sessions) < _MAX_UPLOADS and not self._closed
            if room:
                self._sessions[number] = session
        if not room:
            session.upload.abort()
            raise RefusedError(
                429, "TOOMANYREQUESTS", f"more than {_MAX_UPLOADS} uploads", headers={"Retry-After": "1"}
            )
        return number, session

    def _drop(self, number: str, session: _Session) -> None:
        with self._lock:
            self._sessions.pop(number, None)
        session.upload.abort()

    def _accepted(self, number: str, session: _Session, *, status: int = 202) -> Answer:
        """Tell where an upload goes on. Of an empty one the range is ``0-0``: there is no way to write none."""
        headers = {
            "Location": f"/v2/{self._name}/blobs/uploads/{number}",
            "Range": f"0-{max(session.received_bytes - 1, 0)}",
            "Docker-Upload-UUID": number,
        }
        return Answer(status=status, headers=headers)

    def _created(self, digest: str) -> Answer:
        headers = {"Location": f"/v2/{self._name}/blobs/{digest}", "Docker-Content-Digest": digest}
        return Answer(status=201, headers=headers)

    @contextmanager
    def _calling(self, *, refusal: str = "DIGEST_INVALID") -> Iterator[None]:
        """Call the target: what it raises is kept for the task, and ends the push unless it refuses bytes.

        :param refusal: the specification's code for bytes that are refused.
        """
        self._check_alive()
        try:
            with self._activity.working():
                yield
        except RefusedError:
            raise
        except IntegrityError as err:
            self._refuse(err)
            raise RefusedError(400, refusal, "these bytes are not what they should be") from err
        except BaseException as err:
            self.fatal = self.fatal or err
            raise RefusedError(403, "DENIED", "the backup has failed; the log of the task says why") from err

    def _refuse(self, err: BaseException) -> None:
        """Keep what the target said of bytes; an engine that goes on sending the same is told to stop."""
        with self._lock:
            self.refused = err
            self._refusals += 1
            if self._refusals >= _MAX_REFUSALS:
                self.fatal = self.fatal or err


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        allowed = {"Allow": ", ".join(methods)}
        raise RefusedError(405, "UNSUPPORTED", "this registry only takes a push", headers=allowed)


def _only_sha256(algorithm: str) -> None:
    if algorithm != "sha256":
        raise RefusedError(400, "DIGEST_INVALID", "only sha256 is supported")


def _digest(text: str) -> str:
    if _DIGEST.fullmatch(text) is None:
        raise RefusedError(400, "DIGEST_INVALID", "expected sha256:<64 hex digits>")
    return text


def _range_end(request: Request, *, begins: int) -> int | None:
    """Return the position of a chunk's last byte, if the request says so and begins where the upload stands."""
    text = request.headers.get("content-range")
    if text is None:
        return None
    match = _RANGE.fullmatch(text)
    if match is None or int(match[1]) != begins or int(match[2]) < begins:
        here = {"Range": f"0-{max(begins - 1, 0)}", "Location": request.path}
        raise RefusedError(416, "BLOB_UPLOAD_INVALID", f"the next byte is number {begins}", headers=here)
    return int(match[2])


def _check_end(received_bytes: int, end: int | None) -> None:
    if end is not None and received_bytes != end + 1:
        raise RefusedError(400, "SIZE_INVALID", "the chunk is not as long as its Content-Range")


def _small(request: Request) -> bytes:
    data = bytearray()
    for piece in request.body:
        data += piece
        if len(data) > MAX_MANIFEST_BYTES:
            raise RefusedError(413, "SIZE_INVALID", f"a manifest has at most {MAX_MANIFEST_BYTES} bytes")
    return bytes(data)
