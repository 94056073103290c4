# SPDX-License-Identifier: Apache-2.0
"""Copies from and into repositories whose backups are encrypted."""

from __future__ import annotations

import pytest

from airflow_provider_dockerbackup.core.copies.copy import CopyRequest, copy, target_on
from airflow_provider_dockerbackup.core.encryption.identity import Identities
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient
from airflow_provider_dockerbackup.core.reading import archive_stream, container_bytes
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.memory import MemoryStorage, MemoryTestDaemon
from tests.core.copies.making import Copies
from tests.core.encryption.keys import age_pair
from tests.core.world import FILESYSTEM, IMAGE, assert_all_whole, contents, docker_host, paths, spoil

ANN, BEN, EVE, MAX = age_pair(), age_pair(), age_pair(), age_pair()
BOTH = (ANN.recipient, BEN.recipient)
OTHERS = (BEN.recipient, EVE.recipient)
LAYOUTS = pytest.mark.parametrize("layout", ["archive", "layers"])


def _sealed(layout: str, *, into: str | None = None, identities: Identities | None = None) -> Copies:
    """Return a filled source that is encrypted to Ann and Ben."""
    return Copies(layout, into=into, recipients=BOTH, identities=identities).fill()


def _seen(made: Copies, identities: Identities) -> Repository:
    """Return the target as somebody with these keys sees it."""
    return Repository.open(made.target, clock=made.clock, identities=lambda: identities)


def _require_same_content(made: Copies, target: Repository, *, sealed: bool = True) -> None:
    source = Repository.open(made.world.storage, clock=made.clock, identities=lambda: ANN.identities)
    for backup in assert_all_whole(target):
        assert backup.whole().encryption == ("age" if sealed else "none")
        if backup.whole().container is not None:
            with archive_stream(target, backup) as tar:
                assert b"".join(tar) == FILESYSTEM
            assert container_bytes(target, backup) == container_bytes(source, source.catalog.find(backup.backup_id))
    assert not any(b"port = 80" in data or b"ustar" in data for data in contents(made.target, "").values())


@LAYOUTS
def test_for_the_same_recipients_ciphertext_goes_as_it_is_and_nobody_needs_a_key(layout: str) -> None:
    """A new target has the recipients of the source; either of them reads it."""
    made = _sealed(layout)
    assert made.states() == ["copied"] * 3
    target = _seen(made, BEN.identities)
    assert target.recipients == made.world.repository.recipients
    _require_same_content(made, target)
    if layout == "layers":
        assert contents(made.target, "blobs") == contents(made.world.storage, "blobs")
    for backup in target.catalog.backups():
        assert made.world.verify(backup, repository=target, daemon=MemoryTestDaemon()).verification == "passed"
    assert made.states() == ["already"] * 3


def test_layers_of_an_encrypted_copy_are_found_by_later_backups_in_the_target() -> None:
    """What stands for a layer in names differs between repositories: it is that of the target."""
    made = _sealed("layers")
    made.run()
    assert paths(made.target, prefix="layers").isdisjoint(paths(made.world.storage, prefix="layers"))
    other = IMAGE.model_copy(update={"host": "ship-2"})
    host = docker_host("ship-2")
    blobs = made.world.backup(9, other, repository=_seen(made, ANN.identities), host=host).backup.whole().blobs
    copied = _seen(made, ANN.identities).catalog.backups(source=IMAGE)[-1].whole().blobs
    assert blobs is not None
    assert copied is not None
    assert blobs.layers == copied.layers


@LAYOUTS
def test_of_two_encrypted_copies_only_the_missing_blobs_travel(layout: str) -> None:
    """A second run after another backup reads no byte of what was there."""
    made = _sealed(layout)
    made.run()
    before = contents(made.target, "blobs")
    made.world.backup(8)
    assert made.states() == ["copied", "already", "already", "already"]
    after = contents(made.target, "blobs")
    assert before.items() <= after.items()
    if layout == "layers":
        assert len(after) == len(before) + 2  # a configuration and a manifest, encrypted anew by the source
    _require_same_content(made, _seen(made, BEN.identities))


@LAYOUTS
def test_a_flipped_byte_of_ciphertext_is_noticed_without_a_key(layout: str) -> None:
    """The record has the digest of what is stored."""
    made = _sealed(layout)
    newest = made.world.repository.catalog.backups(source=IMAGE)[0]
    blobs = newest.whole().blobs
    path = f"blobs/sha256/{blobs.layers[1].digest[7:]}" if blobs else newest.path + newest.whole().archive_file.name
    spoil(made.world.storage, path)
    assert [each.decision.path for each in made.run().failed] == [newest.path]
    _require_same_content(made, _seen(made, BEN.identities))


@pytest.mark.parametrize(
    ("layout", "into", "recipients"),
    [
        ("archive", "archive", OTHERS),
        ("layers", "layers", OTHERS),
        *(
            (layout, into, to)
            for layout, into in (("archive", "layers"), ("layers", "archive"))
            for to in (BOTH, OTHERS)
        ),
    ],
)
def test_what_does_not_go_as_it_is_needs_a_key_of_the_source_alone(
    layout: str, into: str, recipients: tuple[Recipient, ...]
) -> None:
    """Other recipients, or another layout: without a key nothing is written, with it everything comes."""
    request = CopyRequest(layout=into, recipients=recipients)
    for identities in (None, MAX.identities):
        made = _sealed(layout, into=into, identities=identities)
        with pytest.raises(ConfigurationError, match="in another layout or for other recipients, is encrypted to"):
            made.run(request)
        assert paths(made.target, prefix="") == set()
    made = _sealed(layout, into=into, identities=ANN.identities)
    assert made.states(request) == ["copied"] * 3
    target = _seen(made, BEN.identities)
    assert set(target.recipients) == {each.fingerprint for each in recipients}
    _require_same_content(made, target)
    assert made.states(request) == ["already"] * 3


@pytest.mark.parametrize("into", ["archive", "layers"])
@LAYOUTS
def test_what_is_plain_is_encrypted_by_a_copy_without_any_private_key(layout: str, into: str) -> None:
    """As by a save: the worker that copies needs no secret."""
    made = Copies(layout, into=into).fill()
    assert made.states(CopyRequest(layout=into, recipients=BOTH)) == ["copied"] * 3
    _require_same_content(made, _seen(made, BEN.identities))


def test_what_is_encrypted_does_not_get_plain_by_a_copy() -> None:
    """Nor is a target taken that has other recipients than those asked for."""
    made = _sealed("archive", identities=ANN.identities)
    plain = Repository.open_or_create(MemoryStorage(), clock=made.clock)
    with pytest.raises(ConfigurationError, match="in the target they would not be"):
        copy(CopyRequest(), source=made.world.repository, target=plain, progress=made.world.progress)
    assert paths(plain.storage, prefix="") == {"repository.json"}
    sealed = Repository.open_or_create(MemoryStorage(), clock=made.clock, recipients=BOTH)
    request = CopyRequest(recipients=(ANN.recipient, EVE.recipient))
    with pytest.raises(ConfigurationError, match="recipients are fixed"):
        target_on(sealed.storage, request, source=made.world.repository)
