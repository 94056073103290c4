# SPDX-License-Identifier: Apache-2.0
"""The command lines that pages show: each can be pasted into a shell as it stands, but for ``HOST``."""

from __future__ import annotations

import shlex

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.model import SourceKind


def command_line(*words: str, repository_url: str) -> str:
    """Return a command line of ``dockerbackup`` for a repository.

    :param words: the verb and what follows it.
    :param repository_url: without a connection id.
    """
    return shlex.join(["dockerbackup", *words, "--repository", repository_url])


def restore_commands(backup: Backup, *, repository_url: str) -> tuple[str, ...]:
    """Return the command lines that restore a backup; ``HOST`` in them is where to; none when that cannot work."""
    if why_unrestorable(backup):
        return ()
    verbs = ["restore"]
    if backup.source.kind is SourceKind.CONTAINER:
        verbs.append("restore-container")
    return tuple(f"{command_line(verb, backup.backup_id, repository_url=repository_url)} --host HOST" for verb in verbs)


def why_unrestorable(backup: Backup) -> str:
    """Return why no command restores a backup, as a sentence; empty when one may.

    What lies on a Docker host is not asked for.
    """
    if backup.deleted:
        return "It was deleted."
    if backup.quarantined:
        return "It is in quarantine, where nothing is restored from."
    if backup.record is None:
        return "Its record is unreadable."
    if not backup.complete:
        return "Files or blobs that its record names are missing, or have another size."
    return ""
