# SPDX-License-Identifier: Apache-2.0
"""A repository: where archives, records and the audit trail live."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.catalog import Catalog
from airflow_provider_dockerbackup.core.document import Document, UtcTime, sha256_of
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient, check_recipients, require_same
from airflow_provider_dockerbackup.core.ports import Clock, Storage
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError, NotFoundError

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.audit.signature import Signer
    from airflow_provider_dockerbackup.core.encryption.identity import Identities
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory

Layout = Literal["archive", "layers"]
REPOSITORY_FILE = "repository.json"
# A writer on a storage without locks that has not come back for a day is gone: no attempt may run that long.
ABANDONED_AFTER_SECONDS = 24 * 3600.0


class RepositoryDocument(Document):
    """``repository.json``: what this repository is.

    :param layout: how backups are kept: ``archive`` is one plain file a backup, ``layers`` each layer once for all of
        them.
    :param compression: what new archives are compressed with unless a task says otherwise.
    :param recipients: to whom archives are encrypted, fixed when the repository is made; none for plain archives.
    """

    repository_id: str
    layout: str
    compression: Compression
    recipients: tuple[Recipient, ...] = ()
    created_at: UtcTime


class Repository:
    """A repository on a storage.

    :param storage: where it lives.
    :param document: its ``repository.json``.
    :param clock: time for new documents.
    :param signer: signs audit events; None leaves them unsigned.
    :param identities: private keys that decrypt archives; None where none are read.
    :param host_files: gives the archives that lie on Docker hosts; None where nobody said how to reach any.
    """

    def __init__(
        self,
        storage: Storage,
        document: RepositoryDocument,
        *,
        clock: Clock,
        signer: Signer | None = None,
        identities: Identities | None = None,
        host_files: HostFilesFactory | None = None,
    ) -> None:
        self.storage = storage
        self.document = document
        self.clock = clock
        self.signer = signer
        self.identities = identities
        self.host_files = host_files
        self.catalog = Catalog(storage)
        self._trail: Trail | None = None

    def trail(self, actor: Mapping[str, str], *, after: str | None = None) -> Trail:
        """Return the audit trail of a new try.

        :param actor: who acts: DAG run or user, and software versions.
        :param after: digest of the event that this try wrote last, where it goes on in another process.
        """
        self._trail = Trail(
            self.storage,
            repository_id=self.document.repository_id,
            clock=self.clock,
            actor=actor,
            signer=self.signer,
            after=after,
        )
        return self._trail

    @property
    def encryption(self) -> Literal["none", "age"]:
        """How backups are encrypted, as their records say it."""
        return "age" if self.document.recipients else "none"

    @property
    def recipients(self) -> tuple[str, ...]:
        """Fingerprints of those who can decrypt what is written from now on."""
        return tuple(each.fingerprint for each in self.document.recipients)

    def layer_name(self, diff_id: str) -> str:
        """Return what stands for a layer in names and documents below ``layers``, and in records' blobs.

        It is the diff_id or, in an encrypted repository, a digest of it that only those can make who know the diff_id
        already: whoever saves finds what is held with public keys alone, and a listing tells no diff_id.
        """
        if not self.document.recipients:
            return diff_id
        return sha256_of(f"dockerbackup layer map\n{self.document.repository_id}\n{diff_id}".encode())

    @property
    def audit_head(self) -> str | None:
        """Digest of the newest event of the latest try of this process; None when it wrote none."""
        return self._trail.head if self._trail is not None else None

    @classmethod
    def open(
        cls,
        storage: Storage,
        *,
        clock: Clock,
        signer: Signer | None = None,
        identities: Callable[[], Identities | None] | None = None,
        host_files: HostFilesFactory | None = None,
    ) -> Repository:
        """Return the repository on ``storage``.

        :param signer: signs audit events.
        :param identities: gives the private keys that decrypt archives; asked only when they are encrypted.
        :param host_files: gives the archives that lie on Docker hosts.
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
        where = f"{storage.url}/{REPOSITORY_FILE}"
        document = RepositoryDocument.from_bytes(data, where=where)
        _check_layout(document.layout)
        check_recipients(document.recipients, where=where)
        keys = identities() if identities is not None and document.recipients else None
        return cls(storage, document, clock=clock, signer=signer, identities=keys, host_files=host_files)

    @classmethod
    def open_or_create(
        cls,
        storage: Storage,
        *,
        clock: Clock,
        layout: str = "archive",
        compression: Compression | None = None,
        recipients: Sequence[Recipient] = (),
        signer: Signer | None = None,
    ) -> Repository:
        """Return the repository on ``storage``, made now if there is none yet; parameters as of :meth:`create`.

        :param compression: an existing repository keeps its own.
        :param recipients: an existing repository must have the same, unless none are given.
        :raises ConfigurationError: when the layout is unknown, an existing repository has other recipients, or the
            storage cannot be used.
        """
        _check_layout(layout, compression)
        try:
            standing = cls.open(storage, clock=clock, signer=signer)
        except NotFoundError:
            try:
                return cls.create(
                    storage, clock=clock, layout=layout, compression=compression, recipients=recipients, signer=signer
                )
            except ConflictError:
                # Another task made it between our look and our write; theirs holds.
                standing = cls.open(storage, clock=clock, signer=signer)
        require_same(recipients, standing.document.recipients, where=storage.url)
        return standing

    @classmethod
    def create(
        cls,
        storage: Storage,
        *,
        clock: Clock,
        layout: str = "archive",
        compression: Compression | None = None,
        recipients: Sequence[Recipient] = (),
        signer: Signer | None = None,
    ) -> Repository:
        """Return a new repository on ``storage``.

        :param layout: how backups are kept.
        :param compression: default compression, None for the layout's: ``none``, or ``zstd`` in layout ``layers``.
        :param recipients: to whom backups are encrypted; none for plain ones.
        :param signer: signs audit events.
        :raises ConflictError: when there is a repository; it was not changed.
        :raises NotFoundError: when there is none, but backups are: its ``repository.json`` was lost.
        :raises ConfigurationError: when the layout is unknown or the storage cannot be used.
        """
        _check_layout(layout, compression)
        if next(iter(storage.list("backups")), None) is not None:
            cls.open(storage, clock=clock)
        document = RepositoryDocument(
            repository_id=str(uuid.uuid4()),
            layout=layout,
            compression=compression or (Compression.ZSTD if layout == "layers" else Compression.NONE),
            recipients=tuple(recipients),
            created_at=clock.now(),
        )
        try:
            storage.create(REPOSITORY_FILE, document.to_bytes())
        except ConflictError as err:
            raise ConflictError(
                f"there is a repository at {storage.url} already; it was not changed, and is as it was made"
            ) from err
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
