# SPDX-License-Identifier: Apache-2.0
"""What one step of an image's history set, read from the ``created_by`` that builders wrote.

The classic builder writes ``/bin/sh -c #(nop)  CMD ["x"]``, BuildKit ``CMD ["x"]``; both in the syntax of Go's ``%q``
and ``%v``, in which quotes and borders between words are often lost. A value that could be read in two ways is not
``sure``; a step that no builder wrote may have set anything and is ``opaque``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

DEFAULT_SHELL = "/bin/sh -c"
_INSTRUCTION = re.compile(
    r"(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL|STOPSIGNAL|USER|VOLUME"
    r"|WORKDIR)(?: (.*))?",
    re.DOTALL,
)
_HARMLESS = frozenset({"ADD", "ARG", "COPY", "MAINTAINER", "RUN"})
# A SHELL step of the classic builder is written behind the shell that it sets.
_NEW_SHELL = re.compile(r"(.+) #\(nop\)  (SHELL \[\1\])", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[abfnrtv\\\"'])")
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'"}
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/([a-z]+))?(?::\{\})?", re.ASCII)
_HEALTHCHECK = re.compile(r"&\{(\[.*\]) ((?:\"[^\"]*\" ){3,4})'((?:[^'\\]|\\.)+)'\}", re.DOTALL)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|µs|ns)")
_NANOSECONDS = {"h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "µs": 1000, "ns": 1}
_DURATIONS = {3: ("Interval", "Timeout", "StartPeriod"), 4: ("Interval", "Timeout", "StartPeriod", "StartInterval")}


@dataclass(frozen=True, slots=True)
class Setting:
    """One value that a step set; None for none.

    :param sure: whether it can be read in one way only.
    """

    value: Any
    sure: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step did to the configuration.

    :param sets: values by name, ``Cmd`` or ``Env.PATH``.
    :param may: names that it may have set or emptied.
    :param trigger: what it added to ``OnBuild``.
    :param opaque: whether it may have set anything.
    :param silent: whether its builder may add labels (``--label``) and a working directory without a step.
    """

    sets: Mapping[str, Setting] = field(default_factory=dict)
    may: frozenset[str] = frozenset()
    trigger: str = ""
    opaque: bool = False
    silent: bool = False

    def may_set(self, name: str) -> bool:
        """Whether it may have changed a value without saying so."""
        return self.opaque or name in self.may


def step_of(created_by: str, *, comment: str, shells: Sequence[str], values: Mapping[str, Any]) -> Step:
    """Return what a step did.

    :param comment: its comment; builders write none, or ``buildkit.…``.
    :param shells: the command prefixes of RUN so far, :data:`DEFAULT_SHELL` first.
    :param values: the last configuration by name: nothing is ever removed from variables, labels, ports and volumes,
        so these are all the names there can be.
    """
    text = _instruction_of(created_by, shells)
    if comment and not comment.startswith("buildkit"):
        return Step(opaque=True)  # of a commit or an import; those of builders have no comment of a person
    if text is None:
        is_run = re.sub(r"^\|\d+ .*?(?=/)", "", created_by, flags=re.DOTALL).startswith(tuple(f"{s} " for s in shells))
        return Step() if is_run else Step(opaque=True)
    match = _INSTRUCTION.fullmatch(text)
    if match is None:
        return Step(opaque=True)
    step = _step(match[1], match[2] or "", values)
    if text is not created_by:
        return step
    if comment:
        return replace(step, silent=True)
    # Other builders, such as kaniko, write what stands in the Dockerfile: quoted, and with variables in it.
    return replace(step, sets={name: replace(each, sure=False) for name, each in step.sets.items()}, silent=True)


def shell_of(created_by: str, *, shells: Sequence[str]) -> str | None:
    """Return the command prefix that a SHELL step gives to later RUN steps; None for any other step."""
    text = _instruction_of(created_by, shells)
    if text is None or not text.startswith("SHELL ["):
        return None
    return text.removeprefix("SHELL [").removesuffix("]")


def _instruction_of(created_by: str, shells: Sequence[str]) -> str | None:
    """Return ``INSTRUCTION arguments`` of a step, None when it is a command."""
    for shell in shells:
        if created_by.startswith(f"{shell} #(nop) "):
            return created_by.removeprefix(f"{shell} #(nop) ").removeprefix(" ")
    if match := _NEW_SHELL.fullmatch(created_by):
        return match[2]
    return created_by if _INSTRUCTION.fullmatch(created_by) else None


def _step(instruction: str, rest: str, values: Mapping[str, Any]) -> Step:
    if instruction in _HARMLESS:
        return Step()
    if instruction == "ONBUILD":
        return Step(trigger=rest)
    # An ENTRYPOINT empties the CMD of the base image, and only that one.
    may = frozenset({"Cmd"}) if instruction == "ENTRYPOINT" else frozenset[str]()
    return Step(sets=_settings(instruction, rest, values), may=may)


