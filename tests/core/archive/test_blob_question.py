# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import json
import tarfile

import pytest

from airflow_provider_dockerbackup.core.archive.blob_question import BlobQuestion, blob_question
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.model import ImageManifest
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError

SIZES = {sha256_of(b"one"): 3, sha256_of(b"two"): 8 * 1024**3, sha256_of(b"three"): 5}


def members(question: BlobQuestion) -> dict[str, bytes]:
    """Return the archive's members."""
    with tarfile.open(fileobj=io.BytesIO(question.archive)) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def answer(question: BlobQuestion, *held: str) -> list[ImageManifest]:
    """Return what an engine says that holds some of them."""
    return [
        ImageManifest(digest=manifest, kind="platform", platform="unknown/unknown", whole=blob in held)
        for manifest, blob in question.blobs.items()
    ]


def test_each_blob_has_a_manifest_of_its_own_and_none_is_brought() -> None:
    """All that they name besides is the empty configuration."""
    question = blob_question(SIZES)
    found = members(question)
    index = json.loads(found["blobs/" + question.image_id.replace(":", "/")])
    named = {}
    for each in index["manifests"]:
        data = found["blobs/" + each["digest"].replace(":", "/")]
        assert (sha256_of(data), len(data)) == (each["digest"], each["size"])
        manifest = json.loads(data)
        assert manifest["config"]["digest"] == sha256_of(b"{}")
        (layer,) = manifest["layers"]
        named[layer["digest"]] = layer["size"]
        assert question.blobs[each["digest"]] == layer["digest"]
    assert named == SIZES
    assert not [name for name in found if name.rpartition("/")[2] in {each[7:] for each in SIZES}]


def test_it_stands_under_no_name() -> None:
    """So it takes no tag from any image."""
    (top,) = json.loads(members(blob_question(SIZES))["index.json"])["manifests"]
    assert top["digest"] == blob_question(SIZES).image_id
    assert "annotations" not in top
    assert "manifest.json" not in members(blob_question(SIZES))


def test_it_is_the_same_for_the_same_blobs() -> None:
    """What a host that died left behind is found and removed by the next try."""
    assert blob_question(dict(reversed(SIZES.items()))) == blob_question(SIZES)
    assert blob_question({}) != blob_question(SIZES)


def test_what_is_whole_is_held() -> None:
    """And a manifest that nobody asked about says nothing."""
    question = blob_question(SIZES)
    one, two, _ = SIZES
    stranger = ImageManifest(digest=sha256_of(b"?"), kind="platform", platform="", whole=True)
    assert question.held([*answer(question, one, two), stranger]) == {one, two}
    assert question.held(answer(question)) == frozenset()


def test_an_answer_that_does_not_speak_of_all_is_none() -> None:
    """Somebody removed the image meanwhile."""
    question = blob_question(SIZES)
    with pytest.raises(DockerBackupError, match="spoke of 2 of 3 blobs"):
        question.held(answer(question, *SIZES)[1:])
    with pytest.raises(DockerBackupError, match="spoke of 0 of 3"):
        question.held([])


def test_a_digest_that_is_none_is_refused() -> None:
    """It would become part of a member's name."""
    with pytest.raises(ConfigurationError):
        blob_question({"sha256:../../etc": 1})
