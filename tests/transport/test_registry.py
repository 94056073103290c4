# SPDX-License-Identifier: Apache-2.0
"""The registry that takes a push, held against the rules of the OCI Distribution Specification 1.1.

Each test of the first part is one rule of its sections on pushing; requests are the bytes of a real HTTP client.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.exceptions import DockerBackupError, IntegrityError, NotFoundError, TransientError
from airflow_provider_dockerbackup.transport.memory import MemoryBlobUpload, MemoryPushTarget
from tests.contract.archives import digest, docker_archive, layer
from tests.contract.test_push_target import MANIFEST, Image
from tests.transport.registry_lab import ATTEMPT, CREDENTIAL, NAME, Reply, ServedRegistry, pieces, uploads

BLOB = bytes(range(256)) * 40
OTHER = f"sha256:{'1' * 64}"
BYTES = "application/octet-stream"
UPLOAD = re.compile(rf"/v2/{NAME}/blobs/uploads/[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}")


@pytest.fixture
def served() -> ServedRegistry:
    """An empty registry."""
    return ServedRegistry()


def begun(served: ServedRegistry) -> str:
    """Begin an upload and give its location."""
    reply = served.ask("POST", uploads(), Content_Length="0")
    assert reply.status == 202
    return reply.location


def stored(served: ServedRegistry, reply: Reply, blob: bytes = BLOB) -> None:
    """See that a blob is there now, and that the answer says where."""
    assert (reply.status, reply.location) == (201, f"/v2/{NAME}/blobs/{digest(blob)}")
    assert reply.headers["docker-content-digest"] == digest(blob)
    found = served.ask("HEAD", reply.location)
    assert (found.status, found.headers["content-length"], found.body) == (200, str(len(blob)), b"")
    assert found.headers["docker-content-digest"] == digest(blob)
    assert served.memory.blobs[digest(blob)] == blob


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
def test_support_is_told(served: ServedRegistry, path: str) -> None:
    """end-1: GET /v2/ is answered with 200; engines look for the version's header."""
    reply = served.ask("GET", path)
    assert (reply.status, reply.headers["docker-distribution-api-version"]) == (200, "registry/2.0")


def test_post_then_put(served: ServedRegistry) -> None:
    """end-4a, end-6: 202 with the location of a session that has a UUID; then 201 with the blob's location."""
    location = begun(served)
    assert UPLOAD.fullmatch(location)
    stored(
        served, served.ask("PUT", f"{location}?digest={digest(BLOB)}", BLOB, Content_Type="application/octet-stream")
    )


def test_single_post(served: ServedRegistry) -> None:
    """end-4b: 201 with the blob's location."""
    stored(served, served.ask("POST", f"{uploads()}?digest={digest(BLOB)}", BLOB))


@pytest.mark.parametrize("size_bytes", [1, 7, 4096, 100_000])
def test_a_streamed_blob(served: ServedRegistry, size_bytes: int) -> None:
    """end-5: a PATCH without a range, sent in chunks as classic engines do; then an empty PUT."""
    reply = served.ask("PATCH", begun(served), pieces(BLOB, size_bytes))
    assert (reply.status, reply.headers["range"]) == (202, f"0-{len(BLOB) - 1}")
    stored(served, served.ask("PUT", f"{reply.location}?digest={digest(BLOB)}"))


def test_a_blob_in_chunks(served: ServedRegistry) -> None:
    """end-5, end-6: each chunk where the last one ended; the last may come with the PUT."""
    location = begun(served)
    for begin, end in ((0, 99), (100, 100), (101, 5000)):
        reply = served.ask("PATCH", location, BLOB[begin : end + 1], Content_Range=f"{begin}-{end}")
        assert (reply.status, reply.headers["range"]) == (202, f"0-{end}")
        location = reply.location
    last = f"5001-{len(BLOB) - 1}"
    stored(served, served.ask("PUT", f"{location}?digest={digest(BLOB)}", BLOB[5001:], Content_Range=last))


