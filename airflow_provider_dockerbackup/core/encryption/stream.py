# SPDX-License-Identifier: Apache-2.0
"""Encrypt and decrypt streams with age, in flat memory.

pyrage reads from one file and writes to another until the first one ends. Here it does so in a thread of its own, and
the caller pushes pieces in and takes out what is ready: one piece may wait, and what came out is fetched each time.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Any

from airflow_provider_dockerbackup.core.encryption.identity import Identities, require_identity
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient, age_key
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, IntegrityError

SUFFIX = ".age"
Decryption = Callable[[Iterable[bytes], str], Generator[bytes, None, None]]
"""Gives what a stream holds; the second argument names the stream in messages."""
_NO_KEY = "No matching keys found"
# Smaller pieces are collected first: handing one over costs two changes of thread.
_HANDED_OVER_BYTES = 1024 * 1024


class _StreamError(Exception):
    """The work between the two files ended with an error."""


class _AbortedError(Exception):
    """Nobody wants the rest."""


class _Pipe:
    """What the caller's thread and pyrage's share; to pyrage it is both files."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: bytes | None = None
        self._ended = False
        self._aborted = False
        self._over = False
        self._error: BaseException | None = None
        self._out: deque[bytes] = deque()
        self._current = memoryview(b"")  # only pyrage's thread uses it

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes of what was pushed in, waiting for some; nothing at the end."""
        if not len(self._current):
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._ended or self._aborted)
                if self._aborted:
                    raise _AbortedError
                self._current, self._waiting = memoryview(self._waiting or b""), None
                self._changed.notify_all()
        piece, self._current = self._current[:size], self._current[size:]
        return bytes(piece)

    def write(self, data: bytes) -> int:
        """Keep what is ready until the caller fetches it."""
        self._out.append(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def run(self, work: Callable[[Any, Any], None]) -> None:
        """Do the work, and keep the error it ends with."""
        error: BaseException | None = None
        try:
            work(self, self)
        except BaseException as err:  # noqa: BLE001 - it is raised where the caller's thread asks
            error = err
        with self._changed:
            self._error, self._over = error, True
            self._changed.notify_all()

    def put(self, data: bytes) -> None:
        """Hand a piece over as soon as the one before it was taken.

        :raises _StreamError: when the work has ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None or self._over)
            self._refuse_error()
            self._waiting = data
            self._changed.notify_all()

    def end(self) -> None:
        """Say that this was all, and wait until the work is done.

        :raises _StreamError: when it ended with an error.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None or self._over)
            self._ended = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._over)
            self._refuse_error()

    def fetch(self) -> bytes:
        """Return what is ready."""
        return b"".join([self._out.popleft() for _ in range(len(self._out))])

    def abort(self) -> None:
        """Let the work end as soon as it asks for more."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()

    def _refuse_error(self) -> None:
        if self._error is not None:
            raise _StreamError(str(self._error).partition("\n")[0]) from self._error


class _Pump:
    """A thread that works between two files, to which the caller pushes and from which it takes.

    :param work: reads its first argument to the end and writes to the second.
    :param name: of the thread.
    """

    def __init__(self, work: Callable[[Any, Any], None], *, name: str) -> None:
        self._pipe = _Pipe()
        self._collected: list[bytes] = []
        self._collected_bytes = 0
        self._thread = threading.Thread(target=self._pipe.run, args=(work,), name=name, daemon=True)
        self._thread.start()
        # The thread knows the pipe only, so a pump that was dropped without a close ends it all the same.
        self._abort = weakref.finalize(self, self._pipe.abort)

    def push(self, data: bytes | memoryview) -> bytes:
        """Take a piece, and return what is ready.

        :raises _StreamError: when the work ended with an error.
        """
        self._collected.append(bytes(data))
        self._collected_bytes += len(data)
        if self._collected_bytes >= _HANDED_OVER_BYTES:
            self._hand_over()
        return self._pipe.fetch()

    def end(self) -> bytes:
        """Wait for the work to end, and return the rest.

        :raises _StreamError: when it ended with an error.
        """
        if self._collected_bytes:
            self._hand_over()
        self._pipe.end()
        return self._pipe.fetch()

    def close(self) -> None:
        """End the thread, whatever it does; safe to call any number of times."""
        self._abort()
        self._thread.join()

    def _hand_over(self) -> None:
        data, self._collected, self._collected_bytes = b"".join(self._collected), [], 0
        self._pipe.put(data)


class Encryptor:
    """Encrypts one stream to recipients. It MUST be closed in every case.

    :param recipients: who can decrypt it, each of them alone.
    """

    def __init__(self, recipients: Sequence[Recipient]) -> None:
        from pyrage import encrypt_io

        if not recipients:
            raise ConfigurationError("recipients: expected at least one to encrypt to")
        keys = [age_key(each.public) for each in recipients]
        self._pump = _Pump(lambda source, sink: encrypt_io(source, sink, keys), name="age encryption")

    def encrypt(self, chunk: bytes | memoryview) -> bytes:
        """Take a piece, return what is ready, often nothing."""
        try:
            return self._pump.push(chunk)
        except _StreamError as err:
            raise _failed(err) from err

    def finish(self) -> bytes:
        """Return the rest; the stream is then complete."""
        try:
            return self._pump.end()
        except _StreamError as err:
            raise _failed(err) from err

    def close(self) -> None:
        """Release everything; nothing comes any more."""
        self._pump.close()


def _failed(err: _StreamError) -> DockerBackupError:
    return DockerBackupError(f"encryption with age failed: {err}; nothing of the stream may be used")


def encrypted(data: bytes, recipients: Sequence[Recipient]) -> bytes:
    """Return a document encrypted to recipients."""
    encryptor = Encryptor(recipients)
    try:
        return encryptor.encrypt(data) + encryptor.finish()
    finally:
        encryptor.close()


def decrypted(
    chunks: Iterable[bytes], *, identities: Identities | None, recipients: Sequence[str], where: str
) -> Generator[bytes, None, None]:
    """Return what was encrypted, in pieces of about a MiB, each only after it was authenticated.

    Whoever does not draw it to its end closes it.

    :param identities: private keys; one of them must be of a recipient.
    :param recipients: fingerprints of those to whom it was encrypted.
    :param where: what is decrypted, for messages.
    :raises ConfigurationError: when no identity fits; at once, before anything is read.
    :raises IntegrityError: while reading, when it was changed or cut anywhere; before its end is yielded.
    """
    keys = require_identity(identities, recipients, where=where).keys_for(recipients)
    return _decrypted(chunks, keys, where=where)


def _decrypted(chunks: Iterable[bytes], keys: Sequence[Any], *, where: str) -> Generator[bytes, None, None]:
    from pyrage import decrypt_io

    pump = _Pump(lambda source, sink: decrypt_io(source, sink, list(keys)), name="age decryption")
    try:
        for chunk in chunks:
            if plain := _authentic(partial(pump.push, chunk), where):
                yield plain
        if plain := _authentic(pump.end, where):
            yield plain
    finally:
        pump.close()


def _authentic(step: Callable[[], bytes], where: str) -> bytes:
    """Return what a step gives; say what its error means for the file."""
    try:
        return step()
    except _StreamError as err:
        if _NO_KEY in str(err):
            raise IntegrityError(
                f"{where} is not encrypted to the recipients on record, or its beginning was changed"
            ) from err
        raise IntegrityError(f"{where} was changed or cut since it was encrypted: {err}") from err
