# SPDX-License-Identifier: Apache-2.0
"""The page for tasks and scripts of one's own has every public name, and calls that can be made as they stand there."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook, BaseNotifier, BaseOperator, BaseOperatorLink
from airflow.triggers.base import BaseTrigger

from airflow_provider_dockerbackup.core.ports import DockerHost
from airflow_provider_dockerbackup.exceptions import DockerBackupError
from airflow_provider_dockerbackup.get_provider_info import get_provider_info
from airflow_provider_dockerbackup.hooks import storage
from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook
from airflow_provider_dockerbackup.operators import asset_events
from airflow_provider_dockerbackup.transport import memory
from tests.pages import REFERENCE, cells_of, names_in, section, text_of
from tests.reference.public import errors, functions_of, members_of

_PACKAGE = "airflow_provider_dockerbackup"
_LOADED: tuple[type, ...] = (BaseHook, BaseOperator, BaseTrigger, BaseNotifier, BaseOperatorLink)
_HOOK, _, _HOST = section("python.md", "Hook").partition("\nThe Docker host (")


def calls_in(text: str) -> list[str]:
    """Return what the first cells of a text's tables have in backticks: calls, or bare names."""
    return [name for row in cells_of(text) for name in names_in(row[0])]


def names_of(calls: list[str]) -> set[str]:
    """Return calls without their arguments."""
    return {call.partition("(")[0] for call in calls}


def target_of(name: str, owner: Any) -> Any:
    """Return what a name stands for: a class or module itself, what is in it, or, dotted, what is in the package."""
    path, _, last = name.rpartition(".")
    if not path and last == owner.__name__:
        return owner
    return getattr(importlib.import_module(f"{_PACKAGE}.{path}") if path else owner, last)


def require_call(call: ast.Call, owner: Any) -> None:
    """What is called takes these arguments, needs no others, and has the defaults that are shown; `…` is anything."""
    target = target_of(ast.unparse(call.func), owner)
    if call.args and isinstance(call.args[0], ast.Constant):
        return
    parameters = {name: each for name, each in inspect.signature(target).parameters.items() if name != "self"}
    positional = list(parameters)[: len(call.args)]
    for name, argument in zip(positional, call.args, strict=True):
        if isinstance(argument, ast.Call):
            require_call(argument, owner)
        else:
            assert ast.unparse(argument) == name
    given = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    values = [each for each in parameters.values() if each.kind is not each.VAR_KEYWORD]
    needed = {each.name for each in values if each.default is each.empty}
    assert needed <= {*positional, *given} <= {each.name for each in values}
    for name, default in given.items():
        assert default in {..., parameters[name].default}, name


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        (_HOOK, DockerBackupHook),
        (_HOST, DockerHost),
        (section("python.md", "Storage and repository"), storage),
        (section("python.md", "Looking into backups"), None),
        (section("python.md", "Keeping a repository in order"), None),
    ],
    ids=["hook", "host", "storage", "look", "order"],
)
def test_every_call_that_the_page_shows_can_be_made(text: str, owner: Any) -> None:
    """Its parameters and defaults are those of the code."""
    calls = calls_in(text)
    assert calls
    for call in calls:
        parsed = ast.parse(call.replace("…", "..."), mode="eval").body
        if not isinstance(parsed, ast.Call):
            assert isinstance(inspect.getattr_static(owner, call), property)
        else:
            require_call(parsed, owner)


def test_the_page_has_every_method_of_the_hook_and_of_a_docker_host() -> None:
    """What they have, and nothing else."""
    assert names_of(calls_in(_HOOK)) == members_of(DockerBackupHook) | {DockerBackupHook.__name__}
    assert names_of(calls_in(_HOST)) == members_of(DockerHost)


def test_the_page_has_every_function_that_gives_a_storage_or_a_repository() -> None:
    """Those of the hooks' module, and those that are used without Airflow."""
    text = section("python.md", "Storage and repository")
    assert names_of(calls_in(text)) == functions_of(storage)
    for path in re.findall(rf"`({_PACKAGE}\.[\w.]+)\(", text):
        module, _, name = path.rpartition(".")
        owner, _, kind = module.rpartition(".")
        assert hasattr(getattr(importlib.import_module(owner), kind), name)


def test_the_page_has_every_in_memory_twin() -> None:
    """What the module exports, and nothing else."""
    assert set(calls_in(section("python.md", "Tests of your own"))) == set(memory.__all__)


def test_the_page_has_every_error_and_says_what_kind_it_is_of() -> None:
    """Children of children, too: a metric or an alert may name them."""
    text = section("python.md", "Errors")
    assert set(re.findall(r"`(\w+Error)`", text)) == {DockerBackupError.__name__} | {each.__name__ for each in errors()}
    kinds = {row[0].strip("`"): names_in(row[1]) for row in cells_of(text)}
    below = [each for each in errors() if each.__base__ is not DockerBackupError]
    assert kinds == {each.__name__: [base.__name__ for base in each.__bases__] for each in below}


def test_every_class_that_the_providers_description_leads_to_is_in_the_reference() -> None:
    """Hooks, operators, sensors, triggers, notifiers and links, each with the module it is in."""
    pages = "".join(text_of(page) for page in REFERENCE.glob("*.md"))
    info = get_provider_info()
    groups = ("hooks", "operators", "sensors", "triggers")
    modules = [name for group in groups for item in info[group] for name in item["python-modules"]]
    modules += [path.rpartition(".")[0] for path in (*info["notifications"], *info["extra-links"])]
    for name in modules:
        kinds = [
            each
            for each in vars(importlib.import_module(name)).values()
            if isinstance(each, type) and issubclass(each, _LOADED) and each.__module__ == name
        ]
        assert kinds, name
        for kind in kinds:
            in_one = f"`{name}.{kind.__name__}`" in pages
            assert in_one or (f"## {kind.__name__}\n" in pages and f"`{name}`" in pages), kind


def test_the_reference_has_what_dags_use_of_the_module_on_asset_events() -> None:
    """All but what operators call themselves."""
    text = section("operators.md", "Anchors and asset events")
    named = {name for name in functions_of(asset_events) if f"`{name}(" in text}
    assert named == functions_of(asset_events) - {"tell_outlets"}
