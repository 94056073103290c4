# SPDX-License-Identifier: Apache-2.0
"""Conversion from and into repositories whose backups are encrypted."""

from __future__ import annotations

import pytest

from airflow_provider_dockerbackup.core.convert import ConvertRequest, convert
from airflow_provider_dockerbackup.core.encryption.identity import Identities
from airflow_provider_dockerbackup.core.reading import archive_stream, container_bytes
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from tests.core.conversion.making import OTHER, Conversion
from tests.core.encryption.keys import age_pair
from tests.core.world import FILESYSTEM, World, assert_all_whole, contents, paths

ANN, BEN, EVE = age_pair(), age_pair(), age_pair()
BOTH = (ANN.recipient, BEN.recipient)


def _sealed(made: Conversion, identities: Identities | None) -> Repository:
    """Return the target, encrypted, as somebody with these keys sees it."""
    Repository.open_or_create(made.target, clock=made.clock, layout=OTHER[made.layout], recipients=BOTH)
    return Repository.open(made.target, clock=made.clock, identities=lambda: identities)


@pytest.mark.parametrize("layout", ["archive", "layers"])
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "encrypted"])
def test_backups_go_into_an_encrypted_repository_and_are_read_back_from_there(layout: str, plain: bool) -> None:
    """The record says to whom; nothing stands there in plain, and whoever has a key gets every byte."""
    made = Conversion(layout=layout)
    if not plain:
        made.world = World(clock=made.clock, layout=layout, recipients=BOTH, identities=ANN.identities)
    made.fill()
    target = _sealed(made, BEN.identities)
    source = made.world.repository
    outcome = convert(ConvertRequest(layout=OTHER[layout]), source=source, target=target, progress=made.world.progress)
    assert outcome.failed == ()
    for backup in assert_all_whole(target):
        record = backup.whole()
        assert (record.encryption, record.recipients) == ("age", tuple(each.fingerprint for each in BOTH))
        assert backup.trust == "checked"
        if record.container is not None:
            with archive_stream(target, backup) as tar:
                assert b"".join(tar) == FILESYSTEM
            assert container_bytes(target, backup) == container_bytes(source, source.catalog.find(backup.backup_id))
    assert not any(b"port = 80" in data or b"ustar" in data for data in contents(made.target, "").values())
    again = convert(ConvertRequest(layout=OTHER[layout]), source=source, target=target, progress=made.world.progress)
    assert {each.state for each in again.results} == {"already"}


@pytest.mark.parametrize("identities", [None, EVE.identities], ids=["none", "another"])
def test_what_could_not_be_read_back_is_not_written(identities: Identities | None) -> None:
    """Without a private key of the target nobody could say that its backups are whole."""
    made = Conversion(layout="layers")
    made.fill()
    target = _sealed(made, identities)
    before = paths(made.target, prefix="")
    with pytest.raises(ConfigurationError, match="is encrypted to the recipients"):
        convert(
            ConvertRequest(layout="archive"), source=made.world.repository, target=target, progress=made.world.progress
        )
    assert paths(made.target, prefix="") == before


def test_what_is_encrypted_does_not_get_plain_by_a_conversion() -> None:
    """Whoever wants that says so, by another way."""
    world = World(recipients=BOTH, identities=ANN.identities)
    world.backup(1)
    target = Repository.open_or_create(MemoryStorage(), clock=world.clock, layout="layers")
    for into in (None, target):
        with pytest.raises(ConfigurationError, match="in the target they would not be"):
            convert(ConvertRequest(layout="layers"), source=world.repository, target=into, progress=world.progress)
    assert paths(target.storage, prefix="") == {"repository.json"}
