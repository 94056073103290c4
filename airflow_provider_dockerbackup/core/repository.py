# SPDX-License-Identifier: Apache-2.0
"""A repository: where archives, records and the audit trail live."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.catalog import Catalog
from airflow_provider_dockerbackup.core.document import Document, UtcTime
from airflow_provider_dockerbackup.core.ports import Clock, Storage
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError, NotFoundError

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.audit.signature import Signer

Layout = Literal["archive", "layers"]
REPOSITORY_FILE = "repository.json"
# A writer on a storage without locks that has not come back for a day is gone: no attempt may run that long.
ABANDONED_AFTER_SECONDS = 24 * 3600.0


class RepositoryDocument(Document):
    """``repository.json``: what this repository is.

    :param layout: how backups are kept: ``archive`` is one plain file a backup, ``layers`` each layer once for all of
        them.
    :param compression: what new archives are compressed with unless a task says otherwise.
    """

    repository_id: str
    layout: str
    compression: Compression
    created_at: UtcTime


class Repository:
    """A repository on a storage.

    :param storage: where it lives.
    :param document: its ``repository.json``.
    :param clock: time for new documents.
    :param signer: signs audit events; None leaves them unsigned.
    """

    def __init__(
        self, storage: Storage, document: RepositoryDocument, *, clock: Clock, signer: Signer | None = None
    ) -> None:
        self.storage = storage
        self.document = document
        self.clock = clock
        self.signer = signer
        self.catalog = Catalog(storage)
        self._trail: Trail | None = None

    def trail(self, actor: Mapping[str, str]) -> Trail:
        """Return the audit trail of a new try.

        :param actor: who acts: DAG run or user, and software versions.
        """
        self._trail = Trail(
            self.storage,
            repository_id=self.document.repository_id,
            clock=self.clock,
            actor=actor,
            signer=self.signer,
        )
        return self._trail

    @property
    def audit_head(self) -> str | None:
        """Digest of the newest event of the latest try of this process; None when it wrote none."""
        return self._trail.head if self._trail is not None else None

    @classmethod
    def open(cls, storage: Storage, *, clock: Clock, signer: Signer | None = None) -> Repository:
        """Return the repository on ``storage``.

        :param signer: signs audit events.
        :raises NotFoundError: when there is none.
        :raises IntegrityError: when its ``repository.json`` is unreadable.
        """
        try:
            data = storage.read(REPOSITORY_FILE)
        except NotFoundError as err:
            raise NotFoundError(
                f"there is no repository at {storage.url} (no {REPOSITORY_FILE}); the first backup creates one, "
                "or the URL is wrong"
            ) from err
        document = RepositoryDocument.from_bytes(data, where=f"{storage.url}/{REPOSITORY_FILE}")
        _check_layout(document.layout)
        return cls(storage, document, clock=clock, signer=signer)

    @classmethod
    def open_or_create(
        cls,
        storage: Storage,
        *,
        clock: Clock,
        layout: str = "archive",
        compression: Compression | None = None,
        signer: Signer | None = None,
    ) -> Repository:
        """Return the repository on ``storage``, made now if there is none yet.

        :param layout: layout of a new repository.
        :param compression: default compression of a new repository, None for its layout's: ``none``, or ``zstd`` in
            layout ``layers``; an existing one keeps its own.
        :param signer: signs audit events.
        :raises ConfigurationError: when the layout is unknown or the storage cannot be used.
        """
        _check_layout(layout, compression)
        try:
            return cls.open(storage, clock=clock, signer=signer)
        except NotFoundError:
            if next(iter(storage.list("backups")), None) is not None:
                raise
        usual = Compression.ZSTD if layout == "layers" else Compression.NONE
        document = RepositoryDocument(
            repository_id=str(uuid.uuid4()), layout=layout, compression=compression or usual, created_at=clock.now()
        )
        try:
            storage.create(REPOSITORY_FILE, document.to_bytes())
        except ConflictError:
            # Another task made it between our look and our write; theirs holds.
            return cls.open(storage, clock=clock, signer=signer)
        return cls(storage, document, clock=clock, signer=signer)


def _check_layout(layout: str, compression: Compression | None = None) -> None:
    known = get_args(Layout)
    if layout not in known:
        raise ConfigurationError(f"repository layout {layout!r} is not known; expected one of: {', '.join(known)}")
    if layout == "layers":
        check_layers_compression(compression)


def check_layers_compression(compression: Compression | None) -> None:
    """Refuse a compression that layout ``layers`` does not have.

    :raises ConfigurationError: when it is neither zstd nor None.
    """
    if compression not in {None, Compression.ZSTD}:
        raise ConfigurationError(
            f"compression: a repository of layout 'layers' stores zstd, got {str(compression)!r}; leave it out"
        )
