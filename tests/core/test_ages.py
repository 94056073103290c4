# SPDX-License-Identifier: Apache-2.0
"""Ages are told in the unit that fits."""

from __future__ import annotations

import pytest

from airflow_provider_dockerbackup.core.ages import age_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (0.9, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172800, "2 d")],
)
def test_an_age_has_at_least_two_of_its_unit(seconds: float, text: str) -> None:
    """Seconds up to two minutes, minutes up to two hours, hours up to two days; what is yet to come has no age."""
    assert age_text(seconds) == text
