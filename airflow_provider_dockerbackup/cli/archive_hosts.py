# SPDX-License-Identifier: Apache-2.0
"""The option that says how Docker hosts are reached on which archives lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airflow_provider_dockerbackup.cli.options import SSH_CONFIG_VARIABLE, HostOptions, host_of, ssh_config_path

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFiles, HostFilesFactory


def archive_host_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option to a verb; it gets what reaches those hosts as the keyword ``archive_hosts``."""

    @_option(
        "How to reach the Docker host NAME, on which archives lie; may be repeated; ~/.ssh/config or the file in "
        f"{SSH_CONFIG_VARIABLE} counts.  [default: NAME itself; env: DOCKERBACKUP_ARCHIVE_HOSTS]",
        metavar="NAME=TARGET",
    )
    @wraps(function)
    def with_hosts(*args: Any, targets: Sequence[str], **kwargs: Any) -> Any:
        return function(*args, archive_hosts=reaching(targets, ssh_config=ssh_config_path()), **kwargs)

    return with_hosts


def named_archive_host_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option to a verb that asks no other hosts; it gets their names, too, as the keyword ``host_names``."""

    @_option(
        "Ask the Docker host NAME for the archives that lie there; may be repeated; ~/.ssh/config or the file in "
        f"{SSH_CONFIG_VARIABLE} counts.  [default: none is asked; env: DOCKERBACKUP_ARCHIVE_HOSTS]",
        metavar="NAME[=TARGET]",
    )
    @wraps(function)
    def with_hosts(*args: Any, targets: Sequence[str], **kwargs: Any) -> Any:
        ssh_config = ssh_config_path()
        return function(
            *args,
            archive_hosts=reaching(targets, ssh_config=ssh_config),
            host_names=frozenset(_named(targets, ssh_config=ssh_config)),
            **kwargs,
        )

    return with_hosts


def _option(help_: str, *, metavar: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--archive-host",
        "targets",
        multiple=True,
        envvar="DOCKERBACKUP_ARCHIVE_HOSTS",
        metavar=metavar,
        help=help_,
    )


def reaching(targets: Sequence[str], *, ssh_config: Path) -> HostFilesFactory:
    """Return what gives the archives on a host of some name, by the user's SSH configuration.

    :param targets: ``NAME=TARGET`` each; a host that is not among them is reached by its name.
    """
    named = _named(targets, ssh_config=ssh_config)

    @contextmanager
    def reach(host: str) -> Iterator[HostFiles]:
        options = named.get(host) or host_of(f"{host}={host}", ssh_config=ssh_config, identity=None)
        with options.connected() as docker:
            yield docker.archives

    return reach


def _named(targets: Sequence[str], *, ssh_config: Path) -> dict[str, HostOptions]:
    hosts = [host_of(text, ssh_config=ssh_config, identity=None) for text in targets]
    return {each.name or each.target: each for each in hosts}
