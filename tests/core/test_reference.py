# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from airflow_provider_dockerbackup.core.reference import ImageReference, container_name, image_id
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from tests.transport.injection import CORPUS, IMPOSSIBLE

HEX = "0123456789abcdef" * 4
# What distribution/reference accepts: text, repository, tag, digest.
ACCEPTED = [
    ("app", "app", "latest", ""),
    ("app:1", "app", "1", ""),
    ("app:V1.2_rc-3", "app", "V1.2_rc-3", ""),
    ("app:_", "app", "_", ""),
    ("lab/app:1", "lab/app", "1", ""),
    ("a/b/c/d:1", "a/b/c/d", "1", ""),
    ("a_b:1", "a_b", "1", ""),
    ("a__b:1", "a__b", "1", ""),
    ("a-b:1", "a-b", "1", ""),
    ("a----b:1", "a----b", "1", ""),
    ("a.b:1", "a.b", "1", ""),
    ("0:0", "0", "0", ""),
    ("localhost/app", "localhost/app", "latest", ""),
    ("localhost:5000/app", "localhost:5000/app", "latest", ""),
    ("registry.example.com/team/app:1", "registry.example.com/team/app", "1", ""),
    ("Registry.Example.com:443/app:1", "Registry.Example.com:443/app", "1", ""),
    ("xn--n3h.com/app:1", "xn--n3h.com/app", "1", ""),
    ("127.0.0.1:5000/app:1", "127.0.0.1:5000/app", "1", ""),
    ("[::1]:5000/app:1", "[::1]:5000/app", "1", ""),
    ("[2001:db8::1]/app", "[2001:db8::1]/app", "latest", ""),
    (f"app@sha256:{HEX}", "app", "", f"sha256:{HEX}"),
    (f"app:1@sha256:{HEX}", "app", "1", f"sha256:{HEX}"),
    (f"host:1/app:1@sha256:{HEX}", "host:1/app", "1", f"sha256:{HEX}"),
    (f"sha256:{HEX}", "", "", f"sha256:{HEX}"),
    ("a" * 255, "a" * 255, "latest", ""),
    ("app:" + "t" * 128, "app", "t" * 128, ""),
]
REFUSED = [
    "", ":1", "app:", "app@", "@sha256:" + HEX, "App", "app/Tag:1", "a/b/C", "app:-1", "app:.1", "app:a/b", "app:a:b",
    "-app", "--app", "app-", "app_", "app.", "_app", ".app", "a___b", "a..b", "a._b", "a_-b", "/app", "app/", "a//b",
    "https://example.com/app", "app:" + "t" * 129, "a" * 256, "a/" * 300 + "b", HEX, HEX[:63] + "A",
    f"app@sha512:{HEX}{HEX}", f"app@sha256:{HEX[:40]}", f"app@md5:{HEX[:32]}",
    f"app@sha256:{HEX}:1", "[::1/app", "[::g]/app", "[]/app", "host:/app", "host:port/app", "-host.com/app",
    "host-.com/app",
    "app:1 ", " app:1", "app :1", "app:1\n", "app\n:1", "app:1\r", "app:1\x00", "app\u00e4:1", "\uff41pp:1",
    "app:\u0661",
    "app:1\u2028", "a\u200bpp",
]  # fmt: skip
# Strings after which a shell, docker or ssh would do something else; appended to names that would be fine alone.
TAILS = (
    ";id", "; id", "&&id", "||id", "|id", "&", "`id`", "$(id)", "${IFS}id", "$IFS", ">x", "<x", ">>x", "2>&1",
    "\nid", "\rid",
    "\tid", " id", " -v", " --privileged", "'", '"', "\\", "\\n", "*", "?", "[a-z]", "{a,b}", "~", "!", "#", "%",
    "%n", "^", "=",
    "+", ",", "(", ")", "(id)", "\x00", "\x1b[31m", "\x7f", "\u00a0", "\u202e", "\u2028", "\ufeff", "\u0430",
    "\ud800", "\udcff",
)  # fmt: skip
INJECTIONS = (
    *(text for text in CORPUS if len(text) < 4096),
    *IMPOSSIBLE,
    *(f"{name}{tail}" for name in ("app", "lab/app:1") for tail in TAILS),
    *(f"{tail}app" for tail in TAILS),
    "-", "--", "-app", "-oProxyCommand=id", "--all", "-a", "-f", "../app", "./app", "..", ".", "/etc/passwd",
    "app/../x", "app/./x",
    "file:///etc/passwd", "ssh://-oProxyCommand=id/x", "app:../x", "app@sha256:../x", "a\u0300pp",
)  # fmt: skip


