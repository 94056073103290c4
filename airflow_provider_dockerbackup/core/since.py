# SPDX-License-Identifier: Apache-2.0
"""The documents beside a backup record that say what happened to the backup since; all are create-only."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from airflow_provider_dockerbackup.core.document import Document, Part, UtcTime

Level = Literal["digests", "load", "run"]


class Confirmation(Document):
    """``confirmed-<time>-<key>.json``: the source was found unchanged at this moment; a point like the capture.

    :param retention: as in the record, as of this moment.
    """

    backup_id: str
    idempotency_key: str
    confirmed_at: UtcTime
    image_id: str
    retention: str | None = None
    actor: dict[str, str]


class Hold(Document):
    """``hold-<time>.json``: the backup is exempt from rotation until this hold ends or is released.

    :param reason: why, for people.
    :param until: when it ends by itself; None for never.
    :param legal: whether only an explicit flag releases it.
    """

    backup_id: str
    held_at: UtcTime
    reason: str
    until: UtcTime | None = None
    legal: bool = False
    actor: dict[str, str]

    def stands(self, now: datetime) -> bool:
        """Tell whether it has not ended by itself."""
        return self.until is None or now < self.until

    def __str__(self) -> str:
        """Return what the backup is by it: ``under legal hold until 2027-01-01 00:00 UTC: claim 17``."""
        kind = "under legal hold" if self.legal else "held"
        return f"{kind}{f' until {self.until:%Y-%m-%d %H:%M} UTC' if self.until else ''}: {self.reason}"


class Release(Document):
    """``release-<time>.json``: some of the backup's holds are over.

    :param holds: names of the files of the holds.
    """

    backup_id: str
    released_at: UtcTime
    holds: tuple[str, ...]
    reason: str
    actor: dict[str, str]


class Quarantine(Document):
    """``quarantined-<time>.json``: the backup is out of the catalog, blocks nothing, and is never deleted.

    :param problem: what was wrong with it then.
    """

    backup_id: str
    quarantined_at: UtcTime
    reason: str
    problem: str
    actor: dict[str, str]


class Deletion(Document):
    """``deleted-<time>.json``: the backup is out of the catalog, and its bytes go; ``backup.json`` stays as tombstone.

    :param rules: why it went: what its policy said, or the reason that a person gave.
    :param how: ``rotated`` by a policy, or ``forgotten`` by a person.
    :param intent: digest of the audit event before it.
    :param seen: names of the confirmations and holds that were known when this was decided; one that came before the
        deletion and is not among them takes it back.
    """

    backup_id: str
    deleted_at: UtcTime
    how: Literal["rotated", "forgotten"]
    rules: tuple[str, ...]
    intent: str
    seen: tuple[str, ...]
    actor: dict[str, str]


class DaemonUsed(Part):
    """The test daemon of a verification.

    :param disposable: started, empty, for this verification alone.
    :param known_layers: diff_ids of the backup that the daemon already had, and so did not read.
    """

    version: str
    store: str
    engine_id: str
    disposable: bool
    known_layers: tuple[str, ...] = ()


class Drill(Part):
    """How a container of the restored image ran in the test daemon.

    :param passed_by: ``probe``, ``healthcheck`` or ``uptime``.
    :param read_only: whether its filesystem was read-only.
    :param seconds: from its start until it passed.
    """

    passed_by: str
    read_only: bool
    seconds: float


class Verification(Document):
    """``verification-<time>.json``: one verification, with its three statuses.

    :param verification: ``passed`` or ``failed``.
    :param restore_seconds: seconds from the first byte read to the loaded and compared image, at level ``run`` to the
        passed probe: the measured recovery time; None at ``digests``.
    :param cleanup: ``passed``, ``failed``, or ``none`` when there was nothing to clean up.
    """

    backup_id: str
    level: Level
    verified_at: UtcTime
    verification: Literal["passed", "failed"]
    restore_seconds: float | None = None
    cleanup: Literal["passed", "failed", "none"] = "none"
    bytes_read: int
    problem: str = ""
    daemon: DaemonUsed | None = None
    drill: Drill | None = None
    actor: dict[str, str]

    @property
    def proves_restore(self) -> bool:
        """Whether it makes the backup *verified*: every layer was loaded into a daemon that did not have it."""
        return (
            self.verification == "passed"
            and self.level in {"load", "run"}
            and self.daemon is not None
            and not self.daemon.known_layers
        )
