# SPDX-License-Identifier: Apache-2.0
"""The page's repositories and their indexes: one that is out of order hides no other, and says what is wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.hold import HoldRequest, hold_backup
from airflow_provider_dockerbackup.core.page.fleet import Filters
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import DockerBackupError, TransientError
from airflow_provider_dockerbackup.plugins.repositories import ShownRepository, configured
from airflow_provider_dockerbackup.plugins.views import PAGE_LENGTH, backup_view, chosen, fleet_view, source_view
from tests.core.world import HOST, IMAGE, World
from tests.plugins.conftest import world_at
from tests.plugins.fleet import Fleet, make_fleet


@pytest.fixture
def worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, World]]:
    """Two repositories that the page shows."""
    urls = {name: f"file://{tmp_path}/{name}" for name in ("main", "second")}
    show(monkeypatch, tmp_path, **urls)
    yield {name: world_at(url) for name, url in urls.items()}
    settled()


def show(monkeypatch: pytest.MonkeyPatch, folder: Path, **urls: str) -> None:
    """Have the page show these repositories."""
    named = ", ".join(f"{name}={url}" for name, url in urls.items())
    monkeypatch.setenv("AIRFLOW__DOCKERBACKUP__REPOSITORIES", named)
    monkeypatch.setenv("AIRFLOW__DOCKERBACKUP__PAGE_INDEX_FOLDER", str(folder / "index"))


def settled() -> None:
    """Have every index read what there is."""
    for each in configured().repositories:
        try:
            with each.index():
                pass
        finally:
            each.wait()


def shown_problems() -> dict[str, str]:
    """Return what the fleet's page says to be wrong, by the name of the repository."""
    return {each.name: standing.problem for each, _, standing in fleet_view(Filters(), number=1)["standings"]}


def test_a_damaged_index_hides_no_other_repository_and_is_made_anew_at_once(worlds: dict[str, World]) -> None:
    """A page says so, a CSV is refused: it has no place for it."""
    assert set(worlds) == {"main", "second"}
    settled()
    first = configured().repositories[0]
    for suffix in ("-wal", "-shm"):
        Path(f"{first._file.path}{suffix}").unlink(missing_ok=True)
    first._file.path.write_bytes(b"no database" * 1000)
    problems = shown_problems()
    assert "cannot be read" in problems["main"]
    assert problems["second"] == ""
    first._file.path.write_bytes(b"no database" * 1000)
    with pytest.raises(DockerBackupError, match="cannot be read"):
        chosen(Filters())
    assert {row.repository for row in chosen(Filters(repository="second"))} == {"second"}
    first._due = float("-inf")
    settled()
    assert shown_problems() == {"main": "", "second": ""}
    assert {row.repository for row in chosen(Filters())} == {"main", "second"}


def test_a_repository_that_is_not_there_says_so_beside_the_others(
    worlds: dict[str, World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its storage may be away for an hour; a CSV without it would look whole."""
    assert worlds
    show(monkeypatch, tmp_path, main=f"file://{tmp_path}/main", gone=f"file://{tmp_path}/gone")
    settled()
    problems = shown_problems()
    assert problems["main"] == ""
    assert "gone" in problems["gone"]
    assert len(fleet_view(Filters(), number=1)["rows"]) == 2
    with pytest.raises(DockerBackupError, match="gone"):
        chosen(Filters())


class Failing(ShownRepository):
    """A repository behind a library that fails in its own way, once."""

    failure: Exception | None = None

    def open(self) -> Repository:
        """Return it, or fail."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return super().open()


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (ValueError("key=hunter2"), "ValueError; see the log of the API server"),
        (TransientError("the store is away"), "the store is away"),
    ],
)
def test_a_refresh_that_fails_is_told_without_a_librarys_words_until_one_succeeds(
    tmp_path: Path, failure: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a library says may hold a secret: it is for the log alone, which has all of it."""
    world_at(f"file://{tmp_path}/main")
    shown = Failing("main", f"file://{tmp_path}/main", folder=tmp_path / "index")
    shown.failure = failure
    for expected in (said, ""):
        with shown.index():
            pass
        shown.wait()
        assert shown.standing.problem == expected
        shown._due = float("-inf")
    assert ("hunter2" in caplog.text) == ("hunter2" in str(failure))


def test_two_who_look_at_once_wait_for_one_refresh(tmp_path: Path) -> None:
    """The second one begins none of its own."""
    world_at(f"file://{tmp_path}/main")
    held, begun = threading.Event(), threading.Semaphore(0)

    class Held(ShownRepository):
        """A repository that takes its time."""

        def open(self) -> Repository:
            """Return it in the end."""
            begun.release()
            held.wait(60)
            return super().open()

    shown = Held("main", f"file://{tmp_path}/main", folder=tmp_path / "index")
    with ExitStack() as looking:
        indexes = [looking.enter_context(shown.index()) for _ in range(2)]
        assert [each.as_of for each in indexes] == [None, None]
    assert begun.acquire(timeout=60)
    held.set()
    shown.wait()
    with shown.index() as index:
        assert index.as_of is not None
    assert not begun.acquire(blocking=False)


def test_a_long_list_has_pages_and_a_number_beyond_them_is_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every source is on one of them; counts by state are of all."""
    names = [f"app-{number}:1" for number in range(PAGE_LENGTH + 1)]
    make_fleet(tmp_path / "fleet", Fleet(hosts=("web1",), sources=names, backups=1, now=datetime.now(UTC)))
    show(monkeypatch, tmp_path, fleet=str(tmp_path / "fleet"))
    settled()
    pages = [fleet_view(Filters(), number=number) for number in (1, 2)]
    assert [len(page["rows"]) for page in pages] == [PAGE_LENGTH, 1]
    assert {row.source.name for page in pages for row in page["rows"]} == set(names)
    assert [fleet_view(Filters(), number=number)["number"] for number in (-1, 0, 99)] == [1, 1, 2]
    assert sum(fleet_view(Filters(state="ok"), number=1)["counts"].values()) == PAGE_LENGTH + 1


def test_holds_and_folders_out_of_the_catalog_are_on_the_page(worlds: dict[str, World]) -> None:
    """A reader learns why a backup stays, and that there is more in the folder than backups."""
    world = worlds["main"]
    (newest, *_) = world.repository.catalog.backups(source=IMAGE)
    hold_backup(world.repository, newest, HoldRequest(reason="claim 17"), progress=world.progress)
    world.storage.create(world.key(9).path + "image-0123456789ab.tar", b"x")
    settled()
    of = {"host": HOST, "kind": "image", "name": IMAGE.name}
    (held,) = backup_view("main", newest.backup_id, **of)["details"].holds
    assert "claim 17" in held
    assert source_view("main", **of)["aside"] == {"unfinished": 1}
    assert source_view("second", **of)["aside"] == {}


def test_only_the_repository_that_is_asked_for_is_read(worlds: dict[str, World]) -> None:
    """The others may be large, or away."""
    assert worlds
    settled()
    view = fleet_view(Filters(repository="second"), number=1)
    assert [each.name for each, _, _ in view["standings"]] == ["second"]
    assert {row.repository for row in view["rows"]} == {"second"}
