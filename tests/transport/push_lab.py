# SPDX-License-Identifier: Apache-2.0
"""Pushes from real hosts, targets that hold them where a test wants it, and images as an OCI layout."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_provider_dockerbackup.core.push import PushResult
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from airflow_provider_dockerbackup.transport.memory import MemoryBlobUpload, MemoryPushTarget
from tests.contract.archives import digest
from tests.lab.daemon import LabDaemon

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_attempts: list[str] = []


def push(host: SshDockerHost, reference: str, target: MemoryPushTarget, *, repository: str = "nightly") -> PushResult:
    """Push one image, as another attempt each time."""
    image = host.inspect_image(reference)
    _attempts.append(uuid.uuid4().hex[:12])
    return host.push_image(image.id, target=target, repository=repository, attempt=_attempts[-1])


class HeldUpload(MemoryBlobUpload):
    """An upload that stands still at its first piece until it may go on."""

    held: threading.Event
    go_on: threading.Event

    def write(self, data: bytes | memoryview) -> None:
        """Say that something came, and wait."""
        self.held.set()
        self.go_on.wait(60)
        super().write(data)


class HeldTarget(MemoryPushTarget):
    """A target in the midst of a push for as long as a test wants."""

    def __init__(self, blobs: dict[str, bytes] | None = None) -> None:
        super().__init__(blobs)
        self.held = threading.Event()
        self.go_on = threading.Event()

    def upload(self) -> HeldUpload:
        """Begin a blob."""
        upload = HeldUpload(self._keep)
        upload.held, upload.go_on = self.held, self.go_on
        self.uploads.append(upload)
        return upload


class Running:
    """A push in a thread, and what came of it."""

    def __init__(self, work: Callable[[], PushResult]) -> None:
        self.result: PushResult | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], PushResult]) -> None:
        try:
            self.result = work()
        except BaseException as err:  # noqa: BLE001 - shown by the test
            self.error = err

    def join(self, seconds: float = 60) -> BaseException | None:
        """Wait for the end and give the error."""
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        return self.error


def names(daemon: LabDaemon) -> list[str]:
    """Give all names of ours that images have on a host, digests included."""
    listed = daemon.docker("image", "ls", "--all", "--no-trunc", "--format", "{{.ID}}").stdout.decode().split()
    shown = "{{range .RepoTags}}{{println .}}{{end}}{{range .RepoDigests}}{{println .}}{{end}}"
    lines = [
        daemon.docker("image", "inspect", each, "--format", shown).stdout.decode() for each in dict.fromkeys(listed)
    ]
    return sorted({line for line in "".join(lines).split() if line.startswith("127.0.0.1:")})


def directories() -> list[Path]:
    """Give the client configurations that are there, of pushes that were begun here."""
    return sorted(path for each in _attempts for path in Path("/tmp").glob(f"dockerbackup-push-{each}_*"))


def wait_for(condition: Callable[[], bool], *, seconds: float = 20) -> bool:
    """Wait until something holds, and tell whether it does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class OciLayout:
    """An image as an OCI layout, blob by blob."""

    def __init__(self) -> None:
        self._members: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def add(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Put a blob in and give its descriptor."""
        self._members[f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}

    def image(self, layers: Sequence[bytes], *, architecture: str = "amd64", foreign: bool = False) -> dict[str, Any]:
        """Put an image with gzip layers in and give its manifest's descriptor.

        :param foreign: the layers are of the kind that registries may not give on.
        """
        diff_ids = [digest(layer) for layer in layers]
        config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        config["config"] = {"Cmd": ["/a"]}
        compressed = [gzip.compress(layer, mtime=0) for layer in layers]
        kind = "layer.nondistributable" if foreign else "layer"
        blobs = [self.add(each, f"application/vnd.oci.image.{kind}.v1.tar+gzip") for each in compressed]
        platform = {"architecture": architecture, "os": "linux"}
        return self._manifest(_json(config), "application/vnd.oci.image.config.v1+json", blobs, platform=platform)

    def attestation(self, of: Mapping[str, Any]) -> dict[str, Any]:
        """Put what BuildKit says of an image in and give its manifest's descriptor."""
        statement = self.add(b'{"_type":"https://in-toto.io/Statement/v0.1"}', "application/vnd.in-toto+json")
        config = {"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": {"type": "layers"}}
        config["rootfs"] = {"type": "layers", "diff_ids": [statement["digest"]]}
        notes = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of["digest"]}
        unknown = {"architecture": "unknown", "os": "unknown"}
        media_type = "application/vnd.oci.image.config.v1+json"
        return {**self._manifest(_json(config), media_type, [statement], platform=unknown), "annotations": notes}

    def index(self, *manifests: Mapping[str, Any]) -> dict[str, Any]:
        """Put an index in and give its descriptor."""
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}
        return self.add(_json(index), OCI_INDEX)

    def without(self, *descriptors: Mapping[str, Any]) -> None:
        """Take blobs out again."""
        for each in descriptors:
            del self._members[f"blobs/sha256/{each['digest'].removeprefix('sha256:')}"]

    def archive(self, top: Mapping[str, Any], *, tag: str) -> bytes:
        """Give it as the archive that ``docker load`` reads, with a name for its top."""
        notes = {"io.containerd.image.name": f"docker.io/{tag}", "org.opencontainers.image.ref.name": tag.split(":")[1]}
        named = {**top, "annotations": notes}
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [named]}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in {**self._members, "index.json": _json(index)}.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    def _manifest(
        self, config: bytes, media_type: str, layers: Sequence[Mapping[str, Any]], *, platform: Mapping[str, str]
    ) -> dict[str, Any]:
        described = self.add(config, media_type)
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": list(layers)}
        return self.add(_json(manifest), OCI_MANIFEST, platform=dict(platform))


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
