# SPDX-License-Identifier: Apache-2.0
"""Convert a repository: bring every backup into another one of the other layout, each read back before it counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import Attempt
from airflow_provider_dockerbackup.core.bringing.bringer import Bringer
from airflow_provider_dockerbackup.core.bringing.documents import converted_record
from airflow_provider_dockerbackup.core.bringing.plan import decisions
from airflow_provider_dockerbackup.core.bringing.run import Brought, Run, RunOutcome, Words, bad_blobs_put_right
from airflow_provider_dockerbackup.core.bringing.transfer import read_back
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.encryption.identity import require_identity
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.reading import container_bytes
from airflow_provider_dockerbackup.core.repository import Repository, check_layers_compression
from airflow_provider_dockerbackup.core.since import Verification
from airflow_provider_dockerbackup.core.verify import put_down
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError, NotFoundError

WORDS = Words(
    todo="convert",
    done="converted",
    brought="backup.converted",
    started="convert.started",
    finished="convert.done",
    failed="convert.failed",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertRequest:
    """How to convert.

    :param layout: of the target.
    :param compression: of archives in the target, None for its own.
    :param recipients: to whom backups are encrypted in a target that is to be made.
    :param tuning: how bytes are moved; its limit is on what is read from the source.
    :param dry_run: plan only; nothing is written.
    :param actor: who does it, and software versions.
    """

    layout: str
    compression: Compression | None = None
    recipients: Sequence[Recipient] = ()
    tuning: Tuning = field(default_factory=Tuning)
    dry_run: bool = False
    actor: Mapping[str, str] = field(default_factory=dict)

    def check(self, source: Repository, target: Repository | None = None) -> None:
        """Refuse what cannot be converted, or not into this.

        :param target: None when there is none yet.
        :raises ConfigurationError: names what is wrong.
        """
        self.tuning.check()
        if self.layout == "layers":
            check_layers_compression(self.compression)
        if source.document.layout == self.layout:
            raise ConfigurationError(
                f"layout: the repository at {source.storage.url} is of layout {self.layout!r} already: nothing to do"
            )
        self._check_encryption(source, target)
        if target is None:
            return
        if target.document.repository_id == source.document.repository_id:
            raise ConfigurationError(f"{target.storage.url} is the very repository to convert; give another place")
        if target.document.layout != self.layout:
            raise ConfigurationError(
                f"layout: the repository at {target.storage.url} is of layout {target.document.layout!r}, not "
                f"{self.layout!r}; give another place, where a new one is made"
            )

    def _check_encryption(self, source: Repository, target: Repository | None) -> None:
        """Refuse to leave plain what was encrypted, and to write what cannot be read back."""
        if source.recipients and not (target.document.recipients if target is not None else self.recipients):
            raise ConfigurationError(
                f"recipients: backups in {source.storage.url} are encrypted, in the target they would not be; nothing "
                "was converted"
            )
        for repository in (source, target):
            if repository is not None and repository.recipients:
                require_identity(repository.identities, repository.recipients, where=repository.storage.url)


def require_apart(source: str, target: str) -> None:
    """Refuse a target that is the source, lies in it, or around it.

    :param source: URL without links and relative parts, as the target's.
    :raises ConfigurationError: names both.
    """
    one, other = (f"{url.rstrip('/')}/" for url in (source, target))
    if one.startswith(other) or other.startswith(one):
        raise ConfigurationError(
            f"the target {target} must be apart from the source {source}: neither may lie in the other"
        )


def convert(
    request: ConvertRequest, *, source: Repository, target: Repository | None, progress: Progress
) -> RunOutcome:
    """Return what became of each backup of the source; one that cannot be converted does not stop the others.

    :param target: None, in a dry run, when there is none yet.
    :raises ConfigurationError: when source, target and request do not fit; nothing was changed.
    :raises TransientError: when a storage failed; run it again, it goes on.
    """
    request.check(source, target)
    planned = decisions(source, target)
    if request.dry_run:
        return RunOutcome(planned=tuple(planned))
    if target is None:
        raise ConfigurationError("expected a target to convert into")
    trail = target.trail(request.actor)
    way = _Conversion(request, source=source, target=target, trail=trail, progress=progress)
    return Run(way, source=source, target=target, trail=trail, progress=progress).run(planned)


class _Conversion(Bringer[ConvertRequest]):
    """Brings each backup into the other layout, reads it back as any reader would, and puts down that it was read."""

    words = WORDS

    @contextmanager
    def brought(self, backup: Backup, attempt: Attempt) -> Iterator[Brought]:
        """Write the backup in the other layout, and read it back."""
        with self._transfer(backup, attempt).placed() as placed:
            file = None
            if backup.whole().container is not None:
                file = attempt.document("container", container_bytes(self._source, backup))
            record = converted_record(
                backup.whole(),
                placed,
                source=self._source,
                target=self._target,
                attempt=attempt.name,
                configuration_file=file,
            )
            yield Brought(record=record, bytes_read=self._read_back(replace(backup, record=record)))

    def recorded(self, backup: Backup, made: Backup, brought: Brought) -> None:
        """Put down that every byte was read back, unless the backup comes with a failed verification."""
        if backup.trust != "failed":
            self._put_down(made, bytes_read=brought.bytes_read, problem="")

    def is_proven(self, standing: Backup) -> bool:
        """Tell whether somebody read all of it back, or said that it is bad."""
        return bool(standing.verifications)

    def finish(self, standing: Backup) -> str:
        """Read a backup of the target back, and put down how that went."""
        read, problem = 0, ""
        try:
            read = self._read_back(standing)
        except (IntegrityError, NotFoundError) as err:
            problem = str(err)
        self._put_down(standing, bytes_read=read, problem=problem)
        return problem

    def _read_back(self, written: Backup) -> int:
        with bad_blobs_put_right(self._target, written, trail=self._trail, progress=self._progress):
            return read_back(self._target, written, progress=self._progress)

    def _put_down(self, made: Backup, *, bytes_read: int, problem: str) -> None:
        verification = Verification(
            backup_id=made.backup_id,
            level="digests",
            verified_at=self._target.clock.now(),
            verification="failed" if problem else "passed",
            bytes_read=bytes_read,
            problem=problem,
            actor=dict(self._request.actor),
        )
        put_down(verification, made, repository=self._target, trail=self._trail, progress=self._progress)
