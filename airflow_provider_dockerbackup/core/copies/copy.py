# SPDX-License-Identifier: Apache-2.0
"""Copy backups of a repository into another, on another storage or of another layout, each read back before it counts.

Bytes go as they are stored where both repositories store them in one way, so nothing is decrypted; else they are made
anew. The source is only read: nothing is written to it, and no key of it is needed that does not decrypt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import get_args

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import Attempt
from airflow_provider_dockerbackup.core.audit.signature import Signer
from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.bringing.bringer import Bringer
from airflow_provider_dockerbackup.core.bringing.documents import converted_record
from airflow_provider_dockerbackup.core.bringing.run import Brought, Run, RunOutcome, Words, bad_blobs_put_right
from airflow_provider_dockerbackup.core.bringing.transfer import Placed
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.copies.blobs import BlobCopy
from airflow_provider_dockerbackup.core.copies.passage import Passage
from airflow_provider_dockerbackup.core.copies.plan import Form, decisions, form_of, goes_as_stored
from airflow_provider_dockerbackup.core.copies.proof import read_back
from airflow_provider_dockerbackup.core.copies.selection import Selection
from airflow_provider_dockerbackup.core.encryption.identity import require_identity
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient, require_same
from airflow_provider_dockerbackup.core.layers.backup import layer_store
from airflow_provider_dockerbackup.core.ports import Progress, Storage
from airflow_provider_dockerbackup.core.reading import container_bytes, stored_archive, stored_document
from airflow_provider_dockerbackup.core.record import ArchiveFile, DocumentFile
from airflow_provider_dockerbackup.core.repository import Layout, Repository, check_layers_compression
from airflow_provider_dockerbackup.exceptions import ConfigurationError, NotFoundError

WORDS = Words(
    todo="copy",
    done="copied",
    brought="backup.copied",
    started="copy.started",
    finished="copy.done",
    failed="copy.failed",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRequest:
    """How to copy.

    :param selection: which backups.
    :param layout: of a target that is to be made, None for the source's; one that is there must have it.
    :param compression: of archives that do not go as they are stored, None for the target's own.
    :param recipients: to whom backups are encrypted in a target that is to be made, none for the source's; one that is
        there must have the same.
    :param tuning: how bytes are moved; its limit is on what is read from the source.
    :param dry_run: plan only; nothing is written.
    :param actor: who does it, and software versions.
    """

    selection: Selection = field(default_factory=Selection)
    layout: str | None = None
    compression: Compression | None = None
    recipients: Sequence[Recipient] = ()
    tuning: Tuning = field(default_factory=Tuning)
    dry_run: bool = False
    actor: Mapping[str, str] = field(default_factory=dict)

    def check(self, source: Repository, target: Repository | None = None) -> None:
        """Refuse what cannot be copied, or not into this.

        :param target: None when there is none yet.
        :raises ConfigurationError: names what is wrong.
        """
        self.tuning.check()
        self.selection.check()
        if self.layout is not None and self.layout not in get_args(Layout):
            raise ConfigurationError(f"layout: expected one of {', '.join(get_args(Layout))}, got {self.layout!r}")
        if target is not None:
            self._check_standing(source, target)
        form = self.form(source, target)
        if form[0] == "layers":
            check_layers_compression(self.compression)
        self._check_encryption(source, form)

    def _check_standing(self, source: Repository, target: Repository) -> None:
        where = target.storage.url
        if target.document.repository_id == source.document.repository_id:
            raise ConfigurationError(
                f"{where} is the very repository to copy from, or its files copied by other means; give another place"
            )
        if self.layout not in {None, target.document.layout}:
            raise ConfigurationError(
                f"layout: the repository at {where} is of layout {target.document.layout!r}, not {self.layout!r}; "
                "leave it out, or give another place"
            )
        require_same(self.recipients, target.document.recipients, where=where)

    def _check_encryption(self, source: Repository, form: Form) -> None:
        """Refuse to leave plain what was encrypted, and to make anew what cannot be decrypted."""
        if not source.recipients or form == form_of(source.document):
            return
        if not form[1]:
            raise ConfigurationError(
                f"recipients: backups in {source.storage.url} are encrypted, in the target they would not be; nothing "
                "was copied"
            )
        where = f"{source.storage.url}, whose backups the target stores in another layout or for other recipients,"
        require_identity(source.identities, source.recipients, where=where)

    def form(self, source: Repository, target: Repository | None) -> Form:
        """Return how the target stores backups.

        :param target: None when it is to be made.
        """
        if target is not None:
            return form_of(target.document)
        recipients = self.recipients or source.document.recipients
        return self.layout or source.document.layout, frozenset(each.fingerprint for each in recipients)


def target_on(
    storage: Storage, request: CopyRequest, *, source: Repository, signer: Signer | None = None
) -> Repository | None:
    """Return the repository on ``storage`` to copy into, made if need be and if it fits; None in a dry run without one.

    A new one has, unless the request says otherwise, layout, compression and recipients of the source.

    :param signer: signs audit events.
    :raises ConfigurationError: when source, target and request do not fit; nothing was changed.
    """
    try:
        standing = Repository.open(storage, clock=source.clock, signer=signer)
    except NotFoundError:
        standing = None
    request.check(source, standing)
    if standing is not None or request.dry_run:
        return standing
    layout, own = request.layout or source.document.layout, source.document
    return Repository.open_or_create(
        storage,
        clock=source.clock,
        layout=layout,
        compression=request.compression or (own.compression if layout == own.layout else None),
        recipients=request.recipients or own.recipients,
        signer=signer,
    )


def copy(request: CopyRequest, *, source: Repository, target: Repository | None, progress: Progress) -> RunOutcome:
    """Return what became of each chosen backup; one that cannot be copied does not stop the others.

    :param target: None, in a dry run, when there is none yet.
    :raises ConfigurationError: when source, target and request do not fit; nothing was changed.
    :raises NotFoundError: when a chosen backup is not there.
    :raises TransientError: when a storage failed; run it again, it goes on.
    """
    request.check(source, target)
    planned = decisions(source, target, request.selection, form=request.form(source, target))
    if request.dry_run:
        return RunOutcome(planned=tuple(planned))
    if target is None:
        raise ConfigurationError("expected a target to copy into")
    trail = target.trail(request.actor)
    way = _Copying(request, source=source, target=target, trail=trail, progress=progress)
    return Run(way, source=source, target=target, trail=trail, progress=progress).run(planned)


class _Copying(Bringer[CopyRequest]):
    """Brings each backup as it is stored where that can be, and reads back what was written."""

    words = WORDS

    def __init__(
        self, request: CopyRequest, *, source: Repository, target: Repository, trail: Trail, progress: Progress
    ) -> None:
        super().__init__(request, source=source, target=target, trail=trail, progress=progress)
        self._passage = Passage(throttle=self._throttle, progress=progress)

    @contextmanager
    def brought(self, backup: Backup, attempt: Attempt) -> Iterator[Brought]:
        """Write the backup's bytes, and read back what was written."""
        with self._placed(backup, attempt) as placed:
            record = converted_record(
                backup.whole(),
                placed,
                source=self._source,
                target=self._target,
                attempt=attempt.name,
                configuration_file=self._configuration_file(backup, attempt),
                done="copied",
            ).model_copy(update={"copied_from": self._source.document.repository_id})
            written = replace(backup, record=record)
            with bad_blobs_put_right(self._target, written, trail=self._trail, progress=self._progress):
                read = read_back(self._target, written, new=placed.new, progress=self._progress)
            yield Brought(record=record, bytes_read=read)

    def recorded(self, backup: Backup, made: Backup, brought: Brought) -> None:
        """Leave it to a verification to say how good the copy is: nobody has read blobs that were there before."""

    def is_proven(self, standing: Backup) -> bool:  # noqa: ARG002 - what stands was read back before its record
        """Say that nothing more is to be proven by a copy."""
        return True

    def finish(self, standing: Backup) -> str:  # noqa: ARG002 - as above
        """Find nothing wrong."""
        return ""

    @contextmanager
    def _placed(self, backup: Backup, attempt: Attempt) -> Iterator[Placed]:
        record = backup.whole()
        as_stored = goes_as_stored(record, form_of(self._target.document))
        if record.blobs is not None and self._target.document.layout == "layers":
            with layer_store(attempt, tuning=self._request.tuning, progress=self._progress) as store:
                blobs = BlobCopy(self._source, backup, store=store, attempt=attempt, passage=self._passage)
                if not as_stored:
                    placed = blobs.made_anew()
                else:
                    placed = blobs.as_stored() if record.encryption == "none" else blobs.encrypted_as_stored()
                yield Placed(blobs=placed, image=record.image, new=store.new)
        elif as_stored:
            yield Placed(archive=self._archive(backup, attempt), image=record.image)
        else:
            with self._transfer(backup, attempt).placed() as placed_anew:
                yield placed_anew

    def _archive(self, backup: Backup, attempt: Attempt) -> ArchiveFile:
        """Write the one file of a backup as it is stored."""
        record = backup.whole()
        stem, archive = "rootfs" if record.image is None else "image", record.archive_file
        writer = attempt.stored_archive(stem, compression=archive.compression)
        with stored_archive(self._source, backup) as chunks:
            for chunk in self._passage.of(chunks):
                writer.write(chunk)
        writer.commit()
        return ArchiveFile(
            name=writer.path.rsplit("/", 1)[1],
            compression=archive.compression,
            size_bytes=archive.size_bytes,
            stored_size_bytes=archive.stored_size_bytes,
            stored_sha256=archive.stored_sha256,
            content_digest=archive.content_digest,
        )

    def _configuration_file(self, backup: Backup, attempt: Attempt) -> DocumentFile | None:
        record = backup.whole()
        if record.container is None:
            return None
        if frozenset(record.recipients) != form_of(self._target.document)[1]:
            return attempt.document("container", container_bytes(self._source, backup))
        file = record.container.configuration_file
        return attempt.stored_document("container", stored_document(self._source, backup, file))
