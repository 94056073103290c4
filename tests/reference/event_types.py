# SPDX-License-Identifier: Apache-2.0
"""Every type of audit event that the package writes, read from its sources.

What writes an event takes its type as the parameter ``type_``; :class:`AuditEvent` itself takes it as ``type``. So all
calls of those are looked at, whatever the type is, and one whose type cannot be read here is an error.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path

from tests.pages import PACKAGE, text_of


@cache
def _nodes() -> Mapping[Path, Sequence[ast.AST]]:
    """Return all nodes of each module."""
    return {path: list(ast.walk(ast.parse(text_of(path)))) for path in sorted(PACKAGE.rglob("*.py"))}


def written_types() -> set[str]:
    """Return the types of all events that some call in the package writes."""
    return {
        type_ for path, nodes in _nodes().items() for given in _given(path, nodes) for type_ in _values(given, path)
    }


def _given(path: Path, nodes: Sequence[ast.AST]) -> Iterator[ast.expr]:
    """Yield what each call that writes an event gives as its type, where that is not its caller's ``type_``."""
    names = {name for name, where in _writers() if where == path or not name.startswith("_")}
    for call in nodes:
        if not isinstance(call, ast.Call):
            continue
        given = {each.arg: each.value for each in call.keywords}
        if isinstance(call.func, ast.Name) and call.func.id == "AuditEvent":
            found = given["type"]
        elif isinstance(call.func, ast.Attribute) and call.func.attr in names:
            found = given.get("type_") or call.args[0]
        else:
            continue
        if not (isinstance(found, ast.Name) and found.id == "type_"):
            yield found


@cache
def _writers() -> set[tuple[str, Path]]:
    """Return the methods that take the type of an event, and where they are; a private one is called there alone."""
    return {
        (node.name, path)
        for path, nodes in _nodes().items()
        for node in nodes
        if isinstance(node, ast.FunctionDef) and "type_" in [each.arg for each in node.args.args[:2]]
    }


def _values(expression: ast.expr, path: Path) -> set[str]:
    """Return the texts that an expression can be."""
    match expression:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=otherwise):
            return _values(body, path) | _values(otherwise, path)
        case ast.JoinedStr(values=parts):
            return {"".join(texts) for texts in product(*(_values(part, path) for part in parts))}
        case ast.FormattedValue(value=value):
            return _values(value, path)
        case ast.Name(id=name):
            found = _constants(name)
        case ast.Attribute(attr=name):
            found = _of_field(name)
        case _:
            found = set()
    assert found, f"{path}, line {expression.lineno}: the type of this event cannot be read from the source"
    return found


def _constants(name: str) -> set[str]:
    """Return the text of a module's constant of this name."""
    assigned = [node for nodes in _nodes().values() for node in nodes if isinstance(node, ast.Assign)]
    return _texts(node.value for node in assigned if name in [ast.unparse(target) for target in node.targets])


def _of_field(name: str) -> set[str]:
    """Return the texts that a field of this name can hold: those of its Literal, or those its class is made with."""
    nodes = [node for each in _nodes().values() for node in each]
    fields = {
        node.name: each.annotation
        for node in nodes
        if isinstance(node, ast.ClassDef)
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.target.id == name
    }
    literals = [each for each in fields.values() if ast.unparse(each).startswith("Literal[")]
    if literals:
        return _texts(part for each in literals for part in ast.walk(each))
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    made = [each for each in calls if ast.unparse(each.func) in fields]
    return _texts(each.value for call in made for each in call.keywords if each.arg == name)


def _texts(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the texts among some nodes."""
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
