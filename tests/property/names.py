# SPDX-License-Identifier: Apache-2.0
"""Names by Docker's grammar, written down a second time so that a mistake in the first shows."""

from __future__ import annotations

from string import ascii_letters, ascii_lowercase, digits

from hypothesis import strategies as st

_LOWER = ascii_lowercase + digits
_ANY = ascii_letters + digits


@st.composite
def _component(draw: st.DrawFn) -> str:
    words = draw(st.lists(st.text(_LOWER, min_size=1, max_size=4), min_size=1, max_size=3))
    text = words[0]
    for word in words[1:]:
        text += draw(st.sampled_from([".", "_", "__", "-", "--", "----"])) + word
    return text


@st.composite
def _domain(draw: st.DrawFn) -> str:
    parts = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True)
    name = draw(
        st.one_of(st.lists(parts, min_size=2, max_size=3).map(".".join), st.sampled_from(["localhost", "[::1]"]))
    )
    return name + draw(st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}")))


@st.composite
def references(draw: st.DrawFn) -> str:
    """Return an image reference that Docker accepts."""
    repository = "/".join(draw(st.lists(_component(), min_size=1, max_size=3)))
    if draw(st.booleans()):
        repository = f"{draw(_domain())}/{repository}"
    first, rest = st.sampled_from(_ANY + "_"), st.text(_ANY + "_.-", max_size=10)
    tag = draw(st.one_of(st.just(""), st.tuples(first, rest).map(lambda parts: f":{parts[0]}{parts[1]}")))
    digest = draw(
        st.one_of(st.just(""), st.text("0123456789abcdef", min_size=64, max_size=64).map("@sha256:{}".format))
    )
    return repository + tag + digest


def container_names() -> st.SearchStrategy[str]:
    """Return a container's name that Docker accepts."""
    first, rest = st.sampled_from(_ANY), st.text(_ANY + "_.-", min_size=1, max_size=20)
    return st.tuples(first, rest).map("".join)


def host_names() -> st.SearchStrategy[str]:
    """Return any printable text, as a connection's ID may be."""
    printable = st.characters(codec="utf-8").filter(lambda character: character.isprintable())
    odd = st.sampled_from(
        [".", "..", "...", "%", "%2E", "%2F", "a/b", "../x", "~", "-", "image-x", "é", "a b", "%00", "+"]
    )
    return st.one_of(odd, st.text(printable, min_size=1, max_size=20))
