# SPDX-License-Identifier: Apache-2.0
"""Remote command lines as pure functions of typed values: ``DockerCommand`` and values in, one line out.

Every word is quoted for a POSIX shell, options carry their value in the same word (``--name=VALUE``) and positional
values follow ``--``: whatever a value holds, it cannot become an option or a command. What the commands print is read
by :mod:`~airflow_provider_dockerbackup.transport.docker_output`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_dockerbackup.core.container_options import ContainerOption
from airflow_provider_dockerbackup.core.reference import shown
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.export_script import EXPORT_TEMPORARY, WHILE_PAUSED
from airflow_provider_dockerbackup.transport.load_script import LOAD_ZSTD, PROBE
from airflow_provider_dockerbackup.transport.manifests_script import MANIFESTS, MANIFESTS_OF_LOADED
from airflow_provider_dockerbackup.transport.push_script import PUSH
from airflow_provider_dockerbackup.transport.save_filter import SAVE_FILTERED, name_list
from airflow_provider_dockerbackup.transport.slot_script import HOLD

# The kernel takes no single argument above 128 KiB, and sshd hands the whole line over as one (`sh -c LINE`).
MAX_LINE_BYTES = 120 * 1024
# IDs named in one `inspect`, so that the line stays below that limit.
IDS_PER_COMMAND = 500
# Messages are parsed, so they must be in English; times are to be in UTC; no advertisement after errors.
_ENVIRONMENT = ("env", "LC_ALL=C", "TZ=UTC0", "DOCKER_CLI_HINTS=false")
_PROGRAM = re.compile(r"(?:/[A-Za-z0-9_.+-]+)+|[A-Za-z0-9_][A-Za-z0-9_.+-]*", re.ASCII)
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?|#[0-9]+", re.ASCII)
_SOCKET = re.compile(r"unix://(?:/[A-Za-z0-9_.@+:-]+)+", re.ASCII)
_ACCEPTED = "'docker', '/path/to/docker', 'sudo -n docker' and 'sudo -n -u USER docker'"


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerCommand:
    """How the Docker command line client is called on a host.

    :param docker: the words before the subcommand, such as ``("sudo", "-n", "docker")``.
    """

    docker: tuple[str, ...] = ("docker",)

    @classmethod
    def parse(cls, text: str = "docker", *, socket: str | None = None) -> DockerCommand:
        """Return the client that ``text`` names.

        :param text: ``docker``, an absolute path, or either behind ``sudo -n [-u USER]``.
        :param socket: the daemon's socket as ``unix:///path``; None is the client's own default.
        :raises ConfigurationError: for anything else; says what is accepted.
        """
        words = _split(text)
        program = words
        if words[:1] == ("sudo",):
            program = _without_sudo(words, text=text)
        if len(program) != 1 or _PROGRAM.fullmatch(program[0]) is None:
            raise ConfigurationError(f"Docker command {shown(text)} is not accepted; accepted are {_ACCEPTED}")
        return cls(docker=words + _host_option(socket))

    def line(self, *words: str) -> str:
        """Return the command line for a subcommand.

        :param words: subcommand, options and values, not quoted.
        :raises ConfigurationError: when a word cannot be passed to a program (NUL, no valid text), or all of them
            are too long together.
        """
        return quoted_line((*_ENVIRONMENT, *self.docker, *words))


def quoted_line(words: Iterable[str]) -> str:
    """Return ``words`` as one line that a POSIX shell splits into exactly these words again.

    :raises ConfigurationError: when that is impossible.
    """
    line = shlex.join(words)
    if "\0" in line:
        raise ConfigurationError("a value for a remote command holds a NUL character, which no command line can carry")
    try:
        length_bytes = len(line.encode("utf-8"))
    except UnicodeEncodeError as err:
        raise ConfigurationError("a value for a remote command is not valid text (a lone surrogate)") from err
    if length_bytes > MAX_LINE_BYTES:
        raise ConfigurationError(
            f"a remote command would be {length_bytes} bytes long, the limit is {MAX_LINE_BYTES}; "
            "shorten the message or the list of changes"
        )
    return line


def version(docker: DockerCommand) -> str:
    """Return the line that prints the versions of client and daemon as one JSON object."""
    return docker.line("version", "--format", "{{json .}}")


def info(docker: DockerCommand) -> str:
    """Return the line that prints what the daemon says of itself as one JSON object."""
    return docker.line("info", "--format", "{{json .}}")


def inspect_images(docker: DockerCommand, references: Sequence[str]) -> str:
    """Return the line that prints a JSON array of images; never matches a container of that name.

    Without ``--format``, which would drop whatever the client does not know of.
    """
    return docker.line("image", "inspect", "--", *references)


def inspect_containers(docker: DockerCommand, names: Sequence[str]) -> str:
    """Return the line that prints a JSON array of containers."""
    return docker.line("container", "inspect", "--", *names)


def history(docker: DockerCommand, reference: str) -> str:
    """Return the line that prints an image's history, newest first, one JSON object a line.

    ``--human=false`` gives sizes in bytes and times as RFC 3339.
    """
    return docker.line("image", "history", "--no-trunc", "--human=false", "--format", "{{json .}}", "--", reference)


def list_image_ids(docker: DockerCommand, *, labels: Sequence[str] = ()) -> str:
    """Return the line that prints the full IDs of images, one a line, repeated for each tag."""
    return docker.line("image", "ls", "--quiet", "--no-trunc", *_label_filters(labels))


def list_container_ids(docker: DockerCommand, *, labels: Sequence[str] = ()) -> str:
    """Return the line that prints the full IDs of containers in any state, one a line."""
    return docker.line("container", "ls", "--all", "--quiet", "--no-trunc", *_label_filters(labels))


def save(docker: DockerCommand, reference: str) -> str:
    """Return the line that writes one image as a tar to standard output."""
    return docker.line("image", "save", "--", reference)


def save_filtered(docker: DockerCommand, reference: str, *, without: Iterable[str]) -> str:
    """Return the line that does :func:`save` and leaves members out, where the host has what that takes.

    :param without: names of layers' members; so many that they do not fit the line are not left out.
    :raises ConfigurationError: when one is no such name.
    """
    script = ("sh", "-c", SAVE_FILTERED, "dockerbackup", name_list(without), reference)
    return quoted_line((*_ENVIRONMENT, *script, *docker.docker))


def export(docker: DockerCommand, container: str) -> str:
    """Return the line that writes a container's filesystem as a tar to standard output."""
    return docker.line("container", "export", "--", container)


