# SPDX-License-Identifier: Apache-2.0
"""Strings that try to become more than one word of a command line."""

from __future__ import annotations

# Each tries to create the file `canary` in the working directory, or to become an option or several words.
_COMMANDS = ("touch canary", ">canary", "touch${IFS}canary")
_AROUND = (
    ";{}", "; {};", "&{}", "&&{}", "||{}", "|{}", "\n{}", "\r\n{}\n", "\n{}\n#", "$({})", "`{}`", "$(({}))",
    "\"$({})\"",
    "'{}'", "';{};'", "\";{};\"", "'\";{};\"'", "\\';{};\\'", "\\\";{};\"", "'$({})'", "'`{}`'", "\\\n;{}", "#\n{}",
    "({})", "{{ {}; }}", "x;{}#", "\\;{}", "'\\'';{};'\\''", "$'\\n'{}", "<({})",
)  # fmt: skip
_OPTIONS = (
    "-o", "-o=/tmp/x", "--output=canary", "--", "---", "-", "-v", "--help", "-H=tcp://127.0.0.1:1", "--host=ssh://x",
    "--privileged", "--pause=false", "-a", "-m", "@file", "+x", "--config=/", "-c ENTRYPOINT x",
)  # fmt: skip
_OTHERS = (
    "", " ", "  two  words ", "\t", "\n", "\r", "*", "?", "[a-z]*", "{a,b}", "~", "~root", "$HOME", "${PATH}", "$$",
    "$?",
    "!!", "!1", "%s%n", "\\", "\\\\", "'", "\"", "''", "\"\"", "'\"'\"'", "\x01\x02", "\x1b[2J", "\x7f", "a\u202eb",
    "\u2028", "\ufeff", "grüße 世界", "😀", "=x", "a=b", "LD_PRELOAD=/x", "2>canary", "<canary", "../../etc/passwd",
    "/dev/null", "x" * 4096, "\u00a0", "a\\nb", "^x^y", "a;", "&", "|", ">", "<", "(", ")", "`", "$(", "${", "#",
)  # fmt: skip

CORPUS = tuple(around.format(command) for around in _AROUND for command in _COMMANDS) + _OPTIONS + _OTHERS
IMPOSSIBLE = ("\0", "a\0b", "x\0; touch canary", "\ud800", "a\udfffb", "y" * 200_000)