def test_a_chunk_out_of_order_is_refused(served: ServedRegistry) -> None:
    """416 for one too early, too late, or sent twice; the upload goes on where it stood (end-13)."""
    location = begun(served)
    assert served.ask("PATCH", location, BLOB[10:20], Content_Range="10-19").status == 416
    assert served.ask("PATCH", location, BLOB[:10], Content_Range="0-9").status == 202
    for content_range in ("0-9", "5-14", "11-20"):
        refused = served.ask("PATCH", location, BLOB[:10], Content_Range=content_range)
        assert (refused.status, refused.headers["range"], refused.location) == (416, "0-9", location)
    status = served.ask("GET", location)
    assert (status.status, status.headers["range"], status.location) == (204, "0-9", location)
    assert served.ask("PUT", f"{location}?digest={OTHER}", BLOB[11:], Content_Range="11-99").status == 416
    assert served.ask("PATCH", location, BLOB[10:], Content_Range=f"10-{len(BLOB) - 1}").status == 202
    stored(served, served.ask("PUT", f"{location}?digest={digest(BLOB)}"))


@pytest.mark.parametrize(
    "content_range", ["", "0", "0-", "-9", "a-b", "bytes=0-9", "bytes 0-9/10", "0-9-", "9-0", "\uff10-\uff19"]
)
def test_a_range_that_is_none_is_refused(served: ServedRegistry, content_range: str) -> None:
    """It must match ``^[0-9]+-[0-9]+$``."""
    location = begun(served)
    header = content_range.encode().decode("latin-1")
    assert served.ask("PATCH", location, BLOB[:10], Content_Range=header).status == 416


def test_a_chunk_of_another_length_ends_the_upload(served: ServedRegistry) -> None:
    """The range said something else."""
    location = begun(served)
    reply = served.ask("PATCH", location, BLOB[:10], Content_Range="0-10")
    assert (reply.status, reply.code) == (400, "SIZE_INVALID")
    assert served.ask("GET", location).status == 404
    assert [upload.state for upload in served.memory.uploads] == ["aborted"]


def test_an_upload_can_be_given_up(served: ServedRegistry) -> None:
    """end-14: 204, and then it is unknown."""
    location = begun(served)
    served.ask("PATCH", location, BLOB)
    assert served.ask("DELETE", location).status == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        reply = served.ask(method, f"{location}?digest={digest(BLOB)}", BLOB)
        assert (reply.status, reply.code if reply.body else "") == (404, "BLOB_UPLOAD_UNKNOWN")
    assert [upload.state for upload in served.memory.uploads] == ["aborted"]


@pytest.mark.parametrize("query", [f"mount={digest(BLOB)}&from=library/x", f"mount={digest(BLOB)}"])
def test_a_blob_that_is_here_is_mounted(served: ServedRegistry, query: str) -> None:
    """end-11: 201 with the blob's location; ``from`` may be left out."""
    served.memory.blobs[digest(BLOB)] = BLOB
    stored(served, served.ask("POST", f"{uploads()}?{query}"))


def test_a_blob_that_is_not_here_is_uploaded_instead_of_mounted(served: ServedRegistry) -> None:
    """end-11: 202, and the upload has begun."""
    reply = served.ask("POST", f"{uploads()}?mount={digest(BLOB)}&from=library/x")
    assert reply.status == 202
    stored(served, served.ask("PUT", f"{reply.location}?digest={digest(BLOB)}", BLOB))


