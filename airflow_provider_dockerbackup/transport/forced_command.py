# SPDX-License-Identifier: Apache-2.0
"""What an SSH key may do on a Docker host that does not trust it with more: the script that says so, and its refusals.

The script is sshd's forced command for that key. It compares the command line that was asked for with the very lines of
:mod:`~airflow_provider_dockerbackup.transport.commands`, made here by the same functions from placeholders, and runs it
when it is one of them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from functools import lru_cache
from typing import Final

from airflow_provider_dockerbackup import __version__
from airflow_provider_dockerbackup.core.temporary import TEMPORARY_MESSAGE
from airflow_provider_dockerbackup.exceptions import ConfigurationError, PushUnavailableError
from airflow_provider_dockerbackup.transport import commands
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.forced_script import HEAD, NAME, REFUSED, TAIL

GUIDE: Final = "docs/how-to/restrict-a-backup-key.md"
_HEX: Final = r"[0-9a-f]{64}"
_STAMP: Final = r"[0-9a-f]{16}-[0-9a-f]{12}-[0-9]{10,11}"
# The same as the functions of these names in the script: here a refusal is explained, there it is decided.
_KINDS: Final = {
    "image": r"[0-9A-Za-z][0-9A-Za-z._:/@-]{0,511}",
    "container": r"[0-9A-Za-z][0-9A-Za-z_.-]{1,254}",
    "id": rf"sha256:{_HEX}",
    "filter": r"--filter=label=[0-9A-Za-z@%+=:,./_-]{1,512}",
    "member": rf"(?:blobs/sha256/{_HEX}|{_HEX}/layer\.tar)",
    "temporary_image": rf"dockerbackup-temporary:{_STAMP}",
    "temporary_container": rf"dockerbackup-temporary-{_STAMP}",
    "number": r"[1-9][0-9]{0,5}",
    "repository": r"dockerbackup/[0-9a-z][0-9a-z._-]{0,99}",
    "attempt": r"[0-9a-z]{1,40}",
    "platform": r"[0-9a-z][0-9a-z._/-]{0,63}",
}
_ANY: Final = (DockerCommand(docker=("@@docker@@",)), DockerCommand(docker=("@@docker@@", "-H", "@@docker@@")))
_TOKEN = re.compile(r"@@([a-z_]+)@@")
_WORDS = r"[0-9A-Za-z@%+=:,./_-]+(?: [0-9A-Za-z@%+=:,./_-]+){0,7}"
_SAID = re.compile(
    rf"^{NAME}: refused: [^\n;]*; this key may only ([a-z ]{{1,60}}) \(dockerbackup ([^\s)]{{1,40}})\)$", re.MULTILINE
)
# Numbers and names that stand for any, where a builder takes no placeholder.
_NUMBER, _OTHER_NUMBER = 31901, 31902
_MEMBER, _OTHER_MEMBER = f"blobs/sha256/{'0' * 64}", f"blobs/sha256/{'1' * 64}"


class Action(StrEnum):
    """What a key may be allowed."""

    SAVE = "save"
    LIST = "list"
    EXPORT = "export"
    PUSH = "push"


def script(actions: Collection[Action], *, docker: DockerCommand) -> str:
    """Return the script that lets through what the actions need, and nothing else, for one way of calling docker.

    Whatever they are, it lets through what describes engine and images, for all of them need that.

    :raises ConfigurationError: when there is no action.
    """
    if not actions:
        raise ConfigurationError(f"--allow: expected at least one of {', '.join(Action)}, got none")
    named = [action for action in Action if action in actions]
    head = "".join(f"# {line}\n" if line else "#\n" for line in _about(named, docker))
    values = {
        "name": NAME,
        "refused": str(REFUSED),
        "version": f"dockerbackup {__version__}",
        "actions": " ".join(named),
        "docker": docker.line(),
    }
    assigned = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    checks = "".join(f"  is {_arguments(line)} && return\n" for line in _lines_of(named, docker))
    return f"#!/bin/sh\n{head}{HEAD}\n{assigned}allowed() {{\n{checks}  return 1\n}}\n{TAIL.lstrip()}"


def action_of(line: str, *, docker: DockerCommand | None = None) -> Action | None:
    """Return the action that lets a line through, ``save`` for what any of them does; None when none does.

    :param docker: how docker is called in what a script lets through; None for any way.
    """
    return next((action for action, pattern in _patterns(docker) if pattern.fullmatch(line)), None)


def refusal(line: str, *, exit_status: int, stderr: bytes, what: str) -> ConfigurationError | None:
    """Return the error that a line which such a script refused is; None for everything else.

    :param line: what was asked for.
    :param what: what it does, on which host.
    """
    said = _SAID.search(stderr.decode("utf-8", "replace")) if exit_status == REFUSED else None
    if said is None:
        return None
    allowed, version, needed = said[1].split(), said[2], action_of(line)
    refused = f"{what}: the host refuses it: this key may only {', '.join(allowed)} there"
    if needed is None:
        return ConfigurationError(
            f"{refused}, and no restricted key may do this: what restores, rolls back, stops, removes or runs commands "
            f"needs a connection with another key ({GUIDE})"
        )
    if needed in allowed or (needed is Action.LIST and Action.EXPORT in allowed) or _describes(line):
        return ConfigurationError(
            f"{refused}, in the words of dockerbackup {version}; this is {__version__}, and Docker command and socket "
            f"must be those of the script: make it anew with dockerbackup forced-command ({GUIDE})"
        )
    kind = PushUnavailableError if needed is Action.PUSH else ConfigurationError
    return kind(f"{refused}; make its script anew with --allow {needed} (dockerbackup forced-command, {GUIDE})")


def _about(actions: Iterable[Action], docker: DockerCommand) -> tuple[str, ...]:
    options = 'restrict,port-forwarding,permitlisten="127.0.0.1:*"' if Action.PUSH in actions else "restrict"
    return (
        f"Made by dockerbackup {__version__}, forced-command. Do not edit: make it anew, also for another version.",
        f"Allowed: {', '.join(actions)}. Docker is called as: {' '.join(docker.docker)}",
        "",
        f"It belongs to root, with mode 0755, as /usr/local/sbin/{NAME}; in the user's authorized_keys:",
        f'{options},command="exec /usr/local/sbin/{NAME}" KEY',
        "With port-forwarding sshd must also have AllowTcpForwarding remote and AllowStreamLocalForwarding no for the",
        f"user: else the key reaches Docker's socket without this script. {GUIDE} says more.",
    )


def _arguments(line: str) -> str:
    """Return a line of placeholders as arguments: texts and, between them, what the values are."""
    return " ".join(shlex.quote(part) for part in _TOKEN.split(line))


def _describes(line: str) -> bool:
    """Tell whether a line is one that every script lets through."""
    return any(_pattern(each).fullmatch(line) for docker in _ANY for each in _looking(docker))


@lru_cache(maxsize=4)
def _patterns(command: DockerCommand | None) -> tuple[tuple[Action, re.Pattern[str]], ...]:
    found = []
    for docker in _ANY if command is None else (command,):
        found += [(Action.SAVE, _pattern(line)) for line in _looking(docker)]
        found += [(action, _pattern(line)) for action in Action for line in _LINES[action](docker)]
    return tuple(found)


def _pattern(line: str) -> re.Pattern[str]:
    parts = _TOKEN.split(line)
    texts = (re.escape(part) if at % 2 == 0 else _value(part) for at, part in enumerate(parts))
    return re.compile("".join(texts), re.ASCII)


def _value(kind: str) -> str:
    if kind == "docker":
        return _WORDS
    one = _KINDS[kind.removeprefix("each_")]
    return f"{one}(?: {one}){{0,1999}}" if kind.startswith("each_") else one


def _lines_of(actions: Collection[Action], docker: DockerCommand) -> Iterator[str]:
    yield from _looking(docker)
    for action in Action:
        if action in actions or (action is Action.LIST and Action.EXPORT in actions):
            yield from _LINES[action](docker)


def _looking(docker: DockerCommand) -> Iterator[str]:
    yield commands.version(docker)
    yield commands.info(docker)
    yield commands.epoch()
    yield commands.date()
    yield _any_number(commands.hold_place(_NUMBER))
    yield commands.inspect_images(docker, ["@@each_image@@"])
    yield commands.history(docker, "@@image@@")
    yield commands.list_image_ids(docker)
    yield _any_labels(commands.list_image_ids(docker, labels=["@@label@@"]))


def _saving(docker: DockerCommand) -> Iterator[str]:
    yield commands.save(docker, "@@image@@")
    one = commands.save_filtered(docker, "@@image@@", without=[_MEMBER])
    yield one.replace(_MEMBER, "@@member@@")
    several = commands.save_filtered(docker, "@@image@@", without=[_MEMBER, _OTHER_MEMBER])
    yield several.replace(f"{_MEMBER} {_OTHER_MEMBER}", "@@each_member@@")


def _listing(docker: DockerCommand) -> Iterator[str]:
    yield commands.list_container_ids(docker)
    yield _any_labels(commands.list_container_ids(docker, labels=["@@label@@"]))
    yield commands.inspect_containers(docker, ["@@each_container@@"])


def _exporting(docker: DockerCommand) -> Iterator[str]:
    container, temporary = "@@container@@", "@@temporary_container@@"
    image = "@@temporary_image@@"
    yield commands.export(docker, container)
    yield _any_number(commands.export_paused(docker, container, limit_seconds=_NUMBER))
    yield commands.commit(docker, container, reference=image, message=TEMPORARY_MESSAGE, pause=False)
    paused = commands.commit_paused(
        docker, container, reference=image, message=TEMPORARY_MESSAGE, limit_seconds=_NUMBER
    )
    yield _any_number(paused)
    yield commands.create(docker, image, name=temporary)
    yield commands.export_temporary(docker, temporary, image=image)
    yield commands.remove_container(docker, temporary)
    yield commands.remove_image(docker, image)


def _pushing(docker: DockerCommand) -> Iterator[str]:
    yield commands.image_manifests(docker, "@@id@@")
    for platform in (None, "@@platform@@"):
        line = commands.push(
            docker,
            "@@id@@",
            port=_NUMBER,
            repository="@@repository@@",
            attempt="@@attempt@@",
            platform=platform,
            beat_seconds=_OTHER_NUMBER,
        )
        yield _any_number(line)


_LINES: Final = {
    Action.SAVE: _saving,
    Action.LIST: _listing,
    Action.EXPORT: _exporting,
    Action.PUSH: _pushing,
}


def _any_number(line: str) -> str:
    return line.replace(str(_NUMBER), "@@number@@").replace(str(_OTHER_NUMBER), "@@number@@")


def _any_labels(line: str) -> str:
    return line.replace("--filter=label=@@label@@", "@@each_filter@@")
