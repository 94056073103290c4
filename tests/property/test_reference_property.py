# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_dockerbackup.core.reference import ImageReference, container_name
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from tests.property.names import container_names, references

# '[' and ']' are left out: they stand around an IPv6 address and are checked apart.
DANGEROUS = frozenset(" \t\r\n\v\f\0;&|<>()$`\\\"'*?{}~!#%^=+,")


def _accepted(text: str) -> ImageReference | None:
    try:
        return ImageReference.parse(text)
    except ConfigurationError:
        return None


@st.composite
def _nearly_references(draw: st.DrawFn) -> str:
    """Return a good reference with something put into it: near enough to the grammar to find its holes."""
    text = draw(references())
    at = draw(st.integers(0, len(text)))
    inserted = draw(st.text(st.sampled_from(sorted(DANGEROUS | set("-:@/._A[]\u2028é"))), min_size=1, max_size=3))
    return text[:at] + inserted + text[at:]


@given(st.one_of(st.text(max_size=30), _nearly_references(), references()))
def test_nothing_that_is_accepted_means_anything_to_a_shell(text: str) -> None:
    """Whatever passes begins with no ``-`` and holds no blank, control or shell character."""
    parsed = _accepted(text)
    if parsed is not None:
        for shown in (str(parsed), text):
            assert not shown.startswith("-")
            assert shown.isascii()
            assert shown.isprintable()
            assert not DANGEROUS & set(shown)
            assert not any(part in {"", ".", ".."} or part.startswith("-") for part in shown.split("/"))
            bracketed = "[" in shown or "]" in shown
            assert not bracketed or (
                shown.startswith("[") and set(shown[1 : shown.index("]")]) <= set("abcdefABCDEF0123456789:")
            )


@given(references())
def test_a_reference_by_the_grammar_parses_to_the_same_again(text: str) -> None:
    """What ``str`` gives parses to an equal value, so names in records mean what was asked for."""
    parsed = ImageReference.parse(text)
    assert ImageReference.parse(str(parsed)) == parsed
    assert str(parsed) in {text, f"{text}:latest"}


@given(st.one_of(st.text(max_size=20), container_names()))
def test_a_container_name_that_passes_means_nothing_to_a_shell(text: str) -> None:
    """A container's name is letters, digits, ``_``, ``.`` and ``-``, and begins with none of the last three."""
    try:
        name = container_name(text)
    except ConfigurationError:
        return
    assert name == text
    assert name.isascii()
    assert name[0].isalnum()
    assert all(character.isalnum() or character in "_.-" for character in name)
