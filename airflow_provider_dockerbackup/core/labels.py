# SPDX-License-Identifier: Apache-2.0
"""What a container's labels ask for: whether, when and how it is backed up, decided where it runs.

Pure. A label that is wrong, or that nobody knows, is an error: what it asks for would else silently not happen.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.schedule import Schedule
from airflow_provider_dockerbackup.exceptions import ConfigurationError

PREFIX = "dockerbackup."
ENABLE, SCHEDULE, RETENTION, PRE, POST, EXCLUDE = (
    f"{PREFIX}{name}" for name in ("enable", "schedule", "retention", "pre", "post", "exclude")
)
KNOWN = (ENABLE, SCHEDULE, RETENTION, PRE, POST, EXCLUDE)
# Set by a restore, for its own sake: which backup a container was made from, and whether it takes another's place.
RESTORED_LABEL = f"{PREFIX}restored"
REPLACES_LABEL = f"{PREFIX}replaces"
_OURS = frozenset({RESTORED_LABEL, REPLACES_LABEL})

_MOST_CHARACTERS = 1500
# Longer ones are no labels but an attack: to split ten million characters into words takes the better part of an hour,
# and whoever lists a fleet waits for it.
_LONGEST_VALUE = 32_768
_MOST_UNKNOWN = 20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupLabels:
    """What a container's labels ask for.

    :param enabled: whether it is backed up; None when no label says so.
    :param schedule: how often; None when no label says so.
    :param retention: its own retention policy, as text; empty for none.
    :param before: command that runs in it before a capture, one word a string.
    :param after: command that runs in it after a capture.
    :param excluded: of the container and its image, which is not backed up.
    """

    enabled: bool | None = None
    schedule: Schedule | None = None
    retention: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    excluded: frozenset[SourceKind] = field(default_factory=frozenset)

    def commands(self, *, timeout_seconds: float) -> QuiesceCommands:
        """Return the commands.

        :param timeout_seconds: how long each may take.
        :raises ConfigurationError: when that is not above 0.
        """
        return QuiesceCommands.of(self.before, self.after, timeout_seconds=timeout_seconds)


def read_labels(labels: Mapping[str, str], *, where: str) -> BackupLabels:
    """Return what labels ask for; those of others are left alone, and so is all else where ``enable`` is false.

    :param labels: of the container, as its inspect document has them.
    :param where: host and container, for messages.
    :raises ConfigurationError: names host, container, label and value of each that is wrong. Of a command the value is
        not shown, for it may hold a password.
    """
    if labels.get(ENABLE, "").strip().lower() == "false":
        return BackupLabels(enabled=False)
    ours = {name: text for name, text in labels.items() if name.startswith(PREFIX) and name not in _OURS}
    unknown = sorted(set(ours) - set(KNOWN))[:_MOST_UNKNOWN]
    problems = [f"label {name}: not known; known are {', '.join(KNOWN)}" for name in unknown]
    if ours and ENABLE not in ours:
        problems.append(f"label {ENABLE}: expected true or false beside {', '.join(sorted(ours))}, got none")

    def read(label: str, reader: Callable[[str, str], _T], default: _T) -> _T:
        if label in ours:
            try:
                return reader(_bounded(ours[label], f"label {label}"), f"label {label}")
            except ConfigurationError as err:
                problems.append(str(err))
        return default

    found = BackupLabels(
        enabled=read(ENABLE, _enabled, None),
        schedule=read(SCHEDULE, _schedule, None),
        retention=read(RETENTION, _retention, ""),
        before=read(PRE, _command, ()),
        after=read(POST, _command, ()),
        excluded=read(EXCLUDE, _excluded, frozenset()),
    )
    if problems:
        raise ConfigurationError(_printable(f"{where}: {'; '.join(problems)}"))
    return found


def _printable(text: str) -> str:
    """Return a message without what a terminal would act upon, and short enough for a log: names of labels are free."""
    shown = "".join(each if each.isprintable() else "?" for each in text[:_MOST_CHARACTERS])
    return shown if len(text) <= _MOST_CHARACTERS else shown[:-1] + "…"


def _bounded(text: str, what: str) -> str:
    if len(text) > _LONGEST_VALUE:
        raise ConfigurationError(f"{what}: expected at most {_LONGEST_VALUE} characters, got {len(text)}")
    return text


def _enabled(text: str, what: str) -> bool:
    if text.strip().lower() in {"true", "false"}:
        return text.strip().lower() == "true"
    raise ConfigurationError(f"{what}: expected true or false, got {text[:40]!r}")


def _schedule(text: str, what: str) -> Schedule:
    if not text.strip():
        raise ConfigurationError(f"{what}: expected a duration or a cron expression, got {text!r}")
    return Schedule.parse(text.strip(), what=what)


def _retention(text: str, what: str) -> str:
    return str(RetentionPolicy.parse(text, what=what))


def _command(text: str, what: str) -> tuple[str, ...]:
    """Return the words of a command: a JSON list as in a Dockerfile, else words quoted as in a shell."""
    try:
        words = json.loads(text) if text.lstrip().startswith("[") else shlex.split(text)
    except (ValueError, RecursionError) as err:
        # The error of JSON holds the text it is about; of shlex it does not, and says what is wrong.
        said = "it is no JSON" if isinstance(err, json.JSONDecodeError) else str(err)
        raise ConfigurationError(f"{what}: {said} (value not shown, it may be secret)") from None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words) or not words[0]:
        raise ConfigurationError(
            f'{what}: expected a command: words, or a JSON list of texts such as ["sh", "-c", "sync"] '
            "(value not shown, it may be secret)"
        )
    return tuple(words)


def _excluded(text: str, what: str) -> frozenset[SourceKind]:
    names = [name.strip().lower() for name in text.split(",")]
    if any(name.startswith("/") for name in names):
        raise ConfigurationError(
            f"{what}: paths cannot be left out of a backup, got {text[:100]!r}; what need not be kept belongs into a "
            "volume or a tmpfs"
        )
    known = {kind.value for kind in SourceKind}
    if unknown := [name for name in names if name not in known]:
        raise ConfigurationError(f"{what}: expected some of container, image, got {unknown[0][:40]!r}")
    if set(names) == known:
        raise ConfigurationError(f"{what}: leaves nothing to back up, got {text[:100]!r}; set {ENABLE}=false instead")
    return frozenset(SourceKind(name) for name in names)
