# SPDX-License-Identifier: Apache-2.0
"""Where the re-creation of a container stands, told by the names on the host alone, and which step is next. Pure.

Four names take part: the container's own, and three of which nobody else makes use: the one under which the new
container is made, the one under which the old one is kept, and the one of a new container that failed. Whoever was
killed after any step is followed by a run that reads the names and goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A container that stands under one of the names.

    :param ours: whether it was made from this backup.
    :param running: whether it runs (or is about to be started again by the engine).
    :param replaces_running: of ours: whether the one it replaces ran.
    """

    id: str
    ours: bool
    running: bool
    replaces_running: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What stands under each name.

    :param current: under the container's own name.
    :param new: under ``<name>-dockerbackup-new-<backup id>``.
    :param before: under ``<name>-before-<backup id>``.
    :param failed: under ``<name>-dockerbackup-failed-<backup id>``.
    """

    current: Standing | None = None
    new: Standing | None = None
    before: Standing | None = None
    failed: Standing | None = None


class Step(StrEnum):
    """One change on the host, or none."""

    CREATE = "create the new container"
    STOP_OLD = "stop the old container"
    KEEP_OLD = "rename the old container"
    NAME_NEW = "name the new container"
    START_NEW = "start the new container"
    AWAIT = "wait for the new container"
    STOP_NEW = "stop the new container"
    SET_ASIDE = "set the new container aside"
    NAME_OLD = "name the old container"
    START_OLD = "start the old container"
    REMOVE_NEW = "remove the new container"
    DONE = "nothing"


def next_step(at: Position) -> Step:
    """Return the next step towards the new container; after a start or :attr:`Step.AWAIT` there is none.

    A run that was killed while it put the old container back is finished first. One that was overtaken by another may
    have left a second new container, which is removed.
    """
    if at.current is not None and at.current.ours:
        if at.new or at.failed:
            return Step.REMOVE_NEW
        return Step.AWAIT if at.current.running else Step.START_NEW
    if at.failed is not None:
        return next_step_back(at)
    if at.new is None:
        return Step.CREATE
    if at.current is None:
        return Step.NAME_NEW
    return Step.STOP_OLD if at.current.running else Step.KEEP_OLD


def next_step_back(at: Position) -> Step:
    """Return the next step that puts the old container back; a new one that replaces none stays as it is."""
    if at.current is not None and at.current.ours:
        if at.before is None:
            return Step.DONE
        return Step.STOP_NEW if at.current.running else Step.SET_ASIDE
    if at.current is None and at.before is not None:
        return Step.NAME_OLD
    spare = at.failed or at.new
    if spare is None:
        return Step.DONE
    if at.current is not None and not at.current.running and spare.replaces_running:
        return Step.START_OLD
    return Step.REMOVE_NEW