@pytest.mark.parametrize(
    "wrong", [OTHER, "sha256:abc", "sha512:" + "1" * 128, "", "x", f"sha256:{'A' * 64}", f"{OTHER}0", f"{OTHER}%0a"]
)
def test_a_wrong_digest_is_refused(served: ServedRegistry, wrong: str) -> None:
    """400, however the blob comes; nothing of it stays."""
    replies = [
        served.ask("PUT", f"{begun(served)}?digest={wrong}", BLOB),
        served.ask("POST", f"{uploads()}?digest={wrong}", BLOB),
    ]
    assert [(reply.status, reply.code) for reply in replies] == [(400, "DIGEST_INVALID")] * 2
    assert served.memory.blobs == {}
    assert "finished" not in [upload.state for upload in served.memory.uploads]


def test_no_digest_but_sha256_is_offered(served: ServedRegistry) -> None:
    """end-4c: another algorithm is refused at once."""
    assert served.ask("POST", f"{uploads()}?digest-algorithm=sha512").status == 400
    assert served.ask("POST", f"{uploads()}?digest-algorithm=sha256").status == 202


def test_a_blob_that_is_not_here_is_told(served: ServedRegistry) -> None:
    """end-2: 404, with the specification's error."""
    assert served.ask("HEAD", f"/v2/{NAME}/blobs/{OTHER}").status == 404
    reply = served.ask("GET", f"/v2/{NAME}/blobs/{OTHER}")
    assert (reply.status, reply.code, reply.headers["content-type"]) == (404, "BLOB_UNKNOWN", "application/json")


def pushed(served: ServedRegistry, image: Image) -> None:
    """Upload an image's blobs."""
    for blob in (*image.blobs, image.config):
        stored(served, served.ask("POST", f"{uploads()}?digest={digest(blob)}", blob), blob)


@pytest.mark.parametrize("reference", ["tag", "digest"])
@pytest.mark.parametrize("parameters", ["", "; charset=utf-8"])
def test_a_manifest_is_kept_to_the_byte(served: ServedRegistry, reference: str, parameters: str) -> None:
    """end-7, end-3: 201 with location and digest; then it is given out as it came. Parameters are ignored."""
    image = Image()
    pushed(served, image)
    path = f"/v2/{NAME}/manifests/{f'{ATTEMPT}_0_12_34' if reference == 'tag' else digest(image.manifest)}"
    assert served.ask("HEAD", path).status == 404
    reply = served.ask("PUT", path, image.manifest, Content_Type=MANIFEST + parameters)
    assert (reply.status, reply.headers["docker-content-digest"]) == (201, digest(image.manifest))
    for there in (path, reply.location):
        got, described = served.ask("GET", there), served.ask("HEAD", there)
        assert (got.status, got.body, got.headers["content-type"]) == (200, image.manifest, MANIFEST)
        assert (described.status, described.body) == (200, b"")
        assert described.headers["content-length"] == str(len(image.manifest))
    assert (served.registry.pushed is not None) == (reference == "tag")