def _settings(instruction: str, rest: str, values: Mapping[str, Any]) -> dict[str, Setting]:
    """Return what an instruction sets, by name."""
    setting = Setting(rest or None)
    match instruction:
        case "ENV":
            return _pairs("Env.", rest, values)
        case "LABEL":
            return _pairs("Labels.", rest, values)
        case "EXPOSE":
            return {f"ExposedPorts.{port}": Setting({}) for port in _ports(rest)}
        case "VOLUME":
            return _volumes(rest, values)
    name = {"STOPSIGNAL": "StopSignal", "WORKDIR": "WorkingDir"}.get(instruction, instruction.capitalize())
    if instruction in ("CMD", "ENTRYPOINT"):
        words = quoted_words(rest)
        setting = Setting(words or None, sure=words is not None)
    elif instruction == "HEALTHCHECK":
        check = healthcheck(rest)
        setting = Setting(check, sure=check is not None)
    elif instruction == "SHELL":
        words = rest.removeprefix("[").removesuffix("]").split(" ")
        setting = Setting(words, sure=len(words) == 1)
    elif instruction == "WORKDIR":
        setting = Setting(rest or None, sure=rest.startswith("/"))
    return {name: setting}


def quoted_words(text: str) -> list[str] | None:
    """Return the words of ``["a" "b"]`` or ``["a", "b"]``; None when it is anything else."""
    if not (text.startswith("[") and text.rstrip().endswith("]")):
        return None
    body = text.rstrip()[1:-1]
    if _QUOTED.sub("", body).strip(" ,"):
        return None
    words = [_unquoted(match[1]) for match in _QUOTED.finditer(body)]
    return [word for word in words if word is not None] if None not in words else None


def _unquoted(text: str) -> str | None:
    """Return what Go's ``%q`` wrote, without its quotes; None where it is no text."""
    broken = False

    def character(match: re.Match[str]) -> str:
        nonlocal broken
        code = match[1]
        if code in _SIMPLE:
            return _SIMPLE[code]
        number = int(code[1:], 16)
        if (code[0] == "x" and number > 0x7F) or number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
            broken = True
            return ""
        return chr(number)

    result = _ESCAPE.sub(character, text)
    return None if broken or "\\" in _ESCAPE.sub("", text) else result


def _pairs(prefix: str, text: str, values: Mapping[str, Any]) -> dict[str, Setting]:
    """Return ``A=b C=d`` by name. Quotes are lost: of two names, one may be part of the other's value."""
    names = [name.removeprefix(prefix) for name in values if name.startswith(prefix)]
    begins = sorted(
        (match.start(1), match.end(), name)
        for name in names
        for match in re.finditer(rf"(?:^| )({re.escape(name)})=", text)
    )
    found = {}
    for number, (_, start, name) in enumerate(begins):
        end = begins[number + 1][0] - 1 if number + 1 < len(begins) else len(text)
        found[prefix + name] = Setting(text[start:end], sure=len(begins) == 1 and text.startswith(f"{name}="))
    return found


def _ports(text: str) -> list[str]:
    found = []
    for word in text.removeprefix("map").strip("[] ").split():
        if match := _PORT.fullmatch(word):
            last = int(match[2] or match[1])
            found += [f"{port}/{match[3] or 'tcp'}" for port in range(int(match[1]), min(last, 65535) + 1)]
    return found


def _volumes(text: str, values: Mapping[str, Any]) -> dict[str, Setting]:
    """Return the paths in ``[/a /b c]``, which may have spaces: the last configuration has them all."""
    paths = sorted((n.removeprefix("Volumes.") for n in values if n.startswith("Volumes.")), key=len, reverse=True)
    rest = text.removeprefix("[").removesuffix("]")
    found: dict[str, Setting] = {}
    while rest:
        path = next((each for each in paths if f"{rest} ".startswith(f"{each} ")), None)
        if path is None:
            return {name: Setting({}, sure=False) for name in found}
        # A shorter path that fits as well: `/a b` can be that, or /a and then b.
        sure = not any(path != each and f"{path} ".startswith(f"{each} ") for each in paths)
        found[f"Volumes.{path}"] = Setting({}, sure=sure)
        rest = rest[len(path) + 1 :]
    return found


def healthcheck(text: str) -> dict[str, Any] | None:
    r"""Return a health check that Go wrote as ``&{["CMD" "x"] "1s" "3s" "0s" '\x03'}``, None for anything else."""
    match = _HEALTHCHECK.fullmatch(text)
    words = quoted_words(match[1]) if match else None
    if match is None or not words:
        return None
    durations = [_nanoseconds(each[1]) for each in _QUOTED.finditer(match[2])]
    retries = _unquoted(match[3])
    if None in durations or retries is None or len(retries) != 1:
        return None
    fields = dict(zip(_DURATIONS[len(durations)], durations, strict=True)) | {"Retries": ord(retries)}
    return {"Test": words} | {key: number for key, number in fields.items() if number}


def _nanoseconds(text: str) -> int | None:
    """Return a Go duration such as ``1m30s``."""
    if not text or _DURATION.sub("", text):
        return None
    total = 0
    for number, unit in _DURATION.findall(text):
        whole, _, fraction = number.partition(".")
        scale = _NANOSECONDS[unit]
        total += int(whole) * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)
    return total
