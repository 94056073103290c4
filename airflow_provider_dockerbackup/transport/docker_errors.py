# SPDX-License-Identifier: Apache-2.0
"""Which error a failed Docker command is, by its exit status and what it wrote to standard error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IncompleteError,
    IntegrityError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.ssh_command import STDERR_TAIL_BYTES, CommandResult

_TAIL_BYTES = 2048
_SHOWN_CHARACTERS = 300
_EXEC_NOT_FOUND = re.compile(r"OCI runtime exec failed: .*(?:not found|no such file|permission denied)", re.IGNORECASE)
_NOT_RUNNING = re.compile(r"^Error response from daemon: .*\bis (?:not running|paused|restarting)", re.MULTILINE)
# What docker's client itself says when there is no command to blame.
_CLIENT_FAILED = re.compile(
    r"^(?:Error response from daemon|Error: No such container|Cannot connect to the Docker daemon|error during connect"
    r"|permission denied while trying|Got permission denied|sudo: )",
    re.MULTILINE,
)
_NOT_ON_PATH = 127
_NOT_EXECUTABLE = 126
# Above this a shell says which signal ended what it ran.
_KILLED = 128


@dataclass(frozen=True, slots=True)
class _Rule:
    """One kind of failure: the text that shows it, the error it is and what to do next.

    :param pattern: in whatever case; compiled when a command fails, since most tasks that load this see none fail.
    :param load_only: whether the text means this only when the command reads an archive.
    """

    pattern: str
    error: type[DockerBackupError]
    advice: str
    load_only: bool = field(default=False, kw_only=True)


# The first that matches decides; texts of Docker 20.10 to 28, sudo and POSIX shells.
_RULES = (
    _Rule(
        r"the archive could not be filtered",
        IncompleteError,
        "save the whole image instead, without leaving anything out",
    ),
    _Rule(
        r"the archive could not be decompressed",
        IntegrityError,
        "see whether zstd works on the host; without it archives are sent uncompressed",
    ),
    _Rule(
        r"permission denied while trying to connect|got permission denied",
        ConfigurationError,
        "add the SSH user to the group 'docker' on the host, or set the Docker command to 'sudo -n docker'",
    ),
    _Rule(
        r"cannot connect to the docker daemon|is the docker daemon running|failed to connect to the docker api",
        TransientError,
        "see whether the Docker daemon runs on the host (systemctl status docker)",
    ),
    _Rule(
        r"a password is required|a terminal is required|no tty present|is not in the sudoers|is not allowed to execute",
        ConfigurationError,
        "allow the SSH user to run docker through sudo without a password (NOPASSWD in sudoers)",
    ),
    _Rule(
        r"setsid: command not found",
        ConfigurationError,
        "install setsid (util-linux or busybox) on the host: it wakes a paused container when all else fails; or do "
        "without a pause",
    ),
    _Rule(
        r"\b(?:sudo|env|sh|bash|dash|ash|zsh|ksh)\b[^\n]*: (?:command )?not found|^[^\n]*: command not found",
        ConfigurationError,
        "install Docker's client on the host, or set the Docker command to its full path: it is not on the PATH that "
        "commands run through SSH get",
    ),
    _Rule(
        r"no space left on device|disk quota exceeded",
        TransientError,
        "free space on the host, in Docker's data directory unless the path above is another",
    ),
    _Rule(
        r"file integrity checksum failed",
        IntegrityError,
        "the image is damaged on the host itself: pull or load it again there; earlier backups are not affected",
    ),
    _Rule(
        r"empty export - not implemented",
        ConfigurationError,
        "a classic engine cannot save an image without layers; back it up in layout 'layers' with capture 'push'",
    ),
    _Rule(
        r"no such (?:image|container|object)|reference does not exist|failed to get digest sha256:",
        NotFoundError,
        "see on the host which images and containers there are (docker image ls, docker container ls --all)",
    ),
    _Rule(
        r"invalid diffid|wrong diff id|error unpacking|failed to unpack"
        r"|archive/tar|invalid tar header|unexpected end of json|error processing tar"
        r"|layers? (?:count|length)|length mismatch|unrecognized image format|mismatched image rootfs|/blobs/json"
        r"|repositories: no such file|manifest\.json: no such file|invalid character|invalid archive|invalid checksum"
        r"|short read: expected|CRC check failed|invalid input: |frame size|window size",
        IntegrityError,
        "the engine refuses the archive: verify the backup, and restore another one",
        load_only=True,
    ),
    _Rule(
        r"renaming a container with the same name"
        r"|is already in use by container|name .* is already in use|conflict: unable to|is being used by"
        r"|must be forced|cannot remove container|you cannot remove|container is paused and must be",
        ConflictError,
        "stop, rename or remove what holds it, then try again",
    ),
    _Rule(
        r"was unpaused before its export ended",
        TransientError,
        "raise the pause limit, or export from a snapshot instead",
    ),
    _Rule(
        r"\bcontainer \S+ is (?:already paused|not running)",
        TransientError,
        "somebody paused or stopped it just now: try again",
    ),
    _Rule(
        r"was unpaused before its commit ended",
        TransientError,
        "raise the pause limit, or do without the pause",
    ),
    _Rule(
        r"could not be unpaused after its (?:export|commit)",
        TransientError,
        "its host tries again at the pause limit, and for a minute; see that the container runs (docker unpause)",
    ),
    _Rule(
        r"unexpected eof|error during connect|connection reset by peer|broken pipe|context canceled"
        r"|removal of container .* is already in progress|is restarting",
        TransientError,
        "the daemon went away or was busy: try again (an archive that was being loaded may also be cut: if it fails "
        "again, verify the backup)",
    ),
    _Rule(
        r"unknown (?:shorthand )?flag|client version .* is too (?:new|old)|is not a docker command",
        ConfigurationError,
        "client and daemon on the host must be Docker 20.10 or newer and fit each other",
    ),
    _Rule(
        r"invalid reference format|is not a valid change command|dockerfile parse error|syntax error - ",
        ConfigurationError,
        "correct the value and run again",
    ),
)


def docker_error(
    result: CommandResult, *, what: str, host: str, reading_archive: bool = False, secrets: Sequence[str] = ()
) -> DockerBackupError:
    """Return the error that a failed command is.

    :param result: what came of it; only the end of its standard error is shown.
    :param what: what was done, on what, such as ``docker save sha256:…``.
    :param host: the host's name.
    :param reading_archive: whether the command was reading an archive, which then may be what is wrong.
    :param secrets: values of the command line, such as ``ENV KEY=VALUE``; no word of them is shown.
    """
    text = result.stderr[-64 * 1024 :].decode("utf-8", "replace")
    error, advice = _decide(result.exit_status, text, reading_archive=reading_archive)
    tail = _tail(result.stderr, secrets)
    said = f": {tail}" if tail else " without saying why"
    return error(f"{what} on {host} failed with exit code {result.exit_status}{said}; {advice}")


def exec_error(result: CommandResult, *, what: str, host: str) -> DockerBackupError:
    """Return the error that a failed ``docker exec`` is: the client's own, or that of the command in the container.

    It goes into audit events and records, for good: it holds no word of what was printed, which may be secret.

    :param what: what was done, on what, such as ``pre_command in container db``.
    """
    text = result.stderr[-64 * 1024 :].decode("utf-8", "replace")
    if _EXEC_NOT_FOUND.search(text) or _EXEC_NOT_FOUND.search(result.stdout[-4096:].decode("utf-8", "replace")):
        return ConfigurationError(
            f"{what} on {host}: the container has no such program; give a command that its image holds"
        )
    if _NOT_RUNNING.search(text):
        return ConflictError(f"{what} on {host}: the container does not run; start or unpause it, then try again")
    if _CLIENT_FAILED.search(text):
        error, advice = _decide(result.exit_status, text, reading_archive=False)
        return error(f"{what} on {host}: docker exec failed with exit code {result.exit_status}; {advice}")
    log = "; the log has the end of what it printed on standard error" if one_line(result.stderr) else ""
    return TransientError(f"{what} on {host} ended with exit status {result.exit_status}{log}")


def exec_said(result: CommandResult, *, secrets: Sequence[str] = ()) -> str:
    """Return the end of what a ``docker exec`` printed on standard error, as one line, for a log.

    :param secrets: the command's words; none of them is shown.
    """
    return _tail(result.stderr, secrets)[-_SHOWN_CHARACTERS:]


def one_line(stderr: bytes) -> str:
    """Return the end of ``stderr``, at most 2 KiB, as one printable line."""
    text = stderr[-_TAIL_BYTES:].decode("utf-8", "replace")
    lines = ("".join(c if c.isprintable() else " " for c in line).strip() for line in text.splitlines())
    return " | ".join(line for line in lines if line)


def _tail(stderr: bytes, secrets: Sequence[str]) -> str:
    """Return the end of ``stderr`` as one line without secrets: they are hidden first, for half a word would stay."""
    if not secrets:
        return one_line(stderr)
    text = stderr.decode("utf-8", "replace")
    if len(stderr) >= STDERR_TAIL_BYTES:  # only the end of what was printed is there, from within a word perhaps
        text = re.sub(r"^\S+", "", text)
    return one_line(_without(text, secrets).encode())


def _without(text: str, secrets: Sequence[str]) -> str:
    words = {word for secret in secrets for word in re.split(r"[\s=\"']+", secret) if len(word) > 3}
    for word in sorted(words, key=len, reverse=True):
        text = re.sub(re.escape(word), "***", text, flags=re.IGNORECASE)
    return text


def _decide(exit_status: int, text: str, *, reading_archive: bool) -> tuple[type[DockerBackupError], str]:
    for rule in _RULES:
        if (reading_archive or not rule.load_only) and re.search(rule.pattern, text, re.IGNORECASE):
            return rule.error, rule.advice
    if exit_status in {_NOT_ON_PATH, _NOT_EXECUTABLE}:
        return ConfigurationError, "set the Docker command to the full path of an executable Docker client on the host"
    if exit_status < 0 or exit_status > _KILLED:
        return TransientError, "the link was lost or the command was killed; try again"
    return DockerBackupError, "see the Docker daemon's log on the host (journalctl -u docker)"
