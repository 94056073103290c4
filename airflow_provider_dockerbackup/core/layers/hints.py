# SPDX-License-Identifier: Apache-2.0
"""Read by which digests engines are known to call layers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from airflow_provider_dockerbackup.core.layers.documents import EngineHint, hint_path, hints_folder
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import IntegrityError, NotFoundError


def hints_of(
    repository: Repository, engine_id: str, diff_ids: Iterable[str], *, most: int | None = None
) -> list[EngineHint]:
    """Return by which digests an engine is known to call some layers; what cannot be read is passed over.

    :param diff_ids: those of the layers themselves, also in an encrypted repository.
    :param most: how many are read of a layer; None for all.
    """
    found = []
    for diff_id in dict.fromkeys(diff_ids):
        name = repository.layer_name(diff_id)
        for info in islice(repository.storage.list(hints_folder(engine_id, name)), most):
            try:
                hint = EngineHint.from_bytes(repository.storage.read(info.path), where=info.path)
            except (IntegrityError, NotFoundError):
                continue
            if (hint.engine_id, hint.diff_id, hint_path(hint)) == (engine_id, name, info.path):
                found.append(hint.model_copy(update={"diff_id": diff_id}))
    return found
