# SPDX-License-Identifier: Apache-2.0
"""The protocol of writers and sweeper, small enough to visit every state it can be in.

One blob, some writers that need it, one sweeper that comes again and again; each may die between any two steps. Every
request to the storage is one step, and a listing is as many as there are writers. A :class:`Protocol` can leave out
what makes it safe, so that the checker is seen to fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Writer = Literal["idle", "look", "head", "put", "record", "unpin", "done", "deleted", "dead"]
Sweeper = Literal[
    "idle", "first-pins", "first-records", "condemn", "pins", "records", "move", "clear", "release", "dead"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What is done.

    :param writers: how many.
    :param pins: whether writers pin, and the sweeper looks at pins.
    :param condemns: whether the sweeper condemns and looks again, and writers wait for condemned blobs.
    :param pins_first: whether the sweeper lists pins before records.
    :param pins_before_head: whether a writer pins before it looks for the blob.
    :param leases_hold: whether a sweeper stops before its lease is over; else it may be held up at any step.
    """

    writers: int = 3
    pins: bool = True
    condemns: bool = True
    pins_first: bool = True
    pins_before_head: bool = True
    leases_hold: bool = True


class State(NamedTuple):
    """All that counts.

    :param blob: whether the blob is there.
    :param writers: what each writer does next.
    :param pinned: whose pins stand; those of the dead may go at any time.
    :param sweeper: what the sweeper does next.
    :param looked: how many writers' pins or records its listing has passed.
    :param needed: whether its listings found that the blob is needed.
    :param condemned: whether the mark stands.
    :param leased: whether its lease is live.
    """

    blob: bool
    writers: tuple[Writer, ...]
    pinned: tuple[bool, ...]
    sweeper: Sweeper = "idle"
    looked: int = 0
    needed: bool = False
    condemned: bool = False
    leased: bool = False

    def is_sound(self) -> bool:
        """No record names a blob that is not there."""
        return self.blob or not any(each in {"unpin", "done"} for each in self.writers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visited:
    """What :func:`explore` saw."""

    states: int
    transitions: int
    unsound: int


def explore(protocol: Protocol, *, until_unsound: bool = False) -> Visited:
    """Visit every state that can be reached, from a blob that is there and from none.

    :param until_unsound: stop at the first state that must not be.
    """
    idle: list[Writer] = ["idle"] * protocol.writers
    begin = [State(blob, tuple(idle), (False,) * protocol.writers) for blob in (True, False)]
    seen = set(begin)
    pending = list(begin)
    transitions = unsound = 0
    while pending and not (until_unsound and unsound):
        state = pending.pop()
        unsound += not state.is_sound()
        for each in _following(protocol, state):
            transitions += 1
            if each not in seen:
                seen.add(each)
                pending.append(each)
    return Visited(states=len(seen), transitions=transitions, unsound=unsound)


def _following(protocol: Protocol, state: State) -> Iterator[State]:
    for number in range(protocol.writers):
        yield from _writer_steps(protocol, state, number)
    yield from _sweeper_steps(protocol, state)
    if state.leased and (state.sweeper == "dead" or not protocol.leases_hold):
        yield state._replace(leased=False)


def _writer_steps(protocol: Protocol, state: State, number: int) -> Iterator[State]:
    at = state.writers[number]
    if at == "dead":
        if state.pinned[number]:
            yield _with_pin(state, number, pinned=False)
        return
    if at == "done":
        yield _with_writer(state, number, "deleted")  # rotation deletes its backup, and the grace is over
    if at in {"done", "deleted"}:
        return
    yield _with_writer(state, number, "dead" if at != "unpin" else "done")
    if at == "idle":
        pinned = _with_pin(state, number, pinned=protocol.pins) if protocol.pins_before_head else state
        yield _with_writer(pinned, number, "look")
    elif at == "look":
        if not (protocol.condemns and state.condemned and state.leased):
            yield _with_writer(state, number, "head")
    elif at == "head":
        yield _with_writer(state, number, "record" if state.blob else "put")
    elif at == "put":
        yield _with_writer(state._replace(blob=True), number, "record")
    elif at == "record":
        yield _with_writer(state, number, "unpin")
    else:
        yield _with_writer(_with_pin(state, number, pinned=False), number, "done")


def _sweeper_steps(protocol: Protocol, state: State) -> Iterator[State]:
    at = state.sweeper
    if at == "dead":
        if not state.leased:  # the next one takes over when the lease is over, and clears the marks it finds
            yield state._replace(sweeper="idle", condemned=False)
        return
    if at != "idle":
        yield state._replace(sweeper="dead", looked=0, needed=False)
    if at == "idle":
        first: Sweeper = "first-pins" if protocol.pins_first else "first-records"
        yield state._replace(sweeper=first, leased=True, condemned=False, looked=0, needed=False)
    elif at in {"first-pins", "first-records", "pins", "records"}:
        yield _listing(protocol, state)
    elif at == "condemn":
        again: Sweeper = "pins" if protocol.pins_first else "records"
        yield state._replace(sweeper=again, condemned=True, looked=0, needed=False)
    elif at == "move":
        yield state._replace(sweeper="clear", blob=False)
    elif at == "clear":
        yield state._replace(sweeper="release", condemned=False)
    else:
        yield state._replace(sweeper="idle", leased=False, needed=False)


def _listing(protocol: Protocol, state: State) -> State:
    """Look at the pins or the record of one more writer."""
    pins = state.sweeper.endswith("pins")
    number = state.looked
    found = state.pinned[number] and protocol.pins if pins else state.writers[number] in {"unpin", "done"}
    looked = state._replace(needed=state.needed or found, looked=number + 1)
    if looked.looked < protocol.writers:
        return looked
    looked = looked._replace(looked=0)
    if pins == protocol.pins_first:  # the other listing follows
        prefix = "first-" if state.sweeper.startswith("first-") else ""
        other: Sweeper = f"{prefix}{'records' if pins else 'pins'}"  # type: ignore[assignment]
        return looked._replace(sweeper=other)
    if state.sweeper.startswith("first-"):
        chosen: Sweeper = "condemn" if protocol.condemns else "move"
        return looked._replace(sweeper="release" if looked.needed or not state.blob else chosen, needed=False)
    return looked._replace(sweeper="clear" if looked.needed else "move", needed=False)


def _with_writer(state: State, number: int, writer: Writer) -> State:
    return state._replace(writers=(*state.writers[:number], writer, *state.writers[number + 1 :]))


def _with_pin(state: State, number: int, *, pinned: bool) -> State:
    return state._replace(pinned=(*state.pinned[:number], pinned, *state.pinned[number + 1 :]))
