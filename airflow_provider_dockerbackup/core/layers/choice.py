# SPDX-License-Identifier: Apache-2.0
"""Push or save? What each would cost, from what the repository holds and what the engine knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from airflow_provider_dockerbackup.core.model import Store
from airflow_provider_dockerbackup.exceptions import ConfigurationError

Way = Literal["push", "save"]
CaptureChoice = Literal["auto", "push", "save"]

# Orders of magnitude, measured: a classic store compresses with one thread for a push and writes the whole image to its
# disk for a save; a containerd store sends its compressed blobs as they are, and reads them slowly for a save.
_PUSH_BYTES_PER_SECOND = {"graphdriver": 40e6, "containerd": 150e6}
_SAVE_BYTES_PER_SECOND = {"graphdriver": 150e6, "containerd": 50e6}
_LINE_BYTES_PER_SECOND = 100e6
# A push that teaches the engine may cost this many times the save; from the second change on, each push then saves it.
_LESSON = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is known before an image is fetched.

    :param store: how the engine keeps images.
    :param missing_bytes: layers that are not held, uncompressed.
    :param known_bytes: layers that are held, and that the engine is known to call by a digest we know.
    :param unknown_bytes: layers that are held, and that it would send all the same in a push.
    :param earlier: how many backups of the source there are.
    """

    store: Store
    missing_bytes: int
    known_bytes: int
    unknown_bytes: int
    earlier: int

    @property
    def push_seconds(self) -> float:
        """What a push would take, about."""
        return (self.missing_bytes + self.unknown_bytes) / _PUSH_BYTES_PER_SECOND[self.store]

    @property
    def save_seconds(self) -> float:
        """What a filtered save would take, about."""
        everything = self.missing_bytes + self.known_bytes + self.unknown_bytes
        return everything / _SAVE_BYTES_PER_SECOND[self.store] + self.missing_bytes / _LINE_BYTES_PER_SECOND


def check_capture(capture: str) -> None:
    """Refuse a way of fetching that there is not.

    :raises ConfigurationError: names those that there are.
    """
    if capture not in get_args(CaptureChoice):
        raise ConfigurationError(f"capture: expected one of {', '.join(get_args(CaptureChoice))}, got {capture!r}")


def choose(outlook: Outlook) -> tuple[Way, str]:
    """Return how to fetch an image, and why, as the end of a sentence."""
    push, save = outlook.push_seconds, outlook.save_seconds
    about = f"about {push:.1f} s by push, {save:.1f} s by save"
    if push <= save:
        return "push", about
    if outlook.earlier >= 2 and outlook.unknown_bytes and push <= _LESSON * save:
        return "push", f"{about}; the source keeps changing, and after one push the engine knows what need not be sent"
    return "save", about
