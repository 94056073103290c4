# SPDX-License-Identifier: Apache-2.0
"""The configuration that an image had at an earlier step of its history, as far as the history tells.

An image carries only its last configuration. Each later step that set a value is undone by replaying the steps before
it. What cannot be told, such as what an imported base image or a ``docker commit --change`` brought, is a guess, and
said to be one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_dockerbackup.core.archive.instruction import DEFAULT_SHELL, Step, shell_of, step_of

_SCALARS = ("Cmd", "Entrypoint", "Healthcheck", "Shell", "StopSignal", "User", "WorkingDir")
_MAPS = ("ExposedPorts", "Labels", "Volumes")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A configuration at an earlier step.

    :param config: the ``config`` object; secret-bearing.
    :param exact: names of values that the history proves, ``Cmd`` or ``Env.PATH``; absent ones that it proves absent
        among them.
    :param guessed: names of values that are likely, but not proven.
    """

    config: dict[str, Any]
    exact: tuple[str, ...]
    guessed: tuple[str, ...]


def replayed(config: Mapping[str, Any], history: Sequence[Mapping[str, Any]], *, step: int) -> Replayed:
    """Return the configuration as it was after the first ``step`` steps.

    :param config: the image's ``config`` object, that of its last step.
    :param history: all of its ``history``, oldest first.
    :param step: how many steps are kept, from 1 to all of them; with all of them everything is exact.
    """
    values = _flat(config)
    steps = _read(history, values)
    names = sorted({*values, *_SCALARS, "OnBuild"})
    found: dict[str, Any] = {}
    exact: list[str] = []
    guessed: list[str] = []
    for name in names:
        final = values.get(name)
        if step == len(steps):
            value, sure = final, True
        elif name == "OnBuild":
            value, sure = _triggers(final, steps, step)
        else:
            value, sure = _value(name, final, steps, step)
        if value is not None:
            found[name] = value
        if value is not None or final is not None or not (sure or _stayed(name, steps, step)):
            (exact if sure else guessed).append(name)
    return Replayed(config=_put_back(config, found), exact=tuple(exact), guessed=tuple(guessed))


def _read(history: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> list[Step]:
    shells = [DEFAULT_SHELL]
    steps = []
    for entry in history:
        created_by = str(entry.get("created_by") or "")
        comment = str(entry.get("comment") or "")
        steps.append(step_of(created_by, comment=comment, shells=shells, values=values))
        if (shell := shell_of(created_by, shells=shells)) is not None:
            shells.append(shell)
    return steps


def _value(name: str, final: Any, steps: Sequence[Step], kept: int) -> tuple[Any, bool]:
    """Return one value after ``kept`` steps, None when it was absent, and whether that is proven."""
    setters = [number for number, each in enumerate(steps) if name in each.sets]
    trusted = _agrees(name, final, steps, setters)
    later_setters = [number for number in setters if number >= kept]
    if not later_setters and not any(each.may_set(name) for each in steps[kept:]):
        # Nothing that is dropped set it; a value that no step set came with a base image or behind the history's back.
        return final, trusted and (bool(setters) or (name == "Env.PATH" and _has_default_path(final, steps, kept)))
    earlier = [number for number in setters if number < kept]
    if earlier:
        last = steps[earlier[-1]].sets[name]
        hidden = any(each.may_set(name) for each in steps[earlier[-1] + 1 : kept])
        hidden = hidden or (name.startswith("Labels.") and any(each.silent for each in steps[earlier[-1] : kept]))
        hidden = hidden or (name == "Healthcheck" and _may_inherit(steps[: earlier[-1] + 1]))
        return last.value, last.sure and trusted and not hidden
    if not later_setters and final is not None:
        return final, False
    silent = name == "WorkingDir" or name.startswith("Labels.")
    hidden = any(each.opaque or (silent and each.silent) for each in steps[:kept])
    return None, trusted and name != "Env.PATH" and not hidden


def _may_inherit(steps: Sequence[Step]) -> bool:
    """Tell whether the last step, a health check, may have taken what it does not say from the one before it.

    The classic builder's engine fills in intervals and retries so, even those of ``NONE``.
    """
    *before, last = steps
    return not last.silent and any(each.opaque or "Healthcheck" in each.sets for each in before)


def _has_default_path(final: Any, steps: Sequence[Step], kept: int) -> bool:
    """Tell whether builders gave the variable PATH, which no step tells, by then.

    The classic builder gives it to images from any base that lacks it, BuildKit to those from scratch.
    """
    classic = any(not each.opaque and not each.silent for each in steps[:kept])
    return final == _DEFAULT_PATH and (classic or not any(each.opaque for each in steps))


def _stayed(name: str, steps: Sequence[Step], kept: int) -> bool:
    """Tell whether a value that is absent at the end cannot have been emptied by what is dropped."""
    if name == "OnBuild":
        return not any(each.trigger for each in steps)
    return not any(name in each.sets or name in each.may for each in steps[kept:])


def _agrees(name: str, final: Any, steps: Sequence[Step], setters: Sequence[int]) -> bool:
    """Tell whether replaying the whole history gives the value that the image really has, where that can be told."""
    if not setters or any(each.may_set(name) for each in steps[setters[-1] + 1 :]):
        return True
    last = steps[setters[-1]].sets[name]
    return not last.sure or last.value == final


def _triggers(final: Any, steps: Sequence[Step], kept: int) -> tuple[Any, bool]:
    """Return ``OnBuild``: steps add to it, and building upon an image empties it without a step."""
    before = [each.trigger for each in steps[:kept] if each.trigger]
    later = [each.trigger for each in steps[kept:] if each.trigger]
    hidden = any(each.opaque for each in steps)
    sure = (before + later) == (final or []) and not hidden
    return ((before or None) if later else final), sure


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return every value by name; empty ones count as absent, as engines disagree there."""
    values = {key: config[key] for key in (*_SCALARS, "OnBuild") if config.get(key)}
    for entry in config.get("Env") or ():
        name, _, text = str(entry).partition("=")
        values[f"Env.{name}"] = text
    for key in _MAPS:
        values |= {f"{key}.{name}": value for name, value in (config.get(key) or {}).items()}
    return values


def _put_back(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config`` with ``values`` in it, and none of those that are not among them; the order stays."""
    result: dict[str, Any] = {}
    for key, old in config.items():
        if key in _SCALARS or key == "OnBuild":
            if key in values:
                result[key] = values[key]
        elif key == "Env":
            names = dict.fromkeys(str(entry).partition("=")[0] for entry in old or ())
            if kept := [f"{name}={values[f'Env.{name}']}" for name in names if f"Env.{name}" in values]:
                result[key] = kept
        elif key in _MAPS:
            if items := {name: values[f"{key}.{name}"] for name in old or () if f"{key}.{name}" in values}:
                result[key] = items
        elif key != "Image":  # the parent of the last step
            result[key] = old
    return result | {key: values[key] for key in (*_SCALARS, "OnBuild") if key in values}
