# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, driven by its own protocol, and axe-core to examine what it shows."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal, cast

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.lab.install import ensure_programs, require_program
from tests.lab.processes import wait_until

Scheme = Literal["light", "dark"]
_AXE: Final = "axe-core@4.14.1"
_CACHE: Final = Path("~/.cache/airflow-provider-dockerbackup-lab").expanduser()
_OPTIONS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--remote-debugging-port=0", "--remote-debugging-address=127.0.0.1"),
)
_PATIENCE: Final = 60.0


def axe_script() -> str:
    """Return axe-core, fetched from its registry once and then kept."""
    kept = _CACHE / f"{_AXE}.js"
    if not kept.exists():
        ensure_programs({"npm": "npm"})
        _CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
            pack = ["npm", "pack", "--silent", "--pack-destination", folder, _AXE]
            subprocess.run(pack, check=True, capture_output=True)
            (packed,) = Path(folder).glob("*.tgz")
            with tarfile.open(packed) as archive:
                script = archive.extractfile("package/axe.min.js")
                assert script is not None
                (Path(folder) / "axe.js").write_bytes(script.read())
            (Path(folder) / "axe.js").rename(kept)
    return kept.read_text(encoding="utf-8")


class Page:
    """One tab.

    :param socket: to its debugger.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self._events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return what a method of the protocol answers."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=_PATIENCE))
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return cast("dict[str, Any]", message["result"])
            self._events.append(message)

    def open(self, url: str) -> None:
        """Go to a page and return when it is loaded."""
        self.expect_load()
        self.call("Page.navigate", url=url)
        self.loaded()

    def expect_load(self) -> None:
        """Forget what happened until now: the next page is the one that :meth:`loaded` waits for."""
        self._events.clear()

    def loaded(self) -> None:
        """Return when the page has loaded."""
        while not any(each.get("method") == "Page.loadEventFired" for each in self._events):
            self._events.append(json.loads(self._socket.recv(timeout=_PATIENCE)))

    def evaluate(self, expression: str, *, frame: str | None = None) -> Any:
        """Return the value of a JavaScript expression, in the page or in one of its frames.

        :param frame: the beginning of that frame's path.
        """
        where = {} if frame is None else {"contextId": self._world(frame)}
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, **where)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression[:80]}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def frames(self) -> list[dict[str, Any]]:
        """Return the page's frames."""
        tree = self.call("Page.getFrameTree")["frameTree"]
        return [each["frame"] for each in tree.get("childFrames", ())]

    def _world(self, path: str) -> int:
        (frame,) = [each for each in self.frames() if httpx.URL(each["url"]).path.startswith(path)]
        world = self.call("Page.createIsolatedWorld", frameId=frame["id"])
        return int(world["executionContextId"])

    def log_in(self, url: str, token: str) -> None:
        """Have the cookie that Airflow's own login sets."""
        self.call("Network.setCookie", url=url, name="_token", value=token, path="/")

    def show(self, scheme: Scheme | None, *, width: int = 1280, height: int = 900) -> None:
        """Be light or dark, or with None what the browser is by itself and pages make of their frames."""
        features = [] if scheme is None else [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def save_downloads(self, folder: Path) -> None:
        """Put what pages let be saved into a folder, from now on."""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def allow_scripts(self, *, allowed: bool) -> None:
        """Run scripts of pages, or none, from now on."""
        self.call("Emulation.setScriptExecutionDisabled", value=not allowed)

    def press(self, key: str, *, code: int, text: str = "") -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text=text)

    def complaints(self) -> list[str]:
        """Return what the browser noted of the page: refused by its policy, missing, wrong."""
        self.evaluate("0")
        return [each["params"]["entry"]["text"] for each in self._events if each.get("method") == "Log.entryAdded"]

    def picture(self) -> bytes:
        """Return what is seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def findings(self, *, frame: str | None = None) -> list[str]:
        """Return what axe-core finds wrong, each with the places."""
        self.evaluate(axe_script() + "; 0", frame=frame)
        found = self.evaluate(
            "axe.run().then(r => r.violations"
            ".map(v => v.id + ': ' + v.nodes.map(n => n.target.join(' ') + ' ' + n.failureSummary).join(' | ')))",
            frame=frame,
        )
        return cast("list[str]", found)


@contextmanager
def browser() -> Iterator[Page]:
    """Give a tab of a Chromium of its own; the program and axe-core are installed if they are missing."""
    ensure_programs({"chromium": "chromium"})
    axe_script()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [str(require_program("chromium")), *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            told = Path(profile) / "DevToolsActivePort"
            if not wait_until(lambda: told.exists() and "\n" in told.read_text(), seconds=_PATIENCE):
                raise TimeoutError("chromium did not start")
            port = told.read_text(encoding="ascii").splitlines()[0]
            targets = httpx.get(f"http://127.0.0.1:{port}/json/list", timeout=_PATIENCE).json()
            (target,) = [each for each in targets if each["type"] == "page"]
            # No pings: while nobody reads, events fill the queue, and the answers behind them would be missed.
            with connect(
                target["webSocketDebuggerUrl"], max_size=None, open_timeout=_PATIENCE, ping_interval=None
            ) as socket:
                yield Page(socket)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(profile, ignore_errors=True)