def test_a_manifest_of_blobs_that_are_not_here_is_refused(served: ServedRegistry) -> None:
    """MANIFEST_BLOB_UNKNOWN."""
    reply = served.ask("PUT", f"/v2/{NAME}/manifests/{ATTEMPT}", Image().manifest, Content_Type=MANIFEST)
    assert (reply.status, reply.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert isinstance(served.registry.refused, NotFoundError)
    assert served.registry.pushed is None


@pytest.mark.parametrize(
    ("reference", "data", "media_type", "code"),
    [
        (ATTEMPT, b"{", MANIFEST, "MANIFEST_INVALID"),
        (ATTEMPT, b"", MANIFEST, "MANIFEST_INVALID"),
        (ATTEMPT, b"{}", "", "MANIFEST_INVALID"),
        (ATTEMPT, b"{}", "no type", "MANIFEST_INVALID"),
        (OTHER, b"{}", MANIFEST, "DIGEST_INVALID"),
        ("sha256:abc", b"{}", MANIFEST, "DIGEST_INVALID"),
    ],
)
def test_what_is_no_manifest_is_refused(
    served: ServedRegistry, reference: str, data: bytes, media_type: str, code: str
) -> None:
    """400, with the specification's error."""
    reply = served.ask("PUT", f"/v2/{NAME}/manifests/{reference}", data, Content_Type=media_type)
    assert (reply.status, reply.code) == (400, code)
    assert served.memory.manifests == {}


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_manifest_has_at_most_four_mebibytes(served: ServedRegistry, in_chunks: bool) -> None:
    """One of exactly so many is taken, of one more is answered with 413."""
    path, most = f"/v2/{NAME}/manifests/{ATTEMPT}", 4 * 1024 * 1024
    for size_bytes, status in ((most, 201), (most + 1, 413)):
        data = b'{"layers": []' + b" " * (size_bytes - 14) + b"}"
        body = pieces(data, 65536) if in_chunks else data
        assert served.ask("PUT", path, body, Content_Type=MANIFEST).status == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/", 404),
        ("GET", "/v2/_catalog", 404),
        ("GET", f"/v2/{NAME}", 404),
        ("GET", f"/v2/{NAME}/tags/list", 404),
        ("GET", f"/v2/{NAME}/referrers/{OTHER}", 404),
        ("POST", f"/v2/{NAME}x/blobs/uploads/", 404),
        ("POST", "/v2/other/blobs/uploads/", 404),
        ("POST", f"/v2/{NAME}/x/blobs/uploads/", 404),
        ("PUT", f"/v2/other/manifests/{ATTEMPT}", 404),
        ("PUT", f"/v2/{NAME}/manifests/latest", 404),
        ("PUT", f"/v2/{NAME}/manifests/{ATTEMPT}x", 404),
        ("GET", f"/v2/{NAME}/manifests/", 404),
        ("HEAD", f"/v2/{NAME}/blobs/{OTHER}/x", 400),
        ("GET", f"/v2/{NAME}/blobs/uploads/{uuid.UUID(int=7)}", 404),
        ("PATCH", f"/v2/{NAME}/blobs/uploads/..%2f..%2fx", 404),
        ("GET", f"/v2/{NAME}/blobs/uploads/", 405),
        ("DELETE", f"/v2/{NAME}/manifests/{ATTEMPT}", 405),
        ("DELETE", f"/v2/{NAME}/blobs/{digest(BLOB)}", 405),
        ("GET", f"/v2/{NAME}/blobs/{digest(BLOB)}", 405),
        ("POST", "/v2/", 405),
        ("TRACE", "/v2/", 405),
    ],
)
def test_nothing_but_a_push_is_served(served: ServedRegistry, method: str, path: str, status: int) -> None:
    """One repository, one tag, no blob given out, nothing deleted."""
    served.memory.blobs[digest(BLOB)] = BLOB
    reply = served.ask(method, path, b"" if method in {"POST", "PUT", "PATCH"} else None)
    assert reply.status == status
    if method != "HEAD":
        assert reply.code.replace("_", "").isupper()
    assert served.memory.blobs == {digest(BLOB): BLOB}
    assert served.memory.manifests == {}


class BrokenTarget(MemoryPushTarget):
    """A target that fails where it is told to."""

    def __init__(self, where: str, error: BaseException) -> None:
        super().__init__()
        self.where, self.error = where, error

    def _meet(self, where: str) -> None:
        if where == self.where:
            raise self.error

    def blob_size(self, digest: str) -> int | None:
        """Ask."""
        self._meet("blob_size")
        return super().blob_size(digest)

    def upload(self) -> MemoryBlobUpload:
        """Begin."""
        self._meet("upload")
        target = self

        class Upload(MemoryBlobUpload):
            def write(self, data: bytes | memoryview) -> None:
                target._meet("write")
                super().write(data)

            def finish(self, digest: str) -> None:
                target._meet("finish")
                super().finish(digest)

        made = Upload(self._keep)
        self.uploads.append(made)
        return made


