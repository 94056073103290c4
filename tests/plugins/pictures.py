# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.plugins.pictures FOLDER``: the README's pictures of the page, taken anew as PNG files in FOLDER."""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tests.lab.browser import browser
from tests.lab.processes import wait_until
from tests.plugins.fleet import Fleet, make_fleet
from tests.plugins.test_in_a_browser import framed
from tests.scheduler.standalone import Standalone

SHOWN = Path("/srv/dockerbackup")


def main(folder: Path) -> None:
    """Start an Airflow with a made-up fleet and take both pictures.

    :raises FileExistsError: when this machine has a repository where the pictures show one.
    """
    SHOWN.parent.mkdir(exist_ok=True)
    if SHOWN.exists():
        raise FileExistsError(f"{SHOWN} is there; take the pictures on a machine without it")
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        make_fleet(home / "fleet", _FLEET)
        (home / "dags").mkdir()
        SHOWN.symlink_to(home / "fleet")
        try:
            _take(home, folder)
        finally:
            with suppress(FileNotFoundError):
                SHOWN.unlink()


_FLEET = Fleet(
    hosts=("web1", "web2", "db1"),
    sources=("shop/frontend:2.4", "shop/api:7", "postgres:16", "backup-agent:3"),
    backups=14,
    now=datetime.now(UTC),
)


def _take(home: Path, folder: Path) -> None:
    environment = {"AIRFLOW__DOCKERBACKUP__REPOSITORIES": f"main=file://{SHOWN}"}
    with Standalone(home / "home", dags=home / "dags", environment=environment) as airflow, browser() as page:
        page.log_in(airflow.url, airflow.token)
        page.show(None, width=1340, height=690)

        def read() -> bool:
            page.open(f"{airflow.url}/dockerbackup/")
            return "as of" in page.evaluate("document.body.innerText")

        if not wait_until(read, seconds=60, interval=0.5):
            raise TimeoutError(airflow.log())
        page.open(f"{airflow.url}/plugin/image-backups")
        wait_until(lambda: framed(page) and page.evaluate(_READY, frame="/dockerbackup/"), seconds=60)
        (folder / "image-backups.png").write_bytes(page.picture())
        page.show("dark", width=1100, height=760)
        page.open(f"{airflow.url}/dockerbackup/source?repository=main&host=web1&kind=image&name=shop/frontend:2.4")
        page.evaluate("document.querySelector('tbody th a').click()")
        wait_until(lambda: "/backup?" in page.evaluate("location.href") and page.evaluate(_READY), seconds=60)
        page.evaluate("[...document.querySelectorAll('h2')].find(h => h.innerText == 'Verifications').scrollIntoView()")
        (folder / "image-backup-dark.png").write_bytes(page.picture())


_READY = "document.readyState == 'complete' && !!document.querySelector('tbody')"

if __name__ == "__main__":
    main(Path(sys.argv[1]))