def export_paused(docker: DockerCommand, container: str, *, limit_seconds: int) -> str:
    """Return the line that does :func:`export` while the container is paused, if it was running.

    :param limit_seconds: after this time the container runs again whatever happened.
    :raises ConfigurationError: when the limit is not positive.
    """
    return _while_paused(docker, container, export(docker, container), what="export", limit_seconds=limit_seconds)


def export_temporary(docker: DockerCommand, container: str, *, image: str) -> str:
    """Return the line that does :func:`export` and then, in any case, removes the container and its image."""
    script = ("sh", "-c", EXPORT_TEMPORARY, "dockerbackup", container, image)
    return quoted_line((*_ENVIRONMENT, *script, *docker.docker))


def image_manifests(docker: DockerCommand, image_id: str) -> str:
    """Return the line that prints what the engine's HTTP API says of an image and of all that its index names."""
    script = ("sh", "-c", MANIFESTS, "dockerbackup", image_id)
    return quoted_line((*_ENVIRONMENT, *script, *docker.docker))


def manifests_of_loaded(docker: DockerCommand, image_id: str) -> str:
    """Return the line that loads an untagged image of that ID, prints the same of it, and removes it."""
    script = ("sh", "-c", MANIFESTS_OF_LOADED, "dockerbackup", image_id)
    return quoted_line((*_ENVIRONMENT, *script, *docker.docker))


