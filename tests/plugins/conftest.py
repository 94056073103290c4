# SPDX-License-Identifier: Apache-2.0
"""Airflow's API server in this process, with two users and two repositories."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.core.world import CONTAINER, IMAGE, World


class LivingClock(SystemClock):
    """The real clock, for what a page says of now."""

    def advance(self, duration: object) -> None:
        """Let no time pass."""


@dataclass(kw_only=True)
class Site:
    """The API server's application and what its page shows.

    :param client: of nobody.
    :param worlds: by the name of the repository.
    """

    client: Any
    worlds: dict[str, World]
    tokens: dict[str, str]
    url: dict[str, str]

    def get(self, path: str, *, user: str | None = "viewer", **query: Any) -> Any:
        """Return the answer to a user; None is nobody."""
        headers = {"Authorization": f"Bearer {self.tokens[user]}"} if user else {}
        return self.client.get(f"/dockerbackup/{path}", headers=headers, params=query or None)

    def shown(self, path: str, **query: Any) -> str:
        """Return a page once the indexes are up to date."""
        deadline = time.monotonic() + 60
        while True:
            answer = self.get(path, **query)
            assert answer.status_code == 200, answer.text
            if "not read to its end yet" not in answer.text or time.monotonic() > deadline:
                return str(answer.text)


def world_at(url: str) -> World:
    """Return a repository on disk with two backups of an image, one verified, and one of a container."""
    world = World(storage=storage_from_url(url), clock=LivingClock())  # type: ignore[arg-type]
    first = world.backup(1).backup
    world.backup(2)
    world.verify(world.again(first))
    world.backup(3, CONTAINER)
    return world


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The application that Airflow serves, with our plugin in it."""
    folder = tmp_path_factory.mktemp("site")
    urls = {name: f"file://{folder}/{name}" for name in ("main", "second")}
    worlds = {name: world_at(url) for name, url in urls.items()}
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps({"viewer": "v", "nobody": "n"}), encoding="ascii")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "DOCKERBACKUP__REPOSITORIES": ", ".join(f"{name}={url}" for name, url in urls.items()),
            "DOCKERBACKUP__PAGE_INDEX_FOLDER": str(folder / "index"),
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "viewer:viewer,nobody:",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "API_AUTH__JWT_SECRET": "0123456789abcdef" * 5,
        }.items():
            patch.setenv(f"AIRFLOW__{name}", value)
        yield _served(worlds, urls)


def _served(worlds: dict[str, World], urls: dict[str, str]) -> Site:
    # Airflow looks up each token there: was it revoked?
    subprocess.run([Path(sys.executable).parent / "airflow", "db", "migrate"], check=True, capture_output=True)
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    client = TestClient(create_app(apps="core"), base_url="http://127.0.0.1")
    tokens = {}
    for user in ("viewer", "nobody"):
        answer = client.post("/auth/token", json={"username": user, "password": user[0]})
        tokens[user] = answer.json()["access_token"]
    return Site(client=client, worlds=worlds, tokens=tokens, url=urls)


IMAGE_QUERY = {"repository": "main", "host": IMAGE.host, "kind": "image", "name": IMAGE.name}
