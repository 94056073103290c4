# SPDX-License-Identifier: Apache-2.0
"""What of the package is public, asked of the package itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import click

from airflow_provider_dockerbackup import exceptions, operators
from airflow_provider_dockerbackup.cli.main import cli
from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator, DockerHostOperator
from airflow_provider_dockerbackup.operators.fleet import DockerFleetOperator
from airflow_provider_dockerbackup.operators.on_host import CapturesOnHost, WaitsForHost

_CONTEXT = click.Context(cli)
VERBS = {name: command for name in cli.list_commands(_CONTEXT) if (command := cli.get_command(_CONTEXT, name))}


def commands_of(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield what can be run: a verb under its name, or each of those below it."""
    if isinstance(command, click.Group):
        for below, each in command.commands.items():
            yield from commands_of(f"{name} {below}", each)
    else:
        yield name, command


COMMANDS = {name: command for verb, each in VERBS.items() for name, command in commands_of(verb, each)}


def errors(
    kind: type[exceptions.DockerBackupError] = exceptions.DockerBackupError,
) -> list[type[exceptions.DockerBackupError]]:
    """Return all kinds of the package's errors, without those that other tests of this process define."""
    below = [each for each in kind.__subclasses__() if each.__module__ == exceptions.__name__]
    return [found for each in below for found in (each, *errors(each))]


def operator_classes() -> list[type[DockerBackupBaseOperator]]:
    """Return every operator that the package has."""
    bases = {DockerBackupBaseOperator, DockerHostOperator, DockerFleetOperator, CapturesOnHost, WaitsForHost}
    modules = [
        importlib.import_module(f"{operators.__name__}.{each.name}")
        for each in pkgutil.iter_modules(operators.__path__)
    ]
    found = {each for module in modules for each in vars(module).values() if inspect.isclass(each)}
    own = {each for each in found if issubclass(each, DockerBackupBaseOperator)}
    return sorted(own - bases, key=lambda each: each.__name__)


def functions_of(module: ModuleType) -> set[str]:
    """Return the names of a module's own public functions."""
    return {
        name
        for name, each in vars(module).items()
        if inspect.isfunction(each) and each.__module__ == module.__name__ and not name.startswith("_")
    }


def members_of(kind: type) -> set[str]:
    """Return the names of a class's own public methods and properties."""
    return {
        name for name, each in vars(kind).items() if (callable(each) or isinstance(each, property)) and name[0] != "_"
    }