@pytest.mark.parametrize("where", ["blob_size", "upload", "write", "finish"])
@pytest.mark.parametrize(
    "error", [TransientError("full"), NotFoundError("gone"), DockerBackupError("x"), OSError("x"), KeyboardInterrupt()]
)
def test_what_the_target_raises_ends_the_push(where: str, error: BaseException) -> None:
    """It is kept for the task; the engine is told in a way after which it does not try again."""
    target = BrokenTarget(where, error)
    served = ServedRegistry(target)
    replies = [
        served.ask("HEAD", f"/v2/{NAME}/blobs/{OTHER}"),
        served.ask("POST", f"{uploads()}?digest={digest(BLOB)}", BLOB),
        served.ask("POST", uploads()),
        served.ask("GET", f"/v2/{NAME}/manifests/{ATTEMPT}"),
    ]
    assert served.registry.fatal is error
    assert (replies[-1].status, replies[-1].code) == (403, "DENIED")
    assert "full" not in replies[-1].body.decode()
    assert "open" not in [upload.state for upload in target.uploads]


def test_a_blob_may_be_sent_again_after_it_was_refused_but_not_for_ever(served: ServedRegistry) -> None:
    """Engines do, up to four times."""
    for _ in range(2):
        assert served.ask("POST", f"{uploads()}?digest={OTHER}", BLOB).status == 400
    assert served.registry.fatal is None
    assert served.ask("POST", f"{uploads()}?digest={digest(BLOB)}", BLOB).status == 201
    assert served.ask("POST", f"{uploads()}?digest={OTHER}", BLOB).status == 400
    assert isinstance(served.registry.fatal, IntegrityError)
    assert served.ask("GET", "/v2/").status == 403


def test_uploads_are_bounded(served: ServedRegistry) -> None:
    """256 at once; when one ends there is room again."""
    begun_uploads = [begun(served) for _ in range(256)]
    refused = served.ask("POST", uploads())
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (429, "TOOMANYREQUESTS", "1")
    served.ask("DELETE", begun_uploads[0])
    assert served.ask("POST", uploads()).status == 202


def test_after_the_end_nothing_is_taken(served: ServedRegistry) -> None:
    """And what was not finished is given up."""
    location = begun(served)
    served.ask("PATCH", location, BLOB)
    served.registry.close()
    assert [upload.state for upload in served.memory.uploads] == ["aborted"]
    for reply in (served.ask("PUT", f"{location}?digest={digest(BLOB)}"), served.ask("POST", uploads())):
        assert (reply.status, reply.code) == (403, "DENIED")


def test_what_came_is_counted(served: ServedRegistry) -> None:
    """Blobs as they were sent; and every byte of the connection."""
    served.ask("POST", f"{uploads()}?digest={digest(BLOB)}", pieces(BLOB, 1000))
    assert (served.registry.uploaded_blobs, served.registry.uploaded_bytes) == (1, len(BLOB))
    assert len(BLOB) + 300 < served.activity.received_bytes < len(BLOB) + 1000


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo here")
@pytest.mark.parametrize("form", ["v2s2", "oci"])
def test_another_client_pushes_as_well(served: ServedRegistry, tmp_path: Path, form: str) -> None:
    """skopeo, which shares no code with Docker's two clients; the second time it sends nothing."""
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive((layer(a="x" * 100_000), layer(b="two"))))
    with served.listening() as port:
        for _ in range(2):
            command = ["skopeo", "copy", "--insecure-policy", f"--format={form}", "--dest-tls-verify=false"]
            login = f"--dest-creds={CREDENTIAL.user}:{CREDENTIAL.password}"
            to = f"docker://127.0.0.1:{port}/{NAME}:{ATTEMPT}"
            subprocess.run([*command, login, f"docker-archive:{archive}", to], check=True, capture_output=True)
            assert served.registry.uploaded_blobs == 3
    assert served.registry.pushed is not None
    assert set(served.memory.blobs) >= {each["digest"] for each in json.loads(served.registry.pushed.data)["layers"]}