def push(
    docker: DockerCommand,
    image_id: str,
    *,
    port: int,
    repository: str,
    attempt: str,
    platform: str | None = None,
    beat_seconds: int = 10,
) -> str:
    """Return the line that pushes an image to a port of the host's loopback interface.

    Its input is the client's configuration, in one line; its push ends when that input does. It takes away the tag that
    it gave the image, and what killed ones left.

    :param repository: name of the repository in that registry.
    :param attempt: first part of the tag.
    :param platform: the only one to push; None for all.
    :param beat_seconds: how often it gives a sign of life.
    """
    daemon = "given" if "-H" in docker.docker else "default"
    options = (image_id, str(port), repository, attempt, str(beat_seconds), daemon, platform or "")
    script = ("sh", "-c", PUSH, "dockerbackup", *options)
    return quoted_line(("exec", *_ENVIRONMENT, "DOCKER_CONTENT_TRUST=0", *script, *docker.docker))


def commit(
    docker: DockerCommand,
    container: str,
    *,
    reference: str,
    message: str = "",
    author: str = "",
    changes: Sequence[str] = (),
    pause: bool = True,
) -> str:
    """Return the line that commits a container to an image and prints the image's ID."""
    options = [f"--pause={'true' if pause else 'false'}", *_changes(changes)]
    if message:
        options.append(f"--message={message}")
    if author:
        options.append(f"--author={author}")
    return docker.line("container", "commit", *options, "--", container, reference)


def commit_paused(
    docker: DockerCommand,
    container: str,
    *,
    reference: str,
    message: str = "",
    author: str = "",
    changes: Sequence[str] = (),
    limit_seconds: int,
) -> str:
    """Return the line that does :func:`commit` while the container is paused, if it was running.

    :param limit_seconds: after this time the container runs again whatever happened.
    :raises ConfigurationError: when the limit is not positive.
    """
    line = commit(docker, container, reference=reference, message=message, author=author, changes=changes, pause=False)
    return _while_paused(docker, container, line, what="commit", limit_seconds=limit_seconds)


def _while_paused(docker: DockerCommand, container: str, line: str, *, what: str, limit_seconds: int) -> str:
    if limit_seconds < 1:
        raise ConfigurationError(f"limit_seconds: expected an integer >= 1, got {limit_seconds!r}")
    script = ("sh", "-c", WHILE_PAUSED, "dockerbackup", container, str(limit_seconds), what, line)
    return quoted_line(("exec", *_ENVIRONMENT, *script, *docker.docker))


def run_in_container(docker: DockerCommand, container: str, command: Sequence[str]) -> str:
    """Return the line that runs a command in a running container and exits with its exit status."""
    return docker.line("container", "exec", "--", container, *command)


def create(docker: DockerCommand, image: str, *, name: str) -> str:
    """Return the line that creates, not starts, a container without network and prints its ID; it never pulls.

    The command ``/bin/true`` stands in for images that have none: ``docker create`` refuses those otherwise.
    """
    options = ("--pull=never", "--network=none", f"--name={name}")
    return docker.line("container", "create", *options, "--", image, "/bin/true")


def create_from_options(docker: DockerCommand, image: str, *, name: str, options: Sequence[ContainerOption]) -> str:
    """Return the line that creates, not starts, a container that runs what its image says and prints its ID."""
    words = (f"--{option.name}={option.value}" for option in options)
    return docker.line("container", "create", "--pull=never", f"--name={name}", *words, "--", image)


def start(docker: DockerCommand, name: str) -> str:
    """Return the line that starts a container."""
    return docker.line("container", "start", "--", name)


def stop(docker: DockerCommand, name: str, *, timeout_seconds: int) -> str:
    """Return the line that stops a container, by force after ``timeout_seconds``."""
    return docker.line("container", "stop", f"--time={timeout_seconds}", "--", name)


