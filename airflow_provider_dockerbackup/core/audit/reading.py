# SPDX-License-Identifier: Apache-2.0
"""Read an audit trail, each event examined by itself: is it what its name says, and who signed it?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Literal

from airflow_provider_dockerbackup.core.audit.event import CHECKPOINT, CHECKPOINTS, TRAIL, AuditEvent, signature_of
from airflow_provider_dockerbackup.core.audit.signature import PublicKeys
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.exceptions import IntegrityError, NotFoundError

_EVENT_PATH = re.compile(r"audit/(?:(\d{4}-\d\d-\d\d)/([0-9a-f]{64})|checkpoints/(\d{8,}))\.json")
_READERS = 8
_LARGEST_EVENT_BYTES = 64 * 1024 * 1024

Signed = Literal["", "unsigned", "unknown-key", "bad-signature"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """One object of the trail, as it stands there.

    :param digest: sha256 of its bytes, whatever its name says.
    :param event: None when it is unreadable; ``problem`` then says why.
    :param misnamed: whether its place is not that of its content.
    :param signed: empty when a trusted key signed it, or when no key was given to compare with.
    """

    path: str
    digest: str
    event: AuditEvent | None
    problem: str = ""
    misnamed: bool = False
    signed: Signed = ""

    @property
    def named_digest(self) -> str | None:
        """Return the digest that its name claims; None for checkpoints, which stand under their numbers."""
        match = _EVENT_PATH.fullmatch(self.path)
        return f"sha256:{match[2]}" if match and match[2] else None

    @property
    def sequence(self) -> int | None:
        """Return the number of a checkpoint; None for other events."""
        match = _EVENT_PATH.fullmatch(self.path)
        return int(match[3]) if match and match[3] else None

    @property
    def sound(self) -> bool:
        """Whether it is an event in its place, with a good signature where one is asked for."""
        return self.event is not None and not self.misnamed and not self.signed


def examine(path: str, data: bytes, *, keys: PublicKeys) -> StoredEvent:
    """Return what is to be said of one object of the trail by itself.

    :param keys: trusted public keys by their ids; none leaves signatures unchecked.
    """
    digest = sha256_of(data)
    try:
        event = AuditEvent.from_bytes(data, where=path)
        misnamed = event.path(digest) != path
    except (IntegrityError, TypeError, ValueError) as err:
        return StoredEvent(path=path, digest=digest, event=None, problem=str(err))
    return StoredEvent(
        path=path, digest=digest, event=event, misnamed=misnamed, signed=_signed(data, keys) if keys else ""
    )


def _signed(data: bytes, keys: PublicKeys) -> Signed:
    payload, signature = signature_of(data)
    if signature is None:
        return "unsigned"
    key = keys.get(signature.key_id)
    if key is None:
        return "unknown-key"
    return "" if key.verifies(signature, payload) else "bad-signature"


def stored_events(storage: Storage, *, keys: PublicKeys, since: date | None = None) -> Iterator[StoredEvent]:
    """Yield every object of the trail, examined, in no order.

    :param keys: trusted public keys by their ids; none leaves signatures unchecked.
    :param since: only events of this day and later, and all checkpoints.
    """
    yield from events_at(storage, trail_paths(storage, since=since), keys=keys)


def trail_paths(storage: Storage, *, since: date | None = None) -> list[str]:
    """Return the paths of the trail's objects, also of those that do not belong there."""
    paths = []
    for info in storage.list(TRAIL):
        match = _EVENT_PATH.fullmatch(info.path)
        if since is None or match is None or match[1] is None or match[1] >= since.isoformat():
            paths.append(info.path)
    return sorted(paths)


def events_at(storage: Storage, paths: Iterable[str], *, keys: PublicKeys) -> Iterator[StoredEvent]:
    """Yield the objects at these paths of the trail, examined, in the order given; one that is gone is passed over.

    :param keys: trusted public keys by their ids; none leaves signatures unchecked.
    """

    def one(path: str) -> StoredEvent | None:
        try:
            data = storage.read(path, max_bytes=_LARGEST_EVENT_BYTES)
        except NotFoundError:  # gone since it was listed: whoever names it will miss it
            return None
        except IntegrityError as err:
            return StoredEvent(path=path, digest="", event=None, problem=str(err))
        if _EVENT_PATH.fullmatch(path) is None:
            return StoredEvent(path=path, digest=sha256_of(data), event=None, problem="is no place of an event")
        return examine(path, data, keys=keys)

    # Object stores answer slowly, but many requests at once.
    with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="dockerbackup-audit") as pool:
        for found in pool.map(one, paths):
            if found is not None:
                yield found


def is_checkpoint(stored: StoredEvent) -> bool:
    """Tell whether it is a checkpoint in a checkpoint's place."""
    return stored.path.startswith(CHECKPOINTS + "/") and stored.event is not None and stored.event.type == CHECKPOINT
