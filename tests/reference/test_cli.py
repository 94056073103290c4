# SPDX-License-Identifier: Apache-2.0
"""The reference of the command line has every verb, option, variable and exit code."""

from __future__ import annotations

import ast
import re

import click
import pytest

from airflow_provider_dockerbackup.cli.exit_codes import ExitCode, exit_code_of
from tests.pages import PACKAGE, REFERENCE, ROOT, cells_of, names_in, section, text_of
from tests.reference.public import COMMANDS, VERBS, errors

SHARED = section("cli.md", "Options that several verbs share")


def options_of(command: click.Command) -> dict[str, click.Option]:
    """Return a command's options, each under all of its names."""
    options = [each for each in command.params if isinstance(each, click.Option)]
    return {name: option for option in options for name in (*option.opts, *option.secondary_opts)}


def text_about(command: str) -> str:
    """Return the section of a verb; of a command below one, what of the section begins with its name."""
    verb, _, below = command.partition(" ")
    text = section("cli.md", f"dockerbackup {verb}")
    if not below:
        return text
    (own,) = [
        part
        for part in re.split(r"^(?=`dockerbackup )", text, flags=re.MULTILINE)
        if part.startswith(f"`dockerbackup {command}`")
    ]
    return own


def shared_blocks() -> dict[str, tuple[list[str], set[str]]]:
    """Return of each table of shared options the commands it is said to be for, and the options in it."""
    found = {}
    for what, said, table in re.findall(r"^\*\*(\w[^*]+)\*\*([^|]+):\n\n((?:\|.*\n)+)", SHARED, re.MULTILINE):
        commands = names_in(said.partition(", for ")[2].partition(";")[0])
        found[what] = commands, {name.split()[0] for row in cells_of(table) for name in names_in(row[0])}
    return found


def declared(option: click.Option) -> tuple[object, ...]:
    """Return what makes an option the same one for its reader."""
    return option.opts, option.envvar, option.required, option.metavar, option.multiple


@pytest.mark.parametrize("what", sorted(shared_blocks()))
def test_shared_options_are_said_to_be_for_exactly_the_verbs_that_have_them(what: str) -> None:
    """A verb whose option of that name is another one is not among them; its own section has it."""
    commands, names = shared_blocks()[what]
    first = options_of(COMMANDS[commands[0]])
    assert names == {name for name in names if name in first}
    have = {
        command
        for command, each in COMMANDS.items()
        if all(name in options_of(each) and declared(options_of(each)[name]) == declared(first[name]) for name in names)
    }
    assert sorted(commands) == sorted(have)


def test_every_verb_without_json_is_named() -> None:
    """All others have it."""
    (said,) = re.findall(r"^\*\*`--json`\*\*, for all but (.*?):", SHARED, re.MULTILINE | re.DOTALL)
    without = [name for name, command in COMMANDS.items() if "--json" not in options_of(command)]
    assert sorted(names_in(said)) == sorted(without)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_reference_has_every_option_of_a_verb(command: str) -> None:
    """Each option is in the verb's section, or shared and said to be for this verb."""
    text = text_about(command)
    shared = {"--json"} | {
        option for names, options in shared_blocks().values() if command in names for option in options
    }
    for option in options_of(COMMANDS[command]):
        assert option in shared or re.search(rf"`{option}[ `]", text), option


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_variable_that_stands_for_an_option_is_beside_it(command: str) -> None:
    """The row of the option, or the sentence of the argument, names the variable."""
    text = text_about(command)
    for parameter in COMMANDS[command].params:
        if isinstance(parameter, click.Argument) and parameter.envvar:
            assert f"`{parameter.envvar}`" in text, parameter.name
        elif parameter.envvar:
            rows = [
                row for row in cells_of(SHARED + text) if parameter.opts[0] in {n.split()[0] for n in names_in(row[0])}
            ]
            assert any(f"`{parameter.envvar}`" in cell for row in rows for cell in row[1:]), parameter.opts[0]


def test_the_reference_has_every_variable_that_the_command_reads_and_no_other() -> None:
    """Those that stand for options, and those that the code asks for by itself."""
    strings = {
        node.value
        for path in (PACKAGE / "cli").glob("*.py")
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    read = {text for text in strings if re.fullmatch(r"DOCKERBACKUP_[A-Z_]+", text)}
    read |= {str(each.envvar) for command in COMMANDS.values() for each in command.params if each.envvar}
    assert set(re.findall(r"DOCKERBACKUP_[A-Z_]+", text_of(REFERENCE / "cli.md"))) == read


def test_the_reference_names_no_verb_that_is_not_there() -> None:
    """Sections and verbs are the same."""
    found = re.findall(r"^## dockerbackup ([\w-]+)$", text_of(REFERENCE / "cli.md"), re.MULTILINE)
    assert sorted(found) == sorted(VERBS)


def test_every_exit_code_and_every_error_is_explained() -> None:
    """The tables of README, reference and troubleshooting agree with the code."""
    table = section("cli.md", "Exit codes")
    rows = [(row[0], row[1].strip("`")) for row in cells_of(table)]
    assert rows == [(str(code.value), code.name) for code in ExitCode]
    for code in ExitCode:
        assert re.search(rf"^\| {code.value} \|", text_of(ROOT / "README.md"), re.MULTILINE)
    troubleshooting = text_of(ROOT / "docs/how-to/troubleshooting.md")
    for kind in errors():
        number = exit_code_of(kind("")).value
        assert any(row[0] == str(number) and f"`{kind.__name__}`" in row[2] for row in cells_of(table)), kind
        assert f"| `{kind.__name__}` | {number} |" in troubleshooting
