# SPDX-License-Identifier: Apache-2.0
"""Hostile and broken archives: refused by name and rule in little memory, or exactly the recorded image."""

from __future__ import annotations

import re
import tracemalloc

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.docker_archive import require_image
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.reading import archive_stream
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import IntegrityError
from tests.core.archive.making import IMAGES, golden, scan
from tests.core.world import CONTAINER, IMAGE, World, spoil
from tests.hostile.craft import CASES, DIFF_IDS, IMAGE_ID, Case
from tests.hostile.figures import PAGE, rows_of

MEMORY_BYTES = 64 << 20
BLOCK = 512


def refusal(data: bytes) -> str:
    """Receive an archive as a save does; return why it is refused, nothing when it is the recorded image."""
    try:
        require_image(scan(data), image_id=IMAGE_ID, diff_ids=DIFF_IDS)
    except IntegrityError as err:
        return str(err)
    return ""


def test_there_are_enough_of_them() -> None:
    """Each with a name and bytes of its own."""
    assert len(CASES) > 100
    assert len({each.name for each in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda each: each.name)
def test_an_archive_is_refused_by_name_or_is_the_recorded_image(case: Case) -> None:
    """Nothing but an IntegrityError, one line that names member or place, and bounded memory."""
    data = case.make()
    tracemalloc.start()
    try:
        told = refusal(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES
    assert case.accepted == (told == ""), told
    if not case.accepted:
        assert case.named in told
        assert re.search(r"at byte \d+|member|layer|manifest|index|image|configuration|blobs/|oci-layout|[.]json", told)
        assert told.isprintable()


def test_the_page_lists_every_case_and_what_becomes_of_it_here() -> None:
    """The figures for Docker are measured when the page is written; ours are measured now."""
    ours = {case.name: "refused" if refusal(case.make()) else "as recorded" for case in CASES}
    page = PAGE.read_text(encoding="utf-8")
    assert {name: row[1] for name, row in rows_of(page).items()} == ours
    assert f"{len(ours)} archives" in page


@pytest.mark.parametrize("name", IMAGES)
def test_a_real_archive_cut_at_any_block_is_refused(name: str) -> None:
    """Only the second of the two zero blocks that end a tar, and what follows it, may be missing."""
    data = golden(name)
    end = len(data.rstrip(b"\0"))
    last = end + -end % BLOCK + 2 * BLOCK
    for size in range(0, len(data), BLOCK):
        if size < last:
            with pytest.raises(IntegrityError):
                scan(data[:size])


def proven(repository: Repository, backup: Backup) -> bool:
    """Read a backup as level ``digests`` does."""
    try:
        with archive_stream(repository, backup) as tar:
            for _ in tar:
                pass
    except IntegrityError:
        return False
    return True


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["image", "container"])
def test_every_flipped_bit_and_every_cut_of_a_backup_is_found_without_a_daemon(
    source: Source, compression: Compression
) -> None:
    """A bit of every byte of the whole archive, headers, documents, layers and padding alike; every block cut off."""
    world = World()
    backup = world.backup(1, source, compression=compression).backup
    path = backup.path + backup.whole().archive_file.name
    good = world.storage.read(path)
    repository = world.repository
    assert proven(repository, backup)
    for position in range(len(good)):
        changed = bytearray(good)
        changed[position] ^= 1 << position % 8
        spoil(world.storage, path, data=bytes(changed))
        assert not proven(repository, backup), position
    for size in {*range(0, len(good), BLOCK), len(good) - 1}:
        spoil(world.storage, path, data=good[:size])
        assert not proven(repository, backup), size
    spoil(world.storage, path, data=good)
    assert proven(repository, backup)


def test_a_damaged_backup_fails_its_verification_at_level_digests() -> None:
    """For a sample of the bits above: the verification says so and is kept."""
    world = World()
    backup = world.backup(1).backup
    path = backup.path + backup.whole().archive_file.name
    for position in range(0, backup.whole().archive_file.stored_size_bytes, 307):
        spoil(world.storage, path, position=position)
        found = world.verify(backup, "digests")
        assert (found.verification, found.daemon) == ("failed", None)
        spoil(world.storage, path, position=position)
    assert world.again(backup).trust == "failed"