@pytest.mark.parametrize(("text", "repository", "tag", "digest"), ACCEPTED)
def test_a_reference_is_taken_apart_when_docker_accepts_it(text: str, repository: str, tag: str, digest: str) -> None:
    """What Docker's own grammar accepts is parsed, and a bare repository gets its tag."""
    parsed = ImageReference.parse(text)
    assert (parsed.repository, parsed.tag, parsed.digest) == (repository, tag, digest)
    assert str(parsed) == (f"{text}:latest" if tag == "latest" else text)


@pytest.mark.parametrize("text", REFUSED)
def test_a_reference_is_refused_when_docker_refuses_it(text: str) -> None:
    """What Docker's grammar refuses never becomes a value."""
    with pytest.raises(ConfigurationError, match="image reference"):
        ImageReference.parse(text)


def test_the_corpus_of_injections_is_large() -> None:
    """There is something to try."""
    assert len(set(INJECTIONS)) >= 250


@pytest.mark.parametrize("text", sorted(set(INJECTIONS)), ids=ascii)
def test_no_injection_becomes_a_name_of_anything(text: str) -> None:
    """A string that could mean something to a shell is neither a reference, a container's name, nor an ID."""
    for refuse in (ImageReference.parse, image_id, container_name):
        with pytest.raises(ConfigurationError):
            refuse(text)


def test_a_cut_image_id_is_a_repository_named_sha256_as_docker_reads_it() -> None:
    """Docker's grammar takes ``sha256:<fewer digits>`` for a name with a tag, and so it never counts as an ID."""
    assert ImageReference.parse(f"sha256:{HEX[:63]}").repository == "sha256"


@pytest.mark.parametrize("text", ["ab", "web", "Web_1", "a.b-c", "0a", "a" * 255, HEX])
def test_a_container_name_is_returned_as_given_when_docker_accepts_it(text: str) -> None:
    """Moby's ``[a-zA-Z0-9][a-zA-Z0-9_.-]+`` passes, IDs among it."""
    assert container_name(text) == text


@pytest.mark.parametrize(
    "text", ["", "a", "_ab", ".ab", "-ab", "/web", "a/b", "a:b", "a b", "ab\n", "ä", "aä", "a" * 256]
)
def test_a_container_name_is_refused_when_docker_refuses_it(text: str) -> None:
    """Anything else does not pass, and the message shows it quoted."""
    with pytest.raises(ConfigurationError, match="container name '"):
        container_name(text)


def test_an_image_id_passes_only_in_full() -> None:
    """An ID is ``sha256:`` and 64 hex digits, nothing shorter or longer."""
    assert image_id(f"sha256:{HEX}") == f"sha256:{HEX}"
    for text in (HEX, f"sha256:{HEX[:-1]}", f"sha256:{HEX}\n", "app:1"):
        with pytest.raises(ConfigurationError, match="not an image ID"):
            image_id(text)


def test_a_refusal_shows_control_characters_escaped_and_long_text_cut() -> None:
    """A message about a hostile name does no harm to a terminal or a log."""
    with pytest.raises(ConfigurationError) as raised:
        ImageReference.parse("\x1b[2J\nforged log line" + "x" * 5000)
    message = str(raised.value)
    assert message.isprintable()
    assert len(message) < 400
