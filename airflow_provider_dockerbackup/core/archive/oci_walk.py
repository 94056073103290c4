# SPDX-License-Identifier: Apache-2.0
"""Following ``index.json`` to the image: indexes, manifests, and what they name (OCI image specification v1.1)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from airflow_provider_dockerbackup.core.archive.contents import BLOBS, Contents
from airflow_provider_dockerbackup.core.archive.image import ArchivedLayer
from airflow_provider_dockerbackup.core.archive.manifests import manifest_of
from airflow_provider_dockerbackup.core.archive.wire import Descriptor, OciIndex, OciManifest, parse, strict_json
from airflow_provider_dockerbackup.core.model import ImageManifest
from airflow_provider_dockerbackup.exceptions import IncompleteError, IntegrityError

_DEEPEST = 4
_INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")


def _member(digest: str) -> str:
    return BLOBS + digest.removeprefix("sha256:")


class OciWalk:
    """One walk through the OCI documents of an archive.

    After :meth:`run`: ``image_ids`` (manifests and indexes that lead to the image), ``reached`` (members that some
    document names), ``others`` (manifests beside the image's own) and ``notes``.

    :param contents: the archive.
    :param config_digest: the image that ``manifest.json`` describes.
    :param layers: its layers, in order.
    :param left_out: names of members that were left out of the archive as layers that are held.
    """

    def __init__(
        self,
        contents: Contents,
        *,
        config_digest: str,
        layers: Sequence[ArchivedLayer],
        left_out: Collection[str] = (),
    ) -> None:
        self.image_ids: set[str] = set()
        self.reached: set[str] = set()
        self.others: list[ImageManifest] = []
        self.notes: list[str] = []
        self._contents = contents
        self._config_digest = config_digest
        self._layers = tuple(layer.digest for layer in layers)
        self._held = {layer.member for layer in layers if layer.held}
        self._held_sizes: dict[str, int] = {}
        self._left_out = left_out
        self._leads: dict[str, bool] = {}

    def run(self) -> None:
        """Walk.

        :raises IncompleteError: when something is named that was left out and is no layer of the image.
        :raises IntegrityError: when a document is wrong, something of the image is missing, or ``index.json`` names
            another image than ``manifest.json``.
        """
        if "oci-layout" not in self._contents.files:
            raise IntegrityError("oci-layout is missing from an archive with index.json")
        index = self._index("index.json", self._contents.documents["index.json"])
        if not index.manifests:
            self.notes.append("index.json names no image (as engine 25.0 wrote it); manifest.json was followed")
        for descriptor in index.manifests or ():
            if not self._leads_to_image(descriptor, depth=1):
                raise IntegrityError(f"index.json names {descriptor.digest}, which is not the image in manifest.json")

    def _leads_to_image(self, descriptor: Descriptor, *, depth: int) -> bool:
        """Tell whether the image lies behind a descriptor, following each blob once."""
        if not self._is_present(descriptor):
            if depth == 1:
                raise IntegrityError(f"index.json names {descriptor.digest}, which is missing")
            self.others.append(manifest_of(descriptor, whole=False))
            return False
        if descriptor.digest not in self._leads:
            if depth > _DEEPEST:
                raise IntegrityError(f"image indexes are nested deeper than {_DEEPEST} at {descriptor.digest}")
            self._leads[descriptor.digest] = False
            self._leads[descriptor.digest] = self._follow(descriptor, depth)
        if self._leads[descriptor.digest]:
            self.image_ids.add(descriptor.digest)
        return self._leads[descriptor.digest]

    def _follow(self, descriptor: Descriptor, depth: int) -> bool:
        name = _member(descriptor.digest)
        document = self._contents.documents.get(name)
        if document is None:
            raise IntegrityError(f"{name} is named as a manifest, and is none or too large")
        value = strict_json(document, where=name)
        keys = {key.casefold() for key in value} if isinstance(value, dict) else set()
        is_index = "manifests" in keys
        if is_index == bool(keys & {"layers", "config"}):
            raise IntegrityError(f"{name} is neither an image index nor a manifest, or both")
        if descriptor.media_type and (descriptor.media_type in _INDEX_TYPES) != is_index:
            raise IntegrityError(f"{name} is announced as {descriptor.media_type!r:.120} and is something else")
        if is_index:
            index = self._index(name, document)
            # a set, for all of them must be followed, not only up to the first that leads there
            return True in {self._leads_to_image(inner, depth=depth + 1) for inner in index.manifests or ()}
        return self._manifest(descriptor, parse(OciManifest, value, where=name))

    def _index(self, name: str, document: bytes) -> OciIndex:
        return parse(OciIndex, strict_json(document, where=name), where=name)

    def _manifest(self, descriptor: Descriptor, manifest: OciManifest) -> bool:
        layers = manifest.layers or []
        if manifest.config.digest != self._config_digest:
            self._other_manifest(descriptor, [manifest.config, *layers])
            return False
        for inner in (manifest.config, *layers):
            if not self._is_present(inner):
                raise IntegrityError(f"manifest {descriptor.digest} names {inner.digest}, which is missing")
        if tuple(layer.digest for layer in layers) != self._layers:
            if not {layer.digest for layer in layers} <= set(self._layers):
                raise IntegrityError(f"manifest {descriptor.digest} names other layers than manifest.json")
            self.notes.append(
                f"manifest {descriptor.digest} lists its layers incompletely or in another order (as engine 25.0.0 "
                "wrote it); manifest.json was followed"
            )
        return True

    def _other_manifest(self, descriptor: Descriptor, named: Iterable[Descriptor]) -> None:
        """One of another platform, or an attestation: what of it is there must be right, the rest may be absent."""
        present = [self._is_present(inner) for inner in named]
        self.others.append(manifest_of(descriptor, whole=all(present)))

    def _is_present(self, descriptor: Descriptor) -> bool:
        """Tell whether the blob is there; its digest is its name, its size must be the announced one."""
        name = _member(descriptor.digest)
        self.reached.add(name)
        stored = self._contents.files.get(name)
        if stored is None:
            return self._is_held(name, descriptor.size)
        if stored.size_bytes != descriptor.size:
            raise IntegrityError(f"{name} has {stored.size_bytes} bytes, its descriptor says {descriptor.size}")
        return True

    def _is_held(self, name: str, size_bytes: int) -> bool:
        """Tell whether it is a layer of the image that was left out; its size is unknown, but it has only one."""
        if name not in self._held:
            if name in self._left_out:
                raise IncompleteError(f"{name} was left out as a layer that is held, and is none of the image's layers")
            return False
        announced = self._held_sizes.setdefault(name, size_bytes)
        if announced != size_bytes:
            raise IntegrityError(f"{name} has {announced} bytes by one descriptor and {size_bytes} by another")
        return True
