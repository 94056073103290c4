# SPDX-License-Identifier: Apache-2.0
"""What each piece passes that is read from the source: it is counted for the reader, and held up to a limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.throttle import Throttle


class Passage:
    """Lets bytes pass.

    :param throttle: how many a second.
    :param progress: told how many.
    """

    def __init__(self, *, throttle: Throttle, progress: Progress) -> None:
        self.throttle = throttle
        self.progress = progress

    def of(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces as they are."""
        for chunk in chunks:
            yield chunk
            self.progress.advance(len(chunk))
            self.throttle.passed(len(chunk))
