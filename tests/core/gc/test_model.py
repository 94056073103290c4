# SPDX-License-Identifier: Apache-2.0
"""Every interleaving of three writers and a sweeper, with deaths at every step: no record names a missing blob."""

from __future__ import annotations

import pytest

from tests.core.gc.model import Protocol, explore


def test_no_interleaving_and_no_death_loses_a_blob() -> None:
    """All states of three writers and a sweeper are sound."""
    visited = explore(Protocol())
    print(f"{visited.states} states, {visited.transitions} transitions")
    assert visited.states > 10_000
    assert visited.unsound == 0


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol(pins=False, condemns=False),
        Protocol(condemns=False),
        Protocol(pins=False),
        Protocol(pins_first=False),
        Protocol(pins_before_head=False),
        Protocol(leases_hold=False),
    ],
    ids=[
        "naive",
        "pins alone",
        "condemnations alone",
        "records listed before pins",
        "looked for before pinned",
        "lease that does not hold",
    ],
)
def test_each_part_of_the_protocol_is_needed(protocol: Protocol) -> None:
    """Without it there are states in which a record names a blob that is gone, and the checker finds them."""
    assert explore(protocol, until_unsound=True).unsound > 0
