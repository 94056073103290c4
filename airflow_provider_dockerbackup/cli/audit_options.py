# SPDX-License-Identifier: Apache-2.0
"""Options of the verbs below ``dockerbackup audit``."""

from __future__ import annotations

from pathlib import Path

import click

from airflow_provider_dockerbackup.core.audit.proof import Anchor, parse_anchors
from airflow_provider_dockerbackup.exceptions import ConfigurationError

key_option = click.option(
    "--public-key",
    "key_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Trusted Ed25519 public key, PEM or OpenSSH; may be repeated.",
)
anchors_option = click.option(
    "--anchors", "anchors_file", type=click.Path(path_type=Path), help="File of digests that must be there."
)


def anchors_of(path: Path | None) -> tuple[Anchor, ...]:
    """Return the anchors in a file; none without one.

    :raises ConfigurationError: when it cannot be read, and names the line that is none.
    """
    if path is None:
        return ()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigurationError(f"anchors {path} cannot be read: {err}") from err
    return parse_anchors(text, where=str(path))