def rename(docker: DockerCommand, name: str, *, to: str) -> str:
    """Return the line that gives a container another name."""
    return docker.line("container", "rename", "--", name, to)


def list_networks(docker: DockerCommand) -> str:
    """Return the line that prints the names of networks, one a line."""
    return docker.line("network", "ls", "--format", "{{.Name}}")


def remove_container(docker: DockerCommand, name: str) -> str:
    """Return the line that removes a container that is not running, with its anonymous volumes."""
    return docker.line("container", "rm", "--volumes", "--", name)


def remove_container_keeping_volumes(docker: DockerCommand, container_id: str) -> str:
    """Return the line that removes a container that is not running and leaves its volumes."""
    return docker.line("container", "rm", "--", container_id)


def remove_image(docker: DockerCommand, reference: str) -> str:
    """Return the line that removes one tag, or an image with at most one tag."""
    return docker.line("image", "rm", "--", reference)


def tag(docker: DockerCommand, image_id: str, *, reference: str) -> str:
    """Return the line that points the tag ``reference`` to an image."""
    return docker.line("image", "tag", "--", image_id, reference)


def load(docker: DockerCommand) -> str:
    """Return the line that loads images from a tar on standard input."""
    return docker.line("image", "load")


def load_zstd(docker: DockerCommand) -> str:
    """Return the line that loads images from a tar in zstd frames on standard input, through the host's zstd."""
    return quoted_line((*_ENVIRONMENT, "sh", "-c", LOAD_ZSTD, "dockerbackup", *docker.docker))


def probe_zstd() -> str:
    """Return the line that prints ``PROBED`` where the host has a zstd that reads a series of frames."""
    return quoted_line(("env", "LC_ALL=C", "sh", "-c", PROBE))


def import_filesystem(docker: DockerCommand, *, reference: str, changes: Sequence[str] = ()) -> str:
    """Return the line that makes an image of a filesystem's tar on standard input and prints its ID."""
    return docker.line("image", "import", *_changes(changes), "--", "-", reference)


def hold_place(places: int) -> str:
    """Return the line that holds one of so many places for captures until its input ends."""
    return quoted_line(("sh", "-c", HOLD, "dockerbackup", str(places)))


def date() -> str:
    """Return the line that prints the host's time as ``YYYY-MM-DDTHH:MM:SSZ``."""
    return quoted_line((*_ENVIRONMENT, "date", "-u", "+%Y-%m-%dT%H:%M:%SZ"))


def epoch() -> str:
    """Return the line that prints the time 0 in the host's own time zone as ``YYYY-MM-DDTHH:MM:SS+HHMM``."""
    return quoted_line(("env", "LC_ALL=C", "date", "-d", "@0", "+%Y-%m-%dT%H:%M:%S%z"))


def _changes(changes: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"--change={change}" for change in changes)


def _label_filters(labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"--filter=label={label}" for label in labels)


def _split(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as err:
        message = f"Docker command {shown(text)} has an unbalanced quote; accepted are {_ACCEPTED}"
        raise ConfigurationError(message) from err


def _without_sudo(words: tuple[str, ...], *, text: str) -> tuple[str, ...]:
    """Return what sudo is to run; without ``-n`` sudo would wait for a password that nobody types."""
    if words[1:2] != ("-n",):
        raise ConfigurationError(f"Docker command {shown(text)} may ask for a password; write 'sudo -n docker'")
    if words[2:3] == ("-u",) and len(words) > 3 and _USER.fullmatch(words[3]):
        return words[4:]
    return words[2:]


def _host_option(socket: str | None) -> tuple[str, ...]:
    if socket is None:
        return ()
    if _SOCKET.fullmatch(socket) is None:
        raise ConfigurationError(
            f"Docker socket {shown(socket)} is not accepted; write unix:///path/to/docker.sock (a path on the Docker "
            "host without blanks), or leave it empty. The daemon is reached through SSH, never through tcp:// or ssh://"
        )
    return ("-H", socket)
